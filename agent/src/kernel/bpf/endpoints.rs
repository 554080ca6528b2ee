//! Map `endpoints`: overlay address → where the endpoint lives.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, Map, MapData, MapError};
use dataplane_common::abi::EndpointRecord;

use super::error::{Error, Result};

const NAME: &str = "endpoints";

type Bytes = [u8; size_of::<EndpointRecord>()];

/// The endpoints of this host as the programs see them.
#[derive(Debug)]
pub struct EndpointMap {
    map: Mutex<HashMap<MapData, [u8; 4], Bytes>>,
}

impl EndpointMap {
    pub(super) fn new(data: MapData) -> Result<Self> {
        let map = Map::from_map_data(data).and_then(HashMap::try_from).map_err(Error::map(NAME))?;
        Ok(Self { map: Mutex::new(map) })
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

    /// Sets an endpoint.
    pub fn insert(&self, address: Ipv4Addr, record: EndpointRecord) -> Result<()> {
        let bytes: Bytes = bytemuck::cast(record);
        self.lock().insert(address.octets(), bytes, 0).map_err(Error::map(NAME))
    }

    /// Removes an endpoint; one that is not there is fine.
    pub fn remove(&self, address: Ipv4Addr) -> Result<()> {
        match self.lock().remove(&address.octets()) {
            Err(error) if !is_missing(&error) => Err(Error::map(NAME)(error)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, [u8; 4], Bytes>> {
        // The map is the kernel's: a panic elsewhere cannot have left it half-changed.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
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
