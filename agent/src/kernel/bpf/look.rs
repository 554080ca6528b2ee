//! The tables in the kernel as a decision on the host reads them, element by element. What it would enter is noted and
//! not written.

use std::{
    cell::{OnceCell, RefCell},
    net::Ipv4Addr,
};

use bytemuck::Zeroable as _;
use dataplane_common::{
    abi::{
        BackendRecord, Config, EndpointRecord, FlowKey, FlowRecord, FragmentKey, LiveFlow, ServiceWord,
        VipKey,
    },
    ct::{Draft, Flows, Tuple},
    decide::Tables,
    lb::Services,
};

use super::{
    Datapath,
    error::{Error, Result},
    flows::{FlowTable, coarse_now},
};

/// One decision's view of the tables.
pub struct Look<'d> {
    datapath: &'d Datapath,
    config: Config,
    now: u32,
    random: u32,
    endpoints: Shelf<EndpointRecord>,
    backends: Shelf<BackendRecord>,
    flows: Shelf<LiveFlow>,
    forgotten: RefCell<Vec<FlowKey>>,
    failure: OnceCell<Error>,
}

impl<'d> Look<'d> {
    pub(super) fn new(datapath: &'d Datapath) -> Result<Self> {
        let now = coarse_now()?;
        Ok(Self {
            datapath,
            config: datapath.config().snapshot(),
            now,
            // Of no importance but that it differs from one time to the next.
            random: dataplane_common::abi::mix(now),
            endpoints: Shelf::default(),
            backends: Shelf::default(),
            flows: Shelf::default(),
            forgotten: RefCell::default(),
            failure: OnceCell::new(),
        })
    }

    /// Ends the look: what could not be read makes the decision worthless.
    pub fn end(self) -> Result<()> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }

    /// What was read; of what could not be, the first is remembered.
    fn read<T>(&self, outcome: Result<Option<T>>) -> Option<T> {
        outcome.unwrap_or_else(|error| {
            self.failure.get_or_init(|| error);
            None
        })
    }

    fn entry(&self, table: FlowTable, key: &FlowKey) -> Option<&LiveFlow> {
        let record = self.read(self.datapath.services().entry(table, key))?;
        Some(self.flows.keep(LiveFlow::new(&record)))
    }
}

impl Tables for Look<'_> {
    fn may_refuse(&self, _: u32) -> bool {
        true
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn endpoint(&self, address: u32) -> Option<&EndpointRecord> {
        let found = self.datapath.endpoints().get(Ipv4Addr::from_bits(address));
        self.read(found).map(|record| self.endpoints.keep(record))
    }

    fn path_mtu(&self, host: u32) -> Option<u32> {
        self.read(self.datapath.paths().get(Ipv4Addr::from_bits(host))).map(|path| path.mtu)
    }

    fn may_be_translated(&self, _: u32, _: u16, _: u8) -> bool {
        true
    }

    fn is_translated(&self, key: &FlowKey) -> bool {
        self.read(self.datapath.translated().holds(key, self.now).map(Some)).unwrap_or_default()
    }

    fn note_translated(&self, _: &FlowKey) {}
}

impl Services for Look<'_> {
    fn may_be_vip(&self, address: u32) -> bool {
        self.datapath.services().may_be_vip(address)
    }

    fn is_vip(&self, address: u32) -> bool {
        self.read(self.datapath.services().is_vip(address).map(Some)).unwrap_or_default()
    }

    fn may_be_backend(&self, address: u32, port: u16, protocol: u8) -> bool {
        self.datapath.services().may_be_backend(address, port, protocol)
    }

    fn service(&self, key: &VipKey) -> Option<(u32, ServiceWord)> {
        self.read(self.datapath.services().service(key))
    }

    fn ring_slot(&self, word: ServiceWord, slot: u32) -> Option<u32> {
        let ring = self.read(self.datapath.services().ring(word).map(Some))?;
        ring.get(slot as usize).map(|&place| place.into())
    }

    fn backend(&self, row: u32) -> Option<&BackendRecord> {
        self.datapath.services().row(row).map(|record| self.backends.keep(record))
    }

    fn random(&self) -> u32 {
        self.random
    }
}

impl Flows for Look<'_> {
    fn flow(&self, key: &FlowKey) -> Option<&LiveFlow> {
        if self.forgotten.borrow().contains(key) {
            return None;
        }
        self.entry(FlowTable::of(FlowTable::confirmed(key.protocol)), key)
    }

    fn unconfirmed(&self, key: &FlowKey) -> Option<&LiveFlow> {
        if self.forgotten.borrow().contains(key) {
            return None;
        }
        self.entry(FlowTable::Unconfirmed, key)
    }

    fn enter_flow(&self, _: &FlowKey, _: &LiveFlow, _: bool) -> bool {
        true
    }

    fn enter_unconfirmed(&self, _: &FlowKey, _: &LiveFlow, _: bool) -> bool {
        true
    }

    fn take_over(&self, _: &FlowKey, does: impl FnOnce() -> bool) -> bool {
        does()
    }

    fn forget(&self, key: &FlowKey) {
        self.forgotten.borrow_mut().push(*key);
    }

    fn fragment(&self, _: &FragmentKey) -> Tuple {
        // Whole packets are asked about.
        Tuple::KEPT
    }

    fn remember_fragment(&self, _: &FragmentKey, _: &Tuple) {}

    fn snat_ports(&self) -> (u16, u16) {
        self.config.snat_ports()
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn draft(&self, _: Draft) -> Option<&LiveFlow> {
        Some(self.flows.keep(LiveFlow::new(&FlowRecord::zeroed())))
    }

    fn announce(&self, _: &FlowKey, _: &LiveFlow) {}
}

/// Values that stay where they are put for as long as the shelf: a decision holds on to what it was given.
struct Shelf<T>(OnceCell<Box<(T, Shelf<T>)>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(OnceCell::new())
    }
}

impl<T> Shelf<T> {
    fn keep(&self, value: T) -> &T {
        let mut place = self;
        while let Some(taken) = place.0.get() {
            place = &taken.1;
        }
        &place.0.get_or_init(|| Box::new((value, Self::default()))).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_keeps_every_value_where_it_is() {
        let shelf = Shelf::default();
        let kept: Vec<&u32> = (0..5).map(|number| shelf.keep(number)).collect();
        assert_eq!(kept, [&0, &1, &2, &3, &4]);
        assert!(!std::ptr::eq(kept[0], kept[1]));
    }
}
