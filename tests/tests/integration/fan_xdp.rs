//! XDP at the uplink, in front of tc.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use dataplane_common::{abi::LAYOUT, outcome::Hook};
use fanlight::kernel::bpf::Datapath;
use fanlight_tests::{
    Counters, Host, assert_counted, close, eventually,
    fleet::{Fleet, OVERLAY, overlay, underlay},
    foreign::Foreign,
    host,
    load::assert_reaches,
    packet::Ipv4,
};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};
use serde_json::{Value, json};

use crate::fan_restart::{agents, under_traffic, upgrade};

/// A pass of the agent, with time for a busy machine.
const PASS: Duration = Duration::from_secs(10);

/// Two hosts with a fan, brought up by hand, and this asked for at their uplinks.
fn fleet(asked: &str) -> Fleet {
    let fleet = Fleet::bare(2);
    for host in fleet.hosts() {
        configure(host, asked);
        host.run(&format!("fan up {OVERLAY} eth0"));
    }
    fleet
}

fn configure(host: &Host, asked: &str) {
    host.write("/etc/fanlight/fanlight.toml", &format!("[datapath]\nuplink-hook = \"{asked}\"\n"));
}

/// Hook and mode of a host's uplink.
fn way(host: &Host) -> (String, Value) {
    let status = host.json("status");
    let way = &status["uplink-hook"][0];
    assert_eq!(way["device"], "eth0", "{status}");
    (way["hook"].as_str().expect("a word").to_owned(), way["mode"].clone())
}

fn native() -> (String, Value) {
    ("xdp".to_owned(), json!("native"))
}

fn tc() -> (String, Value) {
    ("tc".to_owned(), Value::Null)
}

/// The reasons that begin with `uplink-xdp`.
fn reasons(host: &Host) -> Vec<String> {
    let status = host.json("status");
    let reasons = status["degraded"].as_array().expect("a list").iter().filter_map(|reason| reason.as_str());
    reasons.filter(|reason| reason.starts_with("uplink-xdp: ")).map(str::to_owned).collect()
}

fn datagram() -> Ipv4 {
    Ipv4::udp((overlay(0, 2), 7), (overlay(1, 2), 9), b"a payload of some length")
}

fn spoofed() -> Ipv4 {
    datagram().with(|packet| packet.src = [250, 0, 99, 5].into()).inside(underlay(0), underlay(1))
}

/// Sends a frame from the first host to the second, where it must be counted so.
#[track_caller]
fn offer(fleet: &Fleet, frame: &[u8], hook: &str, outcome: &str) {
    let before = fleet[1].counters();
    fleet[0].raw("eth0").send(frame);
    eventually(&format!("{hook} {outcome}"), Duration::from_secs(3), || {
        (fleet[1].counters().since(&before).of(hook, outcome) > 0).then_some(())
    });
    assert_counted(&before, &fleet[1].counters(), &[(hook, outcome, 1)]);
}

fn frame(fleet: &Fleet, packet: &Ipv4) -> Vec<u8> {
    packet.frame(fleet[1].mac("eth0"), fleet[0].mac("eth0"))
}

//@ guest: 6.1, 6.12
#[test]
fn what_is_spoofed_ends_at_xdp_and_honest_packets_arrive_as_ever() {
    let fleet = fleet("xdp");
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_eq!(way(&fleet[1]), native());
    assert_reaches(&one, overlay(1, 2));
    let inside = other.raw("eth0");
    let right = datagram().inside(underlay(0), underlay(1));
    offer(&fleet, &frame(&fleet, &right), "uplink-ingress", "decapsulated");
    let got = inside.receive(Duration::from_secs(1), |frame| {
        Ipv4::of_frame(frame).filter(|packet| packet.payload == datagram().payload)
    });
    assert!(got.is_some_and(|packet| packet.payload_intact()));
    let elsewhere = datagram().with(|packet| packet.dst = [250, 0, 99, 5].into());
    for (packet, outcome) in [
        (spoofed(), "drop-spoofed-source"),
        (elsewhere.inside(underlay(0), underlay(1)), "drop-not-our-slice"),
        (right.clone().with(|packet| packet.check = Some(1)), "drop-bad-checksum"),
        (right.with(|packet| packet.payload.truncate(10)), "drop-truncated"),
    ] {
        offer(&fleet, &frame(&fleet, &packet), "uplink-xdp", outcome);
    }
}

#[test]
fn replay_says_at_which_of_both_hooks_a_packet_ended() {
    let fleet = fleet("tc");
    let hex = |frame: &[u8]| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |packet: &Ipv4| format!("{{\"packet\":\"{}\"}}\n", hex(&frame(&fleet, packet)));
    let input = line(&spoofed()) + &line(&datagram().inside(underlay(0), underlay(1)));
    let replayed = |hook: &str| {
        let words = ["replay", "--in", "-", "--hook", hook, "--json"];
        let lines = fleet[1].fanlight(words).input(input.clone()).ok();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
        lines.map(|line| json!([line["action"], line["outcome"], line["hook"]])).collect::<Vec<_>>()
    };
    let refused = json!(["drop", "drop-spoofed-source", "uplink-xdp"]);
    let right = json!(["redirect", "decapsulated-to-host", "uplink-ingress"]);
    assert_eq!(replayed("uplink-xdp"), [refused, right]);
    let by_tc = replayed("uplink-ingress");
    assert_eq!(by_tc[0], json!(["drop", "drop-spoofed-source", null]));
}

