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
