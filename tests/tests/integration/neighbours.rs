//! A fan among others' rules, settings and programs, which it works with and leaves as they were.

use std::{fs, time::Duration};

use fanlight_tests::{
    Host, Output, eventually,
    fleet::{Fleet, bridge, overlay, underlay},
    load::assert_reaches,
    tools,
};

const UP: [&str; 4] = ["fan", "up", "250.0.0.0/8", "eth0"];

fn setting(host: &Host, key: &str) -> String {
    host.sh(&format!("cat /proc/sys/net/ipv4/{key}"))
}

fn nft(host: &Host, script: &str) {
    host.command("nft").args(["-f", "-"]).input(script).ok();
}

#[test]
fn accept_rules_go_into_dockers_chain_and_away_again() {
    let fleet = Fleet::bare(2);
    fleet[1].run("fan up 250.0.0.0/8 eth0");
    let host = &fleet[0];
    if !tools::available(&["iptables"]) {
        return;
    }
    host.sh("iptables -P FORWARD DROP");
    host.sh("iptables -N DOCKER-USER");
    host.sh("iptables -A FORWARD -j DOCKER-USER");
    let before = host.sh("iptables -S");
    let up: Output = host.fanlight(UP).exits(0);
    assert!(!up.stdout.contains("forward-blocked"), "{up}");
    assert_ne!(host.sh("iptables -S"), before);
    let port = fleet.port(0, 5);
    assert_reaches(&port, overlay(1, 1));
    assert_reaches(&port, underlay(1));
    host.ip("link delete vc5");
    host.run("fan down 250.0.0.0/8 eth0");
    assert_eq!(host.sh("iptables -S"), before);
}

#[test]
fn a_chain_that_drops_forwarded_packets_is_reported_with_rules_that_help() {
    let fleet = Fleet::bare(2);
    fleet[1].run("fan up 250.0.0.0/8 eth0");
    let host = &fleet[0];
    nft(
        host,
        "table ip site { chain forward { type filter hook forward priority filter; policy drop; }; }\n",
    );
    let up = host.fanlight(UP).exits(0);
    let advice =
        up.stdout.lines().find(|line| line.contains("forward-blocked")).unwrap_or_default().to_owned();
    let rules: Vec<&str> = advice.split('`').filter(|part| part.starts_with("nft ")).collect();
    assert_eq!(rules.len(), 5, "both ways, what is cut for a service, and egress with its answers: {up}");
    for rule in rules {
        host.sh(rule);
    }
    let up = host.fanlight(UP).exits(0);
    assert!(!up.stdout.contains("forward-blocked"), "{up}");
    let port = fleet.port(0, 5);
    assert_reaches(&port, overlay(1, 1));
    assert_reaches(&port, underlay(1));
}

#[test]
fn a_foreign_masquerade_leaves_the_hosts_own_packets_their_source() {
    let fleet = Fleet::up(2);
    let other = fleet.port(1, 5);
    let rule = format!("ip saddr 250.0.27.0/24 oifname != {} masquerade", bridge(0));
    nft(
        &fleet[0],
        &format!(
            "table ip nat {{ chain POSTROUTING {{ type nat hook postrouting priority srcnat; {rule}; }}; }}\n"
        ),
    );
    assert_reaches(&fleet[0], overlay(1, 5));
    drop(other);
}

#[test]
fn what_the_kernel_changes_along_with_forwarding_is_put_back() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    host.sysctl("net.ipv4.conf.all.accept_redirects", "0");
    host.sysctl("net.ipv4.conf.eth0.forwarding", "1");
    host.run("fan up 250.0.0.0/8 eth0");
    assert_eq!(setting(host, "ip_forward"), "1");
    host.run("fan down 250.0.0.0/8 eth0");
    assert_eq!(setting(host, "ip_forward"), "0");
    assert_eq!(setting(host, "conf/all/accept_redirects"), "0");
    assert_eq!(setting(host, "conf/eth0/forwarding"), "1");
}

#[test]
fn a_setting_that_somebody_changed_meanwhile_is_left_alone() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    host.run("fan up 250.0.0.0/8 eth0");
    host.sysctl("net.ipv4.ip_forward", "0");
    host.run("fan down 250.0.0.0/8 eth0");
    assert_eq!(setting(host, "ip_forward"), "0");
}

#[test]
fn strict_reverse_path_checks_let_the_overlay_through() {
    let fleet = Fleet::bare(2);
    for host in fleet.hosts() {
        for interface in ["all", "default", "eth0"] {
            host.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "1");
        }
        host.run("fan up 250.0.0.0/8 eth0");
    }
    let (one, _other) = (fleet.port(0, 5), fleet.port(1, 5));
    assert_reaches(&one, overlay(1, 5));
    assert_reaches(&one, overlay(1, 1));
    assert_reaches(&fleet[0], overlay(1, 5));
}

