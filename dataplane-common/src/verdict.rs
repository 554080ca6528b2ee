//! What is to become of a packet, as plain data: it can be printed, compared, and carried from one program to the next.
//!
//! All of it is one structure whose every field is always set ([rule 2](crate::codegen)), instead of an enum with fields.

mod words;

pub use words::{Words, route_of, route_words};

use crate::{
    abi::EndpointRecord,
    ct::Tuple,
    icmp,
    outcome::{Outcome, Stage},
};

/// What to do with a packet, and the one outcome it is counted as then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// What the packet is counted as, unless a stage counts it or a helper refuses.
    pub outcome: Outcome,
    /// The addresses and ports that it gets; [`Tuple::KEPT`]: its own.
    pub rewrite: Tuple,
    /// Where it goes ([`Action::Forward`]).
    pub out: Out,
    /// What a stage has to know, or what was learnt.
    pub words: Words,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Leave it to the next program and the kernel's stack, unchanged.
    Pass,
    /// The same, past the bridge, and have connection tracking see it: on the bridge of a fan (first word) it goes to the gateway.
    Track,
    /// End it here.
    Drop,
    /// Bring it where its destination lives.
    Forward,
    /// Leave it to a stage, to which [`Verdict::words`] go.
    Answer,
    /// The same.
    Route,
    /// The same.
    RemoveOptions,
    /// The same.
    Relay,
    /// The same.
    Service,
    /// The same.
    CarriedService,
    /// The same.
    Begin,
    /// The same.
    Onward,
    /// Remember that packets to a host (first word) must not be larger than an MTU (second), and pass it on.
    LearnPathMtu,
}

impl Action {
    /// The stage that it is left to.
    #[inline(always)]
    pub const fn stage(self) -> Option<Stage> {
        match self {
            Self::Answer => Some(Stage::Answer),
            Self::Route => Some(Stage::Route),
            Self::RemoveOptions => Some(Stage::RemoveOptions),
            Self::Relay => Some(Stage::Relay),
            Self::Service => Some(Stage::Service),
            Self::CarriedService => Some(Stage::CarriedService),
            Self::Begin => Some(Stage::Begin),
            Self::Onward => Some(Stage::Onward),
            Self::Pass | Self::Track | Self::Drop | Self::Forward | Self::LearnPathMtu => None,
        }
    }
}

impl Verdict {
    #[inline(always)]
    const fn of(action: Action, outcome: Outcome, words: Words) -> Self {
        Self { action, outcome, rewrite: Tuple::KEPT, out: Out::STACK, words }
    }

    /// To leave a packet to the next program and the kernel's stack.
    #[inline(always)]
    pub const fn pass(outcome: Outcome) -> Self {
        Self::of(Action::Pass, outcome, [0; 4])
    }

    /// To leave a packet that came by the bridge of a fan to the stack, and to connection tracking.
    #[inline(always)]
    pub const fn track(fan: u32) -> Self {
        Self::of(Action::Track, Outcome::PassTracked, [fan, 0, 0, 0])
    }

    /// To end it.
    #[inline(always)]
    pub const fn drop(outcome: Outcome) -> Self {
        Self::of(Action::Drop, outcome, [0; 4])
    }

    /// To bring it where its destination lives.
    #[inline(always)]
    pub const fn forward(rewrite: Tuple, out: Out) -> Self {
        Self { action: Action::Forward, outcome: out.way.outcome(), rewrite, out, words: [0; 4] }
    }

    /// To answer its sender.
    #[inline(always)]
    pub const fn answer(answer: Answer) -> Self {
        Self::of(Action::Answer, answer.outcome, answer.words())
    }

    /// The answer that it is, if it is one.
    #[inline(always)]
    pub fn as_answer(&self) -> Option<Answer> {
        if self.action as u32 == Action::Answer as u32 { Answer::of(self.words) } else { None }
    }

    /// Out as the routing table says, with other addresses and ports and TTL one less;
    /// [`unrouted`](crate::decide::unrouted) where it says nothing.
    #[inline(always)]
    pub const fn route(rewrite: Tuple, sender: Party) -> Self {
        Self::of(Action::Route, Outcome::Routed, route_words(rewrite, sender))
    }

    /// To take its IPv4 options out and have it come again.
    #[inline(always)]
    pub const fn remove_options() -> Self {
        Self::of(Action::RemoveOptions, Outcome::OptionsRemoved, [0; 4])
    }

