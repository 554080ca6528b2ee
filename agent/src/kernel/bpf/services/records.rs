//! Maps `services` and `service`: VIP → index → record.

use std::{
    collections::{HashMap as Counts, HashSet},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use aya::maps::{HashMap, Map, MapData};
use bytemuck::Zeroable as _;
use control::service::{Protocol, Vip};
use dataplane_common::abi::{MAX_SERVICES, ServiceRecord, ServiceWord, VipKey};

use super::super::{
    endpoints::is_missing,
    error::{Context as _, Error, Result},
    sys::{self, Mapping},
};

const NAME: &str = "services";
const RECORD: usize = size_of::<ServiceRecord>();
const KEY: usize = std::mem::offset_of!(ServiceRecord, key);
/// Entries that are read at a time; more than a bucket of the map ever has.
const BATCH: usize = 1024;

type Bytes = [u8; size_of::<VipKey>()];

/// Both maps.
#[derive(Debug)]
pub(super) struct Records {
    index: Mutex<Index>,
    records: Mapping,
}

/// Map `services`. Beside the VIPs it has an entry for each of their addresses ([`VipKey::any`]).
#[derive(Debug)]
struct Index {
    map: HashMap<MapData, Bytes, u32>,
    /// The same map, to be read in batches.
    whole: OwnedFd,
    /// How many VIPs an address has.
    vips: Counts<u32, u32>,
}

impl Records {
    pub(super) fn new(services: MapData, records: Mapping) -> Result<Self> {
        let whole = services.fd().as_fd().try_clone_to_owned().during(|| format!("opening map {NAME}"))?;
        let map = Map::from_map_data(services).and_then(HashMap::try_from).map_err(Error::map(NAME))?;
        Ok(Self { index: Mutex::new(Index { map, whole, vips: Counts::new() }), records })
    }

    /// Every VIP with its index; keys that are no VIP's are left out.
    pub(super) fn list(&self) -> Result<Vec<(Vip, u32)>> {
        let entries = self.lock().entries()?;
        let vips = entries.iter().filter_map(|(key, index)| Some((vip_of(key)?, *index)));
        let mut found: Vec<(Vip, u32)> = vips.collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Where a key leads.
    pub(super) fn find(&self, key: VipKey) -> Result<Option<u32>> {
        match self.lock().map.get(&bytemuck::cast::<VipKey, Bytes>(key), 0) {
            Ok(index) => Ok(Some(index)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::map(NAME)(error)),
        }
    }

    /// Starts from these VIPs, which are all that there are: each address has its entry, and no other has one.
    pub(super) fn recount(&self, keys: impl Iterator<Item = VipKey>) -> Result<()> {
        let mut index = self.lock();
        index.vips.clear();
        for key in keys {
            *index.vips.entry(key.address).or_default() += 1;
        }
        let held = index.entries()?.into_iter().filter(|(key, _)| *key == VipKey::any(key.address));
        let held: HashSet<u32> = held.map(|(key, _)| key.address).collect();
        let missing: Vec<u32> = index.vips.keys().copied().filter(|vip| !held.contains(vip)).collect();
        missing.into_iter().try_for_each(|address| index.set(VipKey::any(address), 0))?;
        let over: Vec<u32> = held.into_iter().filter(|vip| !index.vips.contains_key(vip)).collect();
        over.into_iter().try_for_each(|address| index.clear(VipKey::any(address)))
    }

    /// Makes a VIP lead to a record.
    pub(super) fn insert(&self, key: VipKey, number: u32) -> Result<()> {
        let mut index = self.lock();
        let is_first = !index.vips.contains_key(&key.address);
        if is_first {
            index.set(VipKey::any(key.address), 0)?;
        }
        if let Err(error) = index.set(key, number) {
            if is_first {
                index.clear(VipKey::any(key.address))?;
            }
            return Err(error);
        }
        *index.vips.entry(key.address).or_default() += 1;
        Ok(())
    }

    /// Makes a VIP lead nowhere; one that does already is fine.
    pub(super) fn remove(&self, key: VipKey) -> Result<()> {
        let mut index = self.lock();
        index.clear(key)?;
        match index.vips.get_mut(&key.address) {
            Some(1) => {
                index.vips.remove(&key.address);
                index.clear(VipKey::any(key.address))
            }
            Some(vips) => {
                *vips -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The VIP that a record is for, or was last.
    pub(super) fn key(&self, index: u32) -> VipKey {
        bytemuck::cast(self.records.u64(index as usize * RECORD + KEY).load(Ordering::Acquire))
    }

    /// What a record says.
    pub(super) fn word(&self, index: u32) -> ServiceWord {
        ServiceWord::unpack(self.records.u64(index as usize * RECORD).load(Ordering::Acquire))
    }

    /// Publishes what a record says.
    pub(super) fn set_word(&self, index: u32, word: ServiceWord) {
        self.records.u64(index as usize * RECORD).store(word.pack(), Ordering::Release);
    }

    /// Gives a record to a VIP: nobody finds it yet.
    pub(super) fn set_key(&self, index: u32, key: VipKey) {
        self.records.u64(index as usize * RECORD + KEY).store(bytemuck::cast(key), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // The map is the kernel's: a panic elsewhere cannot have left it half-changed.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// All of them: a call for each would take longer than all else that an agent's start reads.
    fn entries(&self) -> Result<Vec<(VipKey, u32)>> {
        let (mut keys, mut values) = ([VipKey::zeroed(); BATCH], [0; BATCH]);
        let (mut found, mut at) = (Vec::new(), None);
        loop {
            let batch = sys::lookup_batch(self.whole.as_fd(), at, &mut keys, &mut values);
            let (count, next) = batch.during(|| format!("reading map {NAME}"))?;
            found.extend(keys.iter().copied().zip(values).take(count));
            match next {
                Some(_) => at = next,
                None => return Ok(found),
            }
        }
    }

    fn set(&mut self, key: VipKey, value: u32) -> Result<()> {
        self.map.insert(bytemuck::cast::<VipKey, Bytes>(key), value, 0).map_err(Error::map(NAME))
    }

    fn clear(&mut self, key: VipKey) -> Result<()> {
        match self.map.remove(&bytemuck::cast::<VipKey, Bytes>(key)) {
            Err(error) if !is_missing(&error) => Err(Error::map(NAME)(error)),
            _ => Ok(()),
        }
    }
}

/// Whether an index is one of the table.
pub(super) fn is_index(index: u32) -> bool {
    index < MAX_SERVICES
}

/// A VIP as the programs know it.
pub(super) fn key_of(vip: Vip) -> Result<VipKey> {
    let IpAddr::V4(address) = vip.address else { return Err(Error::NotV4(vip.address)) };
    let protocol = vip.protocol.number();
    Ok(VipKey { address: u32::from_ne_bytes(address.octets()), port: vip.port.to_be(), protocol, pad: 0 })
}

/// The VIP of a key, if it is one's.
pub(super) fn vip_of(key: &VipKey) -> Option<Vip> {
    let address = Ipv4Addr::from(key.address.to_ne_bytes()).into();
    Some(Vip { address, port: u16::from_be(key.port), protocol: Protocol::from_number(key.protocol)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_addresses_and_ports_as_on_the_wire() {
        let vip: Vip = "10.96.0.10:80/tcp".parse().unwrap();
        let key = key_of(vip).unwrap();
        assert_eq!(bytemuck::bytes_of(&key), [10, 96, 0, 10, 0, 80, 6, 0]);
        assert_eq!(vip_of(&key), Some(vip));
        assert!(key_of("[fd00::1]:80/tcp".parse().unwrap()).is_err());
    }
}
