//! Packets that are asked about, as far as they are known.

use std::collections::HashMap;

use dataplane_common::wire::ETHERTYPE_IPV4;

/// Bits of `ct state` in nf_tables (`NF_CT_STATE_BIT`, `NF_CT_STATE_UNTRACKED_BIT`).
pub mod state {
    /// Of a flow that was answered.
    pub const ESTABLISHED: u32 = 1 << 1;
    /// The first of a flow.
    pub const NEW: u32 = 1 << 3;
    /// Kept from connection tracking.
    pub const UNTRACKED: u32 = 1 << 6;
}

/// A device that a packet comes in or goes out by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The name, filled up with zeros.
    pub name: [u8; 16],
    /// Its index.
    pub index: u32,
}

impl Device {
    /// The device of a name and index.
    pub fn new(name: &str, index: u32) -> Self {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self { name: bytes, index }
    }
}

/// Packets that are alike. What is `None` is not known of them, and no rule that asks for it is certain to take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Their sources, from the first to the last.
    pub source: Option<(u32, u32)>,
    /// Their destinations, from the first to the last.
    pub destination: (u32, u32),
    /// The protocol over IPv4; 0: each of them.
    pub protocol: u8,
    /// Their destinations' port; 0: any but those `taken`.
    pub port: u16,
    /// Ports that others of the destination have.
    pub taken: Vec<u16>,
    /// The device that they come in by.
    pub input: Option<Device>,
    /// The device that they go out by.
    pub output: Option<Device>,
    /// What connection tracking says of them.
    pub state: Option<u32>,
    /// Their mark.
    pub mark: Option<u32>,
}

impl Packet {
    /// Packets of a protocol to a destination, of which nothing else is known.
    pub fn to(destination: (u32, u32), protocol: u8, port: u16) -> Self {
        Self {
            source: None,
            destination,
            protocol,
            port,
            taken: Vec::new(),
            input: None,
            output: None,
            state: None,
            mark: None,
        }
    }

    /// The only destination.
    fn address(&self) -> Option<u32> {
        let (first, last) = self.destination;
        (first == last).then_some(first)
    }

    fn device(&self, side: Side) -> Option<&Device> {
        match side {
            Side::In => self.input.as_ref(),
            Side::Out => self.output.as_ref(),
        }
    }

    /// How they fit a test of some bits of a field.
    pub(super) fn is_in(&self, field: Field, mask: u32, (first, last): (u32, u32)) -> Fit {
        let Some((low, high)) = self.values(field) else { return Fit::Unknown };
        if field == Field::Port && self.port == 0 {
            return self.is_any_in(mask, (first, last));
        }
        let is_prefix =
            mask == 0 || (!mask & field.mask()).wrapping_add(1).is_power_of_two() || mask == field.mask();
        if low != high && !is_prefix {
            return Fit::Unknown;
        }
        let (low, high) = (low & mask, high & mask);
        match (first..=last).contains(&low) && (first..=last).contains(&high) {
            true => Fit::Yes,
            false if high < first || low > last => Fit::No,
            false => Fit::Part,
        }
    }

    /// The values of a field, from the lowest to the highest.
    fn values(&self, field: Field) -> Option<(u32, u32)> {
        const NFPROTO_IPV4: u32 = 2;
        let one = |value: u32| (value, value);
        Some(match field {
            Field::Source => self.source?,
            Field::Address => self.destination,
            Field::Protocol if self.protocol == 0 => (1, 255),
            Field::Protocol => one(self.protocol.into()),
            Field::Port => one(self.port.into()),
            Field::Family => one(NFPROTO_IPV4),
            Field::EtherType => one(ETHERTYPE_IPV4.into()),
            Field::State => one(self.state?),
            // Nothing has translated them, as far as is known.
            Field::Status => one(self.state.map(|_| 0)?),
            Field::Mark => one(self.mark?),
            Field::Index(side) => one(self.device(side)?.index),
            Field::Name(side, word) => {
                let (words, _) = self.device(side)?.name.as_chunks::<4>();
                one(u32::from_be_bytes(*words.get(usize::from(word))?))
            }
        })
    }

    fn is_any_in(&self, mask: u32, (first, last): (u32, u32)) -> Fit {
        let is_taken = |port| self.taken.iter().any(|&taken| u32::from(taken) == port);
        match (first, last) {
            (0, 0xffff..) => Fit::Yes,
            _ if mask != Field::Port.mask() => Fit::Unknown,
            (port, same) if port == same && is_taken(port) => Fit::No,
            _ => Fit::Part,
        }
    }

