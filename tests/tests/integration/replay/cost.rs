//! What a packet costs. The figures are the benchmark's business; here only that they are figures.

use dataplane_common::outcome::Hook;
use fanlight::inspect::replay;

use super::*;

#[test]
fn the_price_of_a_packet_is_measured_beside_an_empty_program() {
    let packet = Packet { number: 1, frame: sent(&udp(LOCAL, REMOTE)), ..Packet::default() };
    let cost = replay::cost(&setup(), Hook::EndpointIngress, &packet, 200).expect("it runs");
    for spread in [cost.program, cost.empty, cost.floor] {
        assert!(spread.min <= spread.p10 && spread.p10 <= spread.median, "{cost:?}");
    }
    assert!(cost.empty.median < cost.program.median, "{cost:?}");
    println!("{cost:?}");
}
