//! What leaves a node after a step, once the step is stored.

use std::collections::VecDeque;

use super::{
    streams::StreamId,
    turn::{Action, Turn},
};
use crate::cluster::log::Name;

/// What one side of a stream says at a time.
pub type Messages = Vec<Vec<u8>>;

/// What a step sends to others of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// A datagram to a member.
    Datagram(Name, Vec<u8>),
    /// A stream to a member, with what is said on it first.
    Open(StreamId, Name, Messages),
}

impl Turn {
    /// Takes out what is said on a stream.
    pub fn take_said(&mut self, stream: StreamId) -> Messages {
        let is_on = |action: &mut Action| matches!(action, Action::Send { stream: on, .. } if *on == stream);
        let messages = self.actions.extract_if(.., is_on);
        let message = |action| if let Action::Send { message, .. } = action { Some(message) } else { None };
        messages.filter_map(message).collect()
    }

    /// Takes out what is sent and no answer on a stream. That a stream is over, its sides see by what they have to say.
    pub fn take_leaving(&mut self) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        while let Some(place) = self.actions.iter().position(|action| matches!(action, Action::Open { .. })) {
            if let Action::Open { stream, to } = self.actions.remove(place) {
                leaving.push(Leaving::Open(stream, to, self.take_said(stream)));
            }
        }
        let datagrams = self.actions.extract_if(.., |action| matches!(action, Action::Datagram { .. }));
        leaving.extend(datagrams.filter_map(|action| match action {
            Action::Datagram { to, bytes } => Some(Leaving::Datagram(to, bytes)),
            _ => None,
        }));
        leaving
    }
}

/// What waits for steps to be stored, in its order.
///
/// Steps are given to a store one after the other, which says up to which one they are stored.
#[derive(Debug)]
pub struct Waiting<T> {
    given: u64,
    stored: u64,
    queue: VecDeque<(u64, T)>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { given: 0, stored: 0, queue: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    /// Another step is given to the store; gives its number.
    pub fn give(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    /// Something waits for all steps that were given.
    pub fn hold(&mut self, what: T) {
        self.queue.push_back((self.given, what));
    }

    /// All steps up to one are stored.
    pub fn stored(&mut self, step: u64) {
        self.stored = self.stored.max(step);
    }

    /// What waits for nothing that is not stored.
    pub fn release(&mut self) -> Option<T> {
        let is_stored = self.queue.front().is_some_and(|(step, _)| *step <= self.stored);
        if is_stored { self.queue.pop_front().map(|(_, what)| what) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_leaves_in_its_order_once_its_step_is_stored() {
        let mut waiting = Waiting::default();
        waiting.hold("nothing before it");
        assert_eq!(waiting.release(), Some("nothing before it"));
        assert_eq!((waiting.give(), waiting.release()), (1, None));
        waiting.hold("first");
        waiting.give();
        waiting.hold("second");
        waiting.stored(1);
        assert_eq!((waiting.release(), waiting.release()), (Some("first"), None));
        waiting.stored(2);
        assert_eq!((waiting.release(), waiting.release()), (Some("second"), None));
    }
}
