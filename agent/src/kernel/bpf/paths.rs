//! Map `paths`: remote host → largest inner packet, learnt by the programs from ICMP errors, or that nothing gets there.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use dataplane_common::abi::PathRecord;
use nix::time::{ClockId, clock_gettime};

use super::{
    endpoints::is_missing,
    error::{Context as _, Error, Result},
};

const NAME: &str = "paths";

type Bytes = [u8; size_of::<PathRecord>()];

/// Paths that are smaller than the uplink.
#[derive(Debug)]
pub struct PathMap {
    map: Mutex<HashMap<MapData, [u8; 4], Bytes>>,
}

impl PathMap {
    pub(super) fn new(data: MapData) -> Result<Self> {
        let map = Map::from_map_data(data).and_then(HashMap::try_from).map_err(Error::map(NAME))?;
        Ok(Self { map: Mutex::new(map) })
    }

    /// The paths that still count, by remote host.
    pub fn list(&self) -> Result<Vec<(Ipv4Addr, PathRecord)>> {
        let now = uptime()?.as_nanos() as u64;
        let map = self.lock();
        let mut paths = Vec::new();
        for entry in map.iter() {
            let (host, bytes) = entry.map_err(Error::map(NAME))?;
            let record: PathRecord = bytemuck::pod_read_unaligned(&bytes);
            if record.until > now {
                paths.push((Ipv4Addr::from(host), record));
            }
        }
        paths.sort_unstable_by_key(|&(host, _)| host);
        paths.dedup_by_key(|&mut (host, _)| host);
        Ok(paths)
    }

    /// The path to a remote host, where it still counts.
    pub fn get(&self, host: Ipv4Addr) -> Result<Option<PathRecord>> {
        let now = uptime()?.as_nanos() as u64;
        match self.lock().get(&host.octets(), 0) {
            Ok(bytes) => {
                Ok(Some(bytemuck::pod_read_unaligned(&bytes)).filter(|path: &PathRecord| path.until > now))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::map(NAME)(error)),
        }
    }

    /// Has the programs tell senders for so long that a host does not answer. What was learnt of the path to it is forgotten.
    pub fn set_silent(&self, host: Ipv4Addr, life: Duration) -> Result<()> {
        let until = (uptime()? + life).as_nanos() as u64;
        let record = PathRecord { until, mtu: PathRecord::SILENT, spare: 0 };
        let bytes: Bytes = bytemuck::cast(record);
        self.lock().insert(host.octets(), bytes, 0).map_err(Error::map(NAME))
    }

    /// Forgets a path; one that is not there is fine.
    pub fn remove(&self, host: Ipv4Addr) -> Result<()> {
        match self.lock().remove(&host.octets()) {
            Err(error) if !is_missing(&error) => Err(Error::map(NAME)(error)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, [u8; 4], Bytes>> {
        // The map is the kernel's: a panic elsewhere cannot have left it half-changed.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs' clock.
pub fn uptime() -> Result<Duration> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).during(|| "reading the clock".to_owned())
}
