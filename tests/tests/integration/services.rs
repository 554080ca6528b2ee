//! Services in real maps: what the kernel holds after changes, and after the process that made them.

//@ guest

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use bytemuck::Zeroable;
use control::{
    observed::Held,
    reconcile::{self, ServiceOp},
    service::{Algorithm, Backend, Protocol, Service, Vip, ring},
};
use dataplane_common::abi::{FLOW_LAYOUT, FlowRecord, FlowTable, LAYOUT, SEEN_SHIFT, State, VipKey};
use fanlight::kernel::bpf::{Datapath, FlowCount, ServiceWriter};
use fanlight_tests::{Host, tools::in_guest};
use nix::time::{ClockId, clock_gettime};

fn on_host(test: impl FnOnce() + Send) {
    let host = Host::new("host");
    host.inside(test);
}

fn open() -> Datapath {
    Datapath::open().unwrap_or_else(|error| panic!("{error}"))
}

fn writer(datapath: &Datapath) -> ServiceWriter {
    datapath.services().writer(ring::build).unwrap_or_else(|error| panic!("{error}"))
}

fn backend(number: u32, weight: u32) -> Backend {
    let first = Ipv4Addr::new(250, 0, 0, 2).to_bits();
    Backend { address: Ipv4Addr::from_bits(first + number).into(), port: 8080, weight }
}

fn service(number: u32, backends: Vec<Backend>) -> Service {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + number);
    let vip = Vip { address: address.into(), port: 80, protocol: Protocol::Tcp };
    Service { name: format!("service-{number}"), vip, algorithm: Algorithm::Maglev, checking: None, backends }
}

/// Makes the kernel hold these services; says what that took.
#[track_caller]
fn apply(writer: &mut ServiceWriter, wanted: &[Service]) -> Vec<ServiceOp> {
    let ops = reconcile::services(wanted, writer.held());
    let failed = writer.apply_all(&ops);
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(reconcile::services(wanted, writer.held()), [], "nothing is left to do");
    ops
}

/// What another process finds in the maps, and that it is as wanted.
#[track_caller]
fn found_again(wanted: &[Service]) -> Held {
    let datapath = Datapath::open_existing().expect("it is asked").expect("it is pinned");
    let mut writer = writer(&datapath);
    writer.recognise(wanted);
    assert_eq!(reconcile::services(wanted, writer.held()), []);
    writer.held().clone()
}

#[test]
fn services_outlive_the_process_and_are_left_alone_by_the_next() {
    on_host(|| {
        let datapath = open();
        let mut writer = writer(&datapath);
        let random =
            Service { algorithm: Algorithm::Random, ..service(3, vec![backend(1, 1), backend(2, 1)]) };
        let wanted = [
            service(0, vec![]),
            service(1, vec![backend(1, 1)]),
            service(2, (0..10).map(|number| backend(number, 1 + number)).collect()),
            random,
            service(4, (0..1024).map(|number| backend(number, 1)).collect()),
        ];
        assert_eq!(apply(&mut writer, &wanted).len(), wanted.len());
        let held = writer.held().clone();
        assert_eq!(found_again(&wanted), held);
        let mut vips = datapath.services().vips().expect("they are listed");
        vips.sort_unstable();
        assert_eq!(vips, wanted.each_ref().map(|service| service.vip));

        apply(&mut writer, &[]);
        writer.settle();
        assert_eq!(writer.sweep().expect("flows are read"), 1 + 10 + 2 + 1024, "rows without flows");
        assert_eq!(found_again(&[]), Held::default());
    });
}

#[test]
fn many_services_that_come_at_once_have_the_rings_of_their_own_backends() {
    on_host(|| {
        let datapath = open();
        let mut writer = writer(&datapath);
        let backends =
            |first: u32, count: u32| (first..first + count).map(|number| backend(number, 1)).collect();
        let wanted: Vec<Service> =
            (0..40).map(|number| service(number, backends(number * 200, 2 + number * 5))).collect();
        assert_eq!(apply(&mut writer, &wanted).len(), wanted.len());
        assert_eq!(&found_again(&wanted), writer.held());
    });
}

#[test]
fn a_service_with_a_backend_that_has_no_slot_is_as_wanted() {
    on_host(|| {
        let datapath = open();
        let wanted = [service(0, vec![backend(1, 65_535), backend(2, 1), backend(3, 65_535)])];
        apply(&mut writer(&datapath), &wanted);
        let address = u32::from_ne_bytes([10, 96, 0, 0]);
        let key = VipKey { address, port: 80_u16.to_be(), protocol: 6, pad: 0 };
        let (_, word) = datapath.services().service(&key).expect("it is read").expect("it is there");
        assert_eq!(datapath.services().candidates(word).expect("they are read").len(), 2, "with slots");
        found_again(&wanted);
    });
}