#[test]
fn a_veth_that_only_has_the_helpers_name_is_left_alone() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    host.ip("link add fanlight0 type veth peer name other");
    let before = host.ip("-o link show");
    let refused = host.fanlight(UP).exits(1);
    assert!(refused.stderr.contains("fanlight0 exists and is not fanlight's"), "{refused}");
    assert_eq!(host.ip("-o link show"), before);
}

#[test]
fn a_route_that_somebody_adds_inside_the_overlay_stops_no_repair() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    host.ip("route add 250.9.0.0/16 dev eth0");
    host.ip("link set eth0 mtu 1400");
    host.run("fan up 250.0.0.0/8 eth0");
    assert!(host.ip("route show 250.0.0.0/8").contains("mtu 1380"));
    host.run("fan down 250.0.0.0/8 eth0");
    let refused = host.fanlight(UP).exits(1);
    assert!(refused.stderr.contains("250.9.0.0/16"), "{refused}");
}

#[test]
fn an_up_that_is_killed_is_taken_back_by_the_next_down() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let state = || [host.ip("-o link show"), host.ip("route"), host.sh("nft list ruleset")].join("\n");
    let before = state();
    for milliseconds in (30..600).step_by(90) {
        let up = host.fanlight(UP).spawn();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let up = up.kill();
        let down = host.fanlight(["fan", "down", "250.0.0.0/8", "eth0"]).run();
        assert!(
            down.status.success() || down.stderr.contains("is not up"),
            "after {milliseconds} ms: {up}{down}"
        );
        assert_eq!(state(), before, "after {milliseconds} ms: {up}{down}");
        assert_eq!(setting(host, "ip_forward"), "0");
    }
}

#[test]
fn the_old_address_that_comes_back_makes_its_slice_the_fans_again() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let address = underlay(0);
    let slices = || {
        let shown = host.json("fan show");
        let shown = shown.as_array().cloned().unwrap_or_default();
        let pair = |fan: &serde_json::Value| format!("{} {}", fan["slice"], fan["state"]).replace('"', "");
        shown.iter().map(pair).collect::<Vec<_>>()
    };
    let _used = [fleet.port(0, 5), fleet.port(0, 6)];
    host.ip(&format!("address delete {address}/16 dev eth0"));
    host.ip("address add 172.30.0.99/16 dev eth0");
    host.run("fan up 250.0.0.0/8 eth0");
    assert_eq!(slices(), ["250.0.99.0/24 up", "250.0.27.0/24 stale"]);
    host.ip("link set vc6 master fan-250-0-99");
    host.ip("address delete 172.30.0.99/16 dev eth0");
    host.ip(&format!("address add {address}/16 dev eth0"));
    host.run("fan up 250.0.0.0/8 eth0");
    assert_eq!(slices(), ["250.0.27.0/24 up", "250.0.99.0/24 stale"]);
    host.ip("link delete vc5");
    host.ip("link delete vc6");
    host.run("fan down 250.0.0.0/8 eth0");
    assert_eq!(slices(), Vec::<String>::new());
    assert!(!host.has_device(&bridge(0)) && !host.has_device("fan-250-0-99"));
}

#[test]
fn dhcp_hands_out_what_is_not_reserved_and_ends_with_the_fan() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let words = ["fan", "up", "250.0.0.0/8", "eth0", "dhcp", "host-reserve", "9", "dns", "10.0.0.2,10.0.0.3"];
    host.command("sh").args(["-c", "mkdir /run/programs && ln -s $(command -v nft) /run/programs/"]).ok();
    let refused = host.fanlight(words).env("PATH", "/run/programs").exits(1);
    assert!(refused.stderr.contains("install the package dnsmasq-base"), "{refused}");
    if !tools::available(&["dnsmasq"]) {
        return;
    }
    host.fanlight(words).exits(0);
    let pid = host.sh(&format!("cat /run/fanlight/dhcp/{}.pid", bridge(0)));
    let settings = host.sh(&format!("cat /run/fanlight/dhcp/{}.conf", bridge(0)));
    assert!(settings.contains("dhcp-range=250.0.27.10,"), "{settings}");
    assert!(settings.contains("dhcp-option=option:dns-server,10.0.0.2,10.0.0.3\n"), "{settings}");
    let flags = host.json("fan show")[0]["flags"].to_string();
    assert!(flags.contains("dns 10.0.0.2,10.0.0.3"), "{flags}");
    host.fanlight(words).exits(0);
    let others = host.fanlight(["fan", "up", "250.0.0.0/8", "eth0", "dhcp", "host-reserve", "9"]).exits(1);
    assert!(others.stderr.contains("dns 10.0.0.2,10.0.0.3 instead of none"), "{others}");
    assert_eq!(host.sh(&format!("cat /run/fanlight/dhcp/{}.pid", bridge(0))), pid);
    host.run("fan down 250.0.0.0/8 eth0");
    let ended = || fs::metadata(format!("/proc/{pid}")).is_err().then_some(());
    eventually("dnsmasq has ended", Duration::from_secs(3), ended);
}
