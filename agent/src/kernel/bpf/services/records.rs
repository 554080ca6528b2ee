//! Maps `services` and `service`: VIP → index → record.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use aya::maps::{HashMap, Map, MapData};
use dataplane_common::abi::{MAX_SERVICES, ServiceRecord, ServiceWord, VipKey};

use super::super::{
    endpoints::is_missing,
    error::{Error, Result},
    sys::Mapping,
};
use crate::service::{Protocol, Vip};

const NAME: &str = "services";
const RECORD: usize = size_of::<ServiceRecord>();
const KEY: usize = std::mem::offset_of!(ServiceRecord, key);

type Bytes = [u8; size_of::<VipKey>()];

/// Both maps.
#[derive(Debug)]
pub(super) struct Records {
    index: Mutex<HashMap<MapData, Bytes, u32>>,
    records: Mapping,
}

impl Records {
    pub(super) fn new(services: MapData, records: Mapping) -> Result<Self> {
        let index = Map::from_map_data(services).and_then(HashMap::try_from).map_err(Error::map(NAME))?;
        Ok(Self { index: Mutex::new(index), records })
    }

    /// Every VIP with its index; keys that are no VIP's are left out.
    pub(super) fn list(&self) -> Result<Vec<(Vip, u32)>> {
        let index = self.lock();
        let mut found = Vec::new();
        for entry in index.iter() {
            let (key, index) = entry.map_err(Error::map(NAME))?;
            found.extend(vip_of(&bytemuck::cast(key)).map(|vip| (vip, index)));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Where a key leads.
    pub(super) fn find(&self, key: VipKey) -> Result<Option<u32>> {
        match self.lock().get(&bytemuck::cast::<VipKey, Bytes>(key), 0) {
            Ok(index) => Ok(Some(index)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::map(NAME)(error)),
        }
    }

    /// Makes a VIP lead to a record.
    pub(super) fn insert(&self, key: VipKey, index: u32) -> Result<()> {
        self.lock().insert(bytemuck::cast::<VipKey, Bytes>(key), index, 0).map_err(Error::map(NAME))
    }

    /// Makes a VIP lead nowhere; one that does already is fine.
    pub(super) fn remove(&self, key: VipKey) -> Result<()> {
        match self.lock().remove(&bytemuck::cast::<VipKey, Bytes>(key)) {
            Err(error) if !is_missing(&error) => Err(Error::map(NAME)(error)),
            _ => Ok(()),
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

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, Bytes, u32>> {
        // The map is the kernel's: a panic elsewhere cannot have left it half-changed.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
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
