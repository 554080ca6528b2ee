//! `bench refuse`: forged tunnel packets at the uplink, refused by XDP, by tc, and by a rule of nftables. The kernel redirects
//! them onto the wire, and everything happens on one processor: sending is part of each figure, and the same part.

use std::{
    fmt,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::{
    processors::Processors,
    report::{Summary, best},
};
use crate::{
    Host, Site,
    fleet::{OVERLAY, overlay, underlay},
    foreign::Foreign,
    live::LiveFrames,
    network::wire,
    packet::Ipv4,
    site::Offload,
};

/// Frames of one call into the kernel.
const BATCH: u32 = 1 << 15;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; each runs every way once.
    pub rounds: usize,
    /// Length of one run.
    pub burst: Duration,
}

/// Who refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// Nobody looks: an XDP program drops every frame. What sending alone costs.
    Floor,
    /// Fanlight at XDP.
    Xdp,
    /// Fanlight at tc.
    Tc,
    /// One rule on the device's ingress.
    Nftables,
}

impl Way {
    const ALL: [Self; 4] = [Self::Floor, Self::Xdp, Self::Tc, Self::Nftables];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "dropped unseen",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Nftables => "nftables",
        })
    }
}

/// What a way gave.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    way: Way,
    /// Packets a second.
    rate: Summary,
    best: f64,
    /// Nanoseconds that a packet takes more than one that is dropped unseen.
    alone: Summary,
    /// Of tc's packets a second, round by round.
    by_tc: Summary,
    /// Of nftables'.
    by_nftables: Summary,
}

/// A host whose uplink refuses in one way, and who sends to it.
struct Lane {
    way: Way,
    host: Host,
    sender: Site,
    _dropper: Option<Foreign>,
}

impl Lane {
    fn new(way: Way) -> Result<Self> {
        let (host, sender) = (Host::new(&format!("refuse-{}", way.name())), Site::bare("sender"));
        let address = |host| format!("{}/16", underlay(host));
        wire(1500, (&host, "eth0", &address(1)), (&sender, "wire", &address(0)));
        // So that a veth takes what has no skb, also where nothing runs at XDP.
        host.offload("eth0", Offload::Gro, true);
        let mut dropper = None;
        match way {
            Way::Floor => dropper = Some(Foreign::xdp_drop("drop_all").on(&host, "eth0")),
            Way::Nftables => drop(host.command("nft").args(["-f", "-"]).input(rule()).ok()),
            Way::Xdp | Way::Tc => {
                let asked = format!("[datapath]\nuplink-hook = \"{}\"\n", way.name());
                host.write("/etc/fanlight/fanlight.toml", &asked);
                host.run(&format!("fan up {OVERLAY} eth0"));
            }
        }
        Ok(Self { way, host, sender, _dropper: dropper })
    }

    fn frame(&self) -> Vec<u8> {
        let forged = Ipv4::udp((Ipv4Addr::new(250, 0, 99, 5), 7), (overlay(1, 2), 9), &[0; 18]);
        forged.inside(underlay(0), underlay(1)).frame(self.host.mac("eth0"), self.sender.mac("wire"))
    }

    /// Sends for a time: how many frames a second.
    fn run(&self, frames: &LiveFrames<'_>, length: Duration) -> Result<f64> {
        let frame = self.frame();
        let before = self.refused()?;
        let (start, mut sent) = (Instant::now(), 0_u64);
        while start.elapsed() < length {
            frames.send(&frame, BATCH).with_context(|| format!("{}: sending", self.way))?;
            sent += u64::from(BATCH);
        }
        let rate = sent as f64 / start.elapsed().as_secs_f64();
        if let (Some(before), Some(after)) = (before, self.refused()?) {
            ensure!(after - before == sent, "{}: {} of {sent} frames were refused", self.way, after - before);
        }
        Ok(rate)
    }

    /// How many have been refused, where somebody counts.
    fn refused(&self) -> Result<Option<u64>> {
        Ok(match self.way {
            Way::Floor => None,
            Way::Xdp => Some(self.host.counters().of("uplink-xdp", "drop-spoofed-source")),
            Way::Tc => Some(self.host.counters().of("uplink-ingress", "drop-spoofed-source")),
            Way::Nftables => {
                let listed = self.host.sh("nft list table netdev refuse");
                let count = listed.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
                Some(count.context("the rule counts")?.parse()?)
            }
        })
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Nftables => "nftables",
        }
    }
}

/// For one sender whether the inner source is of its slice. nftables does not compute it: this takes a rule for each host.
fn rule() -> String {
    let [host, target] = [underlay(0), underlay(1)];
    format!(
        "table netdev refuse {{
           chain ingress {{
             type filter hook ingress device \"eth0\" priority -500; policy accept;
             ip saddr {host} ip daddr {target} ip protocol 4 @nh,256,24 != 0xfa001b counter drop
           }}
         }}"
    )
}

/// Runs every way in turn, round after round.
pub fn measure(plan: Plan) -> Result<Vec<Row>> {
    Processors::allowed()?.pin_to_client()?;
    let lanes: Vec<Lane> = Way::ALL.into_iter().map(Lane::new).collect::<Result<_>>()?;
    let frames: Vec<_> = lanes.iter().map(|lane| LiveFrames::new(&lane.sender, "wire")).collect();
    let mut rates = vec![Vec::new(); lanes.len()];
    for round in 0..=plan.rounds {
        for turn in 0..lanes.len() {
            let number = (turn + round) % lanes.len();
            let rate = lanes[number].run(&frames[number], plan.burst)?;
            // The first warms caches.
            if round > 0 {
                rates[number].push(rate);
            }
        }
    }
    let of = |way: Way| &rates[Way::ALL.iter().position(|other| *other == way).unwrap_or_default()];
    let row = |way: Way| {
        let none = || "no round was run";
        let pairs = of(way).iter().zip(of(Way::Floor));
        let alone: Vec<f64> = pairs.map(|(rate, floor)| 1e9 / rate - 1e9 / floor).collect();
        Ok(Row {
            way,
            rate: Summary::of(of(way)).with_context(none)?,
            best: best(of(way)),
            alone: Summary::of(&alone).with_context(none)?,
            by_tc: Summary::of_ratios(of(way), of(Way::Tc)).with_context(none)?,
            by_nftables: Summary::of_ratios(of(way), of(Way::Nftables)).with_context(none)?,
        })
    };
    Way::ALL.into_iter().map(row).collect()
}

/// The rows as a table.
pub fn print(rows: &[Row]) {
    println!("\nForged tunnel packets that one processor sends and refuses, by redirected frames");
    println!(
        "{:<16} {:>10} {:>10} {:>8} {:>15}  {:<18} by nftables'",
        "refused by", "a second", "at best", "ns each", "without sending", "by tc's"
    );
    for Row { way, rate, best, alone, by_tc, by_nftables } in rows {
        let (rate, by_tc, each) = (rate.median, by_tc.to_string(), 1e9 / rate.median);
        let alone = format!("{:.0}", alone.median);
        println!("{way:<16} {rate:>10.0} {best:>10.0} {each:>8.0} {alone:>15}  {by_tc:<18} {by_nftables}");
    }
}
