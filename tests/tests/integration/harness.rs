//! The harness itself.

use std::{panic, path::Path, sync::Mutex, time::Duration};

use dataplane_common::abi::{EndpointRecord, FanRecord};
use fanlight::kernel::bpf::Datapath;
use fanlight_tests::{
    Host, Router, Site, Switch,
    fleet::{self, Fleet},
    load::{self, Ping, Pinged},
    packet::Ipv4,
    site::Offload,
};

#[test]
fn fan_hosts_on_one_switch_reach_each_other() {
    let fleet = Fleet::bare(3);
    load::assert_reaches(&fleet[0], fleet::underlay(2));
    let pinged = Ping::start_counted(&fleet[1], fleet::underlay(2), 200, 50).finish();
    assert_eq!(pinged, Pinged { sent: 50, received: 50 });
}

#[test]
fn fan_a_host_sees_its_own_directories_and_the_machine_sees_none_of_them() {
    let (one, other) = (Host::new("one"), Host::new("other"));
    for directory in ["/etc/fanlight", "/run/fanlight", "/run/netns", "/var/lib/fanlight"] {
        assert_eq!(one.sh(&format!("ls {directory}")), "", "{directory} is empty");
    }
    one.write("/etc/fanlight/fans", "x\n");
    assert_eq!(one.sh("cat /etc/fanlight/fans"), "x");
    assert!(!other.path("/etc/fanlight/fans").exists());
    assert!(!Path::new("/etc/fanlight/fans").exists());
    assert_eq!(one.sh("hostname"), "one");
    one.sh("ls /etc/passwd");
    one.sh("mkdir /sys/fs/bpf/fanlight");
    assert!(!other.path("/sys/fs/bpf/fanlight").exists());
}

#[test]
fn fan_a_host_finds_nothing_in_its_tables_of_the_host_whose_programs_it_has() {
    for round in 0..3 {
        let fleet = Fleet::up(1);
        let counted = fleet[0].counters();
        // The host's own packets to its neighbours pass as soon as its devices are up.
        assert!(
            counted.iter().all(|(_, outcome, _)| outcome.starts_with("pass-")),
            "round {round}\n{counted}"
        );
        fleet[0].inside(|| {
            let datapath = Datapath::open_existing().expect("it is asked").expect("the fan is up");
            assert_eq!(datapath.endpoints().list().expect("it is listed"), [], "round {round}");
            assert_eq!(datapath.paths().list().expect("it is listed"), [], "round {round}");
            let fans = datapath.config().fans();
            assert_eq!(fans.len(), 1, "round {round}: {fans:?}");
            // What the next host must not find.
            let record = EndpointRecord { address: 7, ifindex: 7, mac: [2; 6], flags: EndpointRecord::PEER };
            datapath.endpoints().insert(record).expect("there is room");
            datapath.config().publish(&FanRecord { overlay: 9 << 24, ..fans[0] }).expect("there is a slot");
        });
        let _endpoint = fleet.endpoint(0, 2);
        load::assert_reaches(&fleet[0], fleet::overlay(0, 2));
    }
}

#[test]
fn fan_a_router_answers_with_the_mtu_of_its_smaller_link() {
    let (near, far) = (Switch::new("near"), Switch::with_mtu("far", 1300));
    let (host, client, router) = (Host::new("host"), Site::bare("client"), Router::new("router"));
    near.join(&host, "eth0", "172.30.1.2/24");
    far.join(&client, "eth0", "172.30.2.2/24");
    near.join(&router, "eth0", "172.30.1.1/24");
    far.join(&router, "eth1", "172.30.2.1/24");
    host.ip("route add default via 172.30.1.1");
    client.ip("route add default via 172.30.2.1");
    load::assert_reaches(&host, "172.30.2.2".parse().expect("an address"));
    let large =
        host.command("ping").args(["-M", "do", "-s", "1400", "-c", "1", "-W", "1", "172.30.2.2"]).exits(1);
    assert!(large.stdout.contains("mtu = 1300"), "{large}");
}

#[test]
fn fan_a_panic_ends_every_process_and_thereby_every_namespace() {
    let pids = Mutex::new(Vec::new());
    let panicked = panic::catch_unwind(|| {
        let host = Host::new("host");
        let container = host.container("c1");
        let inside = container.command("sleep").arg("60").spawn();
        let server = host.command("sleep").arg("60").spawn();
        pids.lock().expect("no panic before").extend([host.holder(), inside.pid(), server.pid()]);
        panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.is_err());
    for pid in pids.into_inner().expect("no panic inside") {
        assert!(!Path::new(&format!("/proc/{pid}/ns/net")).exists(), "process {pid} is left");
    }
}

#[test]
fn fan_a_raw_socket_sends_and_receives_frames() {
    let fleet = Fleet::bare(2);
    let (sender, receiver) = (fleet[0].raw("eth0"), fleet[1].raw("eth0"));
    let packet = Ipv4::udp((fleet::underlay(0), 7), (fleet::underlay(1), 9), b"fanlight");
    sender.send(&packet.frame(fleet[1].mac("eth0"), fleet[0].mac("eth0")));
    let got = receiver.receive(Duration::from_secs(2), |frame| {
        Ipv4::of_frame(frame).filter(|packet| packet.payload.ends_with(b"fanlight"))
    });
    assert!(got.is_some_and(|packet| packet.payload_intact()));
    fleet[0].offload("eth0", Offload::TxChecksum, false);
}
