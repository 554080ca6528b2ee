//! Routers that speak BGP: BIRD, FRR, GoBGP and ExaBGP, each on a host of its own, and what they have learnt.

mod seen;

use std::{fs, ops::Deref, time::Duration};

pub use self::seen::Seen;
use crate::{Process, command::eventually, host::Host, network::Switch};

/// The AS of the routers.
pub const ASN: u32 = 65_101;
/// The AS of the node that they listen to.
pub const NODE_ASN: u32 = 65_147;
/// The password between the two.
pub const PASSWORD: &str = "correct-horse";
/// How long a daemon may take to answer.
const READY: Duration = Duration::from_secs(20);

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BIRD 2.
    Bird,
    /// FRR: zebra and bgpd.
    Frr,
    /// GoBGP.
    Gobgp,
    /// ExaBGP.
    Exabgp,
}

/// How a router speaks to the node.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Last byte of its addresses, 172.30.0.N and 2001:db8::N.
    pub last: u8,
    /// The node's address, whose family is the session's; of BIRD's nodes there may be several, with spaces between them.
    pub node: &'static str,
    /// Whether segments are signed.
    pub is_signed: bool,
    /// Further lines of the peer's part of BIRD's configuration.
    pub bird: &'static str,
}

impl Manner {
    /// With the first host of a fleet, by IPv4, signed.
    pub const USUAL: Self = Self { last: 1, node: "172.30.0.27", is_signed: true, bird: "" };

    fn own(&self) -> String {
        if self.node.contains(':') {
            format!("2001:db8::{:x}", self.last)
        } else {
            format!("172.30.0.{}", self.last)
        }
    }
}

/// A router that runs.
pub struct Speaker {
    host: Host,
    kind: Kind,
    _processes: Vec<Process>,
}

impl Speaker {
    /// A router on a wire, whose daemon answers.
    #[track_caller]
    pub fn start(switch: &Switch, kind: Kind, manner: Manner) -> Self {
        let host = Host::new(&format!("router-{}", manner.last));
        switch.join(&host, "eth0", &format!("172.30.0.{}/16", manner.last));
        host.ip(&format!("address add 2001:db8::{:x}/64 dev eth0 nodad", manner.last));
        let processes = match kind {
            Kind::Bird => bird(&host, manner),
            Kind::Frr => frr(&host, manner),
            Kind::Gobgp => gobgp(&host, manner),
            Kind::Exabgp => exabgp(&host, manner),
        };
        Self { host, kind, _processes: processes }
    }

    /// What it knows of a prefix.
    pub fn seen(&self, prefix: &str) -> Option<Seen> {
        let ask = |line: &str| self.host.command("sh").args(["-c", line]).run().stdout;
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        match self.kind {
            Kind::Bird => {
                seen::bird(&ask(&format!("birdc -s /run/bird.ctl show route {prefix} primary all")), prefix)
            }
            Kind::Frr => {
                let command = format!("show bgp {family} unicast {prefix} json");
                seen::frr(&ask(&format!("vtysh --vty_socket /run/frr -c '{command}'")))
            }
            Kind::Gobgp => seen::gobgp(&ask(&format!("gobgp -p 50051 -j global rib -a {family} {prefix}"))),
            Kind::Exabgp => {
                let heard = fs::read_to_string(self.host.path("/run/exabgp.json"));
                seen::exabgp(&heard.unwrap_or_default(), prefix)
            }
        }
    }

    /// Waits until it knows a prefix as `is_right` wants it.
    #[track_caller]
    pub fn wait_for(&self, prefix: &str, limit: Duration, is_right: impl Fn(&Seen) -> bool) -> Seen {
        let what = format!("{:?} has {prefix}, which is {:?}", self.kind, self.seen(prefix));
        eventually(&what, limit, || self.seen(prefix).filter(|seen| is_right(seen)))
    }

    /// Waits until it knows a prefix no more.
    #[track_caller]
    pub fn wait_gone(&self, prefix: &str, limit: Duration) {
        let what = format!("{prefix} is gone from {:?}", self.kind);
        eventually(&what, limit, || self.seen(prefix).is_none().then_some(()));
    }

    /// Whether its kernel routes a prefix to the node.
    pub fn routes(&self, prefix: &str) -> bool {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let shown = self
            .host
            .command("ip")
            .args([family, "route", "show", prefix.trim_end_matches("/32").trim_end_matches("/128")])
            .run();
        shown.stdout.contains("via")
    }
}

