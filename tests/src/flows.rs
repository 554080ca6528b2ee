//! The flow tables changed from outside: more flows than clients could open in a test's time, and silence that no test waits for.

use std::{net::Ipv4Addr, time::Duration};

use aya::maps::{HashMap, Map, MapData};
use bytemuck::Zeroable;
use dataplane_common::abi::{FLOW_LAYOUT, FlowKey, FlowRecord, LAYOUT, SEEN_SHIFT, State};
use fanlight::kernel::bpf::coarse_now;

use crate::{Host, fleet::overlay};

/// Port of the VIP to which [`fill`] enters flows.
pub const PORT: u16 = 81;
/// Their backend; nobody answers there.
pub const BACKEND: Ipv4Addr = Ipv4Addr::new(250, 0, 99, 2);

/// A pinned table of entries.
#[track_caller]
fn table(host: &Host, name: &str) -> HashMap<MapData, [u8; 16], [u8; size_of::<FlowRecord>()]> {
    let path = host.path(&format!("/sys/fs/bpf/fanlight/v{LAYOUT}/maps/{name}-{FLOW_LAYOUT}"));
    let map = MapData::from_pin(path).map(Map::from_map_data).and_then(|map| HashMap::try_from(map?));
    map.expect("the table is pinned")
}

/// Makes all flows as old as if nobody had spoken for this long.
#[track_caller]
pub fn age(host: &Host, silence: Duration) {
    let units = (silence.as_nanos() >> SEEN_SHIFT) as u32;
    for name in ["unconfirmed", "datagrams", "flows"] {
        let mut map = table(host, name);
        let keys: Vec<_> = map.keys().flatten().collect();
        for key in keys {
            // The kernel may have evicted it meanwhile.
            let Ok(entry) = map.get(&key, 0) else { continue };
            let mut record: FlowRecord = bytemuck::cast(entry);
            record.seen = record.seen.wrapping_sub(units);
            let entry: [u8; size_of::<FlowRecord>()] = bytemuck::cast(record);
            // A full table makes room for what is to replace an entry first, perhaps by that entry.
            let _ = map.insert(key, entry, 2);
        }
    }
}

/// Enters flows to a VIP's [`PORT`], both directions, as if their clients, of the first host's slice, had spoken just now.
#[track_caller]
pub fn fill(host: &Host, vip: Ipv4Addr, flows: u32) {
    let mut map = table(host, "flows");
    let wire = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
    let (port, seen) = (PORT.to_be(), coarse_now().expect("a clock"));
    for number in 0..flows {
        let client = wire(Ipv4Addr::from_bits(overlay(0, 2).to_bits() + number / 50_000));
        let sport = (1 + number % 50_000) as u16;
        let key = FlowKey::new(client, wire(vip), sport.to_be(), port, 6);
        let backend = wire(BACKEND);
        let state = State::Established as u8;
        let ends =
            FlowRecord { state, seen, packets: 1, sport: key.sport, dport: port, ..FlowRecord::zeroed() };
        let forward = FlowRecord { src: client, dst: backend, ..ends };
        let back = FlowKey { src: backend, dst: client, sport: port, dport: key.sport, ..key };
        let (sport, dport) = (port, key.sport);
        let reply =
            FlowRecord { src: key.dst, dst: client, sport, dport, flags: FlowRecord::REPLY, ..forward };
        for (key, record) in [(key, forward), (back, reply)] {
            let (key, record): ([u8; 16], [u8; size_of::<FlowRecord>()]) =
                (bytemuck::cast(key), bytemuck::cast(record));
            map.insert(key, record, 0).expect("there is room");
        }
    }
}
