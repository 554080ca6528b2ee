//! Logs that were asked for by datagrams.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::cluster::log::{Name, Version, Want};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(60);
/// Parts that are asked for by datagrams; what is larger is exchanged.
const PARTS: u32 = 8;
/// Members that are asked when one has not answered.
const OTHERS: usize = 4;
/// Origins whose logs are asked for at most; others are found by digests.
const ORIGINS: usize = 4_096;

#[derive(Debug)]
struct Asked {
    version: Version,
    until: Duration,
    parts: u32,
    /// Members that have it, in the order in which they are asked.
    others: VecDeque<Name>,
}

/// What a question leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// The member is asked.
    Now,
    /// Another one was asked just now; this one is, if that does not answer.
    Later,
    /// It is too much for datagrams.
    Exchange,
}

/// Logs that were asked for, by origin.
#[derive(Debug, Default)]
pub(super) struct Asks(BTreeMap<Name, Asked>);

impl Asks {
    /// A member has a log that is wanted.
    pub(super) fn ask(&mut self, member: &Name, want: &Want, now: Duration) -> Asking {
        if self.0.len() >= ORIGINS && !self.0.contains_key(&want.origin) {
            return Asking::Later;
        }
        let new =
            || Asked { version: want.version, until: Duration::ZERO, parts: 0, others: VecDeque::new() };
        let asked = self.0.entry(want.origin.clone()).or_insert_with(new);
        asked.version = asked.version.max(want.version);
        if asked.until > now {
            if asked.others.len() < OTHERS && !asked.others.contains(member) {
                asked.others.push_back(member.clone());
            }
            return Asking::Later;
        }
        // Its turn comes again: a question may be lost, too.
        asked.others.push_back(member.clone());
        (asked.until, asked.parts) = (now + PATIENCE, asked.parts + 1);
        if asked.parts > PARTS {
            self.0.remove(&want.origin);
            return Asking::Exchange;
        }
        Asking::Now
    }

    /// A part has come: the next one may be asked for.
    pub(super) fn go_on(&mut self, origin: &Name) {
        if let Some(asked) = self.0.get_mut(origin) {
            asked.until = Duration::ZERO;
        }
    }

    /// It has come.
    pub(super) fn remove(&mut self, origin: &Name) {
        self.0.remove(origin);
    }

    /// Logs for which no answer came: origin and version, and who else has it.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<(Name, Version, Name)> {
        let mut due = Vec::new();
        self.0.retain(|origin, asked| {
            if asked.until > now {
                return true;
            }
            let next = asked.others.pop_front();
            due.extend(next.clone().map(|member| (origin.clone(), asked.version, member)));
            next.is_some()
        });
        due
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.values().map(|asked| asked.until).min()
    }
}
