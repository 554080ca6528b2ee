//! Maps `endpoints` and `near`: overlay address → where the endpoint lives.
//!
//! `near` is a copy for the programs' sake. It leaves out rather than lies: a change clears the copy first and
//! renews it last, so that a process that dies in between leaves a slower table, not a wrong one.

use std::{
    net::Ipv4Addr,
    os::fd::AsFd as _,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use aya::maps::{HashMap, Map, MapData, MapError};
use dataplane_common::abi::{EndpointRecord, NEAR_SLOTS};

use super::{
    error::{Context as _, Error, Result},
    sys::Mapping,
};

const NAME: &str = "endpoints";

type Bytes = [u8; size_of::<EndpointRecord>()];

/// The endpoints of this host as the programs see them.
#[derive(Debug)]
pub struct EndpointMap {
    map: Mutex<HashMap<MapData, [u8; 4], Bytes>>,
    near: Near,
}

impl EndpointMap {
    pub(super) fn new(data: MapData, near: &MapData) -> Result<Self> {
        let map = Map::from_map_data(data).and_then(HashMap::try_from).map_err(Error::map(NAME))?;
        Ok(Self { map: Mutex::new(map), near: Near::new(near)? })
    }

    /// All endpoints, in order of their address.
    pub fn list(&self) -> Result<Vec<(Ipv4Addr, EndpointRecord)>> {
        let map = self.lock();
        let mut endpoints = Vec::new();
        for entry in map.iter() {
            let (address, record) = entry.map_err(Error::map(NAME))?;
            endpoints.push((Ipv4Addr::from(address), bytemuck::pod_read_unaligned(&record)));
        }
        endpoints.sort_unstable_by_key(|&(address, _)| address);
        // A walk during which entries go starts anew and may meet others twice.
        endpoints.dedup_by_key(|&mut (address, _)| address);
        Ok(endpoints)
    }

    /// The endpoint of an address.
    pub fn get(&self, address: Ipv4Addr) -> Result<Option<EndpointRecord>> {
        match self.lock().get(&address.octets(), 0) {
            Ok(record) => Ok(Some(bytemuck::pod_read_unaligned(&record))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::map(NAME)(error)),
        }
    }

    /// Sets the endpoint of the record's address.
    pub fn insert(&self, record: EndpointRecord) -> Result<()> {
        let address = Ipv4Addr::from(record.address);
        let bytes: Bytes = bytemuck::cast(record);
        let mut map = self.lock();
        self.near.clear(address);
        map.insert(address.octets(), bytes, 0).map_err(Error::map(NAME))?;
        self.near.set(record);
        Ok(())
    }

    /// Removes an endpoint; one that is not there is fine.
    pub fn remove(&self, address: Ipv4Addr) -> Result<()> {
        let mut map = self.lock();
        self.near.clear(address);
        match map.remove(&address.octets()) {
            Err(error) if !is_missing(&error) => Err(Error::map(NAME)(error)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, [u8; 4], Bytes>> {
        // The map is the kernel's: a panic elsewhere cannot have left it half-changed.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs' copy.
#[derive(Debug)]
struct Near {
    mapping: Mapping,
}

impl Near {
    fn new(map: &MapData) -> Result<Self> {
        let len = NEAR_SLOTS as usize * size_of::<EndpointRecord>();
        let mapping =
            Mapping::new(map.fd().as_fd(), len).during(|| "mapping the table of endpoints".to_owned())?;
        Ok(Self { mapping })
    }

    /// Copies an endpoint, unless another one has its slot.
    fn set(&self, endpoint: EndpointRecord) {
        let [first, second]: [u64; 2] = bytemuck::cast(endpoint);
        let at = Self::offset(endpoint.address);
        if self.mapping.u64(at).load(Ordering::Acquire) != 0 {
            return;
        }
        self.mapping.u64(at + size_of::<u64>()).store(second, Ordering::Relaxed);
        self.mapping.u64(at).store(first, Ordering::Release);
    }

    /// Frees the slot of an address, if it is that address's.
    fn clear(&self, address: Ipv4Addr) {
        let at = Self::offset(address.to_bits());
        if self.mapping.u32(at).load(Ordering::Acquire) == address.to_bits() {
            self.mapping.u64(at).store(0, Ordering::Release);
        }
    }

    fn offset(address: u32) -> usize {
        EndpointRecord::near_slot(address) as usize * size_of::<EndpointRecord>()
    }
}

/// The kernel's answer for a key that is not there.
pub(super) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