    /// How they fit a test of the beginning of a device's name.
    pub(super) fn is_by(&self, side: Side, beginning: &[u8]) -> Fit {
        match self.device(side) {
            None => Fit::Unknown,
            Some(device) if device.name.starts_with(beginning) => Fit::Yes,
            Some(_) => Fit::No,
        }
    }
}

/// In or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where packets come in.
    In,
    /// Where they go out.
    Out,
}

/// What a rule may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The source.
    Source,
    /// The destination.
    Address,
    /// The protocol over IPv4.
    Protocol,
    /// The destination's port.
    Port,
    /// `NFPROTO_IPV4`.
    Family,
    /// `ETHERTYPE_IPV4`.
    EtherType,
    /// What connection tracking says.
    State,
    /// What connection tracking has done (`ct status`).
    Status,
    /// The mark.
    Mark,
    /// A device's index.
    Index(Side),
    /// One of the four words of a device's name.
    Name(Side, u8),
}

impl Field {
    /// The field's value in four bytes, as the kernel lays them out.
    pub fn value(self, [a, b, c, d]: [u8; 4]) -> u32 {
        match self {
            Self::Source | Self::Address | Self::Name(..) => u32::from_be_bytes([a, b, c, d]),
            Self::Port | Self::EtherType => u16::from_be_bytes([a, b]).into(),
            Self::Protocol | Self::Family => a.into(),
            Self::State | Self::Status | Self::Mark | Self::Index(_) => u32::from_ne_bytes([a, b, c, d]),
        }
    }

    /// All bits of its values.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Port | Self::EtherType => 0xffff,
            Self::Protocol | Self::Family => 0xff,
            _ => u32::MAX,
        }
    }
}

/// How packets fit what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// They don't.
    No,
    /// It depends on what is not known of the packets.
    Unknown,
    /// Some of them.
    Part,
    /// They do.
    Yes,
}

impl Fit {
    pub(super) fn inverse(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            other => other,
        }
    }
}

/// Kinds of packets, found by their destination.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    all: Vec<Packet>,
    by_address: HashMap<u32, Vec<usize>>,
    /// Those with more destinations than one.
    broad: Vec<usize>,
}

impl Packets {
    /// These.
    pub fn new(all: Vec<Packet>) -> Self {
        let mut packets = Self { all, ..Self::default() };
        for (number, packet) in packets.all.iter().enumerate() {
            match packet.address() {
                Some(address) => packets.by_address.entry(address).or_default().push(number),
                None => packets.broad.push(number),
            }
        }
        packets
    }

    /// All of them.
    pub fn all(&self) -> &[Packet] {
        &self.all
    }

    /// Those that may have a destination.
    pub fn at(&self, address: u32) -> impl Iterator<Item = usize> + '_ {
        self.by_address.get(&address).into_iter().flatten().chain(&self.broad).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_destinations_fit_a_network_wholly_in_part_or_not_at_all() {
        let packet = Packet::to((0xfa00_1c00, 0xfa00_1cff), 0, 0);
        let fit = |mask, range| packet.is_in(Field::Address, mask, range);
        assert_eq!(fit(0xff00_0000, (0xfa00_0000, 0xfa00_0000)), Fit::Yes);
        assert_eq!(fit(u32::MAX, (0xfa00_1c03, 0xfa00_1c03)), Fit::Part);
        assert_eq!(fit(u32::MAX, (0xfa00_1b03, 0xfa00_1b03)), Fit::No);
        assert_eq!(fit(0x0000_00ff, (3, 3)), Fit::Unknown);
        assert_eq!(packet.is_in(Field::Protocol, 0xff, (6, 6)), Fit::Part);
        assert_eq!(packet.is_in(Field::Source, u32::MAX, (1, 1)), Fit::Unknown);
    }

    #[test]
    fn a_device_is_known_by_its_name_the_names_beginning_and_its_index() {
        let input = Some(Device::new("fan-250-0-28", 7));
        let packet = Packet { input, ..Packet::to((1, 1), 17, 53) };
        assert_eq!(packet.is_by(Side::In, b"fan-250-0-28\0"), Fit::Yes);
        assert_eq!(packet.is_by(Side::In, b"fan-"), Fit::Yes);
        assert_eq!(packet.is_by(Side::In, b"fan\0"), Fit::No);
        assert_eq!(packet.is_by(Side::Out, b"fan-"), Fit::Unknown);
        assert_eq!(packet.is_in(Field::Index(Side::In), u32::MAX, (7, 7)), Fit::Yes);
        let word = u32::from_be_bytes(*b"fan-");
        assert_eq!(packet.is_in(Field::Name(Side::In, 0), u32::MAX, (word, word)), Fit::Yes);
    }
}
