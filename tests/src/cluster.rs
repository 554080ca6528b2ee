//! A cluster of hosts: its configuration, and what its members know of each other.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    agent::Agent,
    api,
    command::eventually,
    fleet::{Fleet, underlay},
    host::Host,
    network::Switch,
};

/// Where a node's configuration stands.
pub const CONFIG: &str = "/etc/fanlight/fanlight.toml";
/// Where its keys stand.
pub const KEYS: &str = "/etc/fanlight/cluster.keys";
/// The members' port.
pub const PORT: u16 = 7481;
/// A node that can join has joined 15 s after the first seed is there; a partition is healed as long after the wire is.
pub const JOINED: Duration = Duration::from_secs(15);
/// A killed agent is dead for everybody.
pub const DEAD: Duration = Duration::from_millis(1_500);
/// What other tests beside it, answers of the API and a look every 20 ms add to that: `cargo xtask bench cluster` has the machine
/// for itself.
pub const LOOK: Duration = Duration::from_millis(1_500);
/// What is told at most every ten seconds, or looked for every few.
pub const TOLD: Duration = Duration::from_secs(20);

/// A file of one key, of this letter.
pub fn key(letter: char) -> String {
    format!("{}=\n", letter.to_string().repeat(43))
}

/// Writes a host's file of keys.
#[track_caller]
pub fn write_keys(host: &Host, text: &str) {
    host.write(KEYS, text);
    host.sh(&format!("chmod 600 {KEYS}"));
}

/// Writes a configuration with a cluster of these seeds, and `more`.
#[track_caller]
pub fn configure(host: &Host, cluster: &str, join: &[String], more: &str) {
    let join: Vec<String> = join.iter().map(|seed| format!("\"{seed}\"")).collect();
    let join = if join.is_empty() { String::new() } else { format!("join = [{}]\n", join.join(", ")) };
    write_keys(host, &key('A'));
    host.write(CONFIG, &format!("[cluster]\nname = \"{cluster}\"\nkeys = \"{KEYS}\"\n{join}{more}"));
}

/// Where a host's agent is reached by members.
pub fn seed(host: usize) -> String {
    format!("{}:{PORT}", underlay(host))
}

/// So many hosts that join by the first one.
#[track_caller]
pub fn cluster(hosts: usize) -> Fleet {
    let fleet = Fleet::bare(hosts);
    fleet.hosts().iter().for_each(|host| configure(host, "prod", &[seed(0)], ""));
    fleet
}

/// A host's name as a member.
pub fn node(host: usize) -> String {
    format!("host-{}", 27 + host)
}

/// Members with their states, as a host's agent knows them.
#[track_caller]
pub fn states(host: &Host) -> BTreeMap<String, String> {
    let answer = api::ask(host, "GET", "/v1/nodes", "").expect("the agent answers");
    let nodes: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let nodes = nodes.as_array().expect("a list");
    nodes.iter().map(|node| (text(&node["name"]), text(&node["state"]))).collect()
}

/// A member's state for a host.
#[track_caller]
pub fn state(host: &Host, of: usize) -> Option<String> {
    states(host).remove(&node(of))
}

/// Waits until these hosts know exactly each other, alive.
#[track_caller]
pub fn are_members(fleet: &Fleet, hosts: &[usize], limit: Duration) {
    let want: BTreeMap<String, String> = hosts.iter().map(|&host| (node(host), "alive".to_owned())).collect();
    let mut seen = BTreeMap::new();
    let deadline = Instant::now() + limit;
    while !hosts.iter().all(|&host| {
        seen = states(&fleet[host]);
        seen == want
    }) {
        assert!(Instant::now() < deadline, "{seen:?} instead of {want:?} after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until all these hosts say so of a member.
#[track_caller]
pub fn becomes(fleet: &Fleet, hosts: &[usize], of: usize, want: &str, limit: Duration) {
    for &host in hosts {
        let what = format!("{} is {want} for {}", node(of), node(host));
        eventually(&what, limit, || (state(&fleet[host], of).as_deref() == Some(want)).then_some(()));
    }
}

/// Waits for a reason to be degraded that begins so.
#[track_caller]
pub fn is_degraded(host: &Host, reason: &str) {
    eventually(&format!("{}: {reason}", host.name()), TOLD, || {
        reasons(host).iter().find(|own| own.starts_with(reason)).map(|_| ())
    });
}

/// Why a host is degraded.
#[track_caller]
pub fn reasons(host: &Host) -> Vec<String> {
    let status = host.json("status");
    let reasons = status["degraded"].as_array().into_iter().flatten();
    reasons.filter_map(|reason| Some(reason.as_str()?.to_owned())).collect()
}

/// The agents of all hosts, once they are members of each other.
#[track_caller]
pub fn started(fleet: &Fleet) -> Vec<Agent> {
    let agents = fleet.hosts().iter().map(Host::agent).collect();
    are_members(fleet, &(0..fleet.hosts().len()).collect::<Vec<_>>(), JOINED);
    agents
}

/// A service as the kernel of a host has it; none where it has no such service, or no agent answers.
pub fn served(host: &Host, name: &str) -> Option<Value> {
    let answer = api::ask(host, "GET", &format!("/v1/services/{name}"), "").ok()?;
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).expect("JSON"))
}

/// How many backends of a service take new flows.
pub fn up(service: &Value) -> usize {
    let backends = service["backends"].as_array().expect("a list").iter();
    backends.filter(|backend| backend["state"] == "up").count()
}

/// What a switch does to the packets of hosts.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Packets lost, in hundredths.
    pub loss: u32,
    /// Hosts that reach only each other; others reach all that are in no group.
    pub groups: Vec<Vec<usize>>,
    /// Links that carry nothing in this direction.
    pub one_way: Vec<(usize, usize)>,
}

impl Weather {
    /// Has it rule on a switch from now on.
    #[track_caller]
    pub fn rule(&self, switch: &Switch) {
        let mut rules =
            String::from("table bridge weather\ndelete table bridge weather\ntable bridge weather {\n");
        let port = |host: &usize| format!("\"p-{}-eth0\"", node(*host));
        for (number, group) in self.groups.iter().enumerate() {
            let ports: Vec<String> = group.iter().map(port).collect();
            let _ =
                writeln!(rules, "set g{number} {{ type ifname; elements = {{ {} }}; }}", ports.join(", "));
        }
        rules.push_str("chain forward { type filter hook forward priority 0; policy accept;\n");
        if self.loss > 0 {
            let _ = writeln!(rules, "numgen random mod 100 < {} drop", self.loss);
        }
        for number in 0..self.groups.len() {
            let _ = writeln!(rules, "iifname @g{number} oifname != @g{number} drop");
            let _ = writeln!(rules, "iifname != @g{number} oifname @g{number} drop");
        }
        for (from, to) in &self.one_way {
            let _ = writeln!(rules, "iifname {} oifname {} drop", port(from), port(to));
        }
        rules.push_str("}\n}\n");
        switch.command("nft").args(["-f", "-"]).input(rules).ok();
    }
}
