//! Members probe each other through the fan: what the cluster does not notice, because its own packets cross no tunnel.

mod pace;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane_common::abi::FanRecord;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, sleep},
};

use self::pace::{Pace, STEP, Shown};
use crate::{
    cluster::{Reader, Slices},
    kernel::tasks::Faults,
    node::fan::{self, Tunnel},
    serve::View,
};

/// Its name among tasks.
const TASK: &str = "tunnels";
/// Probes at a time: one without an answer takes seconds.
const AT_A_TIME: usize = 16;
/// Between two looks for members, while there are none.
const REST: Duration = Duration::from_secs(2);
/// How long the underlay may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Members that are named; more are counted.
const NAMED: usize = 10;

/// What it looks at.
#[derive(Clone)]
struct Sight {
    view: watch::Receiver<View>,
    cluster: watch::Receiver<Option<Reader>>,
}

/// Probes members for as long as the agent runs; reasons are sent whenever they differ from those before.
pub(super) fn start(
    view: watch::Receiver<View>,
    cluster: watch::Receiver<Option<Reader>>,
    faults: &Faults,
) -> mpsc::Receiver<Vec<String>> {
    let (reasons, blocked) = mpsc::channel(1);
    let (sight, blocking) = (Sight { view, cluster }, faults.clone());
    drop(faults.keep(TASK, move || run(sight.clone(), reasons.clone(), blocking.clone())));
    blocked
}

async fn run(sight: Sight, reasons: mpsc::Sender<Vec<String>>, faults: Faults) {
    let (mut pace, mut former) = (Pace::default(), Vec::new());
    let mut probes = JoinSet::<(String, Shown)>::new();
    let (start, mut steps) = (Instant::now(), interval(STEP));
    while !reasons.is_closed() {
        tokio::select! {
            _ = steps.tick() => {}
            Some(probe) = probes.join_next() => {
                if let Ok((name, shown)) = probe {
                    pace.shown(&name, shown, start.elapsed());
                }
            }
        }
        let fans = Arc::clone(&sight.view.borrow().fans);
        pace.set(sight.members(&fans).await, start.elapsed());
        if probes.len() < AT_A_TIME
            && let Some((name, at)) = pace.due(start.elapsed())
        {
            let probe = faults.blocking(TASK, move || probe(&fans, at));
            // One that panicked has shown nothing.
            probes.spawn(async move { (name, probe.await.ok().flatten().unwrap_or(Shown::Passes)) });
        }
        let found = told(&pace);
        if found != former {
            former.clone_from(&found);
            drop(reasons.send(found).await);
        }
        if pace.is_empty() {
            sleep(REST).await;
        }
    }
}

impl Sight {
    /// Reachable members other than this node that say that they are in the same fan.
    async fn members(&self, fans: &[FanRecord]) -> BTreeMap<String, SocketAddrV4> {
        let reader = self.cluster.borrow().clone();
        let Some(reader) = reader.filter(|_| fans.iter().any(FanRecord::in_use)) else {
            return BTreeMap::new();
        };
        let (slices, cluster) = (reader.slices().await, reader.view());
        let others = cluster.members.iter().filter(|member| !member.is_own && member.state.is_reachable());
        let in_fan =
            others.filter(|member| is_in_fan(fans, *member.address.ip(), member.name.as_str(), &slices));
        in_fan.map(|member| (member.name.to_string(), member.address)).collect()
    }
}

fn is_in_fan(fans: &[FanRecord], host: Ipv4Addr, name: &str, slices: &Slices) -> bool {
    let says = |tunnel: &Tunnel| slices.get(name).is_some_and(|own| own.contains(&tunnel.slice().into()));
    tunnel(fans, host).as_ref().is_some_and(says)
}

/// The tunnel to a host, if it is in a fan.
fn tunnel(fans: &[FanRecord], host: Ipv4Addr) -> Option<Tunnel> {
    fans.iter().filter(|fan| fan.in_use()).find_map(|fan| Tunnel::to(fan, host))
}

/// Probes a member: the tunnel first, and where that is silent, the underlay.
fn probe(fans: &[FanRecord], at: SocketAddrV4) -> Shown {
    let Some(tunnel) = tunnel(fans, *at.ip()) else { return Shown::Passes };
    let passes = tunnel.passes().unwrap_or_else(|error| {
        tracing::debug!("tunnel to {at}: {error}");
        true
    });
    let answers = || TcpStream::connect_timeout(&at.into(), PATIENCE).is_ok();
    if !passes && answers() { Shown::Silence } else { Shown::Passes }
}

/// What is wrong, one line a member.
fn told(pace: &Pace) -> Vec<String> {
    let blocked: Vec<_> = pace.blocked().collect();
    let mut reasons: Vec<String> = blocked
        .iter()
        .take(NAMED)
        .map(|(name, at)| {
            let host = at.ip();
            format!(
                "encapsulation-blocked {name}: {host} answers, and nothing comes back through the fan's tunnel; {}",
                fan::LET_THROUGH
            )
        })
        .collect();
    let more = blocked.len().saturating_sub(NAMED);
    reasons.extend((more > 0).then(|| format!("encapsulation-blocked: {more} more members")));
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_members_are_named_and_more_are_counted() {
        let mut pace = Pace::default();
        let name = |number: u8| format!("n{number:02}");
        let members = |count: u8| {
            (0..count).map(|last| (name(last), SocketAddrV4::new([10, 0, 0, last].into(), 7481))).collect()
        };
        pace.set(members(12), Duration::ZERO);
        assert_eq!(told(&pace), [""; 0]);
        for _twice in 0..2 {
            (0..12).for_each(|number| pace.shown(&name(number), Shown::Silence, Duration::ZERO));
        }
        let reasons = told(&pace);
        assert_eq!(reasons.len(), 11);
        assert!(reasons[0].starts_with("encapsulation-blocked n00: 10.0.0.0 answers"), "{}", reasons[0]);
        assert_eq!(reasons[10], "encapsulation-blocked: 2 more members");
    }
}