#[test]
fn what_xdp_refuses_is_told_to_who_watches() {
    let fleet = fleet("xdp");
    let _agents = agents(&fleet);
    let path = "/run/told";
    let line = format!("exec {} monitor --drops --json > {path}", host::binary().display());
    let watching = fleet[1].command("sh").args(["-c", &line]).spawn_heard();
    let told = eventually("the drop is told", PASS, || {
        fleet[0].raw("eth0").send(&frame(&fleet, &spoofed()));
        let text = fs::read_to_string(fleet[1].path(path)).unwrap_or_default();
        let (whole, _) = text.rsplit_once('\n')?;
        let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
        let mut told = events.filter(|event| event["reason"] == "drop-spoofed-source");
        told.next()
    });
    drop(watching.kill());
    assert_eq!((&told["hook"], &told["client"]), (&json!("uplink-xdp"), &json!("250.0.99.5:7")), "{told}");
}

#[test]
fn virtual_devices_go_by_tc_unless_xdp_is_asked_for() {
    let fleet = Fleet::up(2);
    assert_eq!(way(&fleet[1]), tc());
    let table = fleet[1].run("status");
    assert!(table.contains("hook      eth0: tc; auto is asked for: a virtual device"), "{table}");
    offer(&fleet, &frame(&fleet, &spoofed()), "uplink-ingress", "drop-spoofed-source");
    configure(&fleet[1], "xdp");
    fleet[1].run(&format!("fan up {OVERLAY} eth0"));
    assert_eq!(way(&fleet[1]), native());
    let rows = fleet[1].json("status")["datapath"].clone();
    let row = rows.as_array().expect("a list").iter().find(|row| row["hook"] == "uplink-xdp");
    assert_eq!(row.map(|row| &row["mode"]), Some(&json!("native")), "{rows}");
    offer(&fleet, &frame(&fleet, &spoofed()), "uplink-xdp", "drop-spoofed-source");
    configure(&fleet[1], "tc");
    fleet[1].run(&format!("fan up {OVERLAY} eth0"));
    assert_eq!(way(&fleet[1]), tc());
}

#[test]
fn a_reload_switches_and_takedown_leaves_nothing() {
    let fleet = fleet("tc");
    let mut agent = fleet[1].agent();
    for (asked, expected) in [("xdp", native()), ("auto", tc()), ("xdp", native())] {
        configure(&fleet[1], asked);
        agent.reload();
        eventually(asked, PASS, || (way(&fleet[1]) == expected).then_some(()));
        assert_eq!(reasons(&fleet[1]), Vec::<String>::new());
    }
    drop(agent.stop());
    assert_eq!(way(&fleet[1]), native(), "it stays without an agent");
    fleet[1].run(&format!("fan down {OVERLAY} eth0"));
    let links = fleet[1].ip("-details link show dev eth0");
    assert!(!links.contains("xdp"), "{links}");
}

#[test]
fn an_agent_that_detaches_takes_it_off() {
    let fleet = Fleet::bare(1);
    let fan = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"172.30.0.0/16\"\n";
    let text = format!("[datapath]\nuplink-hook = \"xdp\"\n{fan}");
    fleet[0].write("/etc/fanlight/fanlight.toml", &text);
    let process = fleet[0].fanlight(["agent", "--detach"]).spawn();
    let is_there = || fleet[0].ip("-details link show dev eth0").contains("xdp");
    eventually("it is there", Duration::from_secs(60), || is_there().then_some(()));
    process.signal(Signal::SIGTERM);
    let output = process.finish(Duration::from_secs(60));
    assert!(output.status.success(), "{output}");
    assert!(!is_there());
}

#[test]
fn what_somebody_takes_off_is_put_back() {
    let fleet = fleet("xdp");
    let _agent = fleet[1].agent();
    fleet[1].inside(|| {
        let datapath = Datapath::open_existing().expect("it opens").expect("a fan is up");
        datapath.detach(Hook::UplinkXdp, if_nametoindex("eth0").expect("it is there")).expect("it goes");
    });
    assert_eq!(way(&fleet[1]), tc());
    eventually("it is put back", PASS, || (way(&fleet[1]) == native()).then_some(()));
    offer(&fleet, &frame(&fleet, &spoofed()), "uplink-xdp", "drop-spoofed-source");
}

