//! Lossy wires and slow nodes.

use super::{
    Options,
    cluster::{FalseDeaths, agree, milliseconds, name_of, seconds, settled},
};
use crate::{member::Member, report::Report};

fn loss(options: Options, report: &mut Report, part: f64) -> FalseDeaths {
    let mut cluster = settled(options, report);
    cluster.network.loss = part;
    let mut deaths = FalseDeaths::default();
    for _ in 0..options.minutes.max(1) * 60 {
        cluster.run(seconds(1));
        deaths.watch(&mut cluster, |_| true);
    }
    cluster.network.loss = 0.0;
    let time = cluster.wait(seconds(30), milliseconds(100), agree);
    deaths.watch(&mut cluster, |_| true);
    report.time("all agree once nothing is lost", time, seconds(15));
    report.note("false deaths", deaths.count());
    report.time("longest until such a node was back everywhere", Some(deaths.longest()), seconds(1));
    report.check("still taken for dead", deaths.open(), "0", deaths.open() == 0);
    deaths
}

pub(super) fn loss_5(options: Options, report: &mut Report) {
    let deaths = loss(options, report, 0.05);
    let hours = (options.nodes as u64 * options.minutes.max(1)) as f64 / 60.0;
    let allowed = (hours / 100.0).ceil() as usize;
    let bound = format!("{allowed} in {hours:.1} node-hours");
    report.check("false deaths at 5 % loss", deaths.count(), &bound, deaths.count() <= allowed);
}

pub(super) fn loss_20(options: Options, report: &mut Report) {
    let deaths = loss(options, report, 0.2);
    let hours = (options.nodes as u64 * options.minutes.max(1)) as f64 / 60.0;
    let allowed = hours.ceil() as usize;
    let bound = format!("{allowed} in {hours:.1} node-hours");
    report.check("false deaths at 20 % loss", deaths.count(), &bound, deaths.count() <= allowed);
}

/// The wall clocks of two nodes jump by a day; a third one restarts with its clock a day behind.
pub(super) fn clocks(options: Options, report: &mut Report) {
    const DAY: i64 = 86_400_000;
    let mut cluster = settled(options, report);
    let mut deaths = FalseDeaths::default();
    cluster.skew(1, DAY);
    cluster.skew(2, -DAY);
    cluster.run(seconds(60));
    deaths.watch(&mut cluster, |_| true);
    report.check("deaths after a jump of two clocks", deaths.count(), "0", deaths.count() == 0);
    let (ahead, behind) = (name_of(1), name_of(2));
    let tells = |node: &Member| {
        let skewed = node.core.skewed();
        skewed.iter().all(|(name, off)| (*name == ahead && *off > 0) || (*name == behind && *off < 0))
    };
    let wrong = cluster.running().filter(|(_, node)| !tells(node)).count();
    report.check("nodes that take others for skewed", wrong, "0", wrong == 0);
    let known = cluster.running().filter(|(_, node)| !node.core.skewed().is_empty()).count();
    report.check("nodes that name one of the two", known, "all", known == options.nodes);
    cluster.kill(3);
    cluster.skew(3, -DAY);
    cluster.start(3);
    let time = cluster.wait(seconds(30), milliseconds(100), agree);
    report.time("all agree after a restart with a clock a day behind", time, seconds(15));
}

pub(super) fn slow(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    let slow = 1;
    let others = |name: &_| *name != name_of(slow);
    cluster.slow(slow, milliseconds(300));
    let mut deaths = FalseDeaths::default();
    for _ in 0..60 {
        cluster.run(seconds(1));
        deaths.watch(&mut cluster, others);
    }
    let stretch = cluster.node(slow).map_or(0, |node| node.core.stretch());
    report.check(
        "time-outs of a node that runs 300 ms late",
        format!("{stretch} times"),
        "more than 1",
        stretch > 1,
    );
    report.check("deaths told of punctual nodes", deaths.count(), "0", deaths.count() == 0);
    cluster.slow(slow, milliseconds(0));
    cluster.run(seconds(20));
    let stretch = cluster.node(slow).map_or(0, |node| node.core.stretch());
    report.check("time-outs once it is punctual", format!("{stretch} times"), "1", stretch == 1);
    let mut deaths = FalseDeaths::default();
    for time in [500, 1_000, 3_000, 10_000] {
        cluster.pause(slow, milliseconds(time));
        cluster.run(milliseconds(time) + seconds(5));
        deaths.watch(&mut cluster, others);
    }
    report.check("deaths told by a node that had stopped", deaths.count(), "0", deaths.count() == 0);
    report.time(
        "all agree after its return",
        cluster.wait(seconds(30), milliseconds(100), agree),
        seconds(15),
    );
}
