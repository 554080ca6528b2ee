//! Connection tracking of services: which flow a packet to a VIP, or from a backend, belongs to, and what its addresses
//! become.
//!
//! A flow is chosen at its first packet and kept in two entries, one a direction. It waits in table `unconfirmed` until the
//! backend has answered and, for TCP, the client has acknowledged that. Only then a connection moves to table `flows`, which
//! packets from forged sources therefore never fill, and a flow of datagrams to `datagrams`.

use crate::{
    abi::{BackendRecord, FlowKey, FragmentKey, LiveFlow},
    codegen::cold_path,
    lb::Services,
    packet::Packet,
    wire::Ipv4,
};

mod begin;
mod flow;
mod fragment;
mod known;
mod open;
mod quote;
mod segment;

pub use begin::{Towards, begin};
pub use known::{Known, established, known_answer, known_between};
pub use open::{direct, from_backend, is_begun, to_vip};
pub use quote::answering;
pub use segment::{Segment, Tuple};

/// The tables of flows, beside those of services.
pub trait Flows: Services {
    /// Has a flow that only a former table knows stand in the present ones; says whether there are former tables. For a
    /// program: before the look-up and not where that finds nothing, which would double what the verifier walks on Linux 6.1.
    fn migrate(&self, _: &FlowKey) -> bool {
        false
    }
    /// Whether there are former tables.
    fn has_former(&self) -> bool {
        false
    }
    /// A flow that is confirmed.
    fn flow(&self, key: &FlowKey) -> Option<&LiveFlow>;
    /// A flow that is not.
    fn unconfirmed(&self, key: &FlowKey) -> Option<&LiveFlow>;
    /// Enters a flow, in place of what has its key where it `replaces` that. Says whether it is there now.
    fn enter_flow(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool;
    /// The same for an unconfirmed flow.
    fn enter_unconfirmed(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool;
    /// Does something while no other processor takes over what has a key; false where another one is at it, or where it
    /// does nothing.
    fn take_over(&self, key: &FlowKey, does: impl FnOnce() -> bool) -> bool;
    /// Forgets a flow, in both tables. What other flows may want, too, is only forgotten while it is
    /// [taken over](Self::take_over): it might be what one of them has entered since it was looked at.
    fn forget(&self, key: &FlowKey);
    /// The addresses that the first fragment of a packet got; [`Tuple::KEPT`] where none is remembered.
    fn fragment(&self, key: &FragmentKey) -> Tuple;
    /// Remembers them.
    fn remember_fragment(&self, key: &FragmentKey, addresses: &Tuple);
    /// The first of the ports that a translated source gets, and how many there are.
    fn snat_ports(&self) -> (u16, u16);
    /// The coarse clock ([`SEEN_SHIFT`](crate::abi::SEEN_SHIFT)).
    fn now(&self) -> u32;
    /// An entry of no table, to be drawn up and entered: a program's stack has little room. [Migrating](Self::migrate) may
    /// overwrite the one of the [other](Draft::Other) direction.
    fn draft(&self, of: Draft) -> Option<&LiveFlow>;
    /// Tells whoever watches that a flow was entered.
    fn announce(&self, key: &FlowKey, forward: &LiveFlow);
}

/// Which of a flow's two entries is drawn up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Draft {
    /// The client's.
    Own,
    /// That of the direction other than the one at hand.
    Other,
}

/// What becomes of a packet to a VIP. No `Result`, for the reason of [`Tuple::KEPT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The addresses and ports that it gets; [`Tuple::KEPT`] when it is refused.
    pub rewrite: Tuple,
    /// Why it is refused.
    pub refusal: Option<Refusal>,
}

impl Translation {
    /// It is not translated.
    const KEPT: Self = Self { rewrite: Tuple::KEPT, refusal: None };

    #[inline(always)]
    const fn rewritten(rewrite: Tuple) -> Self {
        Self { rewrite, refusal: None }
    }

    #[inline(always)]
    fn refused(refusal: Refusal) -> Self {
        cold_path();
        Self { rewrite: Tuple::KEPT, refusal: Some(refusal) }
    }
}

/// Why a packet to a VIP cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It belongs to no flow: it begins one.
    Unknown,
    /// No service, or nothing that a service could serve.
    NoService,
    /// The service has no usable backend.
    NoBackend,
    /// Every way to the backend that would be free collides with another flow.
    Collision,
    /// Its flow's backend is gone, or knows the client by a port that nobody remembers.
    BackendGone,
    /// A fragment that came before its packet's first: it does not say which flow it belongs to.
    FragmentEarly,
}

/// Where the packets of a flow come from, as its backend sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address, as on the wire.
    pub address: u32,
    /// How a port is chosen: [`SHARED_SOURCE`](crate::abi::FlowRecord::SHARED_SOURCE),
    /// [`HOST_SOURCE`](crate::abi::FlowRecord::HOST_SOURCE), or 0, the client's own where it is free.
    pub flags: u8,
}

/// A client's place, from which a flow begins.
pub trait Place {
    /// The source of packets of a key on their way to a backend.
    fn source(&self, key: &FlowKey, backend: &BackendRecord) -> Source;
}

/// The key under which flows of services know a packet: of its own addresses and ports, or, of an ICMP error, of what answers
/// the packet that it quotes. None of a packet without ports.
#[inline(always)]
pub fn flow_key<P: Packet + ?Sized>(packet: &P, ip: &Ipv4, offset: usize) -> Option<FlowKey> {
    if ip.is_later_fragment() {
        return None;
    }
    match Segment::read(packet, ip, offset) {
        Some(segment) => Some(segment.key(ip)),
        None => quote::flow_key(packet, ip, offset),
    }
}

#[cfg(test)]
mod tests;
