//! What becomes of a packet: pure functions, one per hook, from headers and tables to a [`Verdict`].

use network_types::eth::EthHdr;

use crate::{
    abi::{Config, EndpointRecord, FanRecord, FlowKey, MAX_FANS, PathRecord, TRACKED_MARK},
    codegen::{cold_path, unknown_place},
    ct::{Flows, Tuple},
    fan, icmp,
    outcome::{Hook, Outcome},
    packet::Packet,
    verdict::{Action, Answer, Case, Kind, Onward, Out, Party, Verdict, With},
    wire::{ETH_LEN, ETHERTYPE_IPV4, IPV4_LEN, Ipv4, PROTO_TCP},
};

mod early;
mod egress;
mod filtered;
mod ingress;
mod onward;
mod relay;
mod service;
mod tracked;
mod walls;

pub use early::{Early, Tag, early};
pub use filtered::honoured;
pub use onward::onward;
pub use relay::{RELAYED, Relayed, relayed};
pub use service::{bare_service, begin, carried_service};

/// What the kernel knows of a packet beside its bytes. Asked where it is needed: a kernel program reads each value
/// from its context at that point, instead of keeping all of them across calls.
pub trait Context {
    /// Interface that the program runs on.
    fn ifindex(&self) -> u32;
    /// The frame's destination MAC is that interface's own (`PACKET_HOST`).
    fn to_us(&self) -> bool;
    /// The frame carries a VLAN tag other than a priority tag.
    fn foreign_vlan(&self) -> bool;
    /// Payload bytes per segment of a super-packet; 0 for a single packet.
    fn gso_size(&self) -> u32;
    /// Bytes of the frame.
    fn frame_len(&self) -> u32;
    /// Connection tracking translates its flow, as a rule of ours has marked it ([`TRACKED_MARK`]); the mark comes off.
    fn is_translated(&self) -> bool;
}

/// A [`Context`] in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// Interface that the program runs on.
    pub ifindex: u32,
    /// The frame's destination MAC is that interface's own.
    pub to_us: bool,
    /// The frame carries a VLAN tag other than a priority tag.
    pub foreign_vlan: bool,
    /// Payload bytes per segment of a super-packet; 0 for a single packet.
    pub gso_size: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// Its mark.
    pub mark: u32,
}

impl Context for Meta {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn to_us(&self) -> bool {
        self.to_us
    }

    fn foreign_vlan(&self) -> bool {
        self.foreign_vlan
    }

    fn gso_size(&self) -> u32 {
        self.gso_size
    }

    fn frame_len(&self) -> u32 {
        self.len
    }

    fn is_translated(&self) -> bool {
        self.mark & TRACKED_MARK != 0
    }
}

/// The tables that decisions read, and those of flows, which they write.
pub trait Tables: Flows {
    /// Whether a client may be sent another refusal by ICMP, which counts as sent then
    /// ([`REFUSALS_PER_SECOND`](crate::abi::REFUSALS_PER_SECOND)).
    fn may_refuse(&self, client: u32) -> bool;
    /// Fans and devices of this node; `None` before the agent has written them.
    fn config(&self) -> Option<&Config>;
    /// The endpoint of this host with an overlay address.
    fn endpoint(&self, address: u32) -> Option<&EndpointRecord>;
    /// Largest inner packet to a remote host whose path was found to be smaller than the uplink.
    fn path_mtu(&self, host: u32) -> Option<u32>;
    /// Whether connection tracking may translate flows that are answered from an address and port; wrong answers are only "yes".
    fn may_be_translated(&self, address: u32, port: u16, protocol: u8) -> bool;
    /// Whether it translates the flow whose answers have this key.
    fn is_translated(&self, key: &FlowKey) -> bool;
    /// Remembers that it does.
    fn note_translated(&self, key: &FlowKey);
}

/// The answer to a packet that was to be [routed](Action::Route) under the uplink's address and has no route: "host
/// unreachable". `None` where it goes to the stack all the same: it may not be answered, or goes to this host itself.
#[inline(always)]
pub fn unrouted<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    tables: &T,
    sender: Party,
    rewrite: Tuple,
) -> Option<Answer> {
    let config = tables.config()?;
    if u32::from_be(rewrite.src) != fan_in(config, sender.fan).address {
        return None;
    }
    let ip = Ipv4::new(packet.read(ETH_LEN)?);
    answer(packet, sender.host(config), &ip, With::HostUnreachable, Outcome::DropHelperFailed).as_answer()
}

/// The answer to a packet that was to be [routed](Action::Route) and is larger than the `mtu` of what leads there: "fragmentation
/// needed". `None` where the stack is to make fragments of it.
#[inline(always)]
pub fn outgrown<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    tables: &T,
    sender: Party,
    mtu: u32,
) -> Option<Answer> {
    let config = tables.config()?;
    let ip = Ipv4::new(packet.read(ETH_LEN)?);
    if !ip.dont_fragment() {
        return None;
    }
    too_big(packet, sender.host(config), &ip, mtu).as_answer()
}

