//! Flows of backends, counted from the flow table.

use std::{collections::HashMap, net::SocketAddrV4};

use control::service::Vip;
use dataplane_common::abi::{FlowKey, FlowRecord, LiveFlow, State};

use super::{
    super::flows::{FlowTable, coarse_now},
    Maps, Result, rows,
};

/// How many established flows each backend of each service has.
pub(super) fn flows(maps: &Maps) -> Result<HashMap<(Vip, SocketAddrV4), u64>> {
    let now = coarse_now()?;
    let mut counts: HashMap<(u16, u32), u64> = HashMap::new();
    let mut count = |key: &FlowKey, flow: &FlowRecord| {
        let is_forward = flow.flags & FlowRecord::REPLY == 0 && flow.state == State::Established as u8;
        if is_forward && LiveFlow::new(flow).lives(key.protocol, now) {
            *counts.entry((flow.service, flow.backend)).or_default() += 1;
        }
    };
    for table in [FlowTable::Flows, FlowTable::Datagrams] {
        maps.flows.each_of(table, &mut count)?;
    }
    if counts.is_empty() {
        return Ok(HashMap::new());
    }
    let vips: HashMap<u32, Vip> = maps.records.list()?.into_iter().map(|(vip, index)| (index, vip)).collect();
    let mut named: HashMap<(Vip, SocketAddrV4), u64> = HashMap::new();
    for ((service, backend), flows) in counts {
        let row = FlowRecord::row_of(backend);
        let record = rows::record(&maps.backends, row);
        let is_own = FlowRecord::backend_of(row, record.generation) == backend;
        if let Some(&vip) = vips.get(&u32::from(service)).filter(|_| is_own) {
            *named.entry((vip, rows::socket(&record))).or_default() += flows;
        }
    }
    Ok(named)
}
