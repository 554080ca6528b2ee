//! Foreign rules and programs that translate packets before our programs see them: `status` says so.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    time::Duration,
};

use fanlight::kernel::bpf::{Datapath, Mechanism};
use fanlight_tests::{
    Host,
    capture::Capture,
    close, eventually,
    fleet::Fleet,
    foreign::{Foreign, Group},
    services::{configure, service},
    tools,
};

/// At most one look in 10 s.
const SOON: Duration = Duration::from_secs(30);

/// The reasons that begin with `shadowed`.
fn shadowed(host: &Host) -> Vec<String> {
    let status = host.json("status");
    let reasons = status["degraded"].as_array().expect("a list").iter().filter_map(|reason| reason.as_str());
    reasons.filter(|reason| reason.starts_with("shadowed: ")).map(str::to_owned).collect()
}

/// The only reason, once there is one.
#[track_caller]
fn reason(host: &Host) -> String {
    let mut reasons = eventually("a reason", SOON, || Some(shadowed(host)).filter(|all| !all.is_empty()));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.remove(0)
}

fn mechanism(host: &Host) -> Mechanism {
    host.inside(|| Datapath::open_existing().expect("it opens").expect("a fan is up").mechanism())
}

//@ guest: 6.1, 6.12
#[test]
fn a_program_of_another_owner_before_ours_is_reported_with_and_without_an_agent() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    if mechanism(host) != Mechanism::Tcx {
        tools::ignore("the kernel has no tcx hook");
        return;
    }
    assert_eq!(shadowed(host), Vec::<String>::new());
    let theirs = Foreign::classifier("their_cls").before_all(host, "eth0");
    let told = reason(host);
    assert!(told.starts_with("shadowed: eth0 uplink-ingress: program "), "{told}");
    assert!(told.contains(" (their_cls) of another owner runs before ours"), "{told}");
    let agent = host.agent();
    assert_eq!(reason(host), told);
    close(theirs);
    assert_eq!(shadowed(host), Vec::<String>::new());
    drop(agent);
}

//@ guest: 6.1
#[test]
fn a_filter_of_another_owner_before_ours_is_reported_where_the_kernel_has_no_tcx() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    Foreign::classifier("their_cls").pin(host, "/sys/fs/bpf/theirs");
    host.command("tc").args("qdisc add dev eth0 clsact".split(' ')).run();
    // The latest filter of a preference runs first.
    host.sh("tc filter add dev eth0 ingress pref 1 handle 1 bpf da object-pinned /sys/fs/bpf/theirs");
    match mechanism(host) {
        // Filters come after all programs on the tcx hook.
        Mechanism::Tcx => assert_eq!(shadowed(host), Vec::<String>::new()),
        Mechanism::Clsact => {
            let told = reason(host);
            assert!(told.starts_with("shadowed: eth0 uplink-ingress: program "), "{told}");
            host.sh("tc filter del dev eth0 ingress pref 1 handle 1 bpf");
            assert_eq!(shadowed(host), Vec::<String>::new());
        }
    }
}

/// The usual service, and one beside it.
const VIP: &str = "10.96.0.10";

fn serve(host: &Host) {
    let backends = ["250.0.1.2:8080".to_owned()];
    let services = [("dns", "53/udp"), ("tls", "443/tcp"), ("web", "80/tcp")];
    let tables = services.map(|(name, port)| service(name, format!("{VIP}:{port}"), &backends));
    configure(host, &tables);
}

