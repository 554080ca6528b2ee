//! `fanlight fan up` and `down`.

use std::time::Duration;

use fanlight_tests::{
    Host, eventually,
    fleet::{Fleet, bridge, overlay},
    load::assert_reaches,
};

/// Everything that a fan touches, as the host has it now.
fn state(host: &Host) -> String {
    // The kernel works carriers out in its own time: until then a device that has one is shown without.
    let links = eventually("the carriers are known", Duration::from_secs(5), || {
        let links = host.ip("-o link show");
        let is_open = |line: &str| line.contains("NO-CARRIER") && line.contains("LOWER_UP");
        (!links.lines().any(is_open)).then_some(links)
    });
    let links: Vec<_> =
        links.lines().filter_map(|line| line.split_once(": ")).map(|(_, rest)| rest).collect();
    let tuned = "net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv4.conf.eth0.rp_filter \
                 net.ipv4.conf.all.send_redirects net.ipv4.conf.default.rp_filter net.ipv4.conf.all.forwarding \
                 net.ipv4.conf.eth0.forwarding net.ipv4.conf.all.proxy_arp net.ipv4.conf.all.accept_local";
    let sysctls: Vec<_> = tuned
        .split_whitespace()
        .map(|key| format!("{key} = {}", host.sh(&format!("cat /proc/sys/{}", key.replace('.', "/")))))
        .collect();
    [
        links.join("\n"),
        host.ip("-o -4 address show"),
        // IPv6 adds its link-local routes when it has checked for duplicates, in its own time.
        host.ip("-4 route show table all"),
        host.ip("-4 rule show"),
        host.sh("nft list ruleset"),
        host.sh("tc filter show dev eth0 ingress"),
        host.command("find").args(["/sys/fs/bpf", "-name", "fanlight*"]).ok(),
        sysctls.join("\n"),
    ]
    .join("\n--\n")
}

/// Asserts that the host is as it was, and shows only what is not.
#[track_caller]
fn assert_unchanged(host: &Host, before: &str, when: &str) {
    let after = state(host);
    let without = |text: &str, other: &str| {
        let lines = text.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.map(|line| format!("  {line}\n")).collect::<String>()
    };
    let (gone, new) = (without(before, &after), without(&after, before));
    assert!(after == before, "the host has changed, {when}\ngone:\n{gone}new:\n{new}");
}

#[test]
fn down_leaves_the_host_as_it_was() {
    let fleet = Fleet::bare(2);
    for egress in ["masquerade", "route", "drop"] {
        let before = state(&fleet[0]);
        fleet[0].run(&format!("fan up 250.0.0.0/8 eth0 egress {egress}"));
        assert_ne!(state(&fleet[0]), before);
        fleet[0].run("fan down 250.0.0.0/8 eth0");
        assert_unchanged(&fleet[0], &before, egress);
    }
}

#[test]
fn down_of_one_fan_leaves_the_other_working() {
    let fleet = Fleet::up(2);
    let before = state(&fleet[0]);
    for host in fleet.hosts() {
        host.run("fan up 240.0.0.0/8 eth0");
    }
    fleet[0].run("fan down 240.0.0.0/8 eth0");
    assert_unchanged(&fleet[0], &before, "afterwards");
    let one = fleet.endpoint(0, 2);
    assert_reaches(&one, overlay(1, 1));
}

#[test]
fn up_is_idempotent_and_refuses_other_options() {
    let fleet = Fleet::up(1);
    let before = state(&fleet[0]);
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    fleet[0].run("fan up 250 172.30.0.0/16");
    fleet[0].run("fan up 250.0.0.0/8 172.30.0.27/16");
    assert_unchanged(&fleet[0], &before, "afterwards");
    for words in ["fan up 250.0.0.0/8 eth0 egress drop", "fan up 250.0.0.0/8 eth0 host-reserve 9"] {
        let refused = fleet[0].fanlight(words.split(' ')).exits(1);
        let word = words.split(' ').nth(4).expect("an option");
        assert!(refused.stderr.contains(word), "{refused}");
    }
    assert_unchanged(&fleet[0], &before, "afterwards");
}

#[test]
fn down_refuses_while_the_bridge_has_ports_and_lists_them() {
    let fleet = Fleet::up(2);
    let (endpoint, port) = (fleet.endpoint(0, 2), fleet.port(0, 5));
    let refused = fleet[0].fanlight(["fan", "down", "250.0.0.0/8", "eth0"]).exits(1);
    assert!(refused.stderr.contains("vc5") && refused.stderr.contains("c2"), "{refused}");
    assert_reaches(&endpoint, overlay(1, 1));
    fleet[0].run("endpoint remove c2");
    fleet[0].ip("link delete vc5");
    drop(port);
    fleet[0].run("fan down 250.0.0.0/8 eth0");
    assert!(!fleet[0].has_device(&bridge(0)));
}

