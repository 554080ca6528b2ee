//! What members share, while nodes are killed, disks lose what they held, and wires are cut.

use std::collections::BTreeMap;

use control::{
    cluster::records::{BackendRecord, Record, RecordKey},
    service::{Algorithm, Definition},
};
use rand::RngExt as _;

use super::{
    Options,
    cluster::{Cluster, agree, is_one, milliseconds, seconds, serve_alike, settled},
    ledger::Ledger,
    spread::backend,
    strikes::Strikes,
};
use crate::{
    client::{Asked, KeyWrite, Outcome},
    member::Event,
    report::Report,
};

/// Few keys and services, so that many write the same.
const KEYS: u32 = 20;
const SERVICES: usize = 3;

/// For as long as it is given at 20 % loss: all nodes write keys and services; each five seconds some are killed, of
/// which some lose what their disks held, or a partition begins.
pub(super) fn records(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    (cluster.network.duplicated, cluster.network.reordered) = (0.05, 0.05);
    let (mut ledger, mut strikes) = (Ledger::default(), Strikes::default());
    let end = cluster.now() + seconds(60 * options.minutes.max(1));
    while cluster.now() < end {
        for _ in 0..10 {
            write(&mut cluster, &mut ledger);
            cluster.run(milliseconds(500));
            ledger.follow(&mut cluster);
        }
        // What strikes finds writes that are not stored, or not everywhere.
        write(&mut cluster, &mut ledger);
        let time = cluster.rng().random_range(0..30);
        cluster.run(milliseconds(time));
        ledger.follow(&mut cluster);
        strikes.strike(&mut cluster, |cluster, host| {
            damage(cluster, host);
            ledger.went_down(cluster, host);
        });
        cluster.network.loss = 0.2;
    }
    strikes.end(&mut cluster);
    report.note("kills, partitions", format!("{}, {}", strikes.kills, strikes.splits));
    let time = cluster.wait(seconds(60), milliseconds(100), |cluster| agree(cluster) && is_one(cluster));
    report.time("members and logs are equal everywhere, once it is quiet", time, seconds(15));
    cluster.network.loss = 0.0;
    let time = cluster.wait(seconds(20), milliseconds(100), serve_alike);
    report.time("every node serves the same then", time, seconds(5));
    ledger.follow(&mut cluster);
    ledger.check(&cluster, report);
}

/// Some of the disks lose what they said was written, and some all.
fn damage(cluster: &mut Cluster, host: usize) {
    let (chance, tail) = (cluster.rng().random_range(0..10), cluster.rng().random_range(1..8));
    let Some(disk) = cluster.disk_mut(host) else { return };
    match chance {
        0..=2 => disk.lose_tail(tail),
        3 => disk.lose_store(),
        _ => {}
    }
}

/// Some nodes write a key or a service each.
fn write(cluster: &mut Cluster, ledger: &mut Ledger) {
    for _ in 0..cluster.len().div_ceil(10) {
        let Some(host) = cluster.choose(|cluster, host| cluster.node(host).is_some()) else { return };
        let chance = cluster.rng().random_range(0..10);
        if chance < 7 {
            let key = format!("key-{}", cluster.rng().random_range(0..KEYS));
            let value = (chance < 4).then(|| chance.to_string().into_bytes());
            ledger.ask(cluster, host, KeyWrite { key, value, expected: None });
        } else {
            write_service(cluster, host);
        }
    }
}

fn write_service(cluster: &mut Cluster, host: usize) {
    let number = cluster.rng().random_range(0..SERVICES);
    let (name, socket) = (format!("service-{number}").into(), backend(host));
    let record = match cluster.rng().random_range(0..10) {
        0..=2 => {
            let vip = format!("10.96.0.{}:80/tcp", cluster.rng().random_range(1..=SERVICES));
            Record::Define {
                name,
                what: Definition {
                    vip: vip.parse().expect("a VIP"),
                    algorithm: Algorithm::Maglev,
                    checking: None,
                },
            }
        }
        3 => Record::Undefine(name),
        4..=6 => Record::Offer(name, socket, BackendRecord { weight: 1, file: None }),
        7 => Record::Withdraw(name, socket),
        drained => Record::Drain(name, socket, drained == 8),
    };
    cluster.act(host, |node, at| node.write(at, Asked::NOBODY, vec![record]));
}

