//! `fanlight monitor`: events are shown as they happen, to every reader, and made for readers only.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use dataplane_common::abi::{LAYOUT, TRACE_EVENTS_PER_SECOND, Watch};
use fanlight_tests::{
    Agent, Host, Process, eventually,
    fleet::{Fleet, overlay},
    host::binary,
    server::{Greeted, Named},
    services::{configure, service},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const CLOSED: SocketAddrV4 = SocketAddrV4::new(VIP, 9);
const SOON: Duration = Duration::from_secs(5);

/// `fanlight monitor` on a host, its output in a file.
struct Monitor<'h> {
    host: &'h Host,
    path: String,
    process: Process,
}

impl<'h> Monitor<'h> {
    /// It listens when this returns.
    #[track_caller]
    fn start(host: &'h Host, number: usize, options: &str) -> Self {
        let path = format!("/run/monitor-{number}");
        let line = format!("exec {} monitor {options} > {path}", binary().display());
        let process = host.command("sh").args(["-c", &line]).spawn_heard();
        let monitor = Self { host, path, process };
        eventually("it listens", SOON, || {
            refused(host);
            (!monitor.text().is_empty()).then_some(())
        });
        monitor
    }

    fn text(&self) -> String {
        fs::read_to_string(self.host.path(&self.path)).unwrap_or_default()
    }

    /// The first event that is as asked for.
    #[track_caller]
    fn event(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, SOON, || self.events().into_iter().find(&is))
    }

    fn events(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    fn stop(self) {
        drop(self.process.kill());
    }
}

/// A datagram from the host to a closed port of the VIP.
fn refused(host: &Host) {
    host.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        socket.send_to(b"x", CLOSED).expect("it is sent");
    });
}

/// A service on a container of the only host, and one without backends.
fn serving(fleet: &Fleet) -> Agent {
    let tables = [
        service("web", format!("{WEB}/tcp"), &[format!("{}:8080", overlay(0, 9))]),
        service("empty", format!("{VIP}:81/tcp"), &[]),
    ];
    configure(&fleet[0], &tables);
    fleet[0].agent()
}

fn is_watched(host: &Host) -> bool {
    let path = host.path(&format!("/sys/fs/bpf/fanlight/v{LAYOUT}/maps/watch"));
    let map = MapData::from_pin(path).map(Map::from_map_data).and_then(|map| Array::try_from(map?));
    let map: Array<_, [u8; size_of::<Watch>()]> = map.expect("the map is pinned");
    let watch: Watch = bytemuck::cast(map.get(&0, 0).expect("its only element"));
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    watch.is_on((Duration::from(now).as_nanos() >> dataplane_common::abi::SEEN_SHIFT) as u32)
}

#[test]
fn new_flows_drops_and_refusals_are_told_with_service_and_reason() {
    let fleet = Fleet::up(1);
    let container = fleet.endpoint(0, 9);
    let server = Named::start(&container, "b0", overlay(0, 9), 8080);
    let _agent = serving(&fleet);
    let client = fleet.endpoint(0, 5);
    let all = Monitor::start(&fleet[0], 0, "--json");
    let drops = Monitor::start(&fleet[0], 1, "--json --drops");

    let greeted = Greeted::connect(&client, WEB).expect("the backend answers");
    let flow = all.event("the new flow", |event| event["event"] == "new-flow");
    assert_eq!(flow["service"], "web");
    assert_eq!((&flow["vip"], &flow["backend"]), (&"10.96.0.10:80".into(), &server.backend().into()));
    assert_eq!(flow["client"], greeted.seen_as.to_string());
    assert_eq!(flow["reason"], Value::Null);
    let time = flow["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");

    let empty = SocketAddrV4::new(VIP, 81);
    assert!(Greeted::connect(&client, empty).is_err(), "it has no backend");
    let refusal = all.event("the refusal", |event| event["service"] == "empty");
    assert_eq!((&refusal["event"], &refusal["reason"]), (&"refused".into(), &"refused-no-backend".into()));
    assert_eq!((&refusal["vip"], &refusal["backend"]), (&"10.96.0.10:81".into(), &Value::Null));
    assert_eq!(refusal["hook"], "endpoint-ingress");

    client.ip("address add 192.0.2.9/32 dev eth0");
    client.command("ping").args(["-c", "1", "-W", "1", "-I", "192.0.2.9", "250.0.99.2"]).exits(1);
    let drop = drops.event("the drop", |event| event["event"] == "drop");
    assert_eq!((&drop["reason"], &drop["protocol"]), (&"drop-foreign-source".into(), &"icmp".into()));
    assert_eq!((&drop["client"], &drop["destination"]), (&"192.0.2.9".into(), &"250.0.99.2".into()));
    assert_eq!(drop["service"], Value::Null);
    assert!(drops.events().iter().all(|event| event["event"] != "new-flow"), "{:?}", drops.events());
    all.stop();
    drops.stop();
}

