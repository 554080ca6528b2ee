//! VIPs as Fanlight and its peers have them. The topology is the same for all: a client's container, the VIP on the
//! client's host, the backend's container on another host. Peers route plainly between the hosts and translate on the
//! client's; answers pass it too, because it is where the client lives.

use std::{fmt::Write as _, net::Ipv4Addr, time::Duration};

use super::load::{DATAGRAM_PORTS, REPLICAS, STREAM_PORTS, replica};
use crate::{
    Agent, Host,
    services::{configure, service},
};

/// The VIP that is measured.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// First address of the VIPs that nobody calls.
const OTHERS: u32 = u32::from_be_bytes([10, 97, 0, 0]);
const OTHERS_PORT: u16 = 80;

/// What translates a VIP to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translator {
    /// Fanlight's agent and programs.
    Fanlight,
    /// The kernel's ip_vs, as NAT.
    Ipvs,
    /// nftables: for one VIP one rule, for more of them one rule with a map.
    Nftables,
    /// iptables as kube-proxy writes it.
    Iptables,
}

/// A VIP's port with what is behind it.
struct Service {
    vip: Ipv4Addr,
    protocol: &'static str,
    port: u16,
    backends: Vec<(Ipv4Addr, u16)>,
}

/// Services on a host; they are gone with the value, or with the host.
pub struct Services {
    _agent: Option<Agent>,
}

impl Services {
    /// Sets up the measured VIP in front of `backend`, and `others` VIPs more.
    #[track_caller]
    pub fn start(translator: Translator, host: &Host, backend: Ipv4Addr, others: u32) -> Self {
        let services = services(backend, others);
        match translator {
            Translator::Fanlight => return Self { _agent: Some(fanlight(host, &services)) },
            Translator::Ipvs => ipvs(host, &services),
            Translator::Nftables if others == 0 => nftables_rule(host, backend),
            Translator::Nftables => nftables_map(host, &services),
            Translator::Iptables => iptables(host, &services),
        }
        Self { _agent: None }
    }
}

/// The measured ones last: what has to look through all of them does.
fn services(backend: Ipv4Addr, others: u32) -> Vec<Service> {
    let service = |vip, protocol, port| Service {
        vip,
        protocol,
        port,
        backends: (0..REPLICAS).map(|number| (backend, replica(port, number))).collect(),
    };
    let other = |number| service(Ipv4Addr::from_bits(OTHERS + number), "tcp", OTHERS_PORT);
    let measured = STREAM_PORTS.map(|port| ("tcp", port)).into_iter();
    let measured = measured.chain(DATAGRAM_PORTS.map(|port| ("udp", port)));
    (0..others).map(other).chain(measured.map(|(protocol, port)| service(VIP, protocol, port))).collect()
}

fn fanlight(host: &Host, services: &[Service]) -> Agent {
    let tables = services.iter().map(|Service { vip, protocol, port, backends }| {
        let backends: Vec<_> = backends.iter().map(|(address, port)| format!("{address}:{port}")).collect();
        service(&format!("s-{vip}-{port}-{protocol}"), format!("{vip}:{port}/{protocol}"), &backends)
    });
    configure(host, &tables.collect::<Vec<_>>());
    host.agent()
}

/// Its hook is where packets to the host itself pass: the VIPs are addresses of the host.
fn ipvs(host: &Host, services: &[Service]) {
    let mut rules = String::new();
    for Service { vip, protocol, port, backends } in services {
        host.ip(&format!("address replace {vip}/32 dev lo"));
        let flag = if *protocol == "tcp" { "-t" } else { "-u" };
        let _ = writeln!(rules, "-A {flag} {vip}:{port} -s rr");
        for (address, real) in backends {
            let _ = writeln!(rules, "-a {flag} {vip}:{port} -r {address}:{real} -m");
        }
    }
    host.command("ipvsadm").arg("-R").input(rules).ok();
}

fn nftables_rule(host: &Host, backend: Ipv4Addr) {
    nft(host, "", &format!("ip daddr {VIP} dnat to {backend}"));
}

fn nftables_map(host: &Host, services: &[Service]) {
    let mut map =
        "map vips { type inet_proto . ipv4_addr . inet_service : ipv4_addr; elements = {".to_owned();
    for Service { vip, protocol, port, backends } in services {
        let address = backends.first().map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| *address);
        let _ = writeln!(map, "{protocol} . {vip} . {port} : {address},");
    }
    map.push_str("}; }");
    nft(host, &map, "dnat to ip protocol . ip daddr . th dport map @vips");
}

fn nft(host: &Host, map: &str, rule: &str) {
    let rules = format!(
        "table ip vips {{ {map}\nchain vips {{ type nat hook prerouting priority dstnat; {rule}\n }}\n}}\n"
    );
    host.command("nft").args(["-f", "-"]).input(rules).limit(Duration::from_secs(120)).ok();
}

/// What kube-proxy writes besides the chains of services: forwarded packets pass `KUBE-FORWARD`, and what was marked leaves
/// under the host's address.
const KUBE_FILTER: &str = r#"*filter
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"#;
const KUBE_POSTROUTING: &str = r#"-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
"#;
/// Where its containers live; others' packets are marked.
const CLUSTER: &str = "10.0.0.0/8";

/// A chain for all services, a chain a service, a chain a backend.
fn iptables(host: &Host, services: &[Service]) {
    let (mut chains, mut jumps, mut rules) = (String::new(), String::new(), String::new());
    for (number, Service { vip, protocol, port, backends }) in services.iter().enumerate() {
        let name = format!("-m comment --comment \"bench/s{number} cluster IP\"");
        let to_it = format!("-d {vip}/32 -p {protocol} {name} -m {protocol} --dport {port}");
        let _ = writeln!(chains, ":KUBE-SVC-{number} - [0:0]");
        let _ = writeln!(jumps, "-A KUBE-SERVICES {to_it} -j KUBE-SVC-{number}");
        let _ = writeln!(rules, "-A KUBE-SVC-{number} ! -s {CLUSTER} {to_it} -j KUBE-MARK-MASQ");
        for (place, (address, real)) in backends.iter().enumerate() {
            let end = format!("KUBE-SEP-{number}-{place}");
            let name = format!("-m comment --comment \"bench/s{number} -> {address}:{real}\"");
            let left = backends.len() - place;
            let chance = format!("-m statistic --mode random --probability {:.10}", 1.0 / left as f64);
            let chance = if left > 1 { chance } else { String::new() };
            let _ = writeln!(chains, ":{end} - [0:0]");
            let _ = writeln!(rules, "-A KUBE-SVC-{number} {name} {chance} -j {end}");
            let _ = writeln!(rules, "-A {end} -s {address}/32 {name} -j KUBE-MARK-MASQ");
            let _ = writeln!(
                rules,
                "-A {end} -p {protocol} {name} -m {protocol} -j DNAT --to-destination {address}:{real}"
            );
        }
    }
    let portals = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    let text = format!(
        "{KUBE_FILTER}*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n{chains}\
         -A PREROUTING {portals}\n-A OUTPUT {portals}\n{KUBE_POSTROUTING}{jumps}{rules}COMMIT\n"
    );
    let restore = host.command("iptables-restore").args(["--noflush"]).limit(Duration::from_secs(300));
    restore.input(text).ok();
}
