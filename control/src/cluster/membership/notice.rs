//! What membership tells: changes at once, trouble at a bounded rate.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use crate::cluster::{
    identity::{Identity, NamePlace, NodeName},
    wire::Refusal,
};

/// From one report of a trouble to the next.
const INTERVAL: Duration = Duration::from_secs(10);

/// Troubles that are held apart; further ones wait for an interval to pass.
const MAX_TROUBLES: usize = 256;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A member is there: new, back, or in a later life.
    Up(Identity),
    /// A member is dead, or has left.
    Down { identity: Identity, left: bool },
    /// This node's own identity: it was taken for dead, or its address changed.
    Renewed(Identity),
    /// This node knows other living members.
    Joined,
    /// This node knows no other living member.
    Alone,
    /// A node was refused: its name belongs to another key or to another living node.
    NameTaken { name: NodeName, refused: SocketAddrV4 },
    /// This node was refused for that reason.
    OwnNameTaken { holder: Identity },
    /// A member's clock is this many milliseconds ahead of the median of the members'; negative: behind.
    Skewed { name: NodeName, ahead: i64 },
    /// A member's clock agrees again.
    Unskewed { name: NodeName },
    /// Datagrams were refused: how many since the last report, and where the last one came from.
    Refused { refusal: Refusal, source: SocketAddr, count: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    NameTaken(NamePlace),
    OwnName,
    Refused(Refusal),
}

/// When each trouble was told last.
#[derive(Default)]
pub(super) struct Troubles(BTreeMap<Trouble, Duration>);

impl Troubles {
    /// Whether a trouble may be told now; if so it counts as told.
    pub(super) fn may_tell(&mut self, trouble: Trouble, now: Duration) -> bool {
        if self.0.get(&trouble).is_some_and(|told| now < *told + INTERVAL) {
            return false;
        }
        if self.0.len() >= MAX_TROUBLES {
            self.0.retain(|_, told| now < *told + INTERVAL);
        }
        let has_room = self.0.len() < MAX_TROUBLES;
        if has_room {
            self.0.insert(trouble, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_an_interval_and_thousands_take_bounded_room() {
        let mut troubles = Troubles::default();
        let second = Duration::from_secs;
        assert!(troubles.may_tell(Trouble::OwnName, second(0)));
        assert!(!troubles.may_tell(Trouble::OwnName, second(9)));
        assert!(troubles.may_tell(Trouble::OwnName, second(10)));
        let told =
            (0..5_000).filter(|number| troubles.may_tell(Trouble::NameTaken(NamePlace(*number)), second(11)));
        assert_eq!(told.count(), MAX_TROUBLES - 1);
        assert!(troubles.may_tell(Trouble::NameTaken(NamePlace(9_999)), second(30)));
    }
}
