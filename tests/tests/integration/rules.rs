//! Packet filters of others: rules as they are written by Docker, firewalld and operators, by whom each is told and what
//! helps.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};

use fanlight_tests::{
    Host, Site, eventually,
    fleet::{Fleet, overlay, underlay},
    load::assert_reaches,
    server::{Greeted, Named},
};

const UP: [&str; 4] = ["fan", "up", "250.0.0.0/8", "eth0"];
/// The agent looks at changed rules within ten seconds.
const SOON: Duration = Duration::from_secs(25);

/// Both iptables; they know nothing of each other's rules.
const VARIANTS: [&str; 2] = ["iptables-nft", "iptables-legacy"];

fn nft(host: &Host, script: &str) {
    host.command("nft").args(["-f", "-"]).input(script).ok();
}

/// Lines as iptables takes them, chains of the filter table first.
fn iptables(host: &Host, program: &str, lines: &[&str]) {
    for line in lines {
        host.sh(&format!("{program} {line}"));
    }
}

/// What `status` says of packet filters.
fn reasons(host: &Host) -> Vec<String> {
    let status = host.json("status");
    let reasons = status["degraded"].as_array().expect("a list").iter().filter_map(|reason| reason.as_str());
    let kinds = ["forward-blocked: ", "dhcp-blocked: ", "docker-blocked: ", "filtered: "];
    reasons.filter(|reason| kinds.iter().any(|kind| reason.starts_with(kind))).map(str::to_owned).collect()
}

#[track_caller]
fn reason(host: &Host) -> String {
    let mut reasons = reasons(host);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.remove(0)
}

/// Runs what stands between back quotes.
fn follow(host: &Host, advice: &str) {
    let commands = advice.split('`').skip(1).step_by(2);
    assert_ne!(commands.clone().count(), 0, "{advice}");
    commands.for_each(|command| drop(host.sh(command)));
}

fn reaches(from: &Site, to: Ipv4Addr) -> bool {
    from.command("ping").args(["-c", "1", "-W", "1", &to.to_string()]).run().status.success()
}

/// A fan on two hosts, and a container by hand on the first, whose packets go by the stack.
fn fleet() -> Fleet {
    Fleet::up(2)
}

#[test]
fn without_an_agent_status_looks_at_the_rules_itself() {
    let fleet = fleet();
    let (host, port) = (&fleet[0], fleet.port(0, 5));
    assert_eq!(reasons(host), [""; 0]);
    assert_reaches(&fleet[1], overlay(0, 5));
    host.sh("iptables-nft -P FORWARD DROP");
    let told = reason(host);
    assert!(
        told.starts_with(
            "forward-blocked: ip filter FORWARD drops forwarded packets; add `iptables-nft -I FORWARD"
        ),
        "{told}"
    );
    assert_eq!(host.fanlight(["status"]).run().code(), 1);
    assert!(!reaches(&fleet[1], overlay(0, 5)));
    follow(host, &told);
    assert_eq!(reasons(host), [""; 0]);
    assert_reaches(&fleet[1], overlay(0, 5));
    assert_reaches(&port, underlay(1));
}

#[test]
fn advice_survives_being_saved_and_restored_and_opens_nothing_else() {
    for program in VARIANTS {
        let fleet = fleet();
        let (host, port) = (&fleet[0], fleet.port(0, 5));
        host.sh(&format!("{program} -P FORWARD DROP"));
        let told = reason(host);
        follow(host, &told);
        assert_eq!(reasons(host), [""; 0], "{program}");
        let saved = host.sh(&format!("{program}-save -t filter"));
        assert!(!saved.contains("-A FORWARD -j ACCEPT"), "{saved}");
        host.sh(&format!("{program} -F FORWARD"));
        assert_eq!(reasons(host).len(), 1, "{program}");
        host.command(format!("{program}-restore")).input(saved).ok();
        assert_eq!(reasons(host), [""; 0], "{program}");
        assert_reaches(&fleet[1], overlay(0, 5));
        assert_reaches(&port, overlay(1, 1));
        assert_reaches(&port, underlay(1));
    }
}

#[test]
fn a_table_of_nftables_is_told_in_its_own_words() {
    let fleet = fleet();
    let (host, _port) = (&fleet[0], fleet.port(0, 5));
    nft(host, "table inet site { chain forward { type filter hook forward priority 0; policy drop; }; }\n");
    let told = reason(host);
    assert!(
        told.contains("`nft insert rule inet site forward iifname fanlight0 oifname fan-250-0-27 accept`"),
        "{told}"
    );
    follow(host, &told);
    assert_eq!(reasons(host), [""; 0]);
    assert_reaches(&fleet[1], overlay(0, 5));
}

