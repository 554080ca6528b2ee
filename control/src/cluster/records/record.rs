//! Records as they are asked for, and as a log takes them.

use std::net::SocketAddr;

use super::{
    key::RecordKey,
    value::{self, BackendRecord, Claim, Definition, Facts, Forgotten, Verdict},
    view::View,
};
use crate::{
    cluster::{
        clock::Clock,
        log::{Bytes, Name, Put},
    },
    service,
};

/// A record that this node writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What a service is.
    Define {
        /// The service.
        name: Name,
        /// What it is.
        what: service::Definition,
    },
    /// A service is no more, with all backends and marks of all nodes.
    Undefine(Name),
    /// A backend that this node contributes.
    Offer(Name, SocketAddr, BackendRecord),
    /// It does not any more.
    Withdraw(Name, SocketAddr),
    /// A backend takes no new flows, or does again.
    Drain(Name, SocketAddr, bool),
    /// What this node says of itself.
    Facts(Facts),
    /// A node is forgotten.
    Forget(Name, Forgotten),
    /// A user key; `None` deletes.
    User {
        /// The key.
        key: Name,
        /// Its value.
        value: Option<Bytes>,
    },
    /// What a file says of a service: service, file.
    Claim(Name, Name, Option<Claim>),
    /// What this node has found of a backend; `None`: it does not check it.
    Verdict(Name, SocketAddr, Option<Verdict>),
}

impl Record {
    /// The service that it is about.
    pub fn service(&self) -> Option<&Name> {
        match self {
            Self::Define { name, .. }
            | Self::Undefine(name)
            | Self::Offer(name, ..)
            | Self::Withdraw(name, _)
            | Self::Drain(name, ..)
            | Self::Verdict(name, ..)
            | Self::Claim(name, ..) => Some(name),
            Self::Facts(_) | Self::Forget(..) | Self::User { .. } => None,
        }
    }

    /// What it is about.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Define { name, .. } | Self::Undefine(name) => RecordKey::Definition(name.clone()),
            Self::Offer(name, socket, _) | Self::Withdraw(name, socket) => {
                RecordKey::Backend(name.clone(), *socket)
            }
            Self::Drain(name, socket, _) => RecordKey::Drain(name.clone(), *socket),
            Self::Verdict(name, socket, _) => RecordKey::Verdict(name.clone(), *socket),
            Self::Facts(_) => RecordKey::Facts,
            Self::Forget(name, _) => RecordKey::Forgotten(name.clone()),
            Self::User { key, .. } => RecordKey::User(key.clone()),
            Self::Claim(name, file, _) => RecordKey::Claim(name.clone(), file.clone()),
        }
    }
}

/// Records with the stamps of one write, in their order: what one removes, the next may make anew.
pub fn puts(view: &View, own: &Name, records: Vec<Record>, clock: &mut Clock, wall_ms: u64) -> Vec<Put> {
    let mut puts = Vec::with_capacity(records.len());
    for record in records {
        let key = record.key();
        let stamp = clock.tick(wall_ms, view.replaced(&key));
        let value = match record {
            Record::Define { name, what: service::Definition { vip, algorithm, checking } } => {
                let former = view.service(&name).and_then(|parts| parts.definition());
                let (created, creator) = match former {
                    Some((_, former)) => (former.created, former.creator.clone()),
                    None => (stamp, own.clone()),
                };
                let since = view.service(&name).map(|parts| parts.since()).unwrap_or_default();
                Some(value::encode(&Definition { vip, algorithm, created, creator, since, checking }))
            }
            Record::Offer(_, _, backend) => Some(value::encode(&backend)),
            Record::Drain(_, _, is_drained) => is_drained.then(|| value::encode(&())),
            Record::Facts(facts) => Some(value::encode(&facts)),
            Record::Forget(_, forgotten) => Some(value::encode(&forgotten)),
            Record::User { value, .. } => value,
            Record::Claim(_, _, claim) => claim.as_ref().map(value::encode),
            Record::Verdict(_, _, verdict) => verdict.as_ref().map(value::encode),
            Record::Undefine(_) | Record::Withdraw(..) => None,
        };
        puts.push(Put { key: key.encode(), stamp, writer: None, value });
    }
    puts
}
