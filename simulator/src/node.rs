//! What a simulated world runs.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use control::cluster::{
    Moment,
    identity::{Identity, NodeName, PublicKey},
    keyring::Keyring,
    membership::{Membership, Notice, Output, Settings, Tuning},
};

use crate::disk::Disk;

/// What a node asks its world to do.
#[derive(Debug)]
pub enum Action<E> {
    Send {
        to: SocketAddrV4,
        datagram: Vec<u8>,
    },
    /// A request over a stream; its answer comes to [`Node::answered`].
    Exchange {
        to: SocketAddrV4,
        request: Vec<u8>,
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
    fn answer(&mut self, at: Moment, request: &[u8]) -> Option<Vec<u8>>;
    fn answered(&mut self, at: Moment, from: SocketAddrV4, answer: Option<&[u8]>);
    /// What is to be done since the last call; what has to last is written to the disk.
    fn take_actions(&mut self, disk: &mut Disk) -> Vec<Action<Self::Event>>;
}

/// A node that runs membership alone.
pub struct Member {
    pub core: Membership,
}

/// What members are told.
#[derive(Clone)]
pub struct MemberSettings {
    /// The text of the key file; none: no keys.
    pub keys: Option<String>,
    pub seeds: Vec<SocketAddrV4>,
    pub tuning: Tuning,
}

/// A node's name, of its address.
pub fn name(address: SocketAddrV4) -> NodeName {
    let number = u32::from(*address.ip()) & 0x00ff_ffff;
    NodeName::new(&format!("node-{number}")).expect("a host name label")
}

const GENERATION: &str = "generation";

fn stored_generation(disk: &Disk) -> u64 {
    let bytes = disk.read(GENERATION).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

impl Node for Member {
    type Settings = MemberSettings;
    type Event = Notice;

    fn start(start: Start<'_, MemberSettings>) -> Self {
        let Start { address, settings, disk, wall, seed } = start;
        let generation = (wall / 1_000).max(stored_generation(disk) + 1);
        disk.write(GENERATION, generation.to_le_bytes().to_vec());
        disk.sync();
        let mut key = [0; 32];
        key[..4].copy_from_slice(&address.ip().octets());
        let identity = Identity::new(name(address), address, generation, PublicKey(key));
        let keyring = settings.keys.as_deref().map(|text| Keyring::parse(text).expect("keys"));
        let settings = Settings {
            cluster: "simulated".to_owned(),
            keyring,
            seeds: settings.seeds.clone(),
            tuning: settings.tuning.clone(),
        };
        Self { core: Membership::new(identity, settings, seed) }
    }

    fn datagram(&mut self, at: Moment, source: SocketAddr, datagram: &[u8]) {
        self.core.datagram(at, source, datagram);
    }

    fn tick(&mut self, at: Moment) {
        self.core.tick(at);
    }

    fn deadline(&self) -> Duration {
        self.core.deadline()
    }

    fn answer(&mut self, at: Moment, request: &[u8]) -> Option<Vec<u8>> {
        self.core.answer(at, request)
    }

    fn answered(&mut self, at: Moment, from: SocketAddrV4, answer: Option<&[u8]>) {
        self.core.answered(at, from, answer);
    }

    fn take_actions(&mut self, disk: &mut Disk) -> Vec<Action<Notice>> {
        let outputs = self.core.take_outputs().into_iter();
        let actions = outputs.filter_map(|output| match output {
            Output::Send { to, datagram } => Some(Action::Send { to, datagram }),
            Output::Exchange { to, request } => Some(Action::Exchange { to, request }),
            Output::Notice(notice) => {
                if let Notice::Renewed(identity) = &notice {
                    disk.write(GENERATION, identity.generation().to_le_bytes().to_vec());
                }
                Some(Action::Event(notice))
            }
            // No other protocol runs here.
            Output::Payload { .. } => None,
        });
        actions.collect()
    }
}
