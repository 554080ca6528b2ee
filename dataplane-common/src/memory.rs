//! The tables held in memory: decides on the host what the programs would decide in the kernel. Feature `memory`, which
//! the kernel programs are built without: this module alone allocates.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::cell::{Cell, RefCell};

use bytemuck::Zeroable;

use crate::{
    abi::{
        BackendRecord, Config, EndpointRecord, FanRecord, FlowKey, FlowRecord, FlowTable, FragmentKey,
        LiveFlow, ServiceWord, VipKey,
    },
    ct::{Draft, Flows, Tuple},
    decide::Tables,
    lb::Services,
};

/// The tables of one node.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Fans and devices.
    pub config: Config,
    /// Endpoints by overlay address.
    pub endpoints: BTreeMap<u32, EndpointRecord>,
    /// Largest inner packets by remote host; [`Memory::learn`] adds one.
    pub paths: BTreeMap<u32, u32>,
    /// Services, backends and flows.
    pub balancer: Balancer,
    /// What answers flows that connection tracking translates. [`Config::TRANSLATED`] is set by whoever adds the first.
    pub translated: RefCell<BTreeSet<FlowKey>>,
}

/// Services and their flows.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    /// Index and word of each service, by address, port and protocol as in [`VipKey`].
    pub services: BTreeMap<(u32, u16, u8), (u32, ServiceWord)>,
    /// Addresses without a service that share the filter's bit with one that has.
    pub suspects: BTreeSet<u32>,
    /// Backends by row.
    pub backends: Vec<BackendRecord>,
    /// Rings by their first unit.
    pub rings: BTreeMap<u32, Vec<u16>>,
    /// Confirmed connections.
    pub flows: Entries,
    /// Confirmed flows of datagrams.
    pub datagrams: Entries,
    /// Entries whose backend has not.
    pub unconfirmed: Entries,
    /// Keys whose entries are being taken over.
    pub taken_over: RefCell<BTreeSet<FlowKey>>,
    /// What first fragments became.
    pub fragments: RefCell<BTreeMap<FragmentKey, Tuple>>,
    /// The coarse clock.
    pub now: Cell<u32>,
}

impl Balancer {
    /// The table of confirmed flows that a key belongs to.
    pub fn confirmed(&self, key: &FlowKey) -> &Entries {
        match FlowTable::of(FlowTable::confirmed(key.protocol)) {
            FlowTable::Datagrams => &self.datagrams,
            _ => &self.flows,
        }
    }
}