    /// To tell the sender of a packet inside a tunnel packet that this did not arrive, where it quotes enough
    /// ([`relayed`](crate::decide::relayed)); else as if nothing of ours were quoted.
    #[inline(always)]
    pub const fn relay() -> Self {
        Self::of(Action::Relay, Outcome::RelayedUnreachable, [0; 4])
    }

    /// [`decide::bare_service`](crate::decide::bare_service) decides, or for what comes in a tunnel packet
    /// [`decide::carried_service`](crate::decide::carried_service): what few packets need has programs of its own.
    #[inline(always)]
    pub const fn service(case: Case) -> Self {
        let action =
            if case.kind as u32 == Kind::Carried as u32 { Action::CarriedService } else { Action::Service };
        Self::of(action, Outcome::DropStageMissing, case.words())
    }

    /// [`decide::begin`](crate::decide::begin) decides: a flow begins.
    #[inline(always)]
    pub const fn begin(case: Case) -> Self {
        Self::of(Action::Begin, Outcome::DropStageMissing, case.words())
    }

    /// [`decide::onward`](crate::decide::onward) decides where a packet goes whose flow is known.
    #[inline(always)]
    pub const fn onward(onward: Onward) -> Self {
        Self::of(Action::Onward, Outcome::DropStageMissing, onward.words())
    }

    /// To remember that packets to a host must not be larger than an MTU.
    #[inline(always)]
    pub const fn learn_path_mtu(host: u32, mtu: u32) -> Self {
        Self::of(Action::LearnPathMtu, Outcome::PassPathMtuLearnt, [host, mtu, 0, 0])
    }
}

/// Where a packet goes. Fans are named by their slot in [`Config::fans`](crate::abi::Config::fans).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// What leads there.
    pub way: Way,
    /// The fan of the destination; else 0.
    pub fan: u32,
    /// Into a tunnel: outer destination; else 0.
    pub host: u32,
    /// Where the destination lives; else zeros.
    pub endpoint: EndpointRecord,
    /// Out of a tunnel packet: the TOS byte that it gets; else 0.
    pub tos: u8,
    /// Into a tunnel or to an endpoint: the packet is routed here, and its TTL becomes one less.
    pub is_routed: bool,
}

/// What leads to a packet's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// This host's stack.
    Stack,
    /// A tunnel packet to another host.
    Tunnel,
    /// An endpoint of this host.
    Endpoint,
    /// This host's stack, for its packet filters to see.
    Filtered,
    /// Out of its tunnel packet, to an endpoint of this host.
    Decapsulated,
    /// Out of its tunnel packet, to this host's stack.
    DecapsulatedToStack,
    /// Out of its tunnel packet, then as the routing table says.
    DecapsulatedAndRouted,
    /// Out of its tunnel packet, to this host's stack and its connection tracking.
    DecapsulatedTracked,
    /// Out of its tunnel packet, to this host's stack, for its packet filters to see.
    DecapsulatedFiltered,
}

impl Way {
    /// What a packet that goes it is counted as.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Stack => Outcome::DeliveredToHost,
            Self::Tunnel => Outcome::Encapsulated,
            Self::Endpoint => Outcome::DeliveredLocally,
            Self::Filtered => Outcome::PassFiltered,
            Self::Decapsulated => Outcome::Decapsulated,
            Self::DecapsulatedToStack => Outcome::DecapsulatedToHost,
            Self::DecapsulatedAndRouted => Outcome::Routed,
            Self::DecapsulatedTracked => Outcome::DecapsulatedTracked,
            Self::DecapsulatedFiltered => Outcome::DecapsulatedFiltered,
        }
    }

    /// Whether the packet comes in a tunnel packet.
    #[inline(always)]
    pub const fn is_carried(self) -> bool {
        self as u32 >= Self::Decapsulated as u32
    }
}

impl Out {
    /// To this host's stack.
    pub const STACK: Self = Self {
        way: Way::Stack,
        fan: 0,
        host: 0,
        endpoint: EndpointRecord { address: 0, ifindex: 0, mac: [0; 6], flags: 0 },
        tos: 0,
        is_routed: false,
    };

    /// Into a tunnel packet to `host`.
    #[inline(always)]
    pub const fn tunnel(fan: u32, host: u32, is_routed: bool) -> Self {
        Self { way: Way::Tunnel, fan, host, is_routed, ..Self::STACK }
    }

    /// To an endpoint of this host.
    #[inline(always)]
    pub const fn endpoint(fan: u32, endpoint: EndpointRecord, is_routed: bool) -> Self {
        Self { way: Way::Endpoint, fan, endpoint, is_routed, ..Self::STACK }
    }