#[test]
fn a_change_touches_only_the_backends_that_differ() {
    on_host(|| {
        let datapath = open();
        let mut writer = writer(&datapath);
        let other = service(9, vec![backend(7, 1), backend(8, 1)]);
        let with = |backends: &[Backend]| [service(1, backends.to_vec()), other.clone()];
        let rows = |writer: &ServiceWriter| {
            let (_, held) = writer.held().services.first_key_value().expect("it is held");
            held.rows.iter().map(|row| (row.row, row.is_gone, row.is_named)).collect::<Vec<_>>()
        };
        apply(&mut writer, &with(&[backend(1, 1), backend(2, 1)]));
        assert_eq!(rows(&writer), [(0, false, true), (1, false, true)]);

        let drained = with(&[backend(1, 1), backend(2, 0)]);
        assert_eq!(apply(&mut writer, &drained), [ServiceOp::Change(drained[0].clone())]);
        assert_eq!(rows(&writer), [(0, false, true), (1, false, false)], "its flows go on");

        apply(&mut writer, &with(&[backend(1, 1), backend(2, 1), backend(3, 1)]));
        assert_eq!(
            rows(&writer),
            [(0, false, true), (1, false, true), (4, false, true)],
            "the old row again"
        );

        let removed = with(&[backend(2, 1), backend(3, 1)]);
        apply(&mut writer, &removed);
        assert_eq!(rows(&writer), [(0, true, false), (1, false, true), (4, false, true)]);
        found_again(&removed);
        writer.settle();
        assert_eq!(writer.sweep().expect("flows are read"), 1);
        assert_eq!(rows(&writer), [(1, false, true), (4, false, true)]);
        found_again(&removed);
    });
}

#[test]
fn what_was_replaced_is_given_out_again_only_when_no_program_reads_it() {
    on_host(|| {
        let datapath = open();
        let mut writer = writer(&datapath);
        let segments = || datapath.memory().expect("it is asked").services / (4 << 20);
        let before = segments();
        // 455 rings of few backends fit into a segment.
        let with = |number, weight| service(number, vec![backend(1, 1), backend(2, weight)]);
        for weight in 1..100 {
            apply(&mut writer, &[with(0, weight)]);
            writer.settle();
        }
        let mut wanted: Vec<Service> = (0..453).map(|number| with(number, 1)).collect();
        apply(&mut writer, &wanted);
        writer.settle();
        assert_eq!(segments() - before, 1);
        let mut change = |weight| {
            wanted[0] = with(0, weight);
            writer.apply(&ServiceOp::Change(wanted[0].clone())).expect("it is made");
        };
        (2..6).for_each(&mut change);
        assert_eq!(segments() - before, 2, "rings that a program may still read are kept apart");
        (6..1_000).for_each(&mut change);
        assert_eq!(segments() - before, 2, "of many, the writer waits for the readers");
        found_again(&wanted);
    });
}

