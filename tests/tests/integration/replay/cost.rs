//! What a packet costs. The figures are the benchmark's business; here that each is of the right program.

use dataplane_common::outcome::Hook;
use fanlight::{
    inspect::replay,
    kernel::bpf::{Datapath, program_name},
};

use super::*;

#[test]
fn a_program_costs_more_than_one_that_only_prepends_a_header_and_that_more_than_none() {
    let packet = Packet { number: 1, frame: sent(&udp(LOCAL, REMOTE)), ..Packet::default() };
    let cost = replay::cost(&setup(), Hook::EndpointIngress, &packet, 200).expect("it runs");
    assert!(cost.empty.median < cost.floor.median && cost.floor.median < cost.program.median, "{cost:?}");
    let datapath = Datapath::private(&[program_name(Hook::EndpointIngress)]).expect("it loads");
    let walked = datapath.verified_instructions(program_name(Hook::EndpointIngress)).expect("it is loaded");
    assert_eq!(cost.verified_instructions, walked);
    println!("{cost:?}");
}