#[test]
fn down_of_a_fan_that_is_not_up_fails() {
    let fleet = Fleet::bare(1);
    let refused = fleet[0].fanlight(["fan", "down", "250.0.0.0/8", "eth0"]).exits(1);
    assert!(refused.stderr.starts_with("fanlight: "), "{refused}");
}

#[test]
fn a_failing_step_unwinds_the_ones_before_it() {
    let fleet = Fleet::bare(1);
    // Something that is not a bridge has the bridge's name.
    fleet[0].ip(&format!("link add {} type veth peer name other", bridge(0)));
    assert_unwound(&fleet[0]);
    fleet[0].ip("link delete other");
    // Something else has the helper's name.
    fleet[0].ip("link add fanlight0 type bridge");
    assert_unwound(&fleet[0]);
    fleet[0].ip("link delete fanlight0");
    // No nft in the path.
    let before = state(&fleet[0]);
    let refused =
        fleet[0].fanlight(["fan", "up", "250.0.0.0/8", "eth0"]).env("PATH", "/nonexistent").exits(1);
    assert!(refused.stderr.contains("nft"), "{refused}");
    assert_unchanged(&fleet[0], &before, "afterwards");
}

fn assert_unwound(host: &Host) {
    let before = state(host);
    let refused = host.fanlight(["fan", "up", "250.0.0.0/8", "eth0"]).exits(1);
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    assert_unchanged(host, &before, &refused.to_string());
}

#[test]
fn a_bridge_that_was_there_is_adopted_and_survives_down() {
    let fleet = Fleet::bare(1);
    fleet[0].ip("link add br-mine type bridge");
    fleet[0].ip("link set br-mine up");
    let before = state(&fleet[0]);
    fleet[0].run("fan up 250.0.0.0/8 eth0 bridge br-mine");
    let shown = fleet[0].json("fan show");
    assert_eq!(shown[0]["bridge"], "br-mine");
    assert!(shown[0]["flags"].to_string().contains("adopted"), "{shown}");
    fleet[0].run("fan down 250.0.0.0/8 eth0");
    assert!(fleet[0].has_device("br-mine"));
    assert_unchanged(&fleet[0], &before, "afterwards");
}

#[test]
fn show_lists_what_is_up() {
    let fleet = Fleet::up(1);
    let shown = fleet[0].json("fan show");
    let expected = [
        ("overlay", "250.0.0.0/8"),
        ("underlay", "172.30.0.0/16"),
        ("address", "172.30.0.27"),
        ("slice", "250.0.27.0/24"),
        ("bridge", "fan-250-0-27"),
        ("gateway", "250.0.27.1"),
        ("encapsulation", "ipip"),
        ("state", "up"),
    ];
    for (key, value) in expected {
        assert_eq!(shown[0][key], value, "{key} in {shown}");
    }
    assert_eq!(shown[0]["mtu"], 1480);
}

#[test]
fn the_file_of_fans_is_brought_up_and_down_past_bad_lines() {
    let fleet = Fleet::bare(1);
    let before = state(&fleet[0]);
    fleet[0].write(
        "/etc/fanlight/fans",
        "# fans\n250.0.0.0/8 eth0\n\n241.0.0.0/8 eth9\n240.0.0.0/8 eth0 egress drop\n",
    );
    let output = fleet[0].fanlight(["fan", "up", "-a"]).exits(1);
    assert!(output.stderr.contains("/etc/fanlight/fans:4: "), "{output}");
    assert_eq!(fleet[0].json("fan show").as_array().map(Vec::len), Some(2));
    fleet[0].write("/etc/fanlight/fans", "250.0.0.0/8 eth0\n240.0.0.0/8 eth0 egress drop\n");
    fleet[0].run("fan up -a");
    fleet[0].run("fan down -a");
    assert_unchanged(&fleet[0], &before, "afterwards");
    fleet[0].run("fan up -a");
    assert_eq!(fleet[0].json("fan show").as_array().map(Vec::len), Some(2));
}

#[test]
fn the_agent_brings_up_the_fans_of_its_configuration_and_of_the_file() {
    let fleet = Fleet::bare(1);
    fleet[0].write(
        "/etc/fanlight/fanlight.toml",
        "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"172.30.0.0/16\"\n",
    );
    fleet[0].write("/etc/fanlight/fans", "240.0.0.0/8 eth0\n");
    fleet[0].run("fan up 241.0.0.0/8 eth0");
    let mut agent = fleet[0].agent();
    assert_eq!(fleet[0].json("fan show").as_array().map(Vec::len), Some(3));
    fleet[0].write("/etc/fanlight/fanlight.toml", "nonsense = 1\n");
    agent.reload_refused(&fleet[0]);
    assert_eq!(fleet[0].json("fan show").as_array().map(Vec::len), Some(3));
    fleet[0].write("/etc/fanlight/fanlight.toml", "");
    agent.reload();
    let shown = fleet[0].json("fan show");
    let overlays: Vec<_> =
        shown.as_array().into_iter().flatten().map(|fan| fan["overlay"].to_string()).collect();
    assert_eq!(overlays.len(), 2, "{shown}");
    assert!(!overlays.contains(&"\"250.0.0.0/8\"".to_owned()), "{shown}");
}

