//! Fanlight's kernel programs: a thin shell around [`dataplane_common::decide`].
//!
//! A hook's program reads the frame, decides, acts, and counts exactly one outcome ([`run`]); the one in front of the stack counts
//! what it refuses, and nothing that it leaves to the next. What few packets need is left to
//! [stages](dataplane_common::outcome::Stage), which it calls as tail calls: these count in its place.
#![no_std]
#![no_main]

mod act;
#[cfg(feature = "log")]
mod log;
mod loops;
mod maps;
mod packet;
mod watch;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use dataplane_common::{
    decide::{self, Early},
    outcome::{Hook, Outcome},
    verdict::{Answer, Case, Onward, Verdict, route_of},
};

use crate::{
    maps::Maps,
    packet::{EarlyFrame, Frame, Refused},
};

/// Packets from the underlay before the kernel makes anything of them. What goes on `uplink_ingress` counts.
#[xdp(frags)]
#[inline(always)]
pub fn uplink_xdp(ctx: XdpContext) -> u32 {
    refuse_early(&ctx)
}

/// The same where the kernel runs it instead of the driver, on a whole `skb`. For a program that knows of fragments Linux 6.9
/// to 6.18 make another one there and forget its `mac_len`, so that tc would take the IP header for the Ethernet header.
#[xdp]
#[inline(always)]
pub fn uplink_xdp_skb(ctx: XdpContext) -> u32 {
    refuse_early(&ctx)
}

#[inline(always)]
fn refuse_early(ctx: &XdpContext) -> u32 {
    let Some(frame) = EarlyFrame::new(ctx) else { return XDP_PASS };
    match decide::early(&frame, &frame, &Maps::new()) {
        Early::GoOn => XDP_PASS,
        Early::Refuse(outcome) => {
            watch::early_end(&frame, Hook::UplinkXdp, outcome);
            maps::count(Hook::UplinkXdp, outcome);
            #[cfg(feature = "log")]
            log::outcome(ctx, Hook::UplinkXdp, outcome, decide::Context::frame_len(&frame));
            XDP_DROP
        }
    }
}

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

/// Packets that the host's stack sends to endpoints.
#[classifier]
#[inline(always)]
pub fn endpoint_egress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::EndpointEgress)
}

/// [`Stage::Service`](dataplane_common::outcome::Stage::Service).
#[classifier]
#[inline(always)]
pub fn stage_service(ctx: TcContext) -> i32 {
    let (mut frame, hook, words) = Frame::handed_over(&ctx);
    let verdict = decide::bare_service(hook, Case::of(words), &frame, &frame, &frame.maps);
    let done = act::leave(&ctx, &mut frame, hook, verdict);
    count(&ctx, hook, done)
}

/// [`Stage::CarriedService`](dataplane_common::outcome::Stage::CarriedService).
#[classifier]
#[inline(always)]
pub fn stage_carried(ctx: TcContext) -> i32 {
    let (mut frame, _, words) = Frame::handed_over(&ctx);
    let verdict = decide::carried_service(Case::of(words), &frame, &frame.maps);
    end(&ctx, &mut frame, Hook::UplinkIngress, verdict)
}

/// [`Stage::Begin`](dataplane_common::outcome::Stage::Begin).
#[classifier]
#[inline(always)]
pub fn stage_begin(ctx: TcContext) -> i32 {
    let (mut frame, hook, words) = Frame::handed_over(&ctx);
    let verdict = decide::begin(hook, Case::of(words), &frame, &frame, &frame.maps);
    let done = act::leave(&ctx, &mut frame, hook, verdict);
    count(&ctx, hook, done)
}

/// [`Stage::Onward`](dataplane_common::outcome::Stage::Onward).
#[classifier]
#[inline(always)]
pub fn stage_onward(ctx: TcContext) -> i32 {
    let (mut frame, hook, words) = Frame::handed_over(&ctx);
    let verdict = decide::onward(hook, Onward::of(words), &frame, &frame, &frame.maps);
    end(&ctx, &mut frame, hook, verdict)
}

/// [`Stage::Answer`](dataplane_common::outcome::Stage::Answer).
#[classifier]
#[inline(always)]
pub fn stage_answer(ctx: TcContext) -> i32 {
    let (mut frame, hook, words) = Frame::handed_over(&ctx);
    let done = match Answer::of(words) {
        Some(answer) => act::answer::send(&mut frame, hook, answer).map(|action| (action, answer.outcome)),
        None => Err(Refused),
    };
    count(&ctx, hook, act::unless_refused(&frame, hook, done))
}

/// [`Stage::Route`](dataplane_common::outcome::Stage::Route).
#[classifier]
#[inline(always)]
pub fn stage_route(ctx: TcContext) -> i32 {
    let (mut frame, hook, words) = Frame::handed_over(&ctx);
    let (rewrite, sender) = route_of(words);
    let done = act::send_off(&mut frame, hook, rewrite, sender);
    count(&ctx, hook, act::unless_refused(&frame, hook, done))
}

/// [`Stage::RemoveOptions`](dataplane_common::outcome::Stage::RemoveOptions).
#[classifier]
#[inline(always)]
pub fn stage_options(ctx: TcContext) -> i32 {
    let (mut frame, hook, _) = Frame::handed_over(&ctx);
    let done = act::remove_options(&mut frame).map(|action| (action, Outcome::OptionsRemoved));
    count(&ctx, hook, act::unless_refused(&frame, hook, done))
}

/// [`Stage::Relay`](dataplane_common::outcome::Stage::Relay).
#[classifier]
#[inline(always)]
pub fn stage_relay(ctx: TcContext) -> i32 {
    let (mut frame, hook, _) = Frame::handed_over(&ctx);
    let done = act::relay(&mut frame);
    count(&ctx, hook, act::unless_refused(&frame, hook, done))
}

/// Parse → decide → act → count.
#[inline(always)]
fn run(ctx: &TcContext, hook: Hook) -> i32 {
    let mut frame = Frame::new(ctx, hook);
    let verdict = decide::decide(hook, &frame, &frame, &frame.maps);
    end(ctx, &mut frame, hook, verdict)
}

/// Act → count.
#[inline(always)]
fn end(ctx: &TcContext, frame: &mut Frame, hook: Hook, verdict: Verdict) -> i32 {
    let done = act::act(ctx, frame, hook, verdict);
    count(ctx, hook, done)
}

#[inline(always)]
fn count(_ctx: &TcContext, hook: Hook, (action, outcome): (i32, Outcome)) -> i32 {
    maps::count(hook, outcome);
    #[cfg(feature = "log")]
    log::outcome(_ctx, hook, outcome, _ctx.len());
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
