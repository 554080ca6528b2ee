//! Addresses on `lo`: there before their prefixes are announced, and a while after their withdrawal.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use control::announce::{Announcement, Decision};

/// The addresses that are to be there.
#[derive(Debug, Default)]
pub(super) struct Loopback {
    /// With how long each stays when it is not wanted any more.
    wanted: BTreeMap<IpAddr, Duration>,
    /// Those that are not, until when they stay.
    lingering: BTreeMap<IpAddr, Duration>,
}

impl Loopback {
    /// Follows what is decided.
    pub(super) fn follow<'d>(
        &mut self,
        decided: impl Iterator<Item = (&'d Announcement, &'d Decision)>,
        now: Duration,
    ) {
        let mut wanted = BTreeMap::new();
        for (own, decision) in decided {
            let linger = own.loopback.unwrap_or_default();
            wanted.extend(decision.loopback.iter().map(|address| (*address, linger)));
        }
        let gone = self.wanted.iter().filter(|(address, _)| !wanted.contains_key(address));
        self.lingering.extend(gone.map(|(address, linger)| (*address, now + *linger)));
        self.lingering.retain(|address, _| !wanted.contains_key(address));
        self.wanted = wanted;
    }

    /// Lets time pass; says whether some are to go.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let before = self.lingering.len();
        self.lingering.retain(|_, until| *until > now);
        self.lingering.len() < before
    }

    /// When the next one goes.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.lingering.values().copied().min()
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.wanted.keys().chain(self.lingering.keys()).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use control::announce::Life;

    use super::*;

    #[test]
    fn an_address_lingers_after_it_is_not_wanted_unless_it_is_wanted_again() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let decision = |wanted: bool| Decision {
            life: Life::Up,
            prefixes: Vec::new(),
            loopback: wanted.then_some(address).into_iter().collect(),
        };
        let own = crate::sources::config::example_announcement();
        let at = Duration::from_secs;
        let mut loopback = Loopback::default();
        loopback.follow([(&own, &decision(true))].into_iter(), at(0));
        assert_eq!((loopback.addresses(), loopback.deadline()), ([address].into(), None));
        loopback.follow([(&own, &decision(false))].into_iter(), at(10));
        assert_eq!((loopback.addresses(), loopback.deadline()), ([address].into(), Some(at(15))));
        loopback.follow([(&own, &decision(true))].into_iter(), at(12));
        assert_eq!(loopback.deadline(), None);
        loopback.follow([].into_iter(), at(20));
        assert!(!loopback.expire(at(24)) && loopback.expire(at(25)));
        assert!(loopback.addresses().is_empty());
    }
}
