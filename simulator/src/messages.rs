//! Messages to all members.

use control::cluster::{Moment, events::Step, identity::NodeName, members::Members};

use crate::member::{Event, Member};

/// Payloads of membership's datagrams: what is said of messages.
pub(crate) const EVENTS: u8 = 2;

impl Member {
    /// Sends a message to all members.
    pub fn send_event(&mut self, at: Moment, name: &str, payload: &[u8]) {
        let sent = self.events.send(name, payload, (at.now, at.wall), &mut Members(&mut self.core));
        self.pass_on(at, sent.expect("a small message"));
        self.carry_out(at);
    }

    pub(crate) fn hear_event(&mut self, at: Moment, from: &NodeName, bytes: &[u8]) {
        let from = from.as_str().into();
        let step = self.events.datagram(&from, bytes, at.now, &mut Members(&mut self.core));
        self.pass_on(at, step);
    }

    pub(crate) fn tend_events(&mut self, at: Moment) {
        if self.events.deadline() <= at.now {
            let step = self.events.tick(at.now, &mut Members(&mut self.core));
            self.pass_on(at, step);
        }
    }

    fn pass_on(&mut self, at: Moment, Step { datagrams, event }: Step) {
        for (to, bytes) in datagrams {
            if let Ok(name) = NodeName::new(&to) {
                // The member may have gone.
                drop(self.core.send_payload(at, &name, EVENTS, &bytes));
            }
        }
        event.into_iter().for_each(|event| self.tell(Event::Heard(event)));
    }
}