#[test]
fn test_says_whether_the_encapsulation_gets_through() {
    let fleet = Fleet::up(2);
    let steps = |status| {
        let tested = fleet[0].fanlight(["fan", "test", "172.30.0.28", "--json"]).exits(status);
        let steps: serde_json::Value = serde_json::from_str(&tested.stdout).expect("JSON");
        let steps = steps.as_array().expect("a list").iter();
        let told = steps.map(|step| format!("{}: {}; {}", step["name"], step["passed"], step["remedy"]));
        told.map(|step| step.replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!(steps(0), ["underlay: true; ", "tunnel: true; ", "full-size: true; "]);
    fleet[1].run("fan down 250.0.0.0/8 eth0");
    let told = steps(1);
    assert_eq!((told.len(), &*told[0]), (2, "underlay: true; "), "{told:?}");
    assert!(told[1].starts_with("tunnel: false; check that the same fan is up there"), "{told:?}");
    fleet[1].ip("link set eth0 down");
    let told = steps(1);
    assert!(told[0].starts_with("underlay: false; check that 172.30.0.28 is up"), "{told:?}");
}

#[test]
fn todays_fanctl_forms_bring_fans_up_and_every_one_down() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let nothing = host.fanlight(["fan", "up", "-a"]).ok();
    assert_eq!(nothing, "/etc/fanlight/fans names no fan: nothing is brought up");
    host.fanlight(["fan", "up", "-u", "eth0/16", "-o", "250.0.0.0/8", "--bridge=kbr0"]).exits(0);
    host.write("/etc/fanlight/fans", "251.0.0.0/8 eth0 local 4\n");
    host.run("fan up -a");
    let fans = host.json("fan show");
    assert_eq!((&fans[0]["bridge"], fans.as_array().expect("a list").len()), (&"kbr0".into(), 2));
    assert!(fans[1]["flags"].to_string().contains("host-reserve 4"), "{fans}");
    host.run("fan down -e");
    assert_eq!(host.json("fan show"), serde_json::json!([]));
    assert_eq!(host.fanlight(["fan", "down", "-e"]).ok(), "no such fan is up: nothing is taken down");
}

#[test]
fn the_default_routes_device_is_a_16_unless_said_otherwise() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    host.ip("address del 172.30.0.27/16 dev eth0");
    host.ip("address add 172.30.0.27/24 dev eth0");
    host.ip("route add default via 172.30.0.1 dev eth0");
    host.run("fan up 250 default");
    assert_eq!(host.json("fan show")[0]["underlay"], "172.30.0.0/16");
    assert_eq!(host.json("fan show")[0]["slice"], "250.0.27.0/24");
}

#[test]
fn a_host_that_drops_what_is_meant_for_itself_is_tested_by_what_it_forwards() {
    let fleet = Fleet::up(2);
    let strict = "table inet strict { chain input { type filter hook input priority 0; policy drop; \
                  ct state established,related accept; }; }";
    for host in [&fleet[0], &fleet[1]] {
        host.command("nft").args(["-f", "-"]).input(strict).ok();
    }
    let steps = fleet[0].json("fan test 172.30.0.28");
    assert_eq!(steps.as_array().expect("steps").len(), 3, "{steps}");
    assert!(
        steps[1]["detail"].as_str().is_some_and(|text| text.contains("its containers are reached")),
        "{steps}"
    );
    // Without the tunnel there is no such excuse.
    fleet[1].run("fan down 250.0.0.0/8 eth0");
    fleet[0].fanlight(["fan", "test", "172.30.0.28"]).exits(1);
}

#[test]
fn an_endpoint_has_a_loopback_device_and_an_address_of_no_fan_is_told_the_slices() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    host.ip("netns add bare");
    let output = host.fanlight(["endpoint", "add", "--netns", "bare", "--address", "10.9.9.9"]).exits(1);
    assert!(output.stderr.contains("use one of 250.0.27.0/24 other than"), "{output}");
    host.run("endpoint add --netns bare");
    assert!(host.ip("-n bare link show lo").contains("LOOPBACK,UP"));
    host.run("endpoint remove bare");
    host.ip("netns del bare");
}
