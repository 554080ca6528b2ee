//! Which member is probed next, and what its answers come to.

use std::{collections::BTreeMap, net::SocketAddrV4, time::Duration};

/// From one probe of a member to the next, where there are few..
const PERIOD: Duration = Duration::from_secs(10);
/// ..and from one probe of any member to the next: each costs two packets of 48 bytes, of which either side sends one, and
/// others ask as often.
pub(super) const STEP: Duration = Duration::from_millis(500);
/// How long a member that is new may take to bring its fan up.
const SETTLING: Duration = Duration::from_secs(5);
/// From a probe without an answer to the next.
const AGAIN: Duration = Duration::from_secs(1);
/// So many without an answer, one after the other, are no accident.
const SILENT: u32 = 2;

/// What a probe has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The tunnel gets through, or what is in the way is something else.
    Passes,
    /// The underlay answers, and the tunnel does not.
    Silence,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    at: SocketAddrV4,
    next: Duration,
    is_probed: bool,
    silent: u32,
}

/// Members that are probed, by name.
#[derive(Debug, Default)]
pub(super) struct Pace {
    peers: BTreeMap<String, Peer>,
    /// When any may be probed.
    next: Duration,
}

impl Pace {
    /// These are the members; what is known of others is forgotten.
    pub(super) fn set(&mut self, members: BTreeMap<String, SocketAddrV4>, now: Duration) {
        self.peers.retain(|name, peer| members.get(name) == Some(&peer.at));
        for (name, at) in members {
            let new = Peer { at, next: now + SETTLING, is_probed: false, silent: 0 };
            self.peers.entry(name).or_insert(new);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The member that is to be probed now; it is not named again before its answer is known.
    pub(super) fn due(&mut self, now: Duration) -> Option<(String, SocketAddrV4)> {
        if now < self.next {
            return None;
        }
        let waiting = self.peers.iter_mut().filter(|(_, peer)| !peer.is_probed && peer.next <= now);
        let (name, peer) = waiting.min_by_key(|(_, peer)| peer.next)?;
        peer.is_probed = true;
        self.next = now + STEP;
        Some((name.clone(), peer.at))
    }

    /// A probe has shown this.
    pub(super) fn shown(&mut self, name: &str, shown: Shown, now: Duration) {
        let period = PERIOD.max(STEP * self.peers.len() as u32);
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.is_probed = false;
        peer.silent = if shown == Shown::Silence { peer.silent + 1 } else { 0 };
        peer.next = now + if (1..SILENT).contains(&peer.silent) { AGAIN } else { period };
    }

    /// Members to which the tunnel does not get through.
    pub(super) fn blocked(&self) -> impl Iterator<Item = (&str, SocketAddrV4)> {
        let blocked = self.peers.iter().filter(|(_, peer)| peer.silent >= SILENT);
        blocked.map(|(name, peer)| (name.as_str(), peer.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u8) -> BTreeMap<String, SocketAddrV4> {
        (0..count)
            .map(|last| (format!("n{last:02}"), SocketAddrV4::new([10, 0, 0, last].into(), 7481)))
            .collect()
    }

    /// Runs for a while; members that are silent are those that `is_silent` says. Gives the probes.
    fn run(pace: &mut Pace, from: u64, seconds: u64, is_silent: impl Fn(&str) -> bool) -> Vec<String> {
        let mut probes = Vec::new();
        for step in 0..seconds * 10 {
            let now = Duration::from_secs(from) + Duration::from_millis(step * 100);
            if let Some((name, _)) = pace.due(now) {
                let shown = if is_silent(&name) { Shown::Silence } else { Shown::Passes };
                pace.shown(&name, shown, now + Duration::from_millis(50));
                probes.push(name);
            }
        }
        probes
    }

    fn blocked(pace: &Pace) -> Vec<&str> {
        pace.blocked().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_member_that_is_silent_twice_is_blocked_within_half_a_minute_and_no_more_as_soon() {
        for count in [2, 50] {
            let mut pace = Pace::default();
            pace.set(members(count), Duration::ZERO);
            run(&mut pace, 0, 31, |_| false);
            assert_eq!(blocked(&pace), [""; 0]);
            run(&mut pace, 31, 28, |name| name == "n01");
            assert_eq!(blocked(&pace), ["n01"]);
            run(&mut pace, 59, 28, |_| false);
            assert_eq!(blocked(&pace), [""; 0]);
        }
    }

    #[test]
    fn probes_are_few_whatever_the_number_of_members() {
        for (count, most) in [(2, 15), (10, 75), (200, 120)] {
            let mut pace = Pace::default();
            pace.set(members(count), Duration::ZERO);
            let probes = run(&mut pace, 0, 60, |_| true);
            assert!(probes.len() <= most, "{} probes of {count} members a minute", probes.len());
        }
    }

    #[test]
    fn a_member_that_goes_is_forgotten_and_one_under_way_is_not_probed_twice() {
        let mut pace = Pace::default();
        pace.set(members(1), Duration::ZERO);
        run(&mut pace, 0, 20, |_| true);
        assert_eq!(blocked(&pace), ["n00"]);
        let due = (0..100).filter_map(|second| pace.due(Duration::from_secs(20 + second))).count();
        assert_eq!(due, 1);
        pace.set(BTreeMap::new(), Duration::from_secs(200));
        assert!(pace.is_empty());
        pace.shown("n00", Shown::Silence, Duration::from_secs(201));
        assert_eq!(blocked(&pace), [""; 0]);
    }
}
