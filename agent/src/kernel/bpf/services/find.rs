//! Single elements of the tables, found as the programs find them.

use std::{collections::BTreeMap, net::SocketAddrV4, sync::atomic::Ordering};

use dataplane_common::abi::{
    BackendRecord, FlowKey, FlowRecord, MAX_BACKENDS, ServiceWord, VipKey, backend_bit, vip_bit,
};

use super::{
    super::{flows::FlowTable, sys::Mapping},
    Result, ServiceMap,
    rings::Extent,
    rows,
};

/// A backend that new flows may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Address and port.
    pub socket: SocketAddrV4,
    /// Its slots of the ring.
    pub slots: u32,
}

impl ServiceMap {
    /// Whether there may be a service on an address.
    pub(in crate::kernel::bpf) fn may_be_vip(&self, address: u32) -> bool {
        bit(&self.maps.vip_filter, vip_bit(address))
    }

    /// Whether a service has an address (`u32` as on the wire).
    pub(in crate::kernel::bpf) fn is_vip(&self, address: u32) -> Result<bool> {
        Ok(self.maps.records.find(VipKey::any(address))?.is_some())
    }

    /// Whether there may be a backend.
    pub(in crate::kernel::bpf) fn may_be_backend(&self, address: u32, port: u16, protocol: u8) -> bool {
        let may_be = |port| bit(&self.maps.backend_filter, backend_bit(address, port, protocol));
        may_be(port) || may_be(0)
    }

    /// The service of exactly this key: its index, and where its ring and backends are.
    pub fn service(&self, key: &VipKey) -> Result<Option<(u32, ServiceWord)>> {
        let index = self.maps.records.find(*key)?;
        let own =
            index.filter(|&index| super::records::is_index(index) && self.maps.records.key(index) == *key);
        Ok(own.map(|index| (index, self.maps.records.word(index))))
    }

    /// A service's ring; empty where it has none.
    pub(in crate::kernel::bpf) fn ring(&self, word: ServiceWord) -> Result<Vec<u16>> {
        let Some(extent) = Extent::of(word) else { return Ok(Vec::new()) };
        let mut rings = self.maps.rings()?;
        Ok(if rings.claim(extent) { rings.read(extent) } else { Vec::new() })
    }

    /// The backends that new flows of a service may come to, in order of their address.
    pub fn candidates(&self, word: ServiceWord) -> Result<Vec<Candidate>> {
        let mut slots: BTreeMap<SocketAddrV4, u32> = BTreeMap::new();
        if word.flags & ServiceWord::EMPTY == 0 {
            let ring = self.ring(word)?;
            let places = if word.log2_bits == 0 { vec![0] } else { ring };
            for place in places {
                if let Some(record) = self.row(word.base + u32::from(place)) {
                    *slots.entry(rows::socket(&record)).or_default() += 1;
                }
            }
        }
        Ok(slots.into_iter().map(|(socket, slots)| Candidate { socket, slots }).collect())
    }

    /// A backend by its row.
    pub(in crate::kernel::bpf) fn row(&self, row: u32) -> Option<BackendRecord> {
        (row < MAX_BACKENDS).then(|| rows::record(&self.maps.backends, row))
    }

    /// An entry of a flow table, however old.
    pub(in crate::kernel::bpf) fn entry(
        &self,
        table: FlowTable,
        key: &FlowKey,
    ) -> Result<Option<FlowRecord>> {
        self.maps.flows.entry(table, key)
    }
}

fn bit(filter: &Mapping, bit: u32) -> bool {
    let word = filter.u64(bit as usize / 64 * size_of::<u64>()).load(Ordering::Relaxed);
    word >> (bit % 64) & 1 != 0
}