/// Writes that compare, by who decided: of a key, the version that was expected.
type Decided = BTreeMap<(String, u64), Vec<String>>;

/// For as long as it is given, all nodes write keys only where they have the version that is known there, while nodes are
/// killed; then while wires are cut, too, where both sides of a partition may decide until the smaller one notices it.
pub(super) fn owners(options: Options, report: &mut Report) {
    let apart = decide(options, report, true);
    report.check("versions that two members replaced while nodes were killed", apart, "0", apart == 0);
    let apart = decide(options, report, false);
    report.note("versions that two members replaced while wires were cut, too", apart);
}

/// Gives how many versions two members replaced, apart from each other.
fn decide(options: Options, report: &mut Report, never_splits: bool) -> usize {
    let mut cluster = settled(options, report);
    let mut strikes = Strikes::default();
    strikes.never_splits = never_splits;
    let mut asked: BTreeMap<Asked, KeyWrite> = BTreeMap::new();
    let (mut decided, mut refused) = (Decided::new(), 0);
    let end = cluster.now() + seconds(60 * options.minutes.max(1));
    while cluster.now() < end {
        strikes.strike(&mut cluster, |_, _| {});
        for _ in 0..50 {
            compare_and_set(&mut cluster, &mut asked);
            cluster.run(milliseconds(100));
            refused += follow(&mut cluster, &asked, &mut decided);
        }
        cluster.network.loss = 0.0;
    }
    strikes.end(&mut cluster);
    let time = cluster.wait(seconds(60), milliseconds(100), |cluster| agree(cluster) && is_one(cluster));
    report.time("members and logs are equal everywhere, once it is quiet", time, seconds(15));
    let twice = |by: &&Vec<String>| by.iter().any(|one| by.iter().filter(|other| *other == one).count() > 1);
    let same = decided.values().filter(twice).count();
    report.note("writes that compared, refused", format!("{}, {refused}", decided.len()));
    report.check("versions that one member replaced twice", same, "0", same == 0);
    decided.values().filter(|by| by.len() > 1).count() - same
}

/// A node asks for a key's next version.
fn compare_and_set(cluster: &mut Cluster, asked: &mut BTreeMap<Asked, KeyWrite>) {
    let Some(host) = cluster.choose(|cluster, host| cluster.node(host).is_some()) else { return };
    let key = format!("key-{}", cluster.rng().random_range(0..KEYS));
    let number = Asked(asked.len() as u64 + 1);
    let Some(node) = cluster.node(host) else { return };
    let version = node.view().user(&key).map_or(0, |user| user.version);
    let value = Some(number.0.to_string().into_bytes());
    let write = KeyWrite { key, value, expected: Some(version) };
    asked.insert(number, write.clone());
    cluster.act(host, |node, at| node.write_key(at, number, write));
}

/// Enters what was decided; gives how many were refused.
fn follow(cluster: &mut Cluster, asked: &BTreeMap<Asked, KeyWrite>, decided: &mut Decided) -> usize {
    let mut refused = 0;
    for (_, _, event) in cluster.take_events() {
        let Event::Answered(answer) = event else { continue };
        let Some(KeyWrite { key, expected: Some(expected), .. }) = asked.get(&answer.asked) else { continue };
        match answer.outcome {
            Outcome::Written { by, stamps }
                if stamps.contains_key(&RecordKey::User(key.as_str().into()).encode()) =>
            {
                decided.entry((key.clone(), *expected)).or_default().push(by);
            }
            _ => refused += 1,
        }
    }
    refused
}
