//! `bench state`: a large cluster's state on one node: how long it takes to join, what it holds, what one change costs.
//!
//! No kernel and no network: what is measured is verifying, merging and following, on one processor.

use std::{
    collections::VecDeque,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use control::{
    cluster::{
        log::{Limits, Message, Name, Segment},
        records::{BackendRecord, Facts, Record, Touched},
        rotation::Serving,
        state::{Identity, SigningKey, State, Wall},
    },
    service::{Algorithm, Definition, Protocol, Vip, VipSpec},
};

use super::{
    report::{Summary, milliseconds},
    services::Row,
};

const NOW_MS: u64 = 1_796_000_000_000;
const WALL: Wall = Wall { own_ms: NOW_MS, median_ms: NOW_MS };
/// How often one change is measured.
const CHANGES: u32 = 50;

/// A cluster's size.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plan {
    /// Nodes that contribute backends
    #[arg(long, default_value_t = 1_000)]
    pub nodes: u32,
    /// Services, which the first node defines
    #[arg(long, default_value_t = 10_000)]
    pub services: u32,
    /// Backends of each; the nodes have as many each
    #[arg(long, default_value_t = 10)]
    pub backends: u32,
}

/// Joins a node to a cluster that has everything, and changes a weight.
pub fn measure(plan: Plan) -> Result<Vec<Row>> {
    let mut full = state(u32::MAX);
    for segment in logs(plan)? {
        let _stored = full.receive(segment, WALL)?;
    }
    let before = resident()?;
    let start = Instant::now();
    let mut joining = state(u32::MAX - 1);
    let bytes = join(&mut joining, &mut full);
    let joined = start.elapsed();
    let known = resident()? - before;
    let (mut serving, start) = (Serving::default(), Instant::now());
    let nodes = joining.view().facts().map(|(node, _)| node.clone()).collect();
    let services = joining.view().names().cloned().collect();
    let touched = Touched { services, nodes, ..Touched::default() };
    let served = serving.follow(joining.view(), &touched, Duration::ZERO).len();
    let followed = start.elapsed();
    let held = resident()? - before;
    let changes = changes(plan, &mut joining, &mut serving)?;
    let [write, receive] =
        changes.map(|times| Summary::of(&times).map_or(f64::NAN, |summary| summary.median));
    let row = |name, unit, value, most| Row { name, unit, value, most };
    Ok(vec![
        row("records", "", joining.logs().entries().count() as f64, None),
        row("services served", "", served as f64, None),
        row("join by one exchange", "ms", milliseconds(joined), Some(5_000.0)),
        row("its messages", "MiB", bytes as f64 / f64::from(1 << 20), None),
        row("what is to be served, from nothing", "ms", milliseconds(followed), None),
        row("memory of logs and view", "MiB", known, None),
        row("memory with what is served", "MiB", held, Some(64.0)),
        row("one weight, written", "ms", write, None),
        row("one weight, received and followed", "ms", receive, Some(1.0)),
    ])
}

fn state(number: u32) -> State {
    let name = Name::from(format!("n{number}"));
    let mut secret = [0; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let key = SigningKey::from_bytes(&secret);
    State::new(Identity { cluster: "bench".to_owned(), name, key, tag: number }, Limits::default())
}

/// What every node has written.
fn logs(plan: Plan) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for node in 0..plan.nodes {
        let slice = Ipv4Addr::from(250 << 24 | node << 8);
        let slices = vec![format!("{slice}/24").parse().context("a slice")?];
        let mut records = vec![Record::Facts(Facts { slices, ..Facts::default() })];
        if node == 0 {
            records.extend((0..plan.services).map(|number| Record::Define {
                name: name(number),
                what: Definition {
                    vip: VipSpec::At(Vip {
                        address: Ipv4Addr::from(u32::from_be_bytes([10, 97, 0, 0]) + number).into(),
                        port: 80,
                        protocol: Protocol::Tcp,
                    }),
                    algorithm: Algorithm::Maglev,
                    checking: None,
                },
            }));
        }
        let all = u64::from(plan.services) * u64::from(plan.backends);
        let own = (0..all).filter(|place| place % u64::from(plan.nodes) == u64::from(node));
        records.extend(own.map(|place| offer(plan, node, place, 1)));
        segments.extend(state(node).write(records, WALL)?.pushes);
    }
    Ok(segments)
}

fn name(number: u32) -> Name {
    format!("s{number}").into()
}

/// The backend of a place among all, which its node contributes.
fn offer(plan: Plan, node: u32, place: u64, weight: u32) -> Record {
    let last = (place / u64::from(plan.nodes) % 250) as u32 + 2;
    let port = 8_000 + (place / u64::from(plan.nodes) / 250) as u16;
    let address = IpAddr::from(Ipv4Addr::from(250 << 24 | node << 8 | last));
    let number = (place / u64::from(plan.backends)) as u32;
    Record::Offer(name(number), SocketAddr::new(address, port), BackendRecord { weight, file: None })
}

/// An exchange from its first message to its last; the bytes of all messages.
fn join(joining: &mut State, full: &mut State) -> usize {
    let (mut asking, first) = joining.begin_exchange();
    let mut answering = full.answering();
    let (mut bytes, mut under_way) = (0, VecDeque::from([(false, first)]));
    while let Some((is_for_joining, message)) = under_way.pop_front() {
        let encoded = message.encode();
        bytes += encoded.len();
        let Ok(message) = Message::decode(&encoded) else { break };
        let (state, side) =
            if is_for_joining { (&mut *joining, &mut asking) } else { (&mut *full, &mut answering) };
        let outcome = state.answer(side, &"peer".into(), message, WALL);
        under_way.extend(outcome.messages.into_iter().map(|message| (!is_for_joining, message)));
    }
    bytes
}

/// Changes weights one by one; how long each took to be written, and to be received and followed, in milliseconds.
fn changes(plan: Plan, joined: &mut State, serving: &mut Serving) -> Result<[Vec<f64>; 2]> {
    // The first node, which has the definitions.
    let mut writer = state(0);
    let mut times = [Vec::new(), Vec::new()];
    join(&mut writer, joined);
    for turn in 0..CHANGES {
        let place = u64::from(turn) * u64::from(plan.nodes);
        let start = Instant::now();
        let outcome = writer.write(vec![offer(plan, 0, place, 2)], WALL)?;
        times[0].push(milliseconds(start.elapsed()));
        let push = outcome.pushes.into_iter().next().context("a write is pushed")?;
        let start = Instant::now();
        let (_, outcome) = joined.receive(push, WALL)?;
        let changed = serving.follow(joined.view(), &outcome.touched, Duration::ZERO);
        times[1].push(milliseconds(start.elapsed()));
        anyhow::ensure!(changed.len() == 1, "one service was to change: {changed:?}");
    }
    Ok(times)
}

/// Resident memory of this process in MiB.
fn resident() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/statm").context("read /proc/self/statm")?;
    let pages: f64 = text.split_whitespace().nth(1).context("no resident memory")?.parse()?;
    Ok(pages * 4_096.0 / f64::from(1 << 20))
}

/// The rows as a table.
pub fn print(plan: Plan, rows: &[Row]) {
    println!("\n{} nodes, {} services, {} backends each", plan.nodes, plan.services, plan.backends);
    super::services::print_rows(rows);
}