/// A table as kube-proxy writes it in nftables mode, with the web service in it.
const KUBE_PROXY: &str = "table ip kube-proxy {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.10 . tcp . 80 : goto service-web, 10.96.0.11 . tcp . 443 : goto service-web,
                 10.96.0.10 . tcp . 53 : goto service-web }
  }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain endpoint-1 { ip saddr 10.1.0.1 jump mark-for-masquerade; meta l4proto tcp dnat to 10.1.0.1:8080; }
  chain endpoint-2 { ip saddr 10.1.0.2 jump mark-for-masquerade; meta l4proto tcp dnat to 10.1.0.2:8080; }
  chain service-web {
    ip daddr 10.96.0.10 tcp dport 80 ip saddr != 10.0.0.0/8 jump mark-for-masquerade
    CHOICE
  }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain nat-output { type nat hook output priority -100; jump services; }
}
";

/// How a service's chain spreads connections.
const CHOICE: &str = "numgen random mod 2 vmap { 0 : goto endpoint-1, 1 : goto endpoint-2 }";

//@ guest
#[test]
fn a_vip_in_a_map_of_nftables_is_reported_until_its_element_is_gone() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    // The guests have no module for numbers by chance.
    let choice = if tools::in_guest() { "goto endpoint-1" } else { CHOICE };
    host.command("nft").args(["-f", "-"]).input(KUBE_PROXY.replace("CHOICE", choice)).ok();
    serve(host);
    let _agent = host.agent();
    assert_eq!(
        reason(host),
        "shadowed: service web: `ip kube-proxy service-web` translates 10.96.0.10:80/tcp, too, so that processes of \
         this host do not reach Fanlight's backends; remove that rule"
    );
    host.sh("nft delete element ip kube-proxy service-ips { 10.96.0.10 . tcp . 80 }");
    eventually("the reason is gone", SOON, || shadowed(host).is_empty().then_some(()));
}

/// What kube-proxy writes in iptables mode for the web service.
const KUBE_SERVICES: &str = r#"*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-SEP-1 - [0:0]
:KUBE-SEP-2 - [0:0]
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "a \"b\" cluster IP" -m tcp --dport 80 -j KUBE-SVC-WEB
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "no port of ours" -m tcp --dport 53 -j KUBE-SVC-WEB
-A KUBE-SVC-WEB ! -s 10.0.0.0/8 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-WEB -m comment --comment "->" -m statistic --mode random --probability 0.5 -j KUBE-SEP-1
-A KUBE-SVC-WEB -m comment --comment "->" -j KUBE-SEP-2
-A KUBE-SEP-1 -p tcp -m comment --comment "x" -m tcp -j DNAT --to-destination 10.1.0.1:8080
-A KUBE-SEP-2 -s 10.1.0.2/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-2 -p tcp -m comment --comment "x" -m tcp -j DNAT --to-destination 10.1.0.2:8080
COMMIT
"#;

/// Makes a variant of iptables translate, and stop.
fn iptables_chain_is_reported(variant: &str, who: &str) {
    if !tools::available(&[&format!("iptables-{variant}-restore")]) {
        return;
    }
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let iptables = |arguments: &str| host.command(format!("iptables-{variant}{arguments}"));
    let restored = iptables("-restore").input(KUBE_SERVICES).run();
    if variant == "legacy" && restored.stderr.contains("Table does not exist") {
        tools::ignore("the kernel has no legacy tables");
        return;
    }
    assert!(restored.status.success(), "{restored}");
    serve(host);
    let _agent = host.agent();
    let told = reason(host);
    let expected = format!("shadowed: service web: {who} translates 10.96.0.10:80/tcp, too");
    assert!(told.starts_with(&expected), "{told}");
    let rule = ["-t", "nat", "-D", "OUTPUT", "1"];
    iptables("").args(rule).ok();
    // Nobody tells of legacy rules: a change of others' rules has all be looked at again.
    host.sh("nft add table ip other");
    host.sh("nft delete table ip other");
    eventually("the reason is gone", SOON, || shadowed(host).is_empty().then_some(()));
}

#[test]
fn a_chain_of_iptables_is_reported_until_nothing_leads_to_it() {
    iptables_chain_is_reported("nft", "`ip nat KUBE-SVC-WEB`");
}

