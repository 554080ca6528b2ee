//! Wires that are cut.

use super::{
    Options,
    cluster::{Cluster, FalseDeaths, agree, milliseconds, seconds, settled},
    strikes::Strikes,
};
use crate::report::Report;

pub(super) fn asymmetric(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    // Each node cannot reach its two successors; all others pass.
    for host in 0..options.nodes {
        for step in 1..=2 {
            cluster.network.cut(host, (host + step) % options.nodes);
        }
    }
    let mut deaths = FalseDeaths::default();
    for _ in 0..options.minutes.max(1) * 60 {
        cluster.run(seconds(1));
        deaths.watch(&mut cluster, |_| true);
    }
    report.check("deaths of nodes that others reach", deaths.count(), "0", deaths.count() == 0);
    // Both ways between two nodes.
    cluster.network.mend();
    cluster.network.cut(0, 1);
    cluster.network.cut(1, 0);
    for _ in 0..60 {
        cluster.run(seconds(1));
        deaths.watch(&mut cluster, |_| true);
    }
    report.check("deaths where one wire is cut", deaths.count(), "0", deaths.count() == 0);
    cluster.network.mend();
    report.time("all agree once mended", cluster.wait(seconds(30), milliseconds(100), agree), seconds(15));
}

pub(super) fn split(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    let half = options.nodes / 2;
    cluster.network.split(|host| usize::from(host < half));
    let sides_agree = |cluster: &Cluster| {
        cluster.running().all(|(host, node)| {
            node.core.reachable() == if host < half { half } else { cluster.len() - half }
        })
    };
    let time = cluster.wait(seconds(60), milliseconds(100), sides_agree);
    report.time("each half has given up the other", time, seconds(20));
    cluster.run(seconds(60));
    cluster.take_events();
    cluster.network.mend();
    let time = cluster.wait(seconds(60), milliseconds(50), agree);
    report.time("all agree after the wire is mended", time, seconds(15));
    let mut deaths = FalseDeaths::default();
    deaths.watch(&mut cluster, |_| true);
    report.check("deaths told while it heals", deaths.count(), "0", deaths.count() == 0);
}

/// For as long as it is given, each five seconds one of: a tenth of the nodes killed, a partition, loss.
pub(super) fn torture(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    (cluster.network.duplicated, cluster.network.reordered) = (0.05, 0.05);
    let mut strikes = Strikes::default();
    let end = cluster.now() + seconds(60 * options.minutes.max(1));
    while cluster.now() < end {
        strikes.strike(&mut cluster, |_, _| {});
        cluster.run(seconds(5));
        cluster.network.loss = 0.0;
        cluster.take_events();
    }
    strikes.end(&mut cluster);
    report.note("kills, partitions", format!("{}, {}", strikes.kills, strikes.splits));
    let time = cluster.wait(seconds(60), milliseconds(100), agree);
    report.time("all agree once it is quiet", time, seconds(15));
}
