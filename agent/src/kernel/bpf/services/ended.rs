//! Flows whose backend is gone.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use dataplane_common::{
    abi::{FlowKey, FlowRecord, State},
    wire::PROTO_TCP,
};

use super::{Maps, Result};
use crate::kernel::{bpf::flows::FlowTable, reset::Connection};

/// Backends that are gone, as flows name them.
pub type Gone = HashSet<u32>;

/// Finds the flows of backends that are gone.
#[derive(Debug)]
pub struct Ended {
    maps: Arc<Maps>,
}

impl Ended {
    pub(super) fn new(maps: Arc<Maps>) -> Self {
        Self { maps }
    }

    /// The TCP connections of clients that `is_local` knows, through VIPs, to backends that are gone.
    ///
    /// # Errors
    /// The kernel refuses to read a table.
    pub fn connections(&self, gone: &Gone, is_local: impl Fn(Ipv4Addr) -> bool) -> Result<Vec<Connection>> {
        let mut found = Vec::new();
        self.maps.flows.each_of(FlowTable::Flows, |key, record| {
            // One that is being opened has acknowledged nothing: it hears of it when it asks again.
            let is_open = record.state >= State::Established as u8;
            if gone.contains(&record.backend) && is_forward(key, record) && is_open {
                found.extend(Some(connection(key, record)).filter(|found| is_local(*found.client.ip())));
            }
        })?;
        Ok(found)
    }

    /// Removes both entries of connections to backends that are gone, which their clients know by now, and of all flows of
    /// datagrams, whose next one leads elsewhere.
    ///
    /// # Errors
    /// The kernel refuses to read a table or to remove an entry.
    pub fn forget(&self, gone: &Gone, is_local: impl Fn(Ipv4Addr) -> bool) -> Result<usize> {
        let mut over = Vec::new();
        self.maps.flows.each(|key, record| {
            let client = if record.flags & FlowRecord::REPLY == 0 { key.src } else { record.dst };
            // A client elsewhere is reset at its next packet, for which the entry is needed.
            let is_known = !is_tcp(key, record) || is_local(address(client));
            if gone.contains(&record.backend) && record.service != FlowRecord::DIRECT && is_known {
                over.push(*key);
            }
        })?;
        let is_gone = |record: &FlowRecord| gone.contains(&record.backend);
        for key in &over {
            for table in FlowTable::of_protocol(key.protocol).into_iter().rev() {
                self.maps.flows.remove_if(table, key, is_gone)?;
            }
        }
        Ok(over.len())
    }
}

fn is_tcp(key: &FlowKey, record: &FlowRecord) -> bool {
    key.protocol == PROTO_TCP && record.service != FlowRecord::DIRECT
}

fn is_forward(key: &FlowKey, record: &FlowRecord) -> bool {
    is_tcp(key, record) && record.flags & FlowRecord::REPLY == 0
}

fn connection(key: &FlowKey, record: &FlowRecord) -> Connection {
    Connection {
        client: SocketAddrV4::new(address(key.src), u16::from_be(key.sport)),
        server: SocketAddrV4::new(address(key.dst), u16::from_be(key.dport)),
        expected: record.acknowledged,
    }
}

fn address(wire: u32) -> Ipv4Addr {
    Ipv4Addr::from(wire.to_ne_bytes())
}
