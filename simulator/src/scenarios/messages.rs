//! Messages to all members.

use std::time::Duration;

use rand::RngExt as _;

use super::{
    Options,
    cluster::{Cluster, seconds, settled},
};
use crate::{
    member::Event,
    report::{Report, quantile},
};

/// How many messages are sent, one after the other.
const MESSAGES: usize = 100;
/// Bytes of each.
const SIZE: usize = 100;

pub(super) fn messages(options: Options, report: &mut Report) {
    let mut cluster = settled(options, report);
    for loss in [0.0, 0.05] {
        cluster.network.loss = loss;
        let Sent { mut ways, bytes } = send(&mut cluster);
        let percent = (loss * 100.0).round();
        let expected = MESSAGES * (options.nodes - 1);
        ways.retain(|way| *way <= seconds(1));
        let part = ways.len() as f64 * 100.0 / expected as f64;
        let what = format!("arrived within a second at {percent} % loss");
        report.check(&what, format!("{part:.3} %"), "99.9 %", part > 99.9);
        for (name, part) in [("median", 0.5), ("99th percentile", 0.99), ("longest", 1.0)] {
            let ms = quantile(&ways, part).unwrap_or_default().as_secs_f64() * 1e3;
            report.note(&format!("{name} way"), format!("{ms:.1} ms"));
        }
        report.note(&format!("bytes that a node sends for a message of {SIZE} bytes"), bytes);
    }
}

/// What became of messages.
struct Sent {
    /// From the sending to each arrival elsewhere.
    ways: Vec<Duration>,
    /// Bytes that a node sent for each message.
    bytes: u64,
}

fn send(cluster: &mut Cluster) -> Sent {
    let sent = |cluster: &Cluster| (0..cluster.len()).map(|host| cluster.sent(host)).sum::<u64>();
    let before = sent(cluster);
    cluster.run(seconds(2 * MESSAGES as u64));
    let (idle, before) = (sent(cluster) - before, sent(cluster));
    drop(cluster.take_events());
    let mut ways = Vec::new();
    for number in 0..MESSAGES {
        let (start, nodes) = (cluster.now(), cluster.len());
        let from = cluster.rng().random_range(0..nodes);
        cluster.act(from, |node, at| node.send_event(at, &number.to_string(), &[7; SIZE]));
        cluster.run(seconds(2));
        let heard = cluster.take_events().into_iter();
        let elsewhere = heard.filter(|(_, host, event)| *host != from && matches!(event, Event::Heard(_)));
        ways.extend(elsewhere.map(|(at, ..)| at - start));
    }
    let bytes = (sent(cluster) - before).saturating_sub(idle) / (MESSAGES * cluster.len()) as u64;
    Sent { ways, bytes }
}