/// A flow table of any size.
#[derive(Clone, Debug, Default)]
pub struct Entries(RefCell<BTreeMap<FlowKey, &'static LiveFlow>>);

impl Entries {
    /// An entry. It stays readable when the table changes, as an element of a kernel's map does until the program ends:
    /// entries are never freed.
    pub fn get(&self, key: &FlowKey) -> Option<&'static LiveFlow> {
        self.0.borrow().get(key).copied()
    }

    /// Sets an entry.
    pub fn insert(&self, key: FlowKey, record: &FlowRecord) {
        self.0.borrow_mut().insert(key, Box::leak(Box::new(LiveFlow::new(record))));
    }

    fn enter(&self, key: FlowKey, record: &FlowRecord, replaces: bool) -> bool {
        let is_free = replaces || self.get(&key).is_none();
        if is_free {
            self.insert(key, record);
        }
        is_free
    }

    /// Removes an entry.
    pub fn remove(&self, key: &FlowKey) {
        self.0.borrow_mut().remove(key);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Memory {
    /// A node with these fans, as many as have a slot, and these endpoints, that has learnt no path.
    pub fn new(fans: &[FanRecord], endpoints: &[EndpointRecord]) -> Self {
        let mut config = Config::zeroed();
        for fan in &mut config.fans {
            (fan.overlay, fan.overlay_mask) = FanRecord::UNUSED;
        }
        for (slot, (record, fan)) in config.fans.iter_mut().zip(fans).enumerate() {
            *record = fan.at(slot);
            config.fan_slots += 1;
        }
        config.smallest_path_mtu = u32::MAX;
        let endpoints = endpoints.iter().map(|record| (record.address, *record)).collect();
        Self {
            config,
            endpoints,
            paths: BTreeMap::new(),
            balancer: Balancer::default(),
            translated: RefCell::default(),
        }
    }

    /// Remembers what [`Verdict::LearnPathMtu`](crate::decide::Verdict::LearnPathMtu) says.
    pub fn learn(&mut self, host: u32, mtu: u32) {
        self.paths.insert(host, mtu);
        self.config.smallest_path_mtu = self.config.smallest_path_mtu.min(mtu);
    }
}

impl Tables for Memory {
    fn may_refuse(&self, _: u32) -> bool {
        true
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn endpoint(&self, address: u32) -> Option<&EndpointRecord> {
        self.endpoints.get(&address)
    }

    fn path_mtu(&self, host: u32) -> Option<u32> {
        self.paths.get(&host).copied()
    }

    fn may_be_translated(&self, _: u32, _: u16, _: u8) -> bool {
        true
    }

    fn is_translated(&self, key: &FlowKey) -> bool {
        self.translated.borrow().contains(key)
    }

    fn note_translated(&self, key: &FlowKey) {
        self.translated.borrow_mut().insert(*key);
    }
}

impl Services for Memory {
    fn may_be_vip(&self, address: u32) -> bool {
        self.balancer.suspects.contains(&address) || self.is_vip(address)
    }

    fn is_vip(&self, address: u32) -> bool {
        self.balancer.services.keys().any(|&(vip, ..)| vip == address)
    }

    fn may_be_backend(&self, address: u32, port: u16, _: u8) -> bool {
        let serves = |port_served| port_served == 0 || port_served == port;
        self.balancer.backends.iter().any(|backend| backend.address == address && serves(backend.port))
    }

    fn service(&self, key: &VipKey) -> Option<(u32, ServiceWord)> {
        self.balancer.services.get(&(key.address, key.port, key.protocol)).copied()
    }

    fn ring_slot(&self, word: ServiceWord, slot: u32) -> Option<u32> {
        self.balancer.rings.get(&word.ring)?.get(slot as usize).map(|&place| u32::from(place))
    }

    fn backend(&self, row: u32) -> Option<&BackendRecord> {
        self.balancer.backends.get(row as usize)
    }

    fn random(&self) -> u32 {
        4
    }
}

impl Flows for Memory {
    fn flow(&self, key: &FlowKey) -> Option<&LiveFlow> {
        self.balancer.confirmed(key).get(key)
    }

    fn unconfirmed(&self, key: &FlowKey) -> Option<&LiveFlow> {
        self.balancer.unconfirmed.get(key)
    }

    fn enter_flow(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool {
        self.balancer.confirmed(key).enter(*key, &entry.record(), replaces)
    }

    fn enter_unconfirmed(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool {
        self.balancer.unconfirmed.enter(*key, &entry.record(), replaces)
    }

    fn take_over(&self, key: &FlowKey, does: impl FnOnce() -> bool) -> bool {
        if !self.balancer.taken_over.borrow_mut().insert(*key) {
            return false;
        }
        let done = does();
        self.balancer.taken_over.borrow_mut().remove(key);
        done
    }

    fn forget(&self, key: &FlowKey) {
        self.balancer.confirmed(key).remove(key);
        self.balancer.unconfirmed.remove(key);
    }

    fn fragment(&self, key: &FragmentKey) -> Tuple {
        self.balancer.fragments.borrow().get(key).copied().unwrap_or(Tuple::KEPT)
    }

    fn remember_fragment(&self, key: &FragmentKey, addresses: &Tuple) {
        self.balancer.fragments.borrow_mut().insert(*key, *addresses);
    }

    fn snat_ports(&self) -> (u16, u16) {
        self.config.snat_ports()
    }

    fn now(&self) -> u32 {
        self.balancer.now.get()
    }

    fn draft(&self, _: Draft) -> Option<&LiveFlow> {
        Some(Box::leak(Box::new(LiveFlow::new(&FlowRecord::zeroed()))))
    }

    fn announce(&self, _: &FlowKey, _: &LiveFlow) {}
}
