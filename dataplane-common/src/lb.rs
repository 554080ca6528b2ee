//! Load balancing: the service that a packet asks for, and a backend of it.
//!
//! It knows nothing of packets and of flows: a socket that connects asks the same.

use crate::abi::{BackendRecord, FlowKey, ServiceWord, VipKey, mix};

/// How many slots are looked into for another backend. Of two with weights of 1 and 10 the second is missed once in 450 times.
const SLOTS: u32 = 64;

/// The tables of services.
pub trait Services {
    /// Whether there may be a service on an address; wrong answers are only "yes".
    fn may_be_vip(&self, address: u32) -> bool;
    /// Whether there is a service on an address.
    fn is_vip(&self, address: u32) -> bool;
    /// Whether there may be a backend; wrong answers are only "yes".
    fn may_be_backend(&self, address: u32, port: u16, protocol: u8) -> bool;
    /// The service of exactly this key.
    fn service(&self, key: &VipKey) -> Option<(u32, ServiceWord)>;
    /// What a slot of a service's ring holds: a backend's place behind the service's first.
    fn ring_slot(&self, word: ServiceWord, slot: u32) -> Option<u32>;
    /// A backend by its row.
    fn backend(&self, row: u32) -> Option<&BackendRecord>;
    /// Whether one of the numbers below `most` does; none is asked for after that. For a program:
    /// [rule 7](crate::codegen).
    fn any(&self, most: u32, does: impl FnMut(u32) -> bool) -> bool {
        (0..most).any(does)
    }
    /// Any number.
    fn random(&self) -> u32;
}

/// The hash that picks a ring's slot: the same on every node, so that a flow finds its backend without its entry.
#[inline(always)]
pub const fn slot_hash(key: &FlowKey) -> u32 {
    const SEED: u32 = 0x9e37_79b9;
    let ports = (u16::from_be(key.sport) as u32) << 16 | u16::from_be(key.dport) as u32;
    let hash = mix(u32::from_be(key.src) ^ SEED);
    let hash = mix(hash.wrapping_add(u32::from_be(key.dst)));
    mix(hash.wrapping_add(ports) ^ key.protocol as u32)
}

/// The service of the exact port, else of any port.
#[inline(always)]
pub fn service<T: Services>(key: &FlowKey, tables: &T) -> Option<(u32, ServiceWord)> {
    let exact = VipKey { address: key.dst, port: key.dport, protocol: key.protocol, pad: 0 };
    tables.service(&exact).or_else(|| tables.service(&VipKey { port: 0, ..exact }))
}

/// A backend of the service, by its ring, with its row.
#[inline(always)]
fn pick<T: Services>(word: ServiceWord, hash: u32, tables: &T) -> Option<(u32, &BackendRecord)> {
    let place = if word.log2_bits == 0 { 0 } else { tables.ring_slot(word, word.slot(hash))? };
    let row = word.base + place;
    let backend = tables.backend(row)?;
    if backend.flags & BackendRecord::GONE == 0 { Some((row, backend)) } else { None }
}

/// A backend of the service for a flow, with its row; `another` than the one that the flow's hash picks.
#[inline(always)]
pub fn choose<'t, T: Services>(
    word: ServiceWord,
    key: &FlowKey,
    another: bool,
    tables: &'t T,
) -> Option<(u32, &'t BackendRecord)> {
    let hash = if word.flags & ServiceWord::RANDOM != 0 { tables.random() } else { slot_hash(key) };
    if another { pick_other(word, hash, tables) } else { pick(word, hash, tables) }
}

/// Another backend than the one that the hash picks; that one where there seems to be no other.
#[inline(always)]
fn pick_other<T: Services>(word: ServiceWord, hash: u32, tables: &T) -> Option<(u32, &BackendRecord)> {
    let (row, _) = pick(word, hash, tables)?;
    let mut other = row;
    let found = &mut other;
    tables.any(SLOTS, move |attempt| {
        if let Some((row_there, _)) = pick(word, mix(hash.wrapping_add(attempt)), tables) {
            *found = row_there;
        }
        *found != row
    });
    Some((other, tables.backend(other)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PROTO_TCP;

    /// The hash is part of what nodes of different versions must agree on.
    #[test]
    fn the_hash_of_a_flow_is_as_published() {
        let key = |port: u16| {
            FlowKey::new(
                0xfa00_1c02_u32.to_be(),
                0x0a60_000a_u32.to_be(),
                port.to_be(),
                80_u16.to_be(),
                PROTO_TCP,
            )
        };
        assert_eq!(
            [40_000, 40_001, 40_002].map(|port| slot_hash(&key(port))),
            [1_245_727_092, 3_789_270_406, 3_232_782_737]
        );
    }
}
