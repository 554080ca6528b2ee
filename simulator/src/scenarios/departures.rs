//! Nodes that go, with and without a word, and come back.

use std::{collections::BTreeMap, time::Duration};

use control::cluster::membership::{MemberState, Notice};

use super::{
    Options,
    cluster::{Cluster, FalseDeaths, STEP, agree, milliseconds, name_of, new, seconds, settled},
    spread, steady,
};
use crate::{
    member::Event,
    report::{Report, quantile},
};

const KILLS: usize = 100;

/// When nine tenths of the others, and when all, knew of a death or farewell.
struct Known {
    most: Option<Duration>,
    all: Option<Duration>,
}

/// Waits until all know that a host's node is gone.
fn departure(cluster: &mut Cluster, host: usize, left: bool, longest: Duration) -> Known {
    let (name, since) = (name_of(host), cluster.now());
    let others = cluster.running().filter(|(other, _)| *other != host).count();
    let mut known: BTreeMap<usize, Duration> = BTreeMap::new();
    while known.len() < others && cluster.now() < since + longest {
        cluster.run(STEP);
        for (at, other, event) in cluster.take_events() {
            match event {
                Event::Notice(Notice::Down { identity, left: is_left })
                    if *identity.name() == name && left == is_left =>
                {
                    known.entry(other).or_insert(at - since);
                }
                _ => {}
            }
        }
    }
    let times: Vec<Duration> = known.values().copied().collect();
    let enough = (others * 9).div_ceil(10);
    Known {
        most: (times.len() >= enough)
            .then(|| quantile(&times, enough as f64 / times.len().max(1) as f64))
            .flatten(),
        all: (times.len() == others).then(|| quantile(&times, 1.0)).flatten(),
    }
}

fn check_times(report: &mut Report, what: &str, times: &[Option<Duration>], part: f64, longest: Duration) {
    let never = times.iter().filter(|time| time.is_none()).count();
    let times: Vec<Duration> = times.iter().flatten().copied().collect();
    let value = quantile(&times, part).filter(|_| never == 0 || part < 1.0);
    report.time(what, value, longest);
}

pub(super) fn kills(options: Options, report: &mut Report) {
    kills_at(options, report, 0.0);
}

pub(super) fn kills_in_loss(options: Options, report: &mut Report) {
    kills_at(options, report, 0.05);
}

fn kills_at(options: Options, report: &mut Report, loss: f64) {
    let mut cluster = settled(options, report);
    cluster.network.loss = loss;
    kill_some(&mut cluster, KILLS, report);
}

/// What takes too long to be done in a world each, with thousands of nodes.
pub(super) fn large(options: Options, report: &mut Report) {
    let mut cluster = new(options);
    cluster.observes = false;
    steady::start(&mut cluster, report);
    steady::rest(&mut cluster, 1, report);
    cluster.observes = true;
    spread::write_keys(&mut cluster, 5, report);
    kill_some(&mut cluster, 10, report);
}

fn kill_some(cluster: &mut Cluster, kills: usize, report: &mut Report) {
    let (mut most, mut all, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let mut others = 0;
    for _ in 0..kills {
        // The first is the seed of the others, which a node needs to come back.
        let Some(host) = cluster.choose(|cluster, host| host > 0 && cluster.node(host).is_some()) else {
            break;
        };
        cluster.take_events();
        cluster.kill(host);
        let known = departure(cluster, host, false, seconds(6));
        most.push(known.most);
        all.push(known.all);
        cluster.start(host);
        back.push(cluster.wait(seconds(30), milliseconds(100), agree));
        let is_other = |event: &Event| matches!(event, Event::Notice(Notice::Down { identity, .. }) if *identity.name() != name_of(host));
        let died = cluster.take_events().into_iter().filter(|(_, _, event)| is_other(event));
        others += died.count();
    }
    check_times(report, "nine tenths know, median", &most, 0.5, milliseconds(1_000));
    check_times(report, "nine tenths know, longest", &most, 1.0, milliseconds(1_500));
    check_times(report, "all know, longest", &all, 1.0, seconds(4));
    check_times(report, "back and all agree, longest", &back, 1.0, seconds(15));
    report.check("deaths told of others", others, "0", others == 0);
}

pub(super) fn leave(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    let mut all = Vec::new();
    for host in 1..options.nodes.min(11) {
        cluster.take_events();
        cluster.act(host, |node, at| node.leave(at));
        all.push(departure(&mut cluster, host, true, seconds(6)).all);
        cluster.kill(host);
    }
    check_times(report, "all know of a farewell, longest", &all, 1.0, seconds(1));
    let first = cluster.node(0).and_then(|node| node.core.member(&name_of(1)));
    let state = first.map(|member| member.state);
    report.check("state of one that left", format!("{state:?}"), "Left", state == Some(MemberState::Left));
    (1..options.nodes.min(11)).for_each(|host| cluster.start(host));
    let time = cluster.wait(seconds(30), milliseconds(100), agree);
    report.time("all are back", time, seconds(15));
}

pub(super) fn restarts(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    let mut deaths = FalseDeaths::default();
    for host in 0..options.nodes.min(50) {
        cluster.kill(host);
        cluster.run(milliseconds(100));
        cluster.start(host);
        cluster.run(milliseconds(400));
        deaths.watch(&mut cluster, |_| true);
    }
    let time = cluster.wait(seconds(30), milliseconds(100), agree);
    report.time("all agree after restarts one by one", time, seconds(15));
    report.note("deaths told while a node restarts within 100 ms", deaths.count());
    (0..options.nodes).for_each(|host| cluster.kill(host));
    cluster.run(seconds(1));
    (0..options.nodes).for_each(|host| cluster.start(host));
    let time = cluster.wait(seconds(30), milliseconds(100), agree);
    report.time("all agree after a restart of all", time, seconds(15));
}

pub(super) fn mass_death(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    let dead: Vec<usize> = (0..options.nodes).filter(|host| host % 10 == 5).collect();
    dead.iter().for_each(|host| cluster.kill(*host));
    let time = cluster.wait(seconds(60), milliseconds(100), agree);
    report.time("all agree that a tenth is dead", time, seconds(15));
    let mut deaths = FalseDeaths::default();
    deaths.watch(&mut cluster, |name| !dead.iter().any(|host| name_of(*host) == *name));
    report.check("deaths told of others", deaths.count(), "0", deaths.count() == 0);
    dead.iter().for_each(|host| cluster.start(*host));
    let time = cluster.wait(seconds(60), milliseconds(100), agree);
    report.time("all agree that they are back", time, seconds(15));
}
