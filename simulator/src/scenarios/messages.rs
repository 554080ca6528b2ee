//! Messages to all members.

use std::time::Duration;

use rand::RngExt as _;

use super::{
    Options,
    cluster::{milliseconds, seconds, settings},
};
use crate::{
    messenger::Messenger,
    report::{Report, quantile},
    world::World,
};

/// How many messages are sent, one after the other.
const MESSAGES: usize = 100;

pub(super) fn messages(options: Options, report: &mut Report) {
    let mut world = World::<Messenger>::new(options.seed, options.nodes, settings());
    world.observes = false;
    (0..options.nodes).for_each(|host| world.start(host));
    let nodes = options.nodes;
    let is_joined =
        |world: &World<Messenger>| world.running().all(|(_, node)| node.core().reachable() == nodes);
    if world.wait(seconds(120), milliseconds(100), is_joined).is_none() {
        report.check("start: all know all", "never", "120 s", false);
    }
    world.observes = true;
    for loss in [0.0, 0.05] {
        world.network.loss = loss;
        let Sent { mut ways, bytes } = send(&mut world);
        let percent = (loss * 100.0).round();
        let expected = MESSAGES * (nodes - 1);
        ways.retain(|way| *way <= seconds(1));
        let part = ways.len() as f64 * 100.0 / expected as f64;
        let what = format!("arrived within a second at {percent} % loss");
        report.check(&what, format!("{part:.3} %"), "99.9 %", part > 99.9);
        for (name, quantile) in [("median", quantile(&ways, 0.5)), ("longest", quantile(&ways, 1.0))] {
            let ms = quantile.unwrap_or_default().as_secs_f64() * 1e3;
            report.note(&format!("{name} way"), format!("{ms:.1} ms"));
        }
        report.note("bytes that a node sends for a message of 100 bytes", bytes);
    }
}

/// What became of messages.
struct Sent {
    /// From the sending to each arrival elsewhere.
    ways: Vec<Duration>,
    /// Bytes that a node sent for each message.
    bytes: u64,
}

fn send(world: &mut World<Messenger>) -> Sent {
    let sent = |world: &World<Messenger>| (0..world.len()).map(|host| world.sent(host)).sum::<u64>();
    let before = sent(world);
    world.run(seconds(2 * MESSAGES as u64));
    let (idle, before) = (sent(world) - before, sent(world));
    let mut ways = Vec::new();
    for number in 0..MESSAGES {
        let (start, nodes) = (world.now(), world.len());
        let from = world.rng().random_range(0..nodes);
        world.act(from, |node, at| node.send(at, &number.to_string(), &[7; 100]));
        world.run(seconds(2));
        let others = world.take_events().into_iter().filter(|(_, host, _)| *host != from);
        ways.extend(others.map(|(at, ..)| at - start));
    }
    let bytes = (sent(world) - before).saturating_sub(idle) / (MESSAGES * world.len()) as u64;
    Sent { ways, bytes }
}
