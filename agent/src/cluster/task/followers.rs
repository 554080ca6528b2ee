//! Changes of user keys, for readers that follow them.
//!
//! A reader is given a few at a time, and says when it has taken them: one that is slow holds up nobody, and is told to begin
//! again when too much has waited for it.

use std::collections::BTreeSet;

use control::cluster::{
    log::Name,
    records::{View, Watcher},
};
use tokio::sync::{mpsc, oneshot};

use super::Task;
use crate::cluster::keys::{Batch, KeyEvent, KeyRefusal};

/// Changed keys that wait for one reader at most.
const WAITING: usize = 4_096;
/// Events that a reader is given at a time.
const AT_A_TIME: usize = 32;

/// A reader.
struct Watch {
    watcher: Watcher,
    reader: mpsc::Sender<Batch>,
}

/// All readers.
#[derive(Default)]
pub(super) struct Watches(Vec<Watch>);

impl Watches {
    fn add(&mut self, prefix: &str) -> mpsc::Receiver<Batch> {
        let (reader, batches) = mpsc::channel(1);
        self.0.push(Watch { watcher: Watcher::new(prefix, WAITING), reader });
        batches
    }

    fn follow(&mut self, keys: &BTreeSet<Name>) {
        self.0.iter_mut().for_each(|watch| watch.watcher.follow(keys));
    }

    /// Gives readers that have taken what they were given what there is more; forgets those that have gone.
    fn tell(&mut self, view: &View) {
        self.0.retain_mut(|Watch { watcher, reader }| {
            let Ok(place) = reader.try_reserve() else { return !reader.is_closed() };
            let next = std::iter::from_fn(|| watcher.next(view)).take(AT_A_TIME);
            let batch: Batch = next.map(KeyEvent::from).collect();
            if !batch.is_empty() {
                place.send(batch);
            }
            true
        });
    }
}

impl Task<'_> {
    /// A reader follows the keys that begin so: first all that are there.
    pub(super) fn watch_keys(
        &mut self,
        prefix: &str,
        answer: oneshot::Sender<Result<mpsc::Receiver<Batch>, KeyRefusal>>,
    ) {
        let Some(shared) = &mut self.shared else {
            return drop(answer.send(Err(KeyRefusal::Unavailable(self.why_not()))));
        };
        // A reader that has gone meanwhile is found out at once.
        drop(answer.send(Ok(shared.watches.add(prefix))));
        self.tell_watchers();
    }

    /// User keys are other than before.
    pub(super) fn keys_changed(&mut self, keys: &BTreeSet<Name>) {
        let Some(shared) = &mut self.shared else { return };
        shared.watches.follow(keys);
        self.tell_watchers();
    }

    pub(super) fn tell_watchers(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.watches.tell(shared.replication.state().view());
        }
    }
}

#[cfg(test)]
mod tests {
    use control::cluster::{
        log::Limits,
        records::Record,
        state::{Identity, SigningKey, State, Wall},
    };

    use super::*;

    const WALL: Wall = Wall { own_ms: 1_795_242_852_000, median_ms: 1_795_242_852_000 };

    fn state(keys: usize) -> State {
        let key = SigningKey::from_bytes(&[7; 32]);
        let identity = Identity { cluster: "prod".to_owned(), name: "host-28".into(), key, tag: 1 };
        let mut state = State::new(identity, Limits::default());
        let records = (0..keys).map(|number| Record::User {
            key: format!("k{number:05}").as_str().into(),
            value: Some([1].as_slice().into()),
        });
        let _stored = state.write(records.collect(), WALL).unwrap();
        state
    }

    #[test]
    fn a_reader_gets_a_few_at_a_time_until_it_has_all() {
        let state = state(100);
        let mut watches = Watches::default();
        let mut batches = watches.add("");
        let mut told = Vec::new();
        loop {
            watches.tell(state.view());
            watches.tell(state.view());
            let Ok(batch) = batches.try_recv() else { break };
            assert!(batch.len() <= AT_A_TIME && batches.is_empty());
            told.extend(batch);
        }
        assert_eq!(told.len(), 101);
        assert_eq!(told.last(), Some(&KeyEvent::Ready));
    }

    #[test]
    fn a_reader_that_takes_nothing_is_told_to_begin_again_and_one_that_has_gone_is_forgotten() {
        let mut state = state(0);
        let mut watches = Watches::default();
        let mut slow = watches.add("");
        watches.tell(state.view());
        for number in 0..WAITING + 2 {
            let (key, value) = (number.to_string(), Some(b"1".as_slice().into()));
            let record = Record::User { key: key.as_str().into(), value };
            let written = state.write(vec![record], WALL).unwrap();
            watches.follow(&written.touched.users);
        }
        assert_eq!(slow.try_recv().unwrap(), [KeyEvent::Ready]);
        watches.tell(state.view());
        let batch = slow.try_recv().unwrap();
        assert!(matches!(&batch[..], [KeyEvent::Resync, KeyEvent::Put(_), ..]), "{batch:?}");
        drop(slow);
        watches.tell(state.view());
        assert_eq!(watches.0.len(), 0);
    }
}
