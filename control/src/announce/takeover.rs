//! Which prefixes of a group's members that are away this node announces.
//!
//! Of the members that are up each has a rank for each prefix, by rendezvous hashing: when one goes, the others' order stays. The
//! first has the lowest MED, so that a router picks one of them. A member that is back has its prefixes given up by the others only
//! `hold_back` after a router has them from it: no router is ever without a route.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::model::fnv1a;

/// What a rank adds to the MED of a prefix that is taken over.
const MED_OF_A_RANK: u32 = 100;

/// A member of a group as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its own prefixes.
    pub own: Vec<IpNet>,
    /// It is alive, not being worked on, and routers have its prefixes from it.
    pub is_up: bool,
}

/// The members of a group by name, this node among them.
pub type Members = BTreeMap<Arc<str>, Member>;

/// A prefix that this node has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub prefix: IpNet,
    /// Whose it is.
    pub owner: Arc<str>,
    /// What its MED is more than the own prefixes'.
    pub more: u32,
}

/// How a group's prefixes are taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// All members that are up announce them with one MED, instead of each with its own.
    pub by_all: bool,
    /// How long they are kept once their owner is back.
    pub hold_back: Duration,
}

/// What this node knows of members that were away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Away(BTreeMap<Arc<str>, Option<Duration>>);

impl Away {
    /// What `node` announces for others, now.
    pub fn follow(
        &mut self,
        takeover: &Takeover,
        node: &str,
        members: &Members,
        now: Duration,
    ) -> Vec<Taken> {
        self.0.retain(|name, _| members.contains_key(name));
        for (name, member) in members {
            if !member.is_up {
                self.0.insert(Arc::clone(name), None);
            } else if let Some(until) = self.0.get_mut(name) {
                until.get_or_insert(now + takeover.hold_back);
            }
        }
        self.0.retain(|_, until| until.is_none_or(|until| until > now));
        if !members.get(node).is_some_and(|member| member.is_up) {
            return Vec::new();
        }
        let away = self.0.keys().filter(|name| ***name != *node);
        let prefixes = away.flat_map(|name| members[name].own.iter().map(move |prefix| (name, *prefix)));
        let taken =
            prefixes.filter(|(_, prefix)| !members[node].own.contains(prefix)).map(|(owner, prefix)| {
                let rank = if takeover.by_all { 0 } else { self.rank(node, owner, prefix, members) };
                Taken { prefix, owner: Arc::clone(owner), more: MED_OF_A_RANK.saturating_mul(rank) }
            });
        taken.collect()
    }

    /// When the next prefixes are given up.
    pub fn deadline(&self) -> Option<Duration> {
        self.0.values().filter_map(|until| *until).min()
    }

    /// The place of a node, from 1 on, among those that take a prefix over.
    fn rank(&self, node: &str, owner: &Arc<str>, prefix: IpNet, members: &Members) -> u32 {
        let is_taker = |(name, member): &(&Arc<str>, &Member)| member.is_up && *name != owner;
        let takers = members.iter().filter(is_taker).map(|(name, _)| &**name);
        let key = |name: &str| (Reverse(score(name, prefix)), name.to_owned());
        let own = key(node);
        1 + u32::try_from(takers.filter(|taker| key(taker) < own).count()).unwrap_or(u32::MAX - 1)
    }
}

fn score(node: &str, prefix: IpNet) -> u64 {
    fnv1a(format!("{node} {prefix}").as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANKED: Takeover = Takeover { by_all: false, hold_back: Duration::from_secs(1) };
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn prefix(place: usize) -> IpNet {
        format!("192.0.2.{place}/32").parse().expect("a prefix")
    }

    /// The members of these states, each with a prefix of its own.
    fn members(up: &[bool]) -> Members {
        let member = |(place, is_up): (usize, &bool)| {
            (Arc::from(NAMES[place]), Member { own: vec![prefix(place)], is_up: *is_up })
        };
        up.iter().enumerate().map(member).collect()
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_prefix_of_a_member_that_is_away_has_one_first_taker() {
        let group = members(&[true, false, true, true]);
        let take = |node| Away::default().follow(&RANKED, node, &group, at(0));
        let mut more: Vec<u32> = ["a", "c", "d"].map(|node| take(node)[0].more).into();
        more.sort_unstable();
        assert_eq!(more, [100, 200, 300]);
        assert!(take("b").is_empty(), "it is away itself");
        assert_eq!(take("a")[0].owner, "b".into());
        let all = Takeover { by_all: true, ..RANKED };
        assert_eq!(Away::default().follow(&all, "a", &group, at(0))[0].more, 0);
    }

    #[test]
    fn what_was_taken_is_kept_for_a_while_once_its_owner_is_back() {
        let mut away = Away::default();
        let mut follow = |up: [bool; 2], ms| {
            let taken = away.follow(&RANKED, "a", &members(&up), at(ms)).len();
            (taken, away.deadline())
        };
        assert_eq!(follow([true, true], 0), (0, None));
        assert_eq!(follow([true, false], 1), (1, None));
        assert_eq!(follow([true, true], 10), (1, Some(at(1_010))));
        assert_eq!(follow([true, true], 1_009), (1, Some(at(1_010))));
        assert_eq!(follow([true, true], 1_010), (0, None));
    }

    #[test]
    fn one_that_goes_again_while_it_comes_back_is_away() {
        let mut away = Away::default();
        away.follow(&RANKED, "a", &members(&[true, false]), at(0));
        away.follow(&RANKED, "a", &members(&[true, true]), at(10));
        away.follow(&RANKED, "a", &members(&[true, false]), at(20));
        assert_eq!(away.follow(&RANKED, "a", &members(&[true, false]), at(2_000)).len(), 1);
    }

    proptest! {
        #[test]
        fn whoever_is_away_every_prefix_is_announced_while_one_is_up(
            changes in prop::collection::vec((prop::collection::vec(any::<bool>(), 4), 0..2_000_u64), 1..20)
        ) {
            let mut away = vec![Away::default(); 4];
            let mut now = 0;
            for (up, passed) in changes {
                now += passed;
                let group = members(&up);
                let taken: Vec<Vec<Taken>> = NAMES
                    .iter()
                    .zip(&mut away)
                    .map(|(node, own)| own.follow(&RANKED, node, &group, at(now)))
                    .collect();
                for (place, is_up) in up.iter().enumerate() {
                    let takers = taken.iter().flatten().filter(|taken| taken.prefix == prefix(place));
                    let mut ranks: Vec<u32> = takers.map(|taken| taken.more).collect();
                    ranks.sort_unstable();
                    let others = up.iter().enumerate().filter(|(other, is_up)| *other != place && **is_up).count();
                    let all: Vec<u32> = (1..).map(|rank| rank * 100).take(others).collect();
                    let is_so = ranks == all || (*is_up && ranks.is_empty());
                    prop_assert!(is_so, "{place}: {ranks:?} instead of {all:?}");
                }
            }
        }
    }
}