/// What firewalld 1.3 has for forwarded packets with `eth0` in zone public.
const FIREWALLD: &str = "table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname \"lo\" accept
    ct state invalid drop
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD_ZONES {
    iifname \"eth0\" oifname \"eth0\" goto filter_FWD_public
    iifname \"eth0\" goto filter_FWD_public
    goto filter_FWD_public
  }
  chain filter_FWD_public { reject with icmpx admin-prohibited; }
}
";

#[test]
fn a_chain_that_accepts_by_policy_and_rejects_by_its_last_rule_is_told_too() {
    let fleet = fleet();
    let (host, port) = (&fleet[0], fleet.port(0, 5));
    nft(host, FIREWALLD);
    assert!(!reaches(&fleet[1], overlay(0, 5)) && !reaches(&port, underlay(1)));
    let told = reason(host);
    assert!(told.starts_with("forward-blocked: inet firewalld filter_FORWARD drops"), "{told}");
    assert!(told.contains("firewall-cmd --permanent --zone=trusted --add-interface=fanlight0"), "{told}");
    nft(host, "flush chain inet firewalld filter_FORWARD\n");
    assert_eq!(reasons(host), [""; 0]);
    nft(
        host,
        "add rule inet firewalld filter_FORWARD iifname { \"fanlight0\", \"fan-*\", \"eth0\" } accept\n",
    );
    nft(host, "add rule inet firewalld filter_FORWARD reject\n");
    assert_eq!(reasons(host), [""; 0]);
    assert_reaches(&fleet[1], overlay(0, 5));
}

#[test]
fn with_an_agent_rules_that_come_later_are_told_and_those_that_go_are_forgotten() {
    let fleet = fleet();
    let host = &fleet[0];
    let _agent = host.agent();
    iptables(host, "iptables-nft", &["-A FORWARD -i eth0 -o eth0 -j ACCEPT"]);
    assert_eq!(reasons(host), [""; 0]);
    iptables(host, "iptables-nft", &["-A FORWARD -j REJECT"]);
    eventually("the agent says so", SOON, || (reasons(host).len() == 1).then_some(()));
    iptables(host, "iptables-nft", &["-D FORWARD -j REJECT"]);
    eventually("the reason is gone", SOON, || reasons(host).is_empty().then_some(()));
}

#[test]
fn an_input_chain_that_keeps_requests_for_addresses_out_is_told() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    host.run("fan up 250.0.0.0/8 eth0 dhcp");
    iptables(
        host,
        "iptables-nft",
        &[
            "-P INPUT DROP",
            "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        ],
    );
    let told = reason(host);
    assert!(told.starts_with("dhcp-blocked: ip filter INPUT drops requests for addresses"), "{told}");
    follow(host, &told);
    assert_eq!(reasons(host), [""; 0]);
    host.run("fan down 250.0.0.0/8 eth0");
}

#[test]
fn rules_for_some_packets_of_the_overlay_are_told_as_filters() {
    let fleet = fleet();
    let host = &fleet[0];
    iptables(host, "iptables-nft", &["-I FORWARD -d 250.0.27.3 -p tcp --dport 80 -j DROP"]);
    let told = reason(host);
    assert!(told.starts_with("filtered: ip filter FORWARD may drop some packets of 250.0.0.0/8"), "{told}");
    iptables(
        host,
        "iptables-nft",
        &["-F FORWARD", "-A FORWARD -d 192.0.2.0/24 -j DROP", "-A FORWARD -i eth9 -j DROP"],
    );
    assert_eq!(reasons(host), [""; 0]);
}

