//! Where packets of services go whose flow is known: to a backend, or to the client of an answer.

use super::{
    Context, Input, Onward, Out, Party, Tables, Verdict, With, answer, cold_path, drop, egress, fan_in,
    fan_of, in_slice, ipv4_at, largest_packet, pass, too_big,
};
use crate::{
    abi::Encapsulation,
    ct::Tuple,
    outcome::{Hook, Outcome},
    packet::Packet,
    wire::{ETH_LEN, Ipv4},
};

/// Decides where a packet goes whose flow is known. A stage of its own: behind each way to know the flow the verifier would walk all
/// ways that it may go.
#[inline(always)]
pub fn onward<P: Packet + ?Sized, T: Tables>(
    hook: Hook,
    Onward { rewrite, between, party }: Onward,
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    let Some(config) = tables.config() else { return pass(Outcome::PassNotOurs) };
    let input = Input { packet, context, tables, config, hook };
    let Some(ip) = ipv4_at(packet, ETH_LEN) else { return drop(Outcome::DropTruncated) };
    match between {
        Some(fan) => {
            egress::to_overlay(&input, (fan_in(config, fan), fan_in(config, party.fan)), &ip, rewrite)
        }
        None => to_party(&input, party, &ip, rewrite),
    }
}

/// On to where the translated packet's destination lives: a backend, or the client of an answer.
#[inline(always)]
pub(super) fn to_party<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    sender: Party,
    ip: &Ipv4,
    rewrite: Tuple,
) -> Verdict {
    let destination = u32::from_be(rewrite.dst);
    let fan = fan_of(input.config, destination);
    if let Some(fan) = fan
        && destination == fan.gateway
        && in_slice(fan, destination)
    {
        return Verdict::forward(rewrite, Out::STACK);
    }
    let by_stack = input.hook as u32 == Hook::HostEgress as u32;
    if !by_stack && ip.ttl <= 1 && destination != fan_in(input.config, sender.fan).address {
        return expired(input, sender, ip);
    }
    let Some(fan) = fan else { return route(input, sender, ip, rewrite) };
    if !in_slice(fan, destination) {
        return egress::towards(input, (fan, sender.host(input.config)), ip, destination, rewrite);
    }
    match input.tables.endpoint(destination) {
        Some(&endpoint) => Verdict::forward(rewrite, Out::endpoint(fan.slot, endpoint, !by_stack)),
        // The stack asks for the neighbour, and has no way to tell the sender of the bridge's MTU: the sender that it sees
        // may be the VIP.
        None if ip.dont_fragment() && largest_packet(input.packet, input.context, ip) > fan.mtu => {
            too_big(input.packet, sender.host(input.config), ip, fan.mtu)
        }
        None => Verdict::forward(rewrite, Out::STACK),
    }
}

/// Out as the routing table says. What the uplink does not carry is answered here, or made into fragments by the stack.
#[inline(always)]
fn route<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    sender: Party,
    ip: &Ipv4,
    rewrite: Tuple,
) -> Verdict {
    cold_path();
    let mtu = fan_in(input.config, sender.fan).mtu + Encapsulation::Ipip.overhead();
    if !ip.dont_fragment() || largest_packet(input.packet, input.context, ip) <= mtu {
        return Verdict::route(rewrite, sender);
    }
    too_big(input.packet, sender.host(input.config), ip, mtu)
}

/// On its last hop.
#[inline(always)]
pub(super) fn expired<P: Packet + ?Sized, C: Context, T: Tables>(
    input: &Input<'_, '_, P, C, T>,
    sender: Party,
    ip: &Ipv4,
) -> Verdict {
    if ip.ttl == 0 {
        return drop(Outcome::DropTtlExceeded);
    }
    answer(input.packet, sender.host(input.config), ip, With::TtlExceeded, Outcome::DropTtlExceeded)
}
