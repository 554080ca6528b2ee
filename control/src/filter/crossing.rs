//! Packets between overlay addresses that programs carry past the kernel's stack, and the packet filters there that would drop
//! some of them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::{Device, Dropped, Hook, Kind, Owner, Packet, Packets, Way};
use crate::model::HostFilters;

/// Packets between overlay addresses as the stack would see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The overlay of their destinations.
    overlay: Ipv4Net,
    is_from_bridge: bool,
    is_to_bridge: bool,
    input: String,
    output: String,
    packet: Packet,
}

/// All there are where fans have these ways: from each to each.
pub fn crossings(ways: &[Way]) -> Vec<Crossing> {
    let of = |kind| ways.iter().filter(move |way| way.kind == kind);
    let mut found = Vec::new();
    for (from, to) in
        [(Kind::In, Kind::In), (Kind::Out, Kind::Out), (Kind::Out, Kind::In), (Kind::Cut, Kind::Cut)]
    {
        for (source, target) in of(from).flat_map(|source| of(to).map(move |target| (source, target))) {
            let Some(output) = &target.output else { continue };
            let (Packet { source: sources, input, .. }, packet) = (source.packet.clone(), &target.packet);
            found.push(Crossing {
                overlay: target.overlay,
                is_from_bridge: from == Kind::Out,
                is_to_bridge: to == Kind::In,
                input: source.input.clone(),
                output: output.clone(),
                packet: Packet { source: sources, input, ..packet.clone() },
            });
        }
    }
    found
}

/// Those that a chain of a hook would see, as packets, with the number of the crossing of each. `devices` are those that the chain
/// is for, and the bridges that they are ports of; `None`: it is for all.
pub fn seen(crossings: &[Crossing], hook: Hook, devices: Option<&[String]>) -> (Vec<usize>, Packets) {
    let is_at = |name: &String| devices.is_none_or(|devices| devices.contains(name));
    let meets = |crossing: &Crossing| match hook {
        Hook::Prerouting | Hook::Forward | Hook::Postrouting => true,
        Hook::Input => false,
        Hook::FromPort => crossing.is_from_bridge,
        Hook::ToPort => crossing.is_to_bridge,
        Hook::Ingress => is_at(&crossing.input),
        Hook::Egress => is_at(&crossing.output),
    };
    let packet = |crossing: &Crossing| {
        let (input, output): (Option<Device>, Option<Device>) =
            (crossing.packet.input, crossing.packet.output);
        let (input, output) = match hook {
            Hook::Prerouting => (input, None),
            Hook::Postrouting => (None, output),
            // By some port.
            Hook::FromPort | Hook::ToPort | Hook::Ingress | Hook::Egress => (None, None),
            Hook::Input | Hook::Forward => (input, output),
        };
        Packet { input, output, ..crossing.packet.clone() }
    };
    let met = crossings.iter().enumerate().filter(|(_, crossing)| meets(crossing));
    let (numbers, packets) = met.map(|(number, crossing)| (number, packet(crossing))).unzip();
    (numbers, Packets::new(packets))
}

/// What becomes of an overlay's packets that filters may drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// All go by the stack, and the filters hold.
    Yes,
    /// Programs carry them past the filters, as the configuration says.
    Ignored,
    /// They do because nobody has told them otherwise yet.
    NotYet,
}

impl Holds {
    /// What holds where the stack sees the packets of an overlay or not, and that is wanted.
    pub fn of(wanted: HostFilters, is_seen: bool) -> Self {
        match (wanted, is_seen) {
            (_, true) => Self::Yes,
            (HostFilters::Ignore, false) => Self::Ignored,
            (HostFilters::Honour, false) => Self::NotYet,
        }
    }
}

/// The chains that may drop packets of fans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<Ipv4Net, BTreeSet<String>>);

impl Filters {
    /// Takes what a base chain may drop. What Docker drops is none of these: its own containers are to be reached.
    pub fn add(&mut self, crossings: &[Crossing], numbers: &[usize], owner: &Owner, dropped: &[Dropped]) {
        for found in dropped.iter().filter(|found| !owner.is_dockers(found)) {
            let number = numbers.get(found.packet);
            let Some(crossing) = number.and_then(|&number| crossings.get(number)) else { continue };
            self.0.entry(crossing.overlay).or_default().insert(owner.name(&found.chain));
        }
    }

    /// The overlays whose packets they may drop.
    pub fn overlays(&self) -> Vec<Ipv4Net> {
        self.0.keys().copied().collect()
    }

    /// A reason for each overlay.
    pub(super) fn reasons(&self, holds: impl Fn(Ipv4Net) -> Holds) -> Vec<String> {
        let reason = |(overlay, chains): (&Ipv4Net, &BTreeSet<String>)| {
            let chains = chains.iter().cloned().collect::<Vec<_>>().join(", ");
            let what = format!("filtered: {chains} may drop some packets of {overlay}");
            match holds(*overlay) {
                Holds::Yes => format!(
                    "{what}: all of them go by the kernel's stack, so that it does, which takes about half of their \
                     throughput; filter in the containers' namespaces instead, or have programs carry them past it, \
                     `[datapath] host-filters = \"ignore\"`"
                ),
                Holds::Ignored => format!(
                    "{what}, and does not: programs carry them past it, as `[datapath] host-filters = \"ignore\"` says; \
                     filter in the containers' namespaces"
                ),
                Holds::NotYet => format!(
                    "{what}, and does not yet: programs carry them past it; bring the fan up again, or run the agent, \
                     to have them go by the kernel's stack"
                ),
            }
        };
        self.0.iter().map(reason).collect()
    }
}

#[cfg(test)]
mod tests;
