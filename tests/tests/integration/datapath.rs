//! Loading, pinning and attaching: what is in the kernel afterwards.

//@ guest: 6.1

use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

use aya::maps::{HashMap, MapData};
use bytemuck::Zeroable;
use dataplane_common::{
    abi::{EndpointRecord, Event, FanRecord, LAYOUT, MAX_FANS},
    fan::mask,
    outcome::{Hook, Outcome},
};
use fanlight::kernel::bpf::{Attached, Datapath, Error};
use fanlight_tests::{Host, packet::Ipv4};
use nix::net::if_::if_nametoindex;
use tokio::{runtime::Builder, time::timeout};

const PINS: &str = "/sys/fs/bpf/fanlight";

/// Runs a test on a host with a veth pair `near` and `far`.
fn on_host(test: impl FnOnce(&Host) + Send) {
    let host = Host::new("host");
    host.ip("link add near type veth peer name far");
    host.ip("link set near up");
    host.ip("link set far up");
    host.inside(|| test(&host));
}

fn open() -> Datapath {
    Datapath::open().unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.to_string(),
    }
}

fn index(device: &str) -> u32 {
    if_nametoindex(device).expect("the device exists")
}

fn fan(network: u8) -> FanRecord {
    FanRecord { overlay: u32::from(network) << 24, overlay_mask: mask(8), mtu: 1480, ..FanRecord::zeroed() }
}

//@ guest: 6.1, 6.12
#[test]
fn fan_programs_stay_attached_without_a_process_and_are_taken_over_unchanged() {
    on_host(|_| {
        let near = index("near");
        for &hook in Hook::ALL {
            assert_eq!(open().attach(hook, near, "near").expect("it attaches"), Attached::New, "{hook:?}");
        }
        let datapath = open();
        let before = datapath.attachments().expect("they are listed");
        assert_eq!(before.len(), Hook::ALL.len());
        for &hook in Hook::ALL {
            let attached = datapath.attach(hook, near, "near").expect("it attaches");
            assert_eq!(attached, Attached::Unchanged, "{hook:?}");
        }
        assert_eq!(datapath.shadowed(&before).expect("the hooks are asked"), []);
        assert_eq!(datapath.attachments().expect("they are listed"), before);
    });
}

//@ guest: 6.1, 6.12
#[test]
fn fan_a_program_on_tables_that_are_pinned_no_more_is_replaced_in_place() {
    on_host(|_| {
        let near = index("near");
        open().attach(Hook::UplinkIngress, near, "near").expect("it attaches");
        fs::remove_file(format!("{PINS}/v{LAYOUT}/maps/config")).expect("it was pinned");
        let datapath = open();
        let attached = datapath.attach(Hook::UplinkIngress, near, "near").expect("it attaches");
        assert_eq!(attached, Attached::Replaced);
        let ours = datapath.programs().iter().find(|program| program.hook == Hook::UplinkIngress);
        let running = datapath.attachments().expect("they are listed");
        assert_eq!(running.iter().map(|found| found.program_id).collect::<Vec<_>>(), [ours.expect("one").id]);
    });
}

//@ guest: 6.1, 6.12
#[test]
fn fan_stages_of_another_version_stay_for_as_long_as_its_programs_run() {
    on_host(|_| {
        let (near, maps) = (index("near"), format!("{PINS}/v{LAYOUT}/maps"));
        let stages = || {
            let names =
                fs::read_dir(&maps).expect("it is there").map(|entry| entry.expect("a name").file_name());
            let names = names.map(|name| name.to_string_lossy().into_owned());
            names.filter(|name| name.starts_with("stages-")).collect::<Vec<_>>()
        };
        open().attach(Hook::UplinkIngress, near, "near").expect("it attaches");
        let [own] = stages().try_into().expect("one array");
        let other = "stages-0000000000000001".to_owned();
        fs::rename(format!("{maps}/{own}"), format!("{maps}/{other}")).expect("it was pinned");
        let datapath = open();
        datapath.prune().expect("it prunes");
        assert!(stages().contains(&other), "its program is attached");
        let attached = datapath.attach(Hook::UplinkIngress, near, "near").expect("it attaches");
        assert_eq!(attached, Attached::Replaced);
        datapath.prune().expect("it prunes");
        assert_eq!(stages(), [own]);
    });
}