#[test]
fn a_chain_of_iptables_beside_nf_tables_is_reported_until_nothing_leads_to_it() {
    iptables_chain_is_reported("legacy", "chain KUBE-SVC-WEB of `iptables-legacy -t nat`");
}

#[test]
fn services_that_are_too_many_to_name_are_counted() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let services = (0..20).map(|number| {
        let vip = format!("10.96.1.{number}:80/tcp");
        service(&format!("s{number:02}"), vip, &[])
    });
    configure(host, &services.collect::<Vec<_>>());
    let _agent = host.agent();
    let dnat = |network: &str| {
        let rules = format!(
            "table inet theirs {{ chain out {{ type nat hook output priority -100; \
             ip daddr {network} tcp dport {{ 80, 90-99 }} dnat ip to 10.1.0.1; }}; }}\n"
        );
        host.command("nft").args(["-f", "-"]).input(rules).ok();
        eventually("they are reported", SOON, || Some(shadowed(host)).filter(|all| all.len() == 11))
    };
    let told = dnat("10.96.1.0/28");
    assert!(
        told[0].starts_with("shadowed: service s00: `inet theirs out` translates 10.96.1.0:80/tcp"),
        "{told:?}"
    );
    assert_eq!(told[10], "shadowed: and 6 more services");
    dnat("10.96.0.0/14");
    eventually("all are counted", SOON, || {
        (shadowed(host).last()? == "shadowed: and 10 more services").then_some(())
    });
}

#[test]
fn a_program_on_connect_is_reported_without_any_packet_to_the_vip() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    configure(host, &[]);
    let mut agent = host.agent();
    let group = Group::new();
    group.take(agent.pid());
    let [vip, other] = [[10, 96, 0, 10], [250, 0, 1, 9]].map(Ipv4Addr::from);
    let program = Foreign::connect("their_connect", vip, other);
    program.for_group(&group);
    let capture = Capture::start(host, "any", "net 10.96.0.0/16 or net 250.0.0.0/8");
    serve(host);
    agent.reload();
    let told = eventually("reasons", SOON, || Some(shadowed(host)).filter(|all| !all.is_empty()));
    for (reason, service) in told.iter().zip(["dns", "tls", "web"]) {
        assert!(reason.starts_with(&format!("shadowed: service {service}: program ")), "{reason}");
        assert!(reason.contains(" (their_connect) on connect() translates 10.96.0.10:"), "{reason}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
    // What is sent is seen.
    let sent = host.inside(|| UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", (vip, 9))));
    sent.expect("the VIP is routed");
    let seen = capture.decode();
    let ports = seen.split("10.96.0.10.").skip(1).map(|rest| rest.split([' ', ':', ',']).next());
    let ports: BTreeSet<_> = ports.flatten().collect();
    assert_eq!(ports, BTreeSet::from(["9"]), "{seen}");
    assert!(!seen.contains("250.0.1.9"), "{seen}");
    drop(agent);
}

//@ guest
#[test]
fn a_service_of_ip_vs_is_reported_with_the_command_that_removes_it() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    if !tools::available(&["ipvsadm"]) {
        return;
    }
    if !host.inside(|| Path::new("/proc/thread-self/net/ip_vs").exists()) {
        tools::ignore("the kernel has no ip_vs");
        return;
    }
    host.sh("ipvsadm -A -t 10.96.0.10:80 -s rr");
    host.sh("ipvsadm -A -t 10.96.0.10:53 -s rr");
    serve(host);
    let _agent = host.agent();
    let told = reason(host);
    assert!(told.starts_with("shadowed: service web: ip_vs translates 10.96.0.10:80/tcp, too"), "{told}");
    let remedy = told.split('`').nth(1).expect("a command");
    host.sh(remedy);
    host.sh("nft add table ip other");
    host.sh("nft delete table ip other");
    eventually("the reason is gone", SOON, || shadowed(host).is_empty().then_some(()));
}
