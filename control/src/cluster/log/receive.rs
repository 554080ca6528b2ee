//! What comes from other replicas, and what is refused of it.

use std::sync::Arc;

use thiserror::Error;

use super::{
    Effects, Head, Item, Key, Logs, SignedHead,
    entry::Entry,
    held::{Fit, Held},
    replica::seat,
    segment::{Segment, Want},
    single::Log,
};
use crate::{cluster::clock::Skewed, model::quoted};

/// What a segment was to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// New: it may be passed on.
    New(Effects),
    /// A part of something new: the rest is to be asked for.
    Part(Want),
    /// Something new that continues more than is here: that is to be asked for.
    Gap(Want),
    /// What is here covers it.
    Known,
}

/// Why a segment was refused. Each names the origin whose log it claims to be; whoever passed it on may be another node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Its numbers contradict one another, or an entry is too large.
    #[error("a malformed part of the log of {0} was refused")]
    Malformed(String),
    /// The first key that was seen for a name is kept.
    #[error(
        "a log of {0} with another key than the known one was refused; if {0} was set up anew, 'fanlight node forget {0}'"
    )]
    OtherKey(String),
    /// The origin did not sign the head, or not for this cluster.
    #[error("a log of {0} that {0} did not sign was refused")]
    Forged(String),
    /// The entries are not the ones that the origin signed.
    #[error(
        "a log of {0} whose records are not the signed ones was refused; a node that passed it on has altered it"
    )]
    Altered(String),
    /// Its origin signed another log of the same version.
    #[error("{0} signed two logs of one version; stop one of two nodes with this name and key")]
    Forked(String),
    /// It is of this node, and of a start that this node is in.
    #[error("another node writes as {0}, with the same key; give one of them another name and key")]
    Twin(String),
    /// It was begun before its origin was forgotten.
    #[error("a log of {0}, which was forgotten, was refused")]
    Forgotten(String),
    /// A stamp is too far ahead.
    #[error(transparent)]
    Skewed(#[from] Skewed),
    /// There is no room.
    #[error("the log of {origin} was refused: a node holds at most {limit} {what}; remove records there")]
    TooLarge {
        /// Whose log.
        origin: String,
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
}

/// Why a stored log can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the stored log of {} is damaged; put the store aside, peers have the records", quoted(.0))]
pub struct LoadError(pub String);

impl Logs {
    /// Takes what another replica has sent. `reference_ms` is the median of the members' clocks in milliseconds since 1970.
    ///
    /// # Errors
    /// Nothing of it was taken, and why.
    pub fn receive(&mut self, segment: Segment, reference_ms: u64) -> Result<Arrival, Refusal> {
        let head = &segment.signed.head;
        let (origin, version) = (Arc::clone(&head.origin), head.version);
        if !head.is_well_formed() || !segment.is_well_formed() {
            return Err(Refusal::Malformed(origin.chars().take(64).collect()));
        }
        let seat = seat(&origin);
        let held = self.origins.get(&seat);
        self.admit(head, held)?;
        if held.is_some_and(|held| held.covers(version)) {
            return Ok(Arrival::Known);
        }
        self.own_is_not_twin(head)?;
        if !segment.signed.is_genuine(&self.cluster) {
            return Err(Refusal::Forged(origin.to_string()));
        }
        for Entry { item, .. } in &segment.entries {
            Skewed::check(item.writer.as_ref().unwrap_or(&origin), item.stamp, reference_ms)?;
        }
        if self.has_room(&segment).is_err() {
            // What was begun and not ended is in the way, perhaps; it comes again.
            self.drop_pending();
            self.has_room(&segment)?;
        }
        let key = head.key;
        let held = self.origins.entry(seat.clone()).or_insert_with(|| Held::new(key));
        let before = held.all_bytes();
        let result = match held.fit(segment) {
            Fit::Gap => Ok(Arrival::Gap(held.want(&origin, version))),
            Fit::Part => Ok(Arrival::Part(held.want(&origin, version))),
            Fit::Whole(segment) => {
                let is_all = segment.start == 0;
                let taken = held.take(&origin, *segment);
                held.wants_all = taken.is_err() && !is_all;
                taken.map(Arrival::New).map_err(|_mismatch| Refusal::Altered(origin.to_string()))
            }
        };
        let after = held.all_bytes();
        self.bytes = self.bytes + after - before;
        if matches!(result, Ok(Arrival::New(_))) {
            self.stepped(seat.0);
        } else if held.logs.is_empty() && held.pending.is_none() {
            self.origins.remove(&seat);
        }
        result
    }

    /// Whether a head may be an origin's.
    fn admit(&self, head: &Head, held: Option<&Held>) -> Result<(), Refusal> {
        let origin = || head.origin.to_string();
        if self.forgotten.get(&head.origin).is_some_and(|born| head.born <= *born) {
            return Err(Refusal::Forgotten(origin()));
        }
        let Some(held) = held else {
            let limit = self.limits.origins;
            let error = Refusal::TooLarge { origin: origin(), what: "nodes' logs", limit };
            return if self.origins.len() < limit { Ok(()) } else { Err(error) };
        };
        if held.key != head.key {
            return Err(Refusal::OtherKey(origin()));
        }
        let is_other = |log: &Log| {
            log.signed.head.version == head.version
                && (log.signed.head.root, log.signed.head.floor) != (head.root, head.floor)
        };
        if held.logs.iter().any(is_other) {
            return Err(Refusal::Forked(origin()));
        }
        Ok(())
    }

    /// A log of this node's that goes on from what only this start has written was written by another node.
    fn own_is_not_twin(&self, head: &Head) -> Result<(), Refusal> {
        let Some((name, epoch)) = &self.own else { return Ok(()) };
        let has = |head: &Head| {
            head.version.epoch == *epoch || head.ancestors.iter().any(|one| one.version.epoch == *epoch)
        };
        if head.origin == *name && has(head) { Err(Refusal::Twin(name.to_string())) } else { Ok(()) }
    }

    fn has_room(&self, segment: &Segment) -> Result<(), Refusal> {
        let origin = &segment.signed.head.origin;
        let new: usize = segment.entries.iter().map(|entry| entry.item.size(&entry.key)).sum();
        let held = self.origins.get(&seat(origin));
        let own = held.map_or(0, Held::all_bytes);
        let limited = [
            (own + new, self.limits.origin_bytes, "bytes of one node's log"),
            (self.bytes + new, self.limits.bytes, "bytes of logs"),
        ];
        match limited.into_iter().find(|(bytes, limit, _)| bytes > limit) {
            Some((_, limit, what)) => Err(Refusal::TooLarge { origin: origin.to_string(), what, limit }),
            None => Ok(()),
        }
    }

    /// Takes a log that was stored.
    ///
    /// # Errors
    /// Its entries are not the ones that its origin signed for this cluster, or another key has the name.
    pub fn load(
        &mut self,
        slot: u32,
        signed: SignedHead,
        entries: impl IntoIterator<Item = (Key, Item)>,
    ) -> Result<(), LoadError> {
        let origin = Arc::clone(&signed.head.origin);
        let error = || LoadError(origin.to_string());
        if !signed.head.is_well_formed() || !signed.is_genuine(&self.cluster) {
            return Err(error());
        }
        let seat = seat(&origin);
        let held = self.origins.entry(seat.clone()).or_insert_with(|| Held::new(signed.head.key));
        if held.key != signed.head.key || held.logs.iter().any(|log| log.slot == slot) {
            return Err(error());
        }
        let mut log = Log::new(slot, signed.clone());
        let entries = entries.into_iter().map(|(key, item)| Entry { key, item }).collect();
        log.advance(signed, entries, 0).map_err(|_mismatch| error())?;
        if !held.covers(log.signed.head.version) {
            let before = held.all_bytes();
            held.insert(&origin, log, &mut Effects::default());
            self.bytes = self.bytes + held.all_bytes() - before;
        }
        self.stepped(seat.0);
        Ok(())
    }
}
