//! Events of the API, and their readers.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{broadcast, watch};

/// Events that wait for a reader before the oldest are lost to it.
const QUEUE: usize = 4096;

/// Readers at a time.
pub(super) const READERS: usize = 64;

/// One event as the line of JSON that readers get.
pub type Event = Arc<str>;

/// Tells events. Readers have a place of their own in the queue: one that is slow loses the oldest and learns how many,
/// and nobody waits for it.
#[derive(Clone, Debug)]
pub struct Events {
    queue: broadcast::Sender<Event>,
    readers: Arc<watch::Sender<usize>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { queue: broadcast::Sender::new(QUEUE), readers: Arc::new(watch::Sender::new(0)) }
    }
}

impl Events {
    /// Tells an event. Without readers it is not even written down.
    pub fn tell(&self, event: &impl Serialize) {
        if self.queue.receiver_count() == 0 {
            return;
        }
        match serde_json::to_string(event) {
            // The last reader may have gone meanwhile.
            Ok(line) => drop(self.queue.send(line.into())),
            Err(error) => tracing::debug!("an event: {error}"),
        }
    }

    /// How many listen, now and whenever that changes.
    pub fn readers(&self) -> watch::Receiver<usize> {
        self.readers.subscribe()
    }

    /// Listens from now on; `None`: as many do already as may.
    pub fn listen(&self) -> Option<Reader> {
        let queue = self.queue.subscribe();
        let is_admitted = self.readers.send_if_modified(|readers| {
            let is_free = *readers < READERS;
            *readers += usize::from(is_free);
            is_free
        });
        is_admitted.then(|| Reader { queue, readers: Arc::clone(&self.readers) })
    }
}

/// A reader of the events.
#[derive(Debug)]
pub struct Reader {
    queue: broadcast::Receiver<Event>,
    readers: Arc<watch::Sender<usize>>,
}

/// What a reader gets in place of events that it was too slow for.
#[derive(Serialize)]
pub struct Lost {
    event: &'static str,
    lost: u64,
}

impl Lost {
    /// So many.
    pub const fn new(lost: u64) -> Self {
        Self { event: "lost", lost }
    }
}

impl Reader {
    /// The next line; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Event> {
        match self.queue.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                serde_json::to_string(&Lost::new(lost)).ok().map(Event::from)
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.send_modify(|readers| *readers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(reader: &mut Reader, count: usize) -> Vec<Event> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(reader.next().await.unwrap());
        }
        lines
    }

    #[tokio::test]
    async fn a_slow_reader_learns_how_much_it_lost_and_slows_nobody() {
        let events = Events::default();
        let mut slow = events.listen().unwrap();
        let mut quick = events.listen().unwrap();
        for number in 0..QUEUE + 3 {
            events.tell(&number);
            assert_eq!(&*quick.next().await.unwrap(), number.to_string());
        }
        assert_eq!(
            all(&mut slow, 2).await,
            [Event::from("{\"event\":\"lost\",\"lost\":3}"), Event::from("3")]
        );
    }

    #[tokio::test]
    async fn it_is_known_how_many_listen() {
        let events = Events::default();
        events.tell(&"nobody");
        let readers = events.readers();
        let mut first = events.listen().unwrap();
        drop(events.listen().unwrap());
        assert_eq!(*readers.borrow(), 1);
        events.tell(&"somebody");
        assert_eq!(&*first.next().await.unwrap(), "\"somebody\"");
        drop(first);
        assert_eq!(*readers.borrow(), 0);
    }
}
