//! `bench announce`: how soon peers hear of a change: all prefixes of a node to eight peers, one withdrawal beside ExaBGP, and
//! a service's first local backend until a BIRD routes to it.

use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use control::bgp::{Action, Local, Peer, Session};
use serde::Serialize;

use super::report::{Summary, milliseconds};
use crate::{
    api,
    command::eventually,
    fleet::Fleet,
    host::Host,
    services::service,
    speaker::{ASN, Kind, Manner, NODE_ASN, Speaker},
};

const PEERS: u8 = 8;
const NODE: [u8; 4] = [172, 30, 0, 27];
/// How long one change may take until the measurement is given up.
const LIMIT: Duration = Duration::from_secs(20);
const FILE: &str = "/etc/fanlight/fanlight.toml";

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Prefixes that change at once.
    pub prefixes: u32,
    /// How often each change is measured.
    pub rounds: usize,
}

/// How long something took.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Milliseconds, with the quartiles of the rounds.
    pub milliseconds: Summary,
    /// The most that is wanted.
    pub most: Option<f64>,
}

/// A peer that counts what it hears.
struct Sink {
    /// Prefixes announced to it.
    announced: Arc<AtomicU64>,
    /// When something came last.
    heard: Arc<Mutex<Option<Instant>>>,
}

