//! Two replicas give each other what they lack.
//!
//! One begins with the digest of everything, 16 bytes; equal ones stop there. Else the digests of the branches and leaves
//! that differ show which versions to tell, and each asks for what it lacks, in parts of a bounded size. An exchange that
//! is broken off loses nothing: parts of a log that have come are kept, and the next one goes on from there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Arrival, Effects, Logs, MessageError, Name, Refusal, Segment, Version, Want,
    tree::{self, Digest, FAN, LEAVES},
};

/// Bytes of a message at most.
pub const MAX_MESSAGE: usize = 2 << 20;
/// Bytes of parts in a message, about: a record more may be in it.
const ROOM: usize = 256 << 10;
/// How many parts of an exchange may continue something else than what is here.
const MAX_GAPS: u32 = 64;

/// What replicas say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The digest of everything: begins an exchange.
    Digest(Digest),
    /// The digests of the branches: the sender has something else.
    Branches(Vec<Digest>),
    /// Branches that differ, each with the digests of its leaves.
    Leaves(Vec<(u8, Vec<Digest>)>),
    /// The versions of the logs in some leaves.
    Versions {
        /// Which leaves.
        leaves: Vec<u8>,
        /// Versions by origin.
        origins: Vec<(Name, Vec<Version>)>,
        /// Whether the receiver has told its own.
        is_answer: bool,
    },
    /// Logs that the sender lacks.
    Wants(Vec<Want>),
    /// Parts of logs.
    Parts {
        /// The parts.
        segments: Vec<Segment>,
        /// What was asked for and found no room: to be asked for again.
        rest: Vec<Want>,
    },
    /// The sender lacks nothing of what was told; or it does, because it has refused something. One that was forgotten meanwhile
    /// has begun another log, of which the receiver may know nothing yet.
    Done {
        /// Whether it has everything, and has told of everything.
        has_all: bool,
    },
}

impl Message {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no message, or larger than [`MAX_MESSAGE`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let error = |_unreadable| MessageError(bytes.len());
        if bytes.len() > MAX_MESSAGE {
            return Err(MessageError(bytes.len()));
        }
        postcard::from_bytes(bytes).map_err(error)
    }
}

/// What an exchange's step did.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// To be stored before the messages are sent.
    pub effects: Effects,
    /// For the other side.
    pub messages: Vec<Message>,
    /// Segments that were refused.
    pub refusals: Vec<Refusal>,
}

/// One side of an exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// [`Logs::steps`] when it began: the other side has all of that once it is over.
    pub began: u64,
    /// Something was refused.
    has_refused: bool,
    /// Parts that continued something else than what is here.
    gaps: u32,
    /// Digests differ.
    has_compared: bool,
    /// This side lacks nothing.
    is_done: bool,
    /// Whether the other side lacks nothing; `None`: it has not said yet.
    other: Option<bool>,
}

impl Exchange {
    /// The side that is spoken to; [`Self::begin`] makes the other one.
    pub fn answering(logs: &Logs) -> Self {
        let began = logs.steps();
        Self { began, has_refused: false, gaps: 0, has_compared: false, is_done: false, other: None }
    }

    /// Begins an exchange with its first message.
    pub fn begin(logs: &mut Logs) -> (Self, Message) {
        (Self::answering(logs), Message::Digest(logs.digest()))
    }

    /// Whether both sides have nothing left to say.
    pub fn is_over(&self) -> bool {
        self.is_done && self.other.is_some()
    }

    /// Whether each side has now what the other one had when it began.
    pub fn is_complete(&self) -> bool {
        self.is_over() && !self.has_refused && self.other == Some(true)
    }

    /// Takes a message; `reference_ms` is the median of the members' clocks in milliseconds since 1970.
    pub fn answer(&mut self, logs: &mut Logs, message: Message, reference_ms: u64) -> Step {
        let mut step = Step::default();
        self.has_compared |= !matches!(message, Message::Digest(_) | Message::Done { .. });
        match message {
            Message::Digest(digest) if digest == logs.digest() => {
                self.other = Some(true);
                self.end(logs, &mut step);
            }
            Message::Digest(_) => step.messages.push(Message::Branches(tree::branches(&logs.leaves()))),
            Message::Branches(theirs) => {
                let leaves = differing_branches(&logs.leaves(), &theirs);
                step.messages.push(Message::Leaves(leaves));
            }
            Message::Leaves(theirs) => {
                let leaves = differing_leaves(&logs.leaves(), &theirs);
                step.messages.push(versions(logs, leaves, false));
            }
            Message::Versions { leaves, origins, is_answer } => {
                if !is_answer {
                    step.messages.push(versions(logs, leaves, true));
                }
                let wants = origins.iter().flat_map(|(origin, theirs)| logs.wants(origin, theirs)).collect();
                self.ask(logs, wants, &mut step);
            }
            Message::Wants(wants) => step.messages.push(parts(logs, wants)),
            Message::Parts { segments, rest } => {
                self.take(logs, segments, rest, &mut step, reference_ms);
            }
            Message::Done { has_all } => {
                self.other = Some(has_all);
                // The answer to a digest: both are equal.
                if !self.has_compared && !self.is_done {
                    self.end(logs, &mut step);
                }
            }
        }
        step
    }

