//! What the kernel holds, for all that tell of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use control::{
    desired::Desired,
    service::{Down, Vip},
};
use dataplane_common::abi::FanRecord;

use crate::{
    kernel::bpf::{FlowCount, ServiceMap},
    node::taken::Taken,
};

/// What a reason to be degraded is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// What the kernel tells of its tables.
    Kernel,
    /// What the kernel programs tell.
    Programs,
    /// The lock that commands hold.
    Lock,
    /// Fans.
    Fans,
    /// Foreign packet filters.
    Forward,
    /// Endpoints, ports, path routes.
    Endpoints,
    /// Services and their routes.
    Services,
    /// Routes in tables of other speakers.
    Tables,
}

/// What packets really find. A value of one moment: clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// What the kernel was brought to last.
    pub(crate) desired: Arc<Desired>,
    /// How often everything was reconciled.
    pub(crate) passes: u64,
    /// The published fans.
    pub(crate) fans: Arc<[FanRecord]>,
    /// Addresses that no VIP may have.
    pub(crate) taken: Arc<Taken>,
    /// VIPs that the kernel does not hold as they are wanted.
    pub(crate) failed: Arc<HashSet<Vip>>,
    /// Endpoints of this node that are no more.
    pub(crate) absent: Arc<BTreeMap<Ipv4Addr, Down>>,
    /// Addresses of this node's endpoints.
    pub(crate) endpoints: Arc<BTreeSet<Ipv4Addr>>,
    /// Addresses on `lo`, of those that announcements want there.
    pub(crate) loopback: Arc<BTreeSet<IpAddr>>,
    /// What the kernel holds of services; `None` while no fan is up.
    pub(crate) services: Option<ServiceMap>,
    /// What the flow tables hold.
    pub(crate) flow_count: Option<FlowCount>,
    /// What is not as it ought to be.
    pub(crate) reasons: Arc<BTreeMap<Topic, Vec<String>>>,
}

impl Applied {
    /// Before anything was done: none of the services is there.
    pub(super) fn before(desired: Arc<Desired>, absent: BTreeMap<Ipv4Addr, Down>) -> Self {
        let failed = desired.entries().map(|entry| entry.wanted.vip).collect();
        Self { failed: Arc::new(failed), absent: Arc::new(absent), desired, ..Self::default() }
    }

    /// Replaces the reasons of a topic.
    pub(super) fn set(&mut self, topic: Topic, reasons: Vec<String>) {
        if self.reasons.get(&topic).map_or(&[][..], Vec::as_slice) != reasons.as_slice() {
            Arc::make_mut(&mut self.reasons).insert(topic, reasons);
        }
    }

    /// Whether commands hold the lock for longer than they take.
    pub(crate) fn is_held_up(&self) -> bool {
        self.reasons.get(&Topic::Lock).is_some_and(|reasons| !reasons.is_empty())
    }
}