#[test]
fn fan_attached_programs_count_the_packets_of_their_device() {
    on_host(|host| {
        let datapath = open();
        datapath.attach(Hook::UplinkIngress, index("near"), "near").expect("it attaches");
        let before = datapath.counters().expect("they are read");
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
        host.raw("far").send(&frame);
        let counted = || {
            let now = datapath.counters().expect("they are read").since(&before);
            (now.get(Hook::UplinkIngress, Outcome::PassNotOurs) > 0).then_some(())
        };
        fanlight_tests::eventually("the frame is counted", Duration::from_secs(5), counted);
    });
}

#[test]
fn fan_a_device_that_was_made_anew_with_its_old_index_gets_its_program_back() {
    on_host(|host| {
        let (datapath, near) = (open(), index("near"));
        datapath.attach(Hook::UplinkIngress, near, "near").expect("it attaches");
        host.ip("link delete near");
        assert_eq!(datapath.attachments().expect("they are listed"), []);
        host.ip(&format!("link add near index {near} type veth peer name far"));
        assert_eq!(datapath.attachments().expect("they are listed"), [], "another device");
        let attached = datapath.attach(Hook::UplinkIngress, near, "near").expect("it attaches");
        assert_eq!(attached, Attached::New);
        assert_eq!(datapath.attachments().expect("they are listed").len(), 1);
    });
}

#[test]
fn fan_a_program_on_a_device_that_is_not_there_is_an_error_with_its_name() {
    on_host(|_| {
        let error = open().attach(Hook::UplinkIngress, 4000, "nosuch").expect_err("there is none");
        let text = error.to_string();
        assert!(text.starts_with("attaching uplink-ingress to nosuch: "), "{text}");
    });
}

#[test]
fn fan_tables_outlive_the_process_and_are_gone_after_removal() {
    on_host(|_| {
        assert!(Datapath::open_existing().expect("it is asked").is_none());
        let address = Ipv4Addr::new(250, 0, 28, 2);
        let flags = EndpointRecord::PEER;
        let record = EndpointRecord { address: address.to_bits(), ifindex: 7, mac: [2; 6], flags };
        let datapath = open();
        datapath.endpoints().insert(record).expect("there is room");
        assert!(datapath.config().publish(&fan(250)).expect("there is a slot"));
        datapath.config().set_helper(9, [1, 2, 3, 4, 5, 6]);
        datapath.attach(Hook::HostEgress, index("near"), "near").expect("it attaches");
        drop(datapath);
        let datapath = Datapath::open_existing().expect("it is asked").expect("it is pinned");
        assert_eq!(datapath.endpoints().list().expect("it is listed"), [(address, record)]);
        assert_eq!(datapath.config().fans(), [fan(250)]);
        assert_eq!(datapath.config().helper(), (9, [1, 2, 3, 4, 5, 6]));
        assert!(datapath.memory().expect("it is asked").maps > 100_000);
        let error = datapath.attach(Hook::UplinkIngress, index("near"), "near").expect_err("not loaded");
        assert!(error.to_string().contains("not loaded"), "{error}");
        datapath.remove().expect("it goes");
        assert!(Datapath::open_existing().expect("it is asked").is_none());
        assert!(!Path::new(PINS).exists());
    });
}

#[test]
fn fan_a_newer_layout_is_left_alone_and_named() {
    on_host(|_| {
        let newer = format!("{PINS}/v{}/maps", LAYOUT + 6);
        fs::create_dir_all(&newer).expect("bpffs");
        for text in [refusal(Datapath::open()), refusal(Datapath::open_existing())] {
            assert!(text.contains(&format!("layout {}", LAYOUT + 6)), "{text}");
        }
        let left: Vec<_> = fs::read_dir(PINS).expect("bpffs").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    });
}