/// The filter table of Docker 20.10 to 27 with `-b fan-250-0-27`, beside its own docker0.
const DOCKER_20: [&str; 21] = [
    "-P FORWARD DROP",
    "-N DOCKER",
    "-N DOCKER-ISOLATION-STAGE-1",
    "-N DOCKER-ISOLATION-STAGE-2",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
    "-A FORWARD -o fan-250-0-27 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -o fan-250-0-27 -j DOCKER",
    "-A FORWARD -i fan-250-0-27 ! -o fan-250-0-27 -j ACCEPT",
    "-A FORWARD -i fan-250-0-27 -o fan-250-0-27 -j ACCEPT",
    "-A FORWARD -o br-172 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -o br-172 -j DOCKER",
    "-A FORWARD -i br-172 ! -o br-172 -j ACCEPT",
    "-A DOCKER-ISOLATION-STAGE-1 -i fan-250-0-27 ! -o fan-250-0-27 -j DOCKER-ISOLATION-STAGE-2",
    "-A DOCKER-ISOLATION-STAGE-1 -i br-172 ! -o br-172 -j DOCKER-ISOLATION-STAGE-2",
    "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
    "-A DOCKER-ISOLATION-STAGE-2 -o fan-250-0-27 -j DROP",
    "-A DOCKER-ISOLATION-STAGE-2 -o br-172 -j DROP",
    "-A DOCKER-ISOLATION-STAGE-2 -j RETURN",
    "-A DOCKER-USER -j RETURN",
];

/// The same of Docker 28, with a container 250.0.27.5.
const DOCKER_28: [&str; 16] = [
    "-P FORWARD DROP",
    "-N DOCKER",
    "-N DOCKER-BRIDGE",
    "-N DOCKER-CT",
    "-N DOCKER-FORWARD",
    "-N DOCKER-INTERNAL",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-FORWARD",
    "-A DOCKER ! -i fan-250-0-27 -o fan-250-0-27 -j DROP",
    "-A DOCKER-BRIDGE -o fan-250-0-27 -j DOCKER",
    "-A DOCKER-CT -o fan-250-0-27 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A DOCKER-FORWARD -j DOCKER-CT",
    "-A DOCKER-FORWARD -j DOCKER-INTERNAL",
    "-A DOCKER-FORWARD -j DOCKER-BRIDGE",
    "-A DOCKER-FORWARD -i fan-250-0-27 -j ACCEPT",
];

/// Docker's own rule for a container's address, from 28 on.
const DOCKER_RAW: &str = "-t raw -A PREROUTING -d 250.0.27.5/32 ! -i fan-250-0-27 -j DROP";

#[test]
fn our_rules_stand_after_the_operators_and_let_nothing_else_pass() {
    for program in VARIANTS {
        let fleet = fleet();
        let host = &fleet[0];
        iptables(host, program, &DOCKER_20);
        // A network of Docker's own, and the operator's rule.
        let other = host.container("other");
        host.ip("link add br-172 type bridge");
        host.ip("address add 172.18.0.1/16 dev br-172");
        host.ip("link set br-172 up");
        other.join_bridge("br-172", "172.18.0.2/16", "172.18.0.1");
        host.sh(&format!("{program} -I DOCKER-USER -d 172.30.0.99 -j DROP"));
        let outside = fleet.stranger("outside", [172, 30, 0, 99].into());
        let port = fleet.port(0, 5);
        host.fanlight(UP).exits(0);
        assert_eq!(reasons(host), [""; 0], "{program}");
        assert_reaches(&fleet[1], overlay(0, 5));
        assert_reaches(&port, overlay(1, 1));
        assert_reaches(&port, underlay(1));
        assert!(!reaches(&port, [172, 30, 0, 99].into()), "the operator's rule holds");
        assert!(!reaches(&port, [172, 18, 0, 2].into()), "Docker keeps its networks apart");
        assert!(!reaches(&other, overlay(0, 5)), "in both directions");
        let rules = host.sh(&format!("{program} -S DOCKER-USER"));
        let lines: Vec<&str> = rules.lines().collect();
        assert_eq!(lines.last(), Some(&"-A DOCKER-USER -j RETURN"), "{rules}");
        assert!(lines.iter().all(|line| !line.contains("fanlight") || line.contains(" -o ")), "{rules}");
        drop((outside, other));
    }
}

#[test]
fn our_rules_move_behind_what_the_operator_appends() {
    let fleet = fleet();
    let host = &fleet[0];
    iptables(host, "iptables-nft", &DOCKER_28);
    host.fanlight(UP).exits(0);
    let chain = || host.sh("iptables-nft -S DOCKER-USER");
    let before = chain();
    host.sh("iptables-nft -A DOCKER-USER -d 192.0.2.1 -j DROP");
    host.fanlight(UP).exits(0);
    let after = chain();
    assert_eq!(after.lines().nth(1), Some("-A DOCKER-USER -d 192.0.2.1/32 -j DROP"), "{before}{after}");
    assert_eq!(after.lines().count(), before.lines().count() + 1, "{after}");
    host.run("fan down 250.0.0.0/8 eth0");
    assert_eq!(chain(), "-N DOCKER-USER\n-A DOCKER-USER -d 192.0.2.1/32 -j DROP");
}

