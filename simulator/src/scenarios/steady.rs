//! Start, and rest.

use super::{
    Options,
    cluster::{Cluster, agree, milliseconds, new, seconds, settled, start_all},
};
use crate::report::{Report, quantile};

pub(super) fn boot(options: Options, report: &mut Report) {
    let mut cluster = new(options);
    cluster.observes = false;
    start(&mut cluster, report);
}

/// Starts all nodes within a second.
pub(super) fn start(cluster: &mut Cluster, report: &mut Report) {
    start_all(cluster);
    let time = cluster.wait(seconds(60), milliseconds(100), agree);
    report.time("all know all, after the last start", time, seconds(15));
    let sent: u64 = (0..cluster.len()).map(|host| cluster.sent(host)).sum();
    report.note("sent a node, KiB", sent / 1024 / cluster.len() as u64);
}

pub(super) fn idle(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    cluster.observes = false;
    rest(&mut cluster, options.minutes.max(1), report);
}

/// DESIGN 17: what a node sends, as IPv4 bytes, mean of all nodes over a minute.
pub(super) fn rest(cluster: &mut Cluster, minutes: u64, report: &mut Report) {
    cluster.run(seconds(30));
    let before: Vec<u64> = (0..cluster.len()).map(|host| cluster.sent(host)).collect();
    cluster.run(seconds(60 * minutes));
    let sent = before.iter().enumerate().map(|(host, before)| cluster.sent(host) - before);
    let rates: Vec<u64> = sent.map(|sent| sent / (60 * minutes)).collect();
    let mean = rates.iter().sum::<u64>() / rates.len().max(1) as u64;
    report.check("bytes a second, mean", mean, "2,048", mean < 2_048);
    report.note("bytes a second, most", quantile(&rates, 1.0).unwrap_or(0));
    report.check("all agree", agree(cluster), "true", agree(cluster));
}
