//! Every packet that a program sees ends in exactly one [`Outcome`], counted per hook and per CPU.
//!
//! This is the only list: programs, `status`, `replay` and tests all iterate it.

/// Declares an enum with `COUNT`, `ALL`, `name()` and `from_index()`, so that the list stands once.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// All values, in order of their number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The name that people and scripts see.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// One line on what it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The value of a number, if there is one.
            pub fn from_index(index: u32) -> Option<Self> {
                Self::ALL.get(index as usize).copied()
            }

            /// The value of a name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

numbered! {
    /// What became of a packet.
    Outcome {
        /// Not ours: handed on untouched to the next program and the kernel's stack.
        PassNotOurs = "pass-not-ours",
        /// Addressed to this host itself: handed to the kernel's stack.
        PassToHost = "pass-to-host",
        /// Rare (options, a fragment to be cut, an address not learnt yet): handed to the kernel's own stack.
        PassSlowPath = "pass-slow-path",
        /// An ICMP error about our own outer packets: the smaller path was recorded, the packet handed on.
        PassPathMtuLearnt = "pass-path-mtu-learnt",
        /// Put into a tunnel packet to the host that the destination computes, and sent.
        Encapsulated = "encapsulated",
        /// Taken out of its tunnel packet and delivered straight to the endpoint.
        Decapsulated = "decapsulated",
        /// Taken out of its tunnel packet and handed to the kernel's stack: host address, or address not learnt yet.
        DecapsulatedToHost = "decapsulated-to-host",
        /// From one endpoint of this host straight to another.
        DeliveredLocally = "delivered-locally",
        /// Handed to the kernel's stack: a backend's answer to a process of this host, as coming from the VIP, or what the stack
        /// sent too large for a learnt path, to be fragmented.
        DeliveredToHost = "delivered-to-host",
        /// Larger than the path allows: answered with ICMP "fragmentation needed".
        AnsweredTooBig = "answered-too-big",
        /// TTL ran out here: answered with ICMP "time exceeded".
        AnsweredTtlExceeded = "answered-ttl-exceeded",
        /// To an overlay address that no host can own, or a backend that nothing routes: answered with ICMP "host unreachable".
        AnsweredUnreachable = "answered-unreachable",
        /// Between a VIP and an address outside the overlays: translated, and sent as the routing table says.
        Routed = "routed",
        /// To a VIP with IPv4 options: these were removed, and the packet comes again without.
        OptionsRemoved = "options-removed",
        /// Echo request to a VIP: answered by this node.
        AnsweredEcho = "answered-echo",
        /// To a VIP on a port without a service: answered as a closed port (TCP reset, ICMP port unreachable).
        RefusedNoService = "refused-no-service",
        /// To a service without a usable backend: answered as a closed port.
        RefusedNoBackend = "refused-no-backend",
        /// To a service without a backend that has a free port towards this client: answered as a closed port.
        RefusedCollision = "refused-collision",
        /// Of a TCP connection whose backend is gone, or knows the client by a port that nobody remembers: answered with a reset.
        RefusedBackendGone = "refused-backend-gone",
        /// Fragment to a VIP that came before its packet's first: it does not say which flow it belongs to.
        DropFragmentEarly = "drop-fragment-early",
        /// To a VIP from an address that is no single host's, or from its own.
        DropBadSource = "drop-bad-source",
        /// Tunnel packet whose inner source neither computes to its outer source nor is it.
        DropSpoofedSource = "drop-spoofed-source",
        /// Tunnel packet whose inner destination does not lie in this host's slice.
        DropNotOurSlice = "drop-not-our-slice",
        /// From this host towards the overlay with a source outside this host's slices.
        DropForeignSource = "drop-foreign-source",
        /// From an endpoint with the address of another endpoint, the gateway, or nobody (the slice's network or broadcast address).
        DropWrongEndpoint = "drop-wrong-endpoint",
        /// Tunnel packet, or packet to a VIP, that ends before its headers or before the length they give.
        DropTruncated = "drop-truncated",
        /// Tunnel packet with an impossible IPv4 header inside.
        DropBadHeader = "drop-bad-header",
        /// Tunnel packet whose outer header checksum is wrong.
        DropBadChecksum = "drop-bad-checksum",
        /// Tunnel packet that was fragmented on the way; we send with don't-fragment set.
        DropOuterFragment = "drop-outer-fragment",
        /// Congestion was marked outside, but the packet inside cannot carry the mark (RFC 6040).
        DropEcn = "drop-ecn",
        /// TTL ran out here and the packet is not answered (an ICMP error, a later fragment, no unicast source, in a tunnel packet).
        DropTtlExceeded = "drop-ttl-exceeded",
        /// Larger than the path allows, and it can neither be answered nor fragmented here.
        DropTooBig = "drop-too-big",
        /// From the host's stack to an address that no fan covers.
        DropNoFan = "drop-no-fan",
        /// From the host's stack to an overlay address of this host, which has no route of its own.
        DropLoop = "drop-loop",
        /// A kernel helper refused to change the packet.
        DropHelperFailed = "drop-helper-failed",
        /// An ICMP error about a tunnel packet of ours: told to the sender of the packet inside as "host unreachable".
        RelayedUnreachable = "relayed-unreachable",
        /// A part of the programs that few packets need could not be called.
        DropStageMissing = "drop-stage-missing",
        /// From an endpoint to an address of the underlay: a tunnel packet of its own, which would seem to be this host's.
        DropEndpointTunnel = "drop-endpoint-tunnel",
        /// From an endpoint to an address of the underlay: an ICMP error about a tunnel packet, which only hosts can have met.
        DropEndpointError = "drop-endpoint-error",
        /// ICMP to a VIP in fragments: a VIP answers only pings that come whole.
        DropIcmpFragment = "drop-icmp-fragment",
        /// From an endpoint with priority tags behind each other, which would hide the packet from the programs.
        DropStackedTags = "drop-stacked-tags",
        /// To a host of the underlay that does not answer, or by an uplink that is down: answered with ICMP "host unreachable".
        AnsweredSilentHost = "answered-silent-host",
        /// The same, of a packet that may not be answered (an ICMP error, a later fragment, no unicast source).
        DropSilentHost = "drop-silent-host",
        /// From an endpoint, of a flow that connection tracking translates: handed to the kernel's stack.
        PassTracked = "pass-tracked",
        /// The same out of its tunnel packet.
        DecapsulatedTracked = "decapsulated-tracked",
        /// From the kernel's stack to an endpoint, translated by connection tracking: handed on, and its answers will go by the stack.
        PassTranslated = "pass-translated",
        /// Between overlay addresses, and packet filters of the host's may drop such: handed to the kernel's stack, for them to see.
        PassFiltered = "pass-filtered",
        /// The same out of its tunnel packet.
        DecapsulatedFiltered = "decapsulated-filtered",
        /// With a tunnel of the endpoint's own inside, and larger than one packet: cut into segments, which come again by the bridge.
        Segmented = "segmented",
    }
}