#[test]
fn fan_a_pinned_map_of_another_shape_is_refused_by_name() {
    on_host(|_| {
        drop(open());
        let path = format!("{PINS}/v{LAYOUT}/maps/endpoints");
        fs::remove_file(&path).expect("it was pinned");
        let other: HashMap<MapData, [u8; 4], [u8; 12]> = HashMap::create(5, 0).expect("a map");
        other.pin(&path).expect("bpffs");
        let text = refusal(Datapath::open());
        assert!(text.contains(&path) && text.contains("value size 12, but 16 is needed"), "{text}");
        let kept = MapData::from_pin(&path).and_then(|map| map.info()).expect("it is still pinned");
        assert_eq!(kept.value_size(), 12);
    });
}

#[test]
fn fan_slots_are_used_again_and_a_change_replaces() {
    on_host(|_| {
        let datapath = open();
        let config = datapath.config();
        assert!(config.publish(&fan(10)).expect("a slot"));
        assert!(!config.publish(&fan(10)).expect("a slot"), "nothing to change");
        for mtu in 1000..1100 {
            assert!(config.publish(&FanRecord { mtu, ..fan(10) }).expect("a slot"));
        }
        assert_eq!(config.fans(), [FanRecord { mtu: 1099, ..fan(10) }]);
        for network in 11..10 + MAX_FANS as u8 {
            config.publish(&fan(network)).expect("a slot");
        }
        assert_eq!(config.fans().len(), MAX_FANS);
        assert!(config.publish(&FanRecord { mtu: 900, ..fan(10) }).expect("its own slot"));
        let error = config.publish(&fan(99)).expect_err("all slots are taken").to_string();
        assert!(error.contains(&format!("{MAX_FANS} fans")), "{error}");
        assert!(config.withdraw("10.0.0.0/8".parse().expect("a network")));
        assert!(!config.withdraw("10.0.0.0/8".parse().expect("a network")));
        assert!(config.publish(&fan(99)).expect("a slot"));
        assert_eq!(config.fans().len(), MAX_FANS);
    });
}

#[test]
fn fan_without_a_smaller_path_no_packet_needs_a_look_up() {
    on_host(|_| {
        let datapath = open();
        assert_eq!(datapath.config().smallest_path_mtu(), u32::MAX);
        datapath.config().set_smallest_path(1280);
        assert_eq!(datapath.refresh_paths().expect("it is read"), []);
        assert_eq!(datapath.config().smallest_path_mtu(), u32::MAX, "the path that it came from is gone");
    });
}

#[test]
fn fan_a_smaller_path_is_told_to_the_agent_at_once() {
    let [here, there, router] = [28, 27, 1].map(|last| Ipv4Addr::new(172, 30, 0, last));
    let [local, remote] = [28, 27].map(|host| Ipv4Addr::new(250, 0, host, 2));
    let record = FanRecord {
        underlay: Ipv4Addr::new(172, 30, 0, 0).into(),
        underlay_mask: mask(16),
        address: here.into(),
        ..fan(250)
    };
    let sent = Ipv4::udp((local, 1), (remote, 2), &[0; 1400]).inside(here, there);
    let needed = Ipv4::fragmentation_needed(router, 1300, &sent, 48);
    on_host(|host| {
        let datapath = open();
        datapath.config().publish(&record).expect("a slot");
        datapath.attach(Hook::UplinkIngress, index("near"), "near").expect("it attaches");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let event = runtime.block_on(async {
            let mut events = datapath.events().expect("the ring opens");
            host.raw("far").send(&needed.frame(host.mac("near"), host.mac("far")));
            timeout(Duration::from_secs(5), events.next()).await
        });
        let event = event.expect("it comes").expect("the ring reads");
        assert_eq!((event.kind, event.host, event.mtu), (Event::PATH_MTU, there.into(), 1280));
        let paths = datapath.refresh_paths().expect("they are read");
        assert_eq!(paths.iter().map(|(host, path)| (*host, path.mtu)).collect::<Vec<_>>(), [(there, 1280)]);
        assert_eq!(datapath.config().smallest_path_mtu(), 1280);
        datapath.paths().remove(there).expect("it goes");
        assert_eq!(datapath.refresh_paths().expect("they are read"), []);
        assert_eq!(datapath.config().smallest_path_mtu(), u32::MAX);
    });
}
