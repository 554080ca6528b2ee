//! Services in the kernel: what it holds, read back; and single changes.
//!
//! The pinned maps are the memory: a [`Writer`] learns from them what stands, which rows and extents are free, and
//! touches nothing that is right. A change becomes visible by one store, after everything that it leads to is
//! written; what a program run under way may still read is given out again only after a grace period
//! ([`Writer::settle`]), and a backend's row only when no flow remembers it either ([`Writer::sweep`]).

mod batches;
mod bits;
mod count;
mod elements;
mod ended;
mod filters;
mod find;
mod prepare;
mod read;
mod records;
mod rings;
mod rows;
mod spread;
mod sweep;
mod walk;
mod writer;

use std::{collections::HashMap, net::SocketAddrV4, os::fd::AsFd as _, sync::Arc};

use aya::maps::MapData;
use control::service::{Backend, Vip};
use dataplane_common::abi::{
    BACKEND_FILTER_BITS, BackendRecord, FlowKey, FlowRecord, MAX_BACKENDS, MAX_SERVICES, ServiceRecord,
    VIP_FILTER_BITS,
};

pub use self::{
    ended::{Ended, Gone},
    find::Candidate,
    walk::{FlowCount, FlowWalk},
    writer::Writer,
};
use self::{records::Records, rings::Rings};
use super::{
    error::{Context as _, Error, Result},
    flow_accounting::FlowAccounting,
    flows::{FlowRoom, FlowTable, FlowTables},
    object::duplicate,
    sys::Mapping,
};

/// Gives the ring of usable backends: for each slot the backend's place; none for fewer than two.
pub type MakeRing = fn(&[Backend]) -> Vec<u16>;

/// The maps of services.
#[derive(Clone, Debug)]
pub struct ServiceMap {
    maps: Arc<Maps>,
}

#[derive(Debug)]
struct Maps {
    records: Records,
    backends: Mapping,
    vip_filter: Mapping,
    backend_filter: Mapping,
    rings: MapData,
    flows: FlowTables,
}

impl ServiceMap {
    /// Opens each map by `source`.
    pub(super) fn new(source: impl Fn(&str) -> Result<MapData>) -> Result<Self> {
        let mapped = |name: &str, len: usize| {
            let map = source(name)?;
            Mapping::new(map.fd().as_fd(), len).during(|| format!("mapping map {name}"))
        };
        let service = mapped("service", MAX_SERVICES as usize * size_of::<ServiceRecord>())?;
        let maps = Maps {
            records: Records::new(source("services")?, service)?,
            backends: mapped("backends", MAX_BACKENDS as usize * size_of::<BackendRecord>())?,
            vip_filter: mapped("vip_filter", VIP_FILTER_BITS as usize / 8)?,
            backend_filter: mapped("backend_filter", BACKEND_FILTER_BITS as usize / 8)?,
            rings: source("rings")?,
            flows: flow_tables(&source)?,
        };
        Ok(Self { maps: Arc::new(maps) })
    }

    /// The VIPs that packets find.
    pub fn vips(&self) -> Result<Vec<Vip>> {
        Ok(self.maps.records.list()?.into_iter().map(|(vip, _)| vip).collect())
    }

    /// Reads everything back; the one writer at a time.
    pub fn writer(&self, make_ring: MakeRing) -> Result<Writer> {
        Writer::open(Arc::clone(&self.maps), make_ring)
    }

    /// The VIP that an index belongs to, or belonged to last.
    pub fn vip_of(&self, index: u32) -> Option<Vip> {
        records::is_index(index).then(|| records::vip_of(&self.maps.records.key(index))).flatten()
    }

    /// The flow that packets with these addresses and ports belong to, if there is one.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<FlowRecord>> {
        self.maps.flows.find(key)
    }

    /// How many established flows each backend of each service has.
    pub fn count_flows(&self) -> Result<HashMap<(Vip, SocketAddrV4), u64>> {
        count::flows(&self.maps)
    }

    /// How many entries the flow tables have room for.
    pub fn flow_room(&self) -> Result<FlowRoom> {
        self.maps.flows.room()
    }

    /// Visits every entry of a flow table.
    pub fn each_flow(&self, table: FlowTable, visit: impl FnMut(&FlowKey, &FlowRecord)) -> Result<()> {
        self.maps.flows.each_of(table, visit)
    }

    /// A walk over the flow tables.
    pub fn walk(&self) -> FlowWalk {
        FlowWalk::new(Arc::clone(&self.maps))
    }

    /// Flows whose backend is gone.
    pub fn ended(&self) -> Ended {
        Ended::new(Arc::clone(&self.maps))
    }

    /// How many connections their table holds.
    pub fn flow_capacity(&self) -> Result<u32> {
        self.maps.flows.capacity(FlowTable::Flows)
    }

    /// How many flows of datagrams theirs holds.
    pub fn datagram_capacity(&self) -> Result<u32> {
        self.maps.flows.capacity(FlowTable::Datagrams)
    }

    /// Bytes of kernel memory that the segments of rings take.
    pub(super) fn segment_memory(&self) -> Result<u64> {
        let outer = duplicate(&self.maps.rings, "rings")?;
        Ok(Rings::open(outer)?.memory())
    }
}

fn flow_tables(source: impl Fn(&str) -> Result<MapData>) -> Result<FlowTables> {
    let [flows, datagrams, unconfirmed] = FlowTable::ALL.map(|table| source(table.name()));
    let accounting = FlowAccounting::new(source("flow_books")?, &source("watch")?)?;
    Ok(FlowTables::new([flows?, datagrams?, unconfirmed?], accounting))
}

impl Maps {
    fn rings(&self) -> Result<Rings> {
        Rings::open(duplicate(&self.rings, "rings")?)
    }
}

/// An operation on what is not there.
fn missing(vip: Vip) -> Error {
    Error::NoService(vip)
}
