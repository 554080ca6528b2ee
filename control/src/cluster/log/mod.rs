//! A replicated log of records: one writer an origin, a copy on every node.
//!
//! An *origin* is a node's name with its Ed25519 key. Its log maps keys to values or tombstones. Every start of the node
//! begins an [`Epoch`], whose entries are numbered; a [`Version`] is both. The origin signs a [`Head`] a version: what the
//! log continues ([`Head::ancestors`]) and a digest of all its entries. Whoever holds a log can prove it to anybody.
//!
//! A log *covers* another one of its origin when it continues that one, or is a later version of it. A replica keeps, of
//! each origin, every log that no other one covers: one, unless the origin lost a part of what it had written. Its next
//! version continues all of them, so that nothing is lost while one replica has it. To keep what is not covered is a join
//! of a semilattice: the order in which logs arrive makes no difference.
//!
//! Nothing here waits or sends. What comes out as [`Effects`] is to be durable before anything that was made after it is
//! sent or acknowledged.

mod collect;
mod effects;
mod entry;
mod exchange;
mod head;
mod held;
mod merge;
mod push;
mod receive;
mod replica;
mod segment;
mod single;
mod tree;
mod version;
mod writer;

pub use self::{
    collect::{Collector, Listener, Need},
    effects::{Change, Effects},
    entry::{Bytes, Entry, Item, Key, MAX_KEY, MAX_VALUE},
    exchange::{Exchange, MAX_MESSAGE, Message, Step},
    head::{Head, SignedHead},
    push::DATAGRAM,
    receive::{Arrival, LoadError, Refusal},
    replica::{Limits, Logs},
    segment::{MessageError, Resume, Segment, Want},
    tree::Digest,
    version::{Ancestor, Epoch, MAX_ANCESTORS, Version},
    writer::{Commit, Put, WriteError, Writer},
};

/// A node's name, which names its log too.
pub type Name = std::sync::Arc<str>;

#[cfg(test)]
mod tests;
