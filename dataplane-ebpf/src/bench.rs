//! Programs that `cargo xtask bench` measures the others against. The agent never loads them.

use aya_ebpf::{
    bindings::{BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_FIXED_GSO, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use dataplane_common::{outcome::Hook, wire::ETH_LEN};
use network_types::ip::Ipv4Hdr;

use crate::packet::{Frame, Word};

/// Does nothing: the price of a test run itself.
#[classifier]
pub fn bench_empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Prepends a constant header: what no encapsulating program can do without.
#[classifier]
pub fn bench_floor(ctx: TcContext) -> i32 {
    const FLAGS: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
    const OUTER: Ipv4Hdr = Ipv4Hdr {
        vihl: 0x45,
        tos: 0,
        tot_len: [0, 84],
        id: [0; 2],
        frags: [0x40, 0],
        ttl: 64,
        proto: 4,
        check: [0; 2],
        src_addr: [172, 30, 0, 28],
        dst_addr: [172, 30, 0, 27],
    };
    let mut frame = Frame::new(&ctx, Hook::EndpointIngress);
    if frame.adjust_room(20, FLAGS).is_err() {
        return TC_ACT_SHOT;
    }
    match frame.word(ETH_LEN) {
        Ok(outer) => {
            *outer = Word(OUTER);
            TC_ACT_UNSPEC
        }
        Err(_) => TC_ACT_SHOT,
    }
}
