//! What clients wrote and were told, and what has to hold of it in the end.

use std::collections::{BTreeMap, BTreeSet};

use control::cluster::{clock::Stamp, log::Key, records::RecordKey};

use super::cluster::Cluster;
use crate::{
    client::{Asked, KeyWrite, Outcome},
    member::{Event, Member},
    report::Report,
};

/// A write of a user key that was acknowledged.
struct Written {
    asked: Asked,
    key: String,
    stamp: Stamp,
    is_removal: bool,
    /// Hosts that were seen to have it, or something later of that key, and have not lost it since.
    holders: BTreeSet<usize>,
    /// Once every node has had it, nothing is an excuse.
    was_everywhere: bool,
    /// The last one that had it has lost it.
    is_excused: bool,
}

/// A write of a user key that was asked for.
struct Request {
    host: usize,
    write: KeyWrite,
    is_answered: bool,
}

/// All writes of user keys.
#[derive(Default)]
pub(super) struct Ledger {
    asked: BTreeMap<Asked, Request>,
    written: Vec<Written>,
    answered: usize,
}

fn encoded(key: &str) -> Key {
    RecordKey::User(key.into()).encode()
}

/// The latest stamp that a node has at a key, of a removal too.
fn latest(node: &Member, key: &str) -> Stamp {
    node.view().replaced(&RecordKey::User(key.into()))
}

impl Ledger {
    /// A client writes at a host.
    pub(super) fn ask(&mut self, cluster: &mut Cluster, host: usize, write: KeyWrite) {
        let asked = Asked(self.asked.len() as u64 + 1);
        self.asked.insert(asked, Request { host, write: write.clone(), is_answered: false });
        cluster.act(host, |node, at| node.write_key(at, asked, write));
    }

    /// Takes what clients were told.
    pub(super) fn follow(&mut self, cluster: &mut Cluster) {
        for (_, _, event) in cluster.take_events() {
            let Event::Answered(answer) = event else { continue };
            let Some(request) = self.asked.get_mut(&answer.asked) else { continue };
            request.is_answered = true;
            self.answered += 1;
            let Outcome::Written { stamps, .. } = answer.outcome else { continue };
            let Some(stamp) = stamps.get(&encoded(&request.write.key)).copied() else { continue };
            self.written.push(Written {
                asked: answer.asked,
                key: request.write.key.clone(),
                stamp,
                is_removal: request.write.value.is_none(),
                holders: [request.host].into(),
                was_everywhere: false,
                is_excused: false,
            });
        }
        self.look(cluster);
    }

    /// Sees which nodes have what.
    fn look(&mut self, cluster: &Cluster) {
        let count = cluster.len();
        for written in self.written.iter_mut().filter(|written| !written.was_everywhere) {
            let having = cluster.running().filter(|(_, node)| latest(node, &written.key) >= written.stamp);
            written.holders.extend(having.map(|(host, _)| host));
            written.was_everywhere = written.holders.len() == count;
        }
    }

    /// A host is down: what its disk does not have it has lost.
    pub(super) fn went_down(&mut self, cluster: &Cluster, host: usize) {
        let Some(disk) = cluster.disk(host) else { return };
        for written in self.written.iter_mut().filter(|written| !written.was_everywhere) {
            if written.holders.contains(&host) && disk.latest(&encoded(&written.key)) < written.stamp {
                written.holders.remove(&host);
                written.is_excused |= written.holders.is_empty();
            }
        }
    }

    /// Whether a removal was asked for after a write, and nobody knows what became of it.
    fn may_be_removed(&self, written: &Written) -> bool {
        let mut later = self.asked.range(written.asked..).map(|(_, request)| request);
        later.any(|Request { write, is_answered, .. }| {
            !is_answered && write.key == written.key && write.value.is_none()
        })
    }

    /// Compares what is there in the end with what was acknowledged.
    pub(super) fn check(&self, cluster: &Cluster, report: &mut Report) {
        let Some((_, node)) = cluster.running().next() else { return };
        let mut last: BTreeMap<&str, &Written> = BTreeMap::new();
        for written in self.written.iter().filter(|written| !written.is_excused) {
            let latest = last.entry(&written.key).or_insert(written);
            // Of one stamp the removal holds.
            if (written.stamp, written.is_removal) > (latest.stamp, latest.is_removal) {
                *latest = written;
            }
        }
        let (mut lost, mut returned) = (Vec::new(), Vec::new());
        for (key, written) in &last {
            let there = node.view().user(key).map(|user| Stamp::from_number(user.version));
            match there {
                Some(there) if there >= written.stamp => {}
                Some(_) if written.is_removal => returned.push(*key),
                None if written.is_removal || self.may_be_removed(written) => {}
                Some(_) | None => lost.push(*key),
            }
        }
        let excused = self.written.iter().filter(|written| written.is_excused).count();
        report.note(
            "writes answered, that changed something",
            format!("{}, {}", self.answered, self.written.len()),
        );
        report.note("lost with the only store that had them", excused);
        report.check("acknowledged writes lost", format!("{lost:?}"), "none", lost.is_empty());
        report.check("deleted keys that came back", format!("{returned:?}"), "none", returned.is_empty());
    }
}