/// What a hook makes of a packet. [`Action::Service`] leaves the rest to [`bare_service`] or, of what comes in tunnel packets,
/// to [`carried_service`].
#[inline(always)]
pub fn decide<P: Packet + ?Sized, T: Tables>(
    hook: Hook,
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    match hook {
        // What the first refuses the second would, too.
        Hook::UplinkIngress | Hook::UplinkXdp => ingress::uplink_ingress(packet, context, tables),
        Hook::EndpointIngress | Hook::BridgeIngress => egress::local_ingress(hook, packet, context, tables),
        Hook::HostEgress => egress::host_egress(packet, context, tables),
        Hook::EndpointEgress => tracked::endpoint_egress(packet, context, tables),
    }
}

/// What becomes of a packet, whichever of the programs decides it.
pub fn complete<P: Packet + ?Sized, T: Tables>(
    hook: Hook,
    packet: &P,
    context: &impl Context,
    tables: &T,
) -> Verdict {
    let hook = hook.deciding();
    let mut decided = decide(hook, packet, context, tables);
    // At most as many as the kernel allows; four is the most there are.
    for _ in 0..32 {
        decided = match decided.action {
            Action::Service => bare_service(hook, Case::of(decided.words), packet, context, tables),
            Action::Begin => begin(hook, Case::of(decided.words), packet, context, tables),
            Action::CarriedService => carried_service(Case::of(decided.words), packet, tables),
            Action::Onward => onward(hook, Onward::of(decided.words), packet, context, tables),
            _ => break,
        };
    }
    filtered::honour(hook, decided, tables)
}

/// What a decision reads.
struct Input<'p, 't, P: ?Sized, C, T> {
    packet: &'p P,
    context: &'p C,
    tables: &'t T,
    config: &'t Config,
    hook: Hook,
}

impl Party {
    /// The address of this host that it knows a way to.
    #[inline(always)]
    fn host(&self, config: &Config) -> u32 {
        let fan = fan_in(config, self.fan);
        if self.is_outside { fan.address } else { fan.gateway }
    }
}

/// [`Verdict::pass`], off the common way.
#[inline(always)]
fn pass(outcome: Outcome) -> Verdict {
    cold_path();
    Verdict::pass(outcome)
}

/// [`Verdict::drop`], off the common way.
#[inline(always)]
fn drop(outcome: Outcome) -> Verdict {
    cold_path();
    Verdict::drop(outcome)
}

/// The fan in a slot. Slots beyond the last are none that a program makes; the verifier has to be told.
#[inline(always)]
fn fan_in(config: &Config, slot: u32) -> &FanRecord {
    &config.fans[slot as usize % MAX_FANS]
}

/// The fan whose overlay holds `address`.
#[inline(always)]
fn fan_of(config: &Config, address: u32) -> Option<&FanRecord> {
    find(config, |fan| address & fan.overlay_mask == fan.overlay)
}

/// The fan whose slice on this host holds `address`.
#[inline(always)]
fn own_fan_of(config: &Config, address: u32) -> Option<&FanRecord> {
    find(config, |fan| fan.in_use() && in_slice(fan, address))
}

/// Some fan of this node.
#[inline(always)]
fn any_fan(config: &Config) -> Option<&FanRecord> {
    find(config, FanRecord::in_use)
}

/// The first used slot that `wanted` accepts.
///
/// It is found by comparing, but taken by the number that stands in it ([rule 4](crate::codegen)): eight slots would mean eight
/// times the verifier's work.
#[inline(always)]
fn find(config: &Config, wanted: impl Fn(&FanRecord) -> bool) -> Option<&FanRecord> {
    // Rule 6 of `codegen`: the addresses of all slots would stay on the stack from one search to the next.
    let fans = unknown_place(&config.fans);
    for (index, fan) in fans.iter().enumerate() {
        if index as u32 >= config.fan_slots {
            return None;
        }
        if wanted(fan) {
            return config.fans.get(fan.slot as usize % MAX_FANS);
        }
    }
    None
}

/// Whether `address` lies in this host's slice of a fan that is in use.
#[inline(always)]
fn in_slice(fan: &FanRecord, address: u32) -> bool {
    address & fan.slice_mask == fan.slice
}

#[inline(always)]
fn host_of(fan: &FanRecord, address: u32) -> u32 {
    fan::host_of(address, fan.overlay_mask, fan.underlay, fan.shift)
}

