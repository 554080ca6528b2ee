//! Settings of the kernel that a fan and services change: what is put back, what stays, and what the host keeps.

use std::time::Duration;

use fanlight_tests::{Host, eventually, fleet::Fleet};

const SOON: Duration = Duration::from_secs(30);
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

fn read(host: &Host, path: &str) -> String {
    host.sh(&format!("cat {path}"))
}

fn forwards(host: &Host) -> bool {
    read(host, "/proc/sys/net/ipv4/ip_forward") == "1"
}

#[test]
fn a_setting_that_could_not_be_put_back_is_by_the_next_down() {
    let fleet = Fleet::up(1);
    assert!(forwards(&fleet[0]));
    fleet[0].sh("mount --bind /proc/sys /proc/sys");
    fleet[0].sh("mount -o remount,bind,ro /proc/sys");
    let failed = fleet[0].fanlight(["fan", "down", "250.0.0.0/8", "eth0"]).exits(1);
    assert!(failed.stderr.contains("setting net/ipv4/ip_forward: "), "{failed}");
    assert!(failed.stderr.contains("try again"), "{failed}");
    fleet[0].sh("umount /proc/sys");
    fleet[0].run("fan down 250.0.0.0/8 eth0");
    assert!(!forwards(&fleet[0]));
    assert!(!fleet[0].path("/run/fanlight/sysctls.json").exists());
}

/// Takes the fan down after `come` was done to the host, which must go on forwarding because of `user`.
#[track_caller]
fn assert_stays(come: impl FnOnce(&Host), user: &str) {
    let fleet = Fleet::up(1);
    come(&fleet[0]);
    let told = fleet[0].run("fan down 250.0.0.0/8 eth0");
    let note = format!("note: net/ipv4/ip_forward stays 1, because these may need it by now: {user}");
    assert!(told.lines().any(|line| line == note), "{told}");
    assert!(forwards(&fleet[0]));
    // It is as if it had always been on.
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    assert!(!fleet[0].run("fan down 250.0.0.0/8 eth0").contains("note"));
    assert!(forwards(&fleet[0]));
}

#[test]
fn forwarding_stays_where_another_bridge_has_come() {
    assert_stays(|host| drop(host.ip("link add docker0 type bridge")), "bridge docker0");
}

#[test]
fn forwarding_stays_where_others_translate() {
    let rules = "table ip nat { chain POSTROUTING { type nat hook postrouting priority 100; \
                 ip saddr 172.17.0.0/16 masquerade; }; }";
    let come = |host: &Host| drop(host.command("nft").arg("-f").arg("-").input(rules).ok());
    assert_stays(come, "rules of ip nat POSTROUTING");
}

#[test]
fn forwarding_stays_where_the_hosts_configuration_has_it_on() {
    let come = |host: &Host| host.write("/etc/sysctl.d/99-router.conf", "net.ipv4.ip_forward = 1\n");
    assert_stays(come, "/etc/sysctl.d/99-router.conf");
}

#[test]
fn what_was_there_before_the_fan_lived_without_forwarding() {
    let fleet = Fleet::bare(1);
    fleet[0].ip("link add docker0 type bridge");
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    fleet[0].run("fan down 250.0.0.0/8 eth0");
    assert!(!forwards(&fleet[0]));
}

fn configure(host: &Host, ports: &str) {
    let service = "[[service]]\nname = \"web\"\nvip = \"10.96.0.10:80/tcp\"\nbackends = [{ address = \"250.0.27.3:80\" }]\n";
    host.write("/etc/fanlight/fanlight.toml", &format!("[datapath]\nnat-ports = \"{ports}\"\n{service}"));
}

#[test]
fn ports_that_the_host_needs_itself_are_refused_at_check_start_and_reload() {
    let fleet = Fleet::up(1);
    let before = read(&fleet[0], PORTS);
    let expected = "/etc/fanlight/fanlight.toml:2: datapath.nat-ports: 1024-65535 leaves this host's sockets 0 of their \
                    ports 32768-60999";
    configure(&fleet[0], "1024-65535");
    for words in ["check-config", "agent"] {
        let refused = fleet[0].fanlight([words]).exits(1);
        assert!(refused.stderr.contains(expected) && refused.stderr.contains("use 61000-65535"), "{refused}");
    }
    configure(&fleet[0], "61000-65535");
    fleet[0].run("check-config");
    let mut agent = fleet[0].agent();
    let reserved = read(&fleet[0], PORTS);
    assert_ne!(reserved, before);
    configure(&fleet[0], "1024-65535");
    agent.reload();
    let is_told = || fleet[0].json("status")["degraded"].to_string().contains(expected).then_some(());
    eventually("status tells of it", SOON, is_told);
    assert_eq!(read(&fleet[0], PORTS), reserved);
    assert!(agent.stop().status.success());
}

#[test]
fn a_narrower_range_and_the_last_fan_free_what_is_ours_alone() {
    let fleet = Fleet::up(1);
    fleet[0].sysctl("net.ipv4.ip_local_reserved_ports", "8080,50010-50020");
    configure(&fleet[0], "50000-65535");
    let mut agent = fleet[0].agent();
    assert_eq!(read(&fleet[0], PORTS), "8080,50000-65535");
    // As an operator who adds one to what there is.
    fleet[0].sysctl("net.ipv4.ip_local_reserved_ports", "8080,9000,50000-65535");
    configure(&fleet[0], "61000-65535");
    agent.reload();
    assert_eq!(read(&fleet[0], PORTS), "8080,9000,50010-50020,61000-65535");
    assert!(agent.stop().status.success());
    fleet[0].run("fan down 250.0.0.0/8 eth0");
    eventually("the ports are free", SOON, || {
        (read(&fleet[0], PORTS) == "8080,9000,50010-50020").then_some(())
    });
}