#[test]
fn a_fan_that_goes_takes_its_own_rules_along() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    iptables(host, "iptables-nft", &DOCKER_28);
    host.run("fan up 251.0.0.0/8 eth0");
    let rules = |of: &str| host.sh("iptables-nft -S DOCKER-USER").matches(of).count();
    assert_eq!((rules("fan-250-0-27"), rules("fan-251-0-27")), (4, 4));
    host.run("fan down 251.0.0.0/8 eth0");
    assert_eq!((rules("fan-250-0-27"), rules("fan-251-0-27")), (4, 0));
}

#[test]
fn what_docker_28_drops_before_a_container_has_spoken_is_named_with_the_remedy() {
    for program in VARIANTS {
        let fleet = fleet();
        let host = &fleet[0];
        let _port = fleet.port(0, 5);
        iptables(host, program, &DOCKER_28);
        host.fanlight(UP).exits(0);
        assert_eq!(reasons(host), [""; 0], "{program}");
        assert_reaches(&fleet[1], overlay(0, 5));
        iptables(host, program, &[DOCKER_RAW]);
        assert!(!reaches(&fleet[1], overlay(0, 5)));
        let told = reason(host);
        for part in [
            "docker-blocked: ",
            "raw PREROUTING",
            "250.0.27.5",
            "gateway_mode_ipv4=routed",
            "--iptables=false",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        host.sh(&format!("{program} {}", DOCKER_RAW.replace("-A", "-D")));
        assert_eq!(reasons(host), [""; 0], "{program}");
    }
}

/// What Docker 29 writes with `--firewall-backend=nftables`.
const DOCKER_NFT: &str = "table ip docker-bridges {
  map filter-forward-in-jumps { type ifname : verdict; elements = { \"fan-250-0-27\" : jump in__fan } }
  map filter-forward-out-jumps { type ifname : verdict; elements = { \"fan-250-0-27\" : jump out__fan } }
  chain filter-FORWARD {
    type filter hook forward priority filter; policy accept;
    oifname vmap @filter-forward-in-jumps
    iifname vmap @filter-forward-out-jumps
  }
  chain in__fan {
    ct state established,related counter accept
    iifname \"fan-250-0-27\" counter accept comment \"ICC\"
    counter drop comment \"UNPUBLISHED PORT DROP\"
  }
  chain out__fan {
    ct state established,related counter accept
    counter accept comment \"OUTGOING\"
  }
}
";

#[test]
fn dockers_own_table_of_nftables_is_named_with_the_remedy() {
    let fleet = fleet();
    let host = &fleet[0];
    let port = fleet.port(0, 5);
    nft(host, DOCKER_NFT);
    let told = reason(host);
    assert!(told.starts_with("docker-blocked: ip docker-bridges in__fan drops"), "{told}");
    assert_reaches(&port, underlay(1));
}

#[test]
fn a_published_port_answers_containers_of_the_own_slice_whose_bridge_is_filtered() {
    for with_agent in [false, true] {
        let fleet = fleet();
        let host = &fleet[0];
        let _agent = with_agent.then(|| host.agent());
        host.sysctl("net.bridge.bridge-nf-call-iptables", "1");
        let (client, server) = (fleet.port(0, 5), fleet.port(0, 6));
        let _server = Named::start(&server, "hello", overlay(0, 6), 80);
        // As Docker writes it with `--userland-proxy=false`.
        iptables(
            host,
            "iptables-nft",
            &[
                "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to-destination 250.0.27.6:80",
                "-t nat -A POSTROUTING -s 250.0.27.6/32 -d 250.0.27.6/32 -p tcp --dport 80 -j MASQUERADE",
            ],
        );
        thread::sleep(Duration::from_millis(if with_agent { 1000 } else { 0 }));
        for address in [overlay(0, 1), underlay(0)] {
            let greeted = Greeted::connect(&client, SocketAddrV4::new(address, 8080));
            let greeted = greeted.unwrap_or_else(|error| panic!("{address}, agent {with_agent}: {error}"));
            assert_eq!(greeted.name, "hello");
        }
    }
}
