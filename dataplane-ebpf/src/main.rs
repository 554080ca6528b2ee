//! Fanlight's kernel programs: a thin shell around [`dataplane_common::decide`].
//!
//! Every program is one line of [`run`]: read the frame, decide, act, count exactly one outcome.
#![no_std]
#![no_main]

mod act;
mod bench;
#[cfg(feature = "log")]
mod log;
mod maps;
mod packet;
mod turns;
mod watch;

use aya_ebpf::{macros::classifier, programs::TcContext};
use dataplane_common::{
    decide::{self, Verdict},
    outcome::Hook,
};

use crate::{maps::Maps, packet::Frame};

/// Packets from the underlay.
#[classifier]
#[inline(always)]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::UplinkIngress)
}

/// Packets that an endpoint sends, on its own veth or bridge port.
#[classifier]
#[inline(always)]
pub fn endpoint_ingress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::EndpointIngress)
}

/// Packets that reach the bridge device itself: from ports without a hook of their own.
#[classifier]
#[inline(always)]
pub fn bridge_ingress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::BridgeIngress)
}

/// Packets that the host's stack sends to an overlay.
#[classifier]
#[inline(always)]
pub fn host_egress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::HostEgress)
}

#[inline(always)]
fn decide(hook: Hook, frame: &Frame) -> Verdict<'static> {
    match hook {
        Hook::UplinkIngress => decide::uplink_ingress(frame, frame, &Maps),
        Hook::EndpointIngress | Hook::BridgeIngress => decide::local_ingress(hook, frame, frame, &Maps),
        Hook::HostEgress => decide::host_egress(frame, frame, &Maps),
    }
}

/// Parse → decide → act → count.
#[inline(always)]
fn run(ctx: &TcContext, hook: Hook) -> i32 {
    let mut frame = Frame::new(ctx, hook);
    let verdict = decide(hook, &frame);
    let (action, outcome) = act::act(&mut frame, hook, verdict);
    maps::count(hook, outcome);
    #[cfg(feature = "log")]
    log::outcome(ctx, hook, outcome);
    action
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the builder refuses an object in which a panic survives.
    loop {}
}

// SAFETY: the kernel reads this section by its name; nothing else is placed in it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