    fn end(&mut self, logs: &Logs, step: &mut Step) {
        self.is_done = true;
        let has_all = !self.has_refused && self.began >= logs.begun_anew;
        step.messages.push(Message::Done { has_all });
    }

    fn ask(&mut self, logs: &Logs, wants: Vec<Want>, step: &mut Step) {
        if wants.is_empty() { self.end(logs, step) } else { step.messages.push(Message::Wants(wants)) }
    }

    fn take(
        &mut self,
        logs: &mut Logs,
        segments: Vec<Segment>,
        rest: Vec<Want>,
        step: &mut Step,
        reference_ms: u64,
    ) {
        // Nothing but a rest would go round for ever.
        self.has_refused |= segments.is_empty();
        let rest = if segments.is_empty() { Vec::new() } else { rest };
        let mut wants = Vec::new();
        for segment in segments {
            match logs.receive(segment, reference_ms) {
                Ok(Arrival::New(effects)) => step.effects.extend(effects),
                Ok(Arrival::Part(want)) => wants.push(want),
                // What it continues has become another log meanwhile.
                Ok(Arrival::Gap(want)) if self.gaps < MAX_GAPS => {
                    self.gaps += 1;
                    wants.push(want);
                }
                Ok(Arrival::Gap(_)) => self.has_refused = true,
                // Of a forgotten node nobody is to have anything: the sender is yet to hear of that.
                Ok(Arrival::Known) | Err(Refusal::Forgotten(_)) => {}
                Err(refusal) => {
                    self.has_refused = true;
                    step.refusals.push(refusal);
                }
            }
        }
        wants.extend(rest.iter().flat_map(|want| logs.wants(&want.origin, &[want.version])));
        self.ask(logs, wants, step);
    }
}

fn differing_branches(leaves: &[Digest], theirs: &[Digest]) -> Vec<(u8, Vec<Digest>)> {
    let own = tree::branches(leaves);
    let numbered = (0..).zip(own.iter().zip(theirs));
    let differing = numbered.filter(|(_, (own, theirs))| own != theirs);
    differing
        .map(|(number, _): (u8, _)| {
            let first = usize::from(number) * FAN;
            (number, leaves[first..first + FAN].to_vec())
        })
        .collect()
}

fn differing_leaves(leaves: &[Digest], theirs: &[(u8, Vec<Digest>)]) -> Vec<u8> {
    let mut differing = Vec::new();
    for (branch, digests) in theirs.iter().filter(|(branch, _)| usize::from(*branch) < LEAVES / FAN) {
        let first = branch * FAN as u8;
        let numbered = (first..=first + (FAN as u8 - 1)).zip(digests);
        differing.extend(
            numbered.filter(|(leaf, theirs)| leaves[usize::from(*leaf)] != **theirs).map(|(leaf, _)| leaf),
        );
    }
    differing.sort_unstable();
    differing.dedup();
    differing
}

fn versions(logs: &Logs, mut leaves: Vec<u8>, is_answer: bool) -> Message {
    leaves.sort_unstable();
    leaves.dedup();
    let told = leaves.iter().flat_map(|leaf| logs.versions(*leaf));
    let origins = told.map(|(name, versions)| (Arc::clone(name), versions)).collect();
    Message::Versions { leaves, origins, is_answer }
}

/// Parts of the logs that are asked for, as far as there is room.
fn parts(logs: &Logs, wants: Vec<Want>) -> Message {
    let (mut segments, mut room) = (Vec::new(), ROOM);
    let mut wants = wants.into_iter();
    for want in wants.by_ref() {
        let Some(segment) = logs.part(&want, room) else { continue };
        room = room.saturating_sub(segment.wire_size());
        let is_last = segment.is_last();
        segments.push(segment);
        if room == 0 || !is_last {
            break;
        }
    }
    Message::Parts { segments, rest: wants.collect() }
}
