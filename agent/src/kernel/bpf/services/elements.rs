//! Elements of rings: several slots in a word, the first in its lowest bits.
//!
//! How many is a constant of each function, so that shifts are too: packing a ring takes a third of the time.

use std::array::from_fn;

const fn bits<const SLOTS: usize>() -> u32 {
    u64::BITS / SLOTS as u32
}

/// The elements of a ring; `locals` is what its places are named there.
pub(super) fn pack<const SLOTS: usize>(ring: &[u16], locals: &[u16]) -> Vec<u64> {
    // Rows of a new service are neighbours, named as its backends are: leaving out the look-up halves the time.
    if locals.iter().copied().eq(0..locals.len() as u16) {
        pack_as::<SLOTS>(ring, |place| place)
    } else {
        pack_as::<SLOTS>(ring, |place| locals[usize::from(place)])
    }
}

fn pack_as<const SLOTS: usize>(ring: &[u16], local: impl Fn(u16) -> u16) -> Vec<u64> {
    let element = |slots: &[u16]| {
        slots.iter().rev().fold(0, |element, &place| element << bits::<SLOTS>() | u64::from(local(place)))
    };
    let (full, rest) = ring.as_chunks::<SLOTS>();
    let rest = (!rest.is_empty()).then(|| element(rest));
    full.iter().map(|slots| element(slots)).chain(rest).collect()
}

/// The slots of elements.
pub(super) fn unpack<const SLOTS: usize>(elements: impl Iterator<Item = u64>) -> Vec<u16> {
    let mask = u16::MAX >> (u16::BITS - bits::<SLOTS>());
    let mut slots = Vec::with_capacity(elements.size_hint().0 * SLOTS);
    for element in elements {
        let each: [u16; SLOTS] = from_fn(|slot| (element >> (slot as u32 * bits::<SLOTS>())) as u16 & mask);
        slots.extend_from_slice(&each);
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_is_found_again<const SLOTS: usize>(locals: &[u16]) {
        let ring: Vec<u16> = (0..1_000).map(|slot| slot % locals.len() as u16).collect();
        let found = unpack::<SLOTS>(pack::<SLOTS>(&ring, locals).into_iter());
        let wanted: Vec<u16> = ring.iter().map(|&place| locals[usize::from(place)]).collect();
        assert_eq!(found[..1_000], wanted);
        assert!(found[1_000..].iter().all(|&rest| rest == 0) && found.len() - 1_000 < SLOTS);
    }

    #[test]
    fn slots_are_found_as_they_were_put_in() {
        assert_is_found_again::<16>(&[0, 1, 2]);
        assert_is_found_again::<16>(&[15, 0, 7]);
        assert_is_found_again::<8>(&[0, 1, 2, 3]);
        assert_is_found_again::<8>(&[255, 0, 16]);
        assert_is_found_again::<4>(&[0, u16::MAX]);
    }

    #[test]
    fn the_first_slot_is_in_the_lowest_bits() {
        assert_eq!(pack::<16>(&[1, 2, 3], &[0, 1, 2, 3]), [0x321]);
        assert_eq!(pack::<8>(&[1, 0], &[5, 0xab]), [0x05ab]);
    }
}
