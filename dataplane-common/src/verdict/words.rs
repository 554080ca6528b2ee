//! Verdicts as words: what one program hands to the next, a tail call away.

use super::{Answer, Case, Kind, Onward, Party, With};
use crate::{abi::MAX_FANS, ct::Tuple, outcome::Outcome};

/// What one program hands to the next: the words for which the kernel's packet has room (`skb->cb`), less the first, which
/// is the hook's number.
pub type Words = [u32; 4];

impl Case {
    /// As words.
    #[inline(always)]
    pub const fn words(self) -> Words {
        [
            self.kind as u32,
            self.fan,
            self.party.fan,
            self.party.is_outside as u32 | (self.is_absent as u32) << 1,
        ]
    }

    /// From [`words`](Self::words).
    #[inline(always)]
    pub const fn of([kind, fan, party, is]: Words) -> Self {
        let kind = match kind {
            0 => Kind::ToVip,
            1 => Kind::Opening,
            2 => Kind::ToOther,
            3 => Kind::Between,
            4 => Kind::Switched,
            5 => Kind::ToClient,
            _ => Kind::Carried,
        };
        Self { kind, fan, party: Party { fan: party, is_outside: is & 1 != 0 }, is_absent: is & 2 != 0 }
    }
}

impl Onward {
    /// A slot of a fan.
    const SLOT: u32 = MAX_FANS as u32 - 1;
    const BETWEEN: u32 = 1 << 7;

    /// As words.
    #[inline(always)]
    pub const fn words(self) -> Words {
        let Self { rewrite, between, party } = self;
        let way = match between {
            Some(fan) => Self::BETWEEN | (fan & Self::SLOT) << 4,
            None => 0,
        };
        let [src, dst, ports, sender] = route_words(rewrite, party);
        [src, dst, ports, way | sender & (Self::SLOT << 1 | 1)]
    }

    /// From [`words`](Self::words).
    #[inline(always)]
    pub const fn of([src, dst, ports, way]: Words) -> Self {
        let (rewrite, party) = route_of([src, dst, ports, way & (Self::SLOT << 1 | 1)]);
        let between = if way & Self::BETWEEN != 0 { Some(way >> 4 & Self::SLOT) } else { None };
        Self { rewrite, between, party }
    }
}

impl Answer {
    /// As words.
    #[inline(always)]
    pub const fn words(self) -> Words {
        [self.with as u32, self.source, self.mtu, self.outcome as u32]
    }

    /// From [`words`](Self::words).
    #[inline(always)]
    pub fn of([with, source, mtu, outcome]: Words) -> Option<Self> {
        let with = match with {
            0 => With::TooBig,
            1 => With::TtlExceeded,
            2 => With::HostUnreachable,
            3 => With::PortUnreachable,
            4 => With::Reset,
            _ => With::Echo,
        };
        Some(Self { with, source, mtu, outcome: Outcome::from_index(outcome)? })
    }
}

/// What [`Verdict::route`](super::Verdict::route) tells, as words.
#[inline(always)]
pub const fn route_words(rewrite: Tuple, sender: Party) -> Words {
    let ports = rewrite.sport as u32 | (rewrite.dport as u32) << 16;
    [rewrite.src, rewrite.dst, ports, sender.fan << 1 | sender.is_outside as u32]
}

/// From [`route_words`].
#[inline(always)]
pub const fn route_of([src, dst, ports, sender]: Words) -> (Tuple, Party) {
    let rewrite = Tuple { src, dst, sport: ports as u16, dport: (ports >> 16) as u16 };
    (rewrite, Party { fan: sender >> 1, is_outside: sender & 1 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_on_is_what_was_handed_over() {
        let kinds = [
            Kind::ToVip,
            Kind::Opening,
            Kind::ToOther,
            Kind::Between,
            Kind::Switched,
            Kind::ToClient,
            Kind::Carried,
        ];
        for kind in kinds {
            for (is_outside, is_absent) in [(false, true), (true, false)] {
                let case = Case { kind, fan: 3, party: Party { fan: 7, is_outside }, is_absent };
                assert_eq!(Case::of(case.words()), case);
                let rewrite = Tuple { src: 1, dst: u32::MAX, sport: 0xfffe, dport: 0x8001 };
                assert_eq!(route_of(route_words(rewrite, case.party)), (rewrite, case.party));
                for between in [None, Some(0), Some(5)] {
                    let onward = Onward { rewrite, between, party: case.party };
                    assert_eq!(Onward::of(onward.words()), onward);
                }
            }
        }
        let all = [
            With::TooBig,
            With::TtlExceeded,
            With::HostUnreachable,
            With::PortUnreachable,
            With::Reset,
            With::Echo,
        ];
        for with in all {
            for &outcome in Outcome::ALL {
                let answer = Answer { with, source: 0xfa00_1c01, mtu: 1480, outcome };
                assert_eq!(Answer::of(answer.words()), Some(answer));
            }
        }
        assert_eq!(Answer::of([0, 0, 0, Outcome::COUNT]), None);
    }
}