    /// Out of its tunnel packet, to an endpoint of this host.
    #[inline(always)]
    pub const fn decapsulated(fan: u32, endpoint: EndpointRecord, tos: u8) -> Self {
        Self { way: Way::Decapsulated, fan, endpoint, tos, ..Self::STACK }
    }

    /// Out of its tunnel packet, to this host's stack.
    #[inline(always)]
    pub const fn decapsulated_to_stack(fan: u32, tos: u8) -> Self {
        Self { way: Way::DecapsulatedToStack, fan, tos, ..Self::STACK }
    }

    /// Out of its tunnel packet, to this host's stack and its connection tracking.
    #[inline(always)]
    pub const fn decapsulated_tracked(fan: u32, tos: u8) -> Self {
        Self { way: Way::DecapsulatedTracked, fan, tos, ..Self::STACK }
    }

    /// To this host's stack, for its packet filters to see.
    pub const FILTERED: Self = Self { way: Way::Filtered, ..Self::STACK };

    /// Out of its tunnel packet, to this host's stack, for its packet filters to see.
    #[inline(always)]
    pub const fn decapsulated_filtered(fan: u32, tos: u8) -> Self {
        Self { way: Way::DecapsulatedFiltered, fan, tos, ..Self::STACK }
    }

    /// Out of its tunnel packet, then as the routing table says.
    #[inline(always)]
    pub const fn decapsulated_and_routed(tos: u8) -> Self {
        Self { way: Way::DecapsulatedAndRouted, tos, ..Self::STACK }
    }
}

/// Who speaks to a VIP, or answers for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Slot of the fan of its address; of some fan of this node where it has none.
    pub fan: u32,
    /// Its address lies in no overlay.
    pub is_outside: bool,
}

/// What a packet's sender gets back. Every field is set, whatever the answer is made with ([rule 2](crate::codegen)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it is.
    pub with: With,
    /// Whose address an ICMP error comes from; else 0.
    pub source: u32,
    /// The MTU that "fragmentation needed" tells; else 0.
    pub mtu: u32,
    /// What it is counted as.
    pub outcome: Outcome,
}

impl Answer {
    /// An answer that needs no more.
    #[inline(always)]
    pub const fn with(with: With, outcome: Outcome) -> Self {
        Self { with, source: 0, mtu: 0, outcome }
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum With {
    /// ICMP "fragmentation needed", with the largest packet that would get through.
    TooBig,
    /// ICMP "time exceeded".
    TtlExceeded,
    /// ICMP "host unreachable".
    HostUnreachable,
    /// ICMP "port unreachable".
    PortUnreachable,
    /// A TCP reset.
    Reset,
    /// An echo reply.
    Echo,
}

impl With {
    /// The ICMP error that it is, if it is one.
    #[inline(always)]
    pub const fn error(self) -> Option<icmp::Error> {
        match self {
            Self::TooBig => Some(icmp::Error::FragmentationNeeded),
            Self::TtlExceeded => Some(icmp::Error::TtlExceeded),
            Self::HostUnreachable => Some(icmp::Error::HostUnreachable),
            Self::PortUnreachable => Some(icmp::Error::PortUnreachable),
            Self::Reset | Self::Echo => None,
        }
    }
}

/// What a packet has to do with a service, where that is not decided yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is known.
    pub kind: Kind,
    /// Slot of the destination's fan, where it lies in an overlay; else that of `party`.
    pub fan: u32,
    /// Who sent it.
    pub party: Party,
    /// No confirmed flow has it, and no former table: neither need be looked into again.
    pub is_absent: bool,
}

/// A packet of a flow of a service, or of none that gets nothing else, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onward {
    /// The addresses and ports that it gets; [`Tuple::KEPT`]: its own.
    pub rewrite: Tuple,
    /// It goes from one overlay address to another, and its destination stays: slot of the fan of that.
    pub between: Option<u32>,
    /// Who sent it.
    pub party: Party,
}

/// What is known of a packet that may have to do with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It goes to an address that may be a VIP.
    ToVip,
    /// The same, and opens a connection that no established flow has.
    Opening,
    /// The same, begins a flow, and no port is free towards the backend that was chosen: another may have one.
    ToOther,
    /// Between two overlay addresses: a backend's answer, or a connection beside a service's.
    Between,
    /// The same, and the bridge would bring it there: it is left to that where no service has to do with it.
    Switched,
    /// From what may be a backend to a client outside the overlays.
    ToClient,
    /// In a tunnel packet, from what may be a backend.
    Carried,
}
