//! How fast what one node writes, and who is gone, is known and followed everywhere.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use control::{
    cluster::{
        log::Name,
        records::{BackendRecord, Record},
    },
    service::{Algorithm, Definition},
};

use super::{
    Options,
    cluster::{Cluster, STEP, agree, is_one, milliseconds, seconds, settled},
};
use crate::{
    client::{Asked, KeyWrite},
    member::{Event, Member},
    report::{Report, quantile},
};

/// Nodes with a backend of the service; every change of one costs every node what the service has.
const BACKENDS: usize = 50;

pub(super) fn spread(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    write_keys(&mut cluster, 20, report);
    cluster.network.loss = 0.05;
    let (most, all) = times_of(&mut cluster, 20);
    let seconds = |time: Option<Duration>| format!("{:.2} s", time.unwrap_or(Duration::MAX).as_secs_f64());
    report.note("at 5 % loss 99 % have a key, longest", seconds(most));
    report.note("at 5 % loss all have a key, longest", seconds(all));
    cluster.network.loss = 0.0;
    let time = cluster.wait(super::cluster::seconds(10), milliseconds(50), is_one);
    report.time("all logs equal, after the last", time, super::cluster::seconds(5));
}

/// Writes keys, one at a time, and checks how fast they are everywhere.
pub(super) fn write_keys(cluster: &mut Cluster, keys: usize, report: &mut Report) {
    let (most, all) = times_of(cluster, keys);
    report.time("99 % have a key, longest", most, milliseconds(500));
    report.time("all have a key, longest", all, seconds(1));
}

/// Writes keys, each at another node; gives the longest time until 99 % of the nodes had one, and until all had it.
fn times_of(cluster: &mut Cluster, keys: usize) -> (Option<Duration>, Option<Duration>) {
    let (mut most, mut all) = (Some(Duration::ZERO), Some(Duration::ZERO));
    for number in 0..keys {
        let Some(host) = cluster.choose(|cluster, host| cluster.node(host).is_some()) else { break };
        let key = format!("{number} at {:?}", cluster.now());
        let (one, other) = arrival(cluster, host, &key);
        most = most.zip(one).map(|(longest, time)| longest.max(time));
        all = all.zip(other).map(|(longest, time)| longest.max(time));
    }
    (most, all)
}

/// Writes a key; gives when 99 % of the nodes had it, and when all.
fn arrival(cluster: &mut Cluster, host: usize, key: &str) -> (Option<Duration>, Option<Duration>) {
    cluster.take_events();
    let since = cluster.now();
    let write = KeyWrite { key: key.to_owned(), value: Some(b"value".to_vec()), expected: None };
    cluster.act(host, |node, at| node.write_key(at, Asked::NOBODY, write));
    let count = cluster.running().count();
    let mut times: BTreeMap<usize, Duration> = BTreeMap::new();
    while times.len() < count && cluster.now() < since + seconds(5) {
        cluster.run(STEP);
        for (at, other, event) in cluster.take_events() {
            if let Event::Touched(touched) = event
                && touched.users.contains(key)
            {
                times.entry(other).or_insert(at - since);
            }
        }
    }
    let mut times: Vec<Duration> = times.into_values().collect();
    times.sort_unstable();
    let most = (count * 99).div_ceil(100);
    (times.get(most.saturating_sub(1)).copied(), times.get(count.saturating_sub(1)).copied())
}

/// The service that has backends on some nodes.
fn web() -> Name {
    "web".into()
}

/// A host's backend, in its slice.
pub(super) fn backend(host: usize) -> SocketAddr {
    SocketAddr::from(([250, (host >> 8) as u8, host as u8, 5], 80))
}

/// Whether a host's backend takes new flows, for a node.
fn serves(node: &Member, host: usize) -> bool {
    let placed = node.serving().get(&web());
    let mut backends = placed.into_iter().flat_map(|placed| &placed.backends);
    backends.any(|own| own.socket == backend(host) && own.is_in_rotation())
}

pub(super) fn rings(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    let with_backend = 1..options.nodes.min(BACKENDS + 1);
    let vip = "10.96.0.1:80/tcp".parse().expect("a VIP");
    let define = Record::Define {
        name: web(),
        what: Definition { vip, algorithm: Algorithm::Maglev, checking: None },
    };
    cluster.act(0, |node, at| node.write(at, Asked::NOBODY, vec![define]));
    let since = cluster.now();
    for host in with_backend.clone() {
        let offer = Record::Offer(web(), backend(host), BackendRecord { weight: 1, file: None });
        cluster.act(host, |node, at| node.write(at, Asked::NOBODY, vec![offer]));
    }
    let is_whole = |cluster: &Cluster| {
        cluster.running().all(|(_, node)| with_backend.clone().all(|host| serves(node, host)))
    };
    cluster.wait(seconds(5), milliseconds(10), is_whole);
    report.time(
        "every backend is in every ring, after the last write",
        Some(cluster.now() - since),
        seconds(1),
    );
    let mut times = Vec::new();
    let mut back = Vec::new();
    for _ in 0..20 {
        let Some(host) = cluster.choose(|_, host| with_backend.contains(&host)) else { break };
        cluster.kill(host);
        let is_out = |cluster: &Cluster| cluster.running().all(|(_, node)| !serves(node, host));
        times.push(cluster.wait(seconds(6), milliseconds(10), is_out));
        cluster.start(host);
        back.push(cluster.wait(seconds(30), milliseconds(50), |cluster| agree(cluster) && is_whole(cluster)));
        cluster.run(seconds(1));
    }
    let longest = |times: &[Option<Duration>]| {
        let known: Vec<Duration> = times.iter().flatten().copied().collect();
        quantile(&known, 1.0).filter(|_| known.len() == times.len())
    };
    report.time("a killed node is out of every ring, longest", longest(&times), milliseconds(1_500));
    report.time("it is back in every ring, longest", longest(&back), seconds(15));
}
