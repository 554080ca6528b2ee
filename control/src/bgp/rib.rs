//! The Adj-RIB-Out: what one connection's peer has, and what it is still to be sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::route::{Attributes, Family};

/// What a peer has, by prefix.
pub type Advertised = BTreeMap<IpNet, Arc<Attributes>>;

/// What was sent on a connection, and what differs from what is wanted.
#[derive(Debug, Default)]
pub(super) struct RibOut {
    sent: Advertised,
    /// To be withdrawn: all of them are in `sent`.
    gone: BTreeSet<IpNet>,
    /// To be announced, each with what it is announced with.
    due: Advertised,
}

impl RibOut {
    /// What the peer is to have from now on; what it has already is not sent again.
    pub(super) fn want(&mut self, wanted: Advertised) {
        self.gone = self.sent.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        let sent = &self.sent;
        let differs = |(prefix, attributes): &(IpNet, Arc<Attributes>)| sent.get(prefix) != Some(attributes);
        self.due = wanted.into_iter().filter(differs).collect();
    }

    /// The peer asks for a family anew (RFC 2918).
    pub(super) fn refresh(&mut self, family: Family) {
        for (prefix, attributes) in &self.sent {
            if Family::of(prefix) == family && !self.gone.contains(prefix) {
                self.due.entry(*prefix).or_insert_with(|| Arc::clone(attributes));
            }
        }
    }

    /// What is to be withdrawn now.
    pub(super) fn take_gone(&mut self) -> BTreeSet<IpNet> {
        let gone = std::mem::take(&mut self.gone);
        self.sent.retain(|prefix, _| !gone.contains(prefix));
        gone
    }

    /// Up to `most` prefixes to be announced now, those with equal attributes together.
    pub(super) fn take_due(&mut self, most: usize) -> BTreeMap<Arc<Attributes>, Vec<IpNet>> {
        let mut together: BTreeMap<Arc<Attributes>, Vec<IpNet>> = BTreeMap::new();
        for _ in 0..most {
            let Some((prefix, attributes)) = self.due.pop_first() else { break };
            self.sent.insert(prefix, Arc::clone(&attributes));
            together.entry(attributes).or_default().push(prefix);
        }
        together
    }

    /// Whether all was sent.
    pub(super) fn is_sent(&self) -> bool {
        self.gone.is_empty() && self.due.is_empty()
    }

    /// What the peer has.
    pub(super) fn sent(&self) -> &Advertised {
        &self.sent
    }
}