/// The underlay's network and broadcast address belong to no host.
#[inline(always)]
fn names_a_host(fan: &FanRecord, host: u32) -> bool {
    let bits = host & !fan.underlay_mask;
    bits != 0 && bits != !fan.underlay_mask
}

/// The IPv4 header of an untagged frame.
#[inline(always)]
fn ipv4_frame<P: Packet + ?Sized>(packet: &P, context: &impl Context) -> Option<Ipv4> {
    let ip = ipv4_at(packet, ETH_LEN)?;
    let eth: EthHdr = packet.read(0)?;
    let is_ipv4 = eth.ether_type == ETHERTYPE_IPV4.to_be();
    if is_ipv4 && !context.foreign_vlan() { Some(ip) } else { None }
}

/// The IPv4 header at `offset`.
#[inline(always)]
fn ipv4_at<P: Packet + ?Sized>(packet: &P, offset: usize) -> Option<Ipv4> {
    Some(Ipv4::new(packet.read(offset)?))
}

/// Size of the largest packet on the wire that this one becomes: its own length, or that of a segment.
#[inline(always)]
pub fn largest_packet<P: Packet + ?Sized>(packet: &P, context: &impl Context, ip: &Ipv4) -> u32 {
    let gso_size = context.gso_size();
    if gso_size == 0 {
        return ip.total_len;
    }
    let transport = if ip.proto == PROTO_TCP {
        // The data offset field counts 4-byte words: RFC 9293, section 3.1.
        let offset: Option<[u8; 1]> = packet.read(ETH_LEN + IPV4_LEN + 12);
        offset.map_or(20, |[byte]| u32::from(byte >> 4) * 4)
    } else {
        8
    };
    gso_size + ip.header_len + transport
}

/// Largest inner packet to `host`: the fan's, or less where a smaller path was learnt; [`PathRecord::SILENT`] where nothing gets
/// there.
#[inline(always)]
fn mtu_to<T: Tables>(tables: &T, config: &Config, fan: &FanRecord, host: u32, size: u32) -> u32 {
    if size <= config.smallest_path_mtu {
        return fan.mtu;
    }
    if is_cut_off(config, fan, tables.now()) {
        return PathRecord::SILENT;
    }
    match tables.path_mtu(host) {
        Some(mtu) if mtu < fan.mtu => mtu,
        _ => fan.mtu,
    }
}

/// Whether none of a fan's uplinks carries anything at this moment.
#[inline(always)]
fn is_cut_off(config: &Config, fan: &FanRecord, now: u32) -> bool {
    let until = config.cut_off[fan.slot as usize % MAX_FANS];
    until != 0 && until.wrapping_sub(now) <= u32::MAX / 2
}

/// An ICMP error from an address of this host, or `otherwise` where the packet may not be answered.
#[inline(always)]
fn answer<P: Packet + ?Sized>(packet: &P, source: u32, ip: &Ipv4, with: With, otherwise: Outcome) -> Verdict {
    answer_with(packet, ip, otherwise, (source, with, 0))
}

/// ICMP "fragmentation needed" from an address of this host, or a drop where the packet may not be answered.
#[inline(always)]
fn too_big<P: Packet + ?Sized>(packet: &P, source: u32, ip: &Ipv4, mtu: u32) -> Verdict {
    answer_with(packet, ip, Outcome::DropTooBig, (source, With::TooBig, mtu))
}

/// "Host unreachable" to who speaks to a host that does not answer.
#[inline(always)]
fn silent<P: Packet + ?Sized>(packet: &P, source: u32, ip: &Ipv4) -> Verdict {
    let told = answer(packet, source, ip, With::HostUnreachable, Outcome::DropSilentHost);
    if told.action as u32 != Action::Answer as u32 {
        return told;
    }
    let (with, outcome) = (With::HostUnreachable, Outcome::AnsweredSilentHost);
    Verdict::answer(Answer { with, source, mtu: 0, outcome })
}

#[inline(always)]
fn answer_with<P: Packet + ?Sized>(
    packet: &P,
    ip: &Ipv4,
    otherwise: Outcome,
    (source, with, mtu): (u32, With, u32),
) -> Verdict {
    // The kernel shell quotes this many bytes; a shorter packet has no transport header to answer about.
    let quote: Option<[u8; icmp::QUOTE_LEN]> = packet.read(ETH_LEN);
    let Some(quote) = quote else { return drop(otherwise) };
    let [.., kind, _, _, _, _, _, _, _] = quote;
    if !icmp::may_answer(ip, kind) {
        return drop(otherwise);
    }
    let outcome = match with {
        With::TooBig => Outcome::AnsweredTooBig,
        With::TtlExceeded => Outcome::AnsweredTtlExceeded,
        _ => Outcome::AnsweredUnreachable,
    };
    Verdict::answer(Answer { with, source, mtu, outcome })
}

#[cfg(test)]
mod tests;
