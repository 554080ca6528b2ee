//! What a simulated world runs.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use control::cluster::Moment;

use crate::{
    disk::Disk,
    streams::{Kind, Stream},
};

/// What a node asks its world to do.
#[derive(Debug)]
pub enum Action<E> {
    Send {
        to: SocketAddrV4,
        datagram: Vec<u8>,
    },
    /// Opens a stream with what is said first.
    Open {
        /// No other stream of this life has it.
        number: u64,
        to: SocketAddrV4,
        kind: Kind,
        bytes: Vec<u8>,
    },
    /// Says something on a stream, on which it is this node's turn; none: ends it.
    Say {
        stream: Stream,
        bytes: Option<Vec<u8>>,
    },
    /// Something to be observed.
    Event(E),
}

/// Where and how a node starts.
pub struct Start<'a, S> {
    pub address: SocketAddrV4,
    pub settings: &'a S,
    pub disk: &'a mut Disk,
    pub wall: u64,
    pub seed: [u8; 32],
}

/// A process: the cores of an agent without sockets, clock or disk. Times are since its start.
pub trait Node: Sized {
    /// What all nodes are told.
    type Settings;
    /// What is observed.
    type Event;

    fn start(start: Start<'_, Self::Settings>) -> Self;
    fn datagram(&mut self, at: Moment, source: SocketAddr, datagram: &[u8]);
    fn tick(&mut self, at: Moment);
    fn deadline(&self) -> Duration;
    /// The other side of a stream has said something.
    fn said(&mut self, at: Moment, stream: Stream, kind: Kind, bytes: &[u8]);
    /// A stream is over, or could not be opened.
    fn ended(&mut self, at: Moment, stream: Stream);
    /// All steps up to one that were given to the disk are stored.
    fn stored(&mut self, at: Moment, step: u64);
    /// What is to be done since the last call; what is to be stored is given to the disk.
    fn take_actions(&mut self, disk: &mut Disk) -> Vec<Action<Self::Event>>;
}