#[test]
fn ten_thousand_services_load_and_one_of_them_changes_alone() {
    on_host(|| {
        let datapath = open();
        let mut writer = writer(&datapath);
        let backends = |number: u32| (0..10).map(|one| backend(number * 10 + one, 1)).collect();
        // Emulation takes some twenty times as long.
        let count = if in_guest() { 100 } else { 10_000 };
        let mut wanted: Vec<Service> = (0..count).map(|number| service(number, backends(number))).collect();
        let start = Instant::now();
        let ops = apply(&mut writer, &wanted);
        println!("{count} services of 10 backends: {:?}", start.elapsed());
        assert_eq!(ops.len(), wanted.len());
        let memory = datapath.memory().expect("it is asked").services;
        println!("services take {} KiB", memory / 1024);
        assert!(memory < 128 << 20, "{memory} bytes");

        wanted[77].backends.truncate(9);
        let start = Instant::now();
        let ops = reconcile::services(&wanted, writer.held());
        let planned = start.elapsed();
        ops.iter().for_each(|op| writer.apply(op).expect("it applies"));
        println!("one change: {:?}, of these planning {planned:?}", start.elapsed());
        assert_eq!(ops.len(), 2, "the ring, and the row of the backend that is gone");

        let start = Instant::now();
        found_again(&wanted);
        println!("found again: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(60));
    });
}

#[test]
fn entries_that_the_programs_look_at_no_more_are_removed_and_the_others_counted() {
    on_host(|| {
        let datapath = open();
        let mut walk = datapath.services().walk();
        let now = coarse_now();
        let ago = |seconds: u64| now.wrapping_sub(((seconds * 1_000_000_000) >> SEEN_SHIFT) as u32);
        for (table, state, lives, old) in [
            (FlowTable::Unconfirmed, State::New, 1, 31),
            (FlowTable::Flows, State::Established, 8 * 3_600 - 60, 8 * 3_600 + 1),
            (FlowTable::Flows, State::Reset, 1, 21),
        ] {
            let mut flows: HashMap<MapData, [u8; 16], [u8; size_of::<FlowRecord>()]> =
                pinned(&flow_table(table));
            for (number, age) in [lives, old].into_iter().cycle().take(20).enumerate() {
                let mut key = [0; 16];
                [key[0], key[1], key[12]] = [number as u8, state as u8, 6];
                let record = FlowRecord { seen: ago(age), state: state as u8, ..FlowRecord::zeroed() };
                let record: [u8; size_of::<FlowRecord>()] = bytemuck::cast(record);
                flows.insert(key, record, 0).expect("there is room");
            }
        }
        let found = walk.finish().expect("flows are read");
        assert_eq!(found, FlowCount { flows: 20, unconfirmed: 10, removed: 30, ..FlowCount::default() });
        let again = walk.finish().expect("flows are read");
        assert_eq!(again, found, "there is nothing left to remove");
    });
}

/// The name under which a flow table is pinned.
fn flow_table(table: FlowTable) -> String {
    format!("{}-{FLOW_LAYOUT}", table.name())
}

/// One of the pinned maps.
fn pinned<K: aya::Pod, V: aya::Pod>(name: &str) -> HashMap<MapData, K, V> {
    let data =
        MapData::from_pin(format!("/sys/fs/bpf/fanlight/v{LAYOUT}/maps/{name}")).expect("it is pinned");
    Map::from_map_data(data).and_then(HashMap::try_from).expect("a hash map")
}

/// The programs' coarse clock.
fn coarse_now() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    ((now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64) >> SEEN_SHIFT) as u32
}

#[test]
fn a_backends_row_is_kept_while_a_flow_remembers_it() {
    on_host(|| {
        let datapath = open();
        let mut writer = writer(&datapath);
        apply(&mut writer, &[service(1, vec![backend(1, 1), backend(2, 1)])]);
        let mut flows: HashMap<MapData, [u8; 16], [u8; size_of::<FlowRecord>()]> =
            pinned(&flow_table(FlowTable::Flows));
        let (key, hours) = ([1; 16], ((3_600 * 1_000_000_000_u64) >> SEEN_SHIFT) as u32);
        let flow = |seen, generation| {
            let backend = FlowRecord::backend_of(1, generation);
            bytemuck::cast::<FlowRecord, [u8; size_of::<FlowRecord>()]>(FlowRecord {
                backend,
                seen,
                ..FlowRecord::zeroed()
            })
        };
        let now = coarse_now();
        flows.insert(key, flow(now, 1), 0).expect("there is room");
        apply(&mut writer, &[service(1, vec![backend(1, 1)])]);
        writer.settle();
        assert_eq!(writer.sweep().expect("flows are read"), 0);

        // Too old, and then of the backend that had the row before.
        for seen in [now.wrapping_sub(9 * hours), now] {
            flows.insert(key, flow(seen, 1), 0).expect("there is room");
            assert_eq!(writer.sweep().expect("flows are read"), 1, "{seen}");
            apply(&mut writer, &[service(1, vec![backend(1, 1), backend(2, 1)])]);
            apply(&mut writer, &[service(1, vec![backend(1, 1)])]);
            writer.settle();
        }
    });
}

#[test]
fn what_a_killed_process_left_half_done_is_put_right_by_the_next() {
    on_host(|| {
        let datapath = open();
        let wanted = [service(1, vec![backend(1, 1), backend(2, 1)]), service(2, vec![backend(3, 1)])];
        apply(&mut writer(&datapath), &wanted);
        // Removal of the first, cut short when nobody finds it any more; and a VIP without a record.
        let mut services: HashMap<MapData, [u8; 8], u32> = pinned("services");
        services.remove(&[10, 96, 0, 1, 0, 80, 6, 0]).expect("it was there");
        services.insert([10, 96, 0, 9, 0, 80, 6, 0], 5, 0).expect("there is room");

        let mut writer = writer(&datapath);
        writer.recognise(&wanted[1..]);
        let ops = apply(&mut writer, &wanted[1..]);
        assert_eq!(ops, [0, 1].map(|row| ServiceOp::Retire { vip: None, row }));
        writer.settle();
        assert_eq!(writer.sweep().expect("flows are read"), 2);
        assert_eq!(datapath.services().vips().expect("they are listed"), [wanted[1].vip]);
        apply(&mut writer, &wanted);
        found_again(&wanted);
    });
}