impl Deref for Speaker {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

#[track_caller]
fn answers(host: &Host, line: &str) {
    let asked = || host.command("sh").args(["-c", line]).run().status.success().then_some(());
    eventually(&format!("'{line}' answers"), READY, asked);
}

fn bird(host: &Host, manner: Manner) -> Vec<Process> {
    let Manner { last, node, bird, .. } = manner;
    let password = if manner.is_signed { format!("password \"{PASSWORD}\";") } else { String::new() };
    let own = manner.own();
    let protocol = |(number, node): (usize, &str)| {
        let name = if number == 0 { "fan".to_owned() } else { format!("fan{number}") };
        format!(
            "protocol bgp {name} {{\n\
               local {own} as {ASN}; neighbor {node} as {NODE_ASN};\n\
               connect delay time 1; connect retry time 1; error wait time 1,2;\n\
               {password} {bird}\n\
               ipv4 {{ import all; export none; extended next hop on; }};\n\
               ipv6 {{ import all; export none; }};\n\
             }}\n"
        )
    };
    let protocols: String = node.split(' ').enumerate().map(protocol).collect();
    host.write(
        "/run/bird.conf",
        &format!(
            "router id 172.30.0.{last};\n\
             protocol device {{}}\n\
             protocol kernel k4 {{ ipv4 {{ import none; export all; }}; }}\n\
             protocol kernel k6 {{ ipv6 {{ import none; export all; }}; }}\n\
             {protocols}"
        ),
    );
    let words = ["-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid"];
    let process = host.command("bird").args(words).spawn();
    answers(host, "birdc -s /run/bird.ctl show status");
    vec![process]
}

fn frr(host: &Host, manner: Manner) -> Vec<Process> {
    let Manner { last, node, .. } = manner;
    let password =
        if manner.is_signed { format!(" neighbor {node} password {PASSWORD}\n") } else { String::new() };
    host.sh("install -d -o frr -g frrvty /run/frr");
    host.write("/run/frr/zebra.conf", "");
    host.write(
        "/run/frr/bgpd.conf",
        &format!(
            "router bgp {ASN}\n bgp router-id 172.30.0.{last}\n no bgp ebgp-requires-policy\n \
             neighbor {node} remote-as {NODE_ASN}\n neighbor {node} timers connect 1\n{password} \
             address-family ipv6 unicast\n  neighbor {node} activate\n exit-address-family\n"
        ),
    );
    let own = manner.own();
    let start = |daemon: &str, further: &[&str]| {
        let (config, pid) = (format!("/run/frr/{daemon}.conf"), format!("/run/frr/{daemon}.pid"));
        let usual = ["-f", &config, "-i", &pid, "-z", "/run/frr/zserv.api", "--vty_socket", "/run/frr"];
        let daemon = format!("/usr/lib/frr/{daemon}");
        host.command(daemon).args(usual.iter().chain(further)).spawn()
    };
    let zebra = start("zebra", &[]);
    answers(host, "test -S /run/frr/zserv.api");
    let bgpd = start("bgpd", &["-l", &own]);
    answers(host, "vtysh --vty_socket /run/frr -d bgpd -c 'show bgp summary'");
    vec![zebra, bgpd]
}

fn gobgp(host: &Host, manner: Manner) -> Vec<Process> {
    let Manner { last, node, .. } = manner;
    let password = if manner.is_signed { format!("auth-password = \"{PASSWORD}\"") } else { String::new() };
    let family = |name: &str| {
        format!(
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
        )
    };
    let (v4, v6) = (family("ipv4-unicast"), family("ipv6-unicast"));
    host.write(
        "/run/gobgp.toml",
        &format!(
            "[global.config]\nas = {ASN}\nrouter-id = \"172.30.0.{last}\"\n\
             [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{node}\"\npeer-as = {NODE_ASN}\n{password}\n\
             [neighbors.timers.config]\nconnect-retry = 1\nhold-time = 9\n\
             [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 20\n{v4}{v6}"
        ),
    );
    let words = ["-f", "/run/gobgp.toml", "--api-hosts", "127.0.0.1:50051"];
    let process = host.command("gobgpd").args(words).spawn();
    answers(host, "gobgp -p 50051 neighbor");
    vec![process]
}

fn exabgp(host: &Host, manner: Manner) -> Vec<Process> {
    let Manner { last, node, .. } = manner;
    let password = if manner.is_signed { format!("md5-password '{PASSWORD}';") } else { String::new() };
    let own = manner.own();
    // Its helper's input does not block unless that says so itself.
    let helper = "#!/usr/bin/python3\nimport os, sys\nos.set_blocking(0, True)\n\
                  out = open('/run/exabgp.json', 'w', buffering=1)\nfor line in sys.stdin:\n    out.write(line)\n";
    host.write("/run/helper.py", helper);
    host.sh("chmod +x /run/helper.py");
    host.write(
        "/run/exabgp.conf",
        &format!(
            "process out {{ run /run/helper.py; encoder json; }}\n\
             neighbor {node} {{\n  router-id 172.30.0.{last}; local-address {own}; local-as {ASN}; peer-as {NODE_ASN}; hold-time 9;\n  \
             {password}\n  capability {{ graceful-restart 20; route-refresh enable; }}\n  \
             family {{ ipv4 unicast; ipv6 unicast; }}\n  \
             api {{ processes [ out ]; neighbor-changes; receive {{ parsed; update; notification; }} }}\n}}\n"
        ),
    );
    let settings = [
        ("exabgp.daemon.user", "root"),
        ("exabgp.tcp.bind", &own),
        ("exabgp.tcp.port", "179"),
        ("exabgp.api.cli", "false"),
        ("exabgp.log.level", "WARNING"),
    ];
    let settings = settings.map(|(key, value)| format!("{key}={value}"));
    let process = host.command("env").args(&settings).args(["exabgp", "/run/exabgp.conf"]).spawn();
    answers(host, "test -e /run/exabgp.json");
    vec![process]
}
