//! A set of small numbers that is asked for its members in order.

/// Numbers below a limit.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: u32,
}

impl Bits {
    const WORD: u32 = u64::BITS;

    /// None of the numbers below `len`.
    pub(super) fn none(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(Self::WORD) as usize], len }
    }

    pub(super) fn insert(&mut self, number: u32) {
        self.words[(number / Self::WORD) as usize] |= 1 << (number % Self::WORD);
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.words[(number / Self::WORD) as usize] &= !(1 << (number % Self::WORD));
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let word = self.words.get((number / Self::WORD) as usize).copied().unwrap_or_default();
        word >> (number % Self::WORD) & 1 == 1
    }

    /// The members from `start` on, in order.
    pub(super) fn from(&self, start: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = start;
        std::iter::from_fn(move || {
            while next < self.len {
                let rest = self.words[(next / Self::WORD) as usize] >> (next % Self::WORD);
                if rest != 0 {
                    let found = next + rest.trailing_zeros();
                    next = found + 1;
                    return Some(found);
                }
                next = (next / Self::WORD + 1) * Self::WORD;
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members_are_those_put_in_and_not_taken_out(
            changes in prop::collection::vec((0..200_u32, any::<bool>()), 0..100), start in 0..220_u32
        ) {
            let (mut bits, mut expected) = (Bits::none(200), BTreeSet::new());
            for (number, put_in) in changes {
                if put_in {
                    bits.insert(number);
                    expected.insert(number);
                } else {
                    bits.remove(number);
                    expected.remove(&number);
                }
                prop_assert_eq!(bits.contains(number), put_in);
            }
            prop_assert_eq!(bits.from(start).collect::<Vec<_>>(), expected.range(start..).copied().collect::<Vec<_>>());
        }
    }
}
