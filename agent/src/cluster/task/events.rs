//! Messages to all members, in the task.

use std::sync::Arc;

use control::cluster::{
    events::{Event, EventError, Step},
    identity::NodeName,
};
use tokio::sync::oneshot;

use super::{Task, shared::Members};

/// Payloads of the core's datagrams: messages to all.
pub(super) const EVENTS: u8 = 2;

impl Task<'_> {
    /// Sends a message to all members.
    pub(super) fn send_event(
        &mut self,
        name: &str,
        payload: &[u8],
        answer: oneshot::Sender<Result<Arc<Event>, EventError>>,
    ) {
        let at = self.moment();
        let sent = self.events.send(name, payload, (at.now, at.wall), &mut Members(&mut self.core));
        let sent = sent.map(|step| self.pass_on(step));
        // The client may have given up.
        if let Some(outcome) = sent.transpose() {
            drop(answer.send(outcome));
        }
    }

    /// Takes what a member says of messages.
    pub(super) fn hear_event(&mut self, from: &NodeName, bytes: &[u8]) {
        let now = self.now();
        let step = self.events.datagram(&from.as_str().into(), bytes, now, &mut Members(&mut self.core));
        self.pass_on(step);
    }

    /// Does what is due.
    pub(super) fn tend_events(&mut self) {
        let step = self.events.tick(self.start.elapsed(), &mut Members(&mut self.core));
        self.pass_on(step);
    }

    /// Sends what a step says to members, and tells this node's readers of a message that is new.
    fn pass_on(&mut self, Step { datagrams, event }: Step) -> Option<Arc<Event>> {
        let at = self.moment();
        for (to, bytes) in datagrams {
            if let Ok(name) = NodeName::new(&to) {
                // It may have gone just now.
                drop(self.core.send_payload(at, &name, EVENTS, &bytes));
            }
        }
        let event = Arc::new(event?);
        // Without readers nobody is told.
        drop(self.inbox.events.send(Arc::clone(&event)));
        Some(event)
    }
}