#[test]
fn an_uplink_that_is_made_again_or_gets_another_address_is_known_again() {
    let fleet = fleet("xdp");
    let _agent = fleet[1].agent();
    let refused_early = || {
        let before = fleet[1].counters();
        fleet[0].raw("eth0").send(&frame(&fleet, &spoofed()));
        std::thread::sleep(Duration::from_millis(50));
        (fleet[1].counters().since(&before).of("uplink-xdp", "drop-spoofed-source") > 0).then_some(())
    };
    eventually("it is refused", PASS, refused_early);
    fleet[1].ip("link set eth0 address 02:00:00:00:00:77");
    eventually("the other address is known", PASS, refused_early);
    fleet[1].ip("link delete eth0");
    fleet.switch.join(&fleet[1], "eth0", &format!("{}/16", underlay(1)));
    eventually("the device is known again", PASS, || {
        (fleet[1].json("status")["uplink-hook"][0]["hook"] == "xdp").then_some(())?;
        refused_early()
    });
}

#[test]
fn another_owners_program_stays_and_is_told_of_with_what_to_do() {
    let fleet = Fleet::bare(2);
    let theirs = Foreign::xdp("their_xdp").on(&fleet[1], "eth0");
    configure(&fleet[1], "xdp");
    let told = fleet[1].run(&format!("fan up {OVERLAY} eth0"));
    assert!(
        told.contains("warning: uplink-xdp: eth0: another owner's XDP program is on it (their_xdp"),
        "{told}"
    );
    fleet[0].run(&format!("fan up {OVERLAY} eth0"));
    let expect = |is_told: bool| {
        let reasons = reasons(&fleet[1]);
        assert_eq!(reasons.len(), usize::from(is_told), "{reasons:?}");
        for reason in reasons {
            assert!(
                reason.contains("their_xdp") && reason.contains("`ip link set dev eth0 xdp off`"),
                "{reason}"
            );
        }
    };
    expect(true);
    assert_eq!(way(&fleet[1]), tc());
    offer(&fleet, &frame(&fleet, &spoofed()), "uplink-ingress", "drop-spoofed-source");
    let _agent = fleet[1].agent();
    eventually("the agent tells", PASS, || (!reasons(&fleet[1]).is_empty()).then_some(()));
    expect(true);
    close(theirs);
    eventually("ours takes the place", PASS, || (way(&fleet[1]) == native()).then_some(()));
    eventually("nothing is wrong", PASS, || reasons(&fleet[1]).is_empty().then_some(()));
}

//@ guest: 6.1, 6.12
#[test]
fn an_uplink_without_native_xdp_has_generic_one() {
    let fleet = Fleet::bare(2);
    for (index, host) in fleet.hosts().iter().enumerate() {
        host.ip("address flush dev eth0");
        host.ip("link add br0 type bridge");
        host.ip("link set eth0 master br0");
        host.ip("link set br0 up");
        host.ip(&format!("address add {}/16 dev br0", underlay(index)));
        configure(host, "tc");
        host.run(&format!("fan up {OVERLAY} br0"));
    }
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    for host in fleet.hosts() {
        configure(host, "xdp");
        host.run(&format!("fan up {OVERLAY} br0"));
    }
    let status = fleet[1].json("status");
    assert_eq!(status["uplink-hook"][0]["mode"], "generic", "{status}");
    assert_reaches(&one, overlay(1, 2));
    let to = spoofed().frame(fleet[1].mac("br0"), fleet[0].mac("br0"));
    let before: Counters = fleet[1].counters();
    fleet[0].raw("eth0").send(&to);
    eventually("it is refused", PASS, || {
        (fleet[1].counters().since(&before).of("uplink-xdp", "drop-spoofed-source") > 0).then_some(())
    });
}

#[test]
fn a_restart_and_an_upgrade_lose_no_packet_at_xdp() {
    let fleet = fleet("xdp");
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let mut running = agents(&fleet);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let rebuilt = host::rebuilt(directory.path());
    under_traffic(&fleet, (&one, &other), || {
        for agent in running.drain(..) {
            agent.kill9();
        }
        running = agents(&fleet);
        running = upgrade(&fleet, std::mem::take(&mut running), &rebuilt);
    });
    assert_eq!(way(&fleet[1]), native());
}

#[test]
fn an_xdp_program_of_another_version_is_replaced_in_its_link() {
    let fleet = fleet("xdp");
    fleet[1].inside(|| {
        let running = || {
            let datapath = Datapath::open_existing().expect("it opens").expect("a fan is up");
            let all = datapath.attachments().expect("they are listed");
            let xdp = all.iter().find(|own| own.hook == Hook::UplinkXdp).copied();
            xdp.expect("it is attached")
        };
        let before = running();
        let root = Path::new("/sys/fs/bpf/fanlight").join(format!("v{LAYOUT}"));
        let link = root.join("links").join(format!("uplink-xdp-{}", before.ifindex));
        let pin = || fs::metadata(&link).expect("it is pinned").ino();
        let pinned = pin();
        // Without its tables' pins it is another datapath's.
        fs::remove_file(root.join("maps/config")).expect("it was pinned");
        let other = Datapath::open().expect("it opens");
        other.attach(Hook::UplinkXdp, before.ifindex, "eth0").expect("it attaches");
        assert_ne!(running().program_id, before.program_id);
        assert_eq!(pin(), pinned);
    });
}