impl Sink {
    /// Listens at an address of a host, and serves the first who connects.
    fn start(host: &Host, address: IpAddr, node_asn: u32, own_asn: u32) -> Self {
        let listener = host.bound(|| TcpListener::bind((address, 179)));
        let sink = Self { announced: Arc::default(), heard: Arc::default() };
        let (announced, heard) = (Arc::clone(&sink.announced), Arc::clone(&sink.heard));
        let IpAddr::V4(router_id) = address else { panic!("{address}") };
        let local = Local { asn: own_asn, router_id, hold_time: 0, graceful_restart: 0, listens: true };
        let peer = Peer { address: NODE.into(), asn: node_asn };
        thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut session = Session::new(local, peer, 1, false, Duration::ZERO);
            let Some(link) = session.accepted(address, Duration::ZERO) else { return };
            let mut bytes = vec![0; 1 << 16];
            loop {
                if act(&mut session, &mut stream).is_err() {
                    return;
                }
                let Ok(length @ 1..) = stream.read(&mut bytes) else { return };
                session.received(link, &bytes[..length], Duration::ZERO);
                announced.store(session.status().counts.received, Ordering::Release);
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        });
        sink
    }

    fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    fn heard(&self) -> Option<Instant> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn act(session: &mut Session, stream: &mut TcpStream) -> std::io::Result<()> {
    for action in session.take_actions() {
        if let Action::Send(_, bytes) = action {
            stream.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// Waits for something, looking often.
fn until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        if Instant::now() > deadline {
            bail!("{what}: not within {LIMIT:?}");
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// All of it.
pub fn measure(plan: Plan) -> Result<Vec<Row>> {
    let mut rows = peers(plan)?;
    rows.push(exabgp(plan)?);
    rows.push(bird(plan)?);
    Ok(rows)
}

fn row(name: impl Into<String>, times: &[f64], most: Option<f64>) -> Result<Row> {
    let milliseconds = Summary::of(times).context("no rounds")?;
    Ok(Row { name: name.into(), milliseconds, most })
}

fn switch(host: &Host, name: &str, disable: bool) -> Result<()> {
    let method = if disable { "PUT" } else { "DELETE" };
    let answer = api::ask(host, method, &format!("/v1/announcements/{name}/disabled"), "")?;
    ensure!(answer.status == 200, "{method} {name}: {}", answer.status);
    Ok(())
}

/// A change of all prefixes to all peers, and the withdrawal of one.
fn peers(plan: Plan) -> Result<Vec<Row>> {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let routers = Host::new("routers");
    fleet.switch.join(&routers, "eth0", "172.30.0.1/16");
    let mut config = format!("[bgp]\nasn = {NODE_ASN}\nhold-time = \"0s\"\n");
    let mut sinks = Vec::new();
    for last in 1..=PEERS {
        if last > 1 {
            routers.ip(&format!("address add 172.30.0.{last}/16 dev eth0"));
        }
        sinks.push(Sink::start(&routers, [172, 30, 0, last].into(), NODE_ASN, ASN));
        config += &format!("[[bgp.peer]]\naddress = \"172.30.0.{last}\"\nasn = {ASN}\n");
    }
    let prefixes: Vec<String> =
        (0..plan.prefixes).map(|number| format!("\"10.{}.{}.1/32\"", number / 256, number % 256)).collect();
    config += &format!("[[announce]]\nname = \"all\"\nprefixes = [{}]\n", prefixes.join(", "));
    config += "[[announce]]\nname = \"one\"\nprefixes = [\"192.0.2.1/32\"]\non-disabled = \"withdraw\"\n";
    host.write(FILE, &config);
    let _agent = host.agent();
    let count = u64::from(plan.prefixes);
    until("all is announced", || sinks.iter().all(|sink| sink.announced() > count))?;
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let wanted: Vec<u64> = sinks.iter().map(|sink| sink.announced() + count).collect();
        let start = Instant::now();
        switch(host, "all", round % 2 == 0)?;
        until("the change of all", || {
            sinks.iter().zip(&wanted).all(|(sink, wanted)| sink.announced() >= *wanted)
        })?;
        let last = sinks.iter().filter_map(Sink::heard).max().context("nothing was heard")?;
        all.push(milliseconds(last - start));
        thread::sleep(Duration::from_millis(50));
        let start = Instant::now();
        switch(host, "one", true)?;
        until("the withdrawal", || sinks.iter().all(|sink| sink.heard().is_some_and(|heard| heard > start)))?;
        let last = sinks.iter().filter_map(Sink::heard).max().context("nothing was heard")?;
        one.push(milliseconds(last - start));
        switch(host, "one", false)?;
        thread::sleep(Duration::from_millis(50));
    }
    let many = format!("MED of {count} prefixes changed, at {PEERS} peers");
    let withdrawn = format!("one disabled, withdrawn at {PEERS} peers");
    Ok(vec![row(many, &all, Some(200.0))?, row(withdrawn, &one, None)?])
}

/// A withdrawal by ExaBGP's text interface, from the helper's input to one peer.
fn exabgp(plan: Plan) -> Result<Row> {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let sink = Sink::start(host, NODE.into(), ASN, NODE_ASN);
    let exabgp = Host::new("exabgp");
    fleet.switch.join(&exabgp, "eth0", "172.30.0.1/16");
    exabgp.sh("mkfifo /run/commands");
    exabgp.write(
        "/run/helper.py",
        "#!/usr/bin/python3\nimport sys\nwhile True:\n  for line in open('/run/commands'):\n    print(line, end='', flush=True)\n",
    );
    exabgp.sh("chmod +x /run/helper.py");
    exabgp.write(
        "/run/exabgp.conf",
        &format!(
            "process in {{ run /run/helper.py; encoder text; }}\n\
             neighbor 172.30.0.27 {{\n  router-id 172.30.0.1; local-address 172.30.0.1; local-as {ASN}; peer-as {NODE_ASN};\n  \
             hold-time 0; family {{ ipv4 unicast; }}\n  api {{ processes [ in ]; }}\n}}\n"
        ),
    );
    let settings = [
        "exabgp.daemon.user=root",
        "exabgp.api.cli=false",
        "exabgp.api.ack=false",
        "exabgp.log.level=WARNING",
    ];
    let _process = exabgp.command("env").args(settings).args(["exabgp", "/run/exabgp.conf"]).spawn();
    let commands = exabgp.path("/run/commands");
    let say = |line: &str| -> Result<()> {
        let mut fifo = OpenOptions::new().write(true).open(&commands)?;
        fifo.write_all(line.as_bytes()).context("ExaBGP's helper")
    };
    let announce = "announce route 192.0.2.1/32 next-hop self med 100\n";
    say(announce)?;
    until("ExaBGP announces", || sink.announced() > 0)?;
    let mut times = Vec::new();
    for _ in 0..plan.rounds {
        thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        say("withdraw route 192.0.2.1/32 next-hop self\n")?;
        until("ExaBGP withdraws", || sink.heard().is_some_and(|heard| heard > start))?;
        times.push(milliseconds(sink.heard().context("nothing was heard")? - start));
        let before = sink.announced();
        say(announce)?;
        until("ExaBGP announces again", || sink.announced() > before)?;
    }
    row("ExaBGP: one withdrawn, at one peer", &times, None)
}

/// A service gets its first usable backend on this node: until a BIRD's kernel routes there.
fn bird(plan: Plan) -> Result<Row> {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner { is_signed: false, ..Manner::USUAL });
    let fan = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"eth0\"\n";
    let backends = ["250.0.27.2:80".to_owned()];
    let config = format!(
        "[bgp]\nasn = {NODE_ASN}\n[[bgp.peer]]\naddress = \"172.30.0.1\"\nasn = {ASN}\n{fan}{}\
         [[announce]]\nname = \"vips\"\nservices = [\"*\"]\n",
        service("web", "10.96.0.1:80/tcp", &backends)
    );
    host.write(FILE, &config);
    let _agent = host.agent();
    let _container = fleet.endpoint(0, 2);
    let has = || router.routes("10.96.0.1/32").then_some(());
    eventually("BIRD routes to the VIP", LIMIT, has);
    let mut times = Vec::new();
    for _ in 0..plan.rounds {
        host.run("service drain web 250.0.27.2:80");
        until("BIRD has no route", || !router.routes("10.96.0.1/32"))?;
        let start = Instant::now();
        let answer = api::ask(host, "DELETE", "/v1/services/web/drained/250.0.27.2:80", "")?;
        ensure!(answer.status == 200, "undrain: {}", answer.status);
        until("BIRD routes again", || router.routes("10.96.0.1/32"))?;
        times.push(milliseconds(start.elapsed()));
    }
    row("a service's first local backend, in BIRD's FIB", &times, None)
}

/// The rows as a table.
pub fn print(rows: &[Row]) {
    println!("\nFrom a change to the peers, milliseconds");
    for Row { name, milliseconds, most } in rows {
        let mark = match most {
            Some(most) if milliseconds.median > *most => format!(" > {most}"),
            _ => String::new(),
        };
        println!("{name:<52} {milliseconds}{mark}");
    }
}