#[test]
fn a_monitor_of_one_service_shows_no_other_and_a_name_that_none_has_is_refused() {
    let fleet = Fleet::up(1);
    let _agent = serving(&fleet);
    let all = Monitor::start(&fleet[0], 0, "--json");
    let path = "/run/monitor-empty";
    let line = format!("exec {} monitor --service empty > {path}", binary().display());
    let process = fleet[0].command("sh").args(["-c", &line]).spawn_heard();
    let text = eventually("an event of the service", SOON, || {
        let connected = Greeted::connect(&fleet[0], SocketAddrV4::new(VIP, 81));
        assert!(connected.is_err(), "it has no backend");
        refused(&fleet[0]);
        let text = fs::read_to_string(fleet[0].path(path)).unwrap_or_default();
        (!text.is_empty()).then_some(text)
    });
    assert!(text.lines().all(|line| line.contains("refused   empty  tcp ")), "{text}");
    assert!(text.contains(" > 10.96.0.10:81  refused-no-backend at host-egress\n"), "{text}");
    all.event("one of no service", |event| event["reason"] == "refused-no-service");
    drop(process.kill());
    let wrong = fleet[0].fanlight(["monitor", "--service", "wbe"]).exits(1);
    assert_eq!(wrong.stderr, "fanlight: monitor: no service 'wbe'; 'fanlight service list' lists them\n");
    all.stop();
}

//@ guest
#[test]
fn nothing_is_told_when_nobody_listens_any_more_and_when_the_agent_is_dead() {
    let fleet = Fleet::up(1);
    let agent = serving(&fleet);
    assert!(!is_watched(&fleet[0]));
    let first = Monitor::start(&fleet[0], 0, "");
    let second = Monitor::start(&fleet[0], 1, "");
    first.stop();
    let told = second.text().len();
    eventually("the one that still listens is told more", SOON, || {
        refused(&fleet[0]);
        (second.text().len() > told).then_some(())
    });
    assert!(is_watched(&fleet[0]), "one still listens");
    second.stop();
    eventually("nobody listens", SOON, || (!is_watched(&fleet[0])).then_some(()));

    let mut third = Monitor::start(&fleet[0], 2, "");
    agent.kill9();
    eventually("the agent is dead", 2 * SOON, || (!is_watched(&fleet[0])).then_some(()));
    eventually("it says so", SOON, || (!third.process.runs()).then_some(()));
    let output = third.process.finish(SOON);
    assert_eq!(output.code(), 1, "{output}");
    let none = fleet[0].fanlight(["monitor"]).exits(1);
    assert!(none.stderr.starts_with("fanlight: monitor: no agent is running: "), "{none}");
}

/// Readers of all events on the only host.
fn readers(host: &Host) -> Vec<Monitor<'_>> {
    (0..10).map(|number| Monitor::start(host, number, "--json")).collect()
}

#[test]
fn each_of_ten_readers_is_told_of_every_new_flow_once() {
    let fleet = Fleet::up(1);
    let container = fleet.endpoint(0, 9);
    let _server = Named::start(&container, "b0", overlay(0, 9), 8080);
    let _agent = serving(&fleet);
    let client = fleet.endpoint(0, 5);
    let readers = readers(&fleet[0]);
    let made = (0..50).map(|_| Greeted::connect(&client, WEB).expect("the backend answers").seen_as);
    let made: BTreeSet<_> = made.map(|address| address.to_string()).collect();
    for reader in readers {
        let told = || -> Vec<_> {
            let events = reader.events().into_iter();
            let flows = events.filter(|event| event["event"] == "new-flow");
            flows.map(|event| event["client"].as_str().expect("an address").to_owned()).collect()
        };
        let told = eventually("it is told", SOON, || Some(told()).filter(|told| told.len() >= made.len()));
        assert_eq!((told.len(), &BTreeSet::from_iter(told)), (made.len(), &made));
        reader.stop();
    }
}

#[test]
fn a_flood_is_told_in_part_to_each_of_ten_readers_with_how_much_is_missing() {
    const SENT: u64 = 8 * TRACE_EVENTS_PER_SECOND as u64;
    let fleet = Fleet::up(1);
    let _agent = serving(&fleet);
    let readers = readers(&fleet[0]);
    let client = fleet[0].inside(|| {
        let socket = UdpSocket::bind((overlay(0, 1), 0)).expect("a free port");
        for _ in 0..SENT {
            socket.send_to(b"x", CLOSED).expect("it is sent");
        }
        socket.local_addr().expect("a bound socket").to_string()
    });
    for reader in readers {
        let count = || {
            let events = reader.events();
            let told = events.iter().filter(|event| event["client"] == *client).count() as u64;
            (told, events.iter().filter_map(|event| event["lost"].as_u64()).sum::<u64>())
        };
        // A slow machine tells of most.
        let (told, lost) = eventually("it is told of all", 20 * SOON, || {
            Some(count()).filter(|(told, lost)| told + lost >= SENT)
        });
        println!("{told} told, {lost} lost");
        assert!(told > 1_000 && told + lost == SENT, "{told} events, {lost} missing");
        reader.stop();
    }
}

#[test]
fn the_end_of_its_reader_ends_a_monitor() {
    let fleet = Fleet::up(1);
    let _agent = serving(&fleet);
    let monitor = Monitor::start(&fleet[0], 0, "");
    monitor.process.signal(Signal::SIGTERM);
    assert_eq!(monitor.process.finish(SOON).code(), 143);
    eventually("nobody listens", SOON, || (!is_watched(&fleet[0])).then_some(()));
}