numbered! {
    /// Where a program is attached; the first index of the counters.
    Hook {
        /// Ingress of the underlay interface.
        UplinkIngress = "uplink-ingress",
        /// Ingress of an endpoint's veth or of a bridge port: packets that the endpoint sends.
        EndpointIngress = "endpoint-ingress",
        /// Ingress of the fan bridge: packets from ports that have no hook of their own.
        BridgeIngress = "bridge-ingress",
        /// Egress of the helper device, which overlay routes point to: host processes and the slow path.
        HostEgress = "host-egress",
        /// Egress of the fan bridge, and of endpoints beside it: packets that the host's stack sends to endpoints.
        EndpointEgress = "endpoint-egress",
        /// XDP on the underlay interface, where `uplink-hook` asks for it: counts what it refuses, and leaves the rest to `uplink-ingress`.
        UplinkXdp = "uplink-xdp",
    }
}

numbered! {
    /// A part of the programs that few packets need: a program of its own, which the hooks' programs call.
    Stage {
        /// Decides what has to do with a service and belongs to no established flow.
        Service = "service",
        /// The same of what comes in a tunnel packet.
        CarriedService = "carried-service",
        /// Begins a flow with its first packet.
        Begin = "begin",
        /// Brings a packet of a flow of a service on its way.
        Onward = "onward",
        /// Makes an answer of the packet.
        Answer = "answer",
        /// Translates it and sends it out as the routing table says.
        Route = "route",
        /// Takes its IPv4 options out.
        RemoveOptions = "remove-options",
        /// Tells the sender of a packet inside a tunnel packet that this did not arrive.
        Relay = "relay",
    }
}

impl Hook {
    /// The hook that decides on its packets: the one in front of `uplink-ingress` only refuses in its place.
    pub const fn deciding(self) -> Self {
        match self {
            Self::UplinkXdp => Self::UplinkIngress,
            other => other,
        }
    }

    /// The hook of a number, of those that call stages. By its bits: [rule 3](crate::codegen).
    #[inline(always)]
    pub const fn of(number: u32) -> Self {
        match number & 3 {
            0 => Self::UplinkIngress,
            1 => Self::EndpointIngress,
            2 => Self::BridgeIngress,
            _ => Self::HostEgress,
        }
    }
}

impl Outcome {
    /// Whether the packet asked for a service, or for a backend, that is not to be had.
    #[inline(always)]
    pub const fn is_refusal(self) -> bool {
        self as u32 >= Self::RefusedNoService as u32 && self as u32 <= Self::RefusedBackendGone as u32
    }

    /// Whether the packet ended here without an answer.
    pub fn is_drop(self) -> bool {
        self.name().starts_with("drop-")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_outcome_has_its_own_name_number_and_meaning() {
        let names: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
        for (index, &outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(Outcome::from_index(index as u32), Some(outcome));
            assert_eq!(Outcome::from_name(outcome.name()), Some(outcome));
            assert!(outcome.meaning().ends_with('.'), "{}", outcome.name());
            assert_eq!(outcome.is_refusal(), outcome.name().starts_with("refused-"), "{}", outcome.name());
        }
        assert_eq!(Outcome::from_index(Outcome::COUNT), None);
    }

    #[test]
    fn names_are_lower_case_words_joined_by_dashes() {
        for name in Outcome::ALL.iter().map(|o| o.name()).chain(Hook::ALL.iter().map(|h| h.name())) {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        }
    }
}
