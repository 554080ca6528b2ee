//! Finds other software that translates VIPs, beside the event loop: its tables may be large.

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::{IpAddr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use control::{filter, service::Protocol};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    inspect::shadow::{self, Reasons, Served, Vips},
    kernel::{
        bpf, destinations, ip_vs, iptables,
        iptables_save::Saved,
        nft_rules::Ruleset,
        nft_watch::{self, NftWatch},
        tasks::Faults,
    },
    serve::View,
};

/// Between two searches.
const REST: Duration = Duration::from_secs(10);
/// What tells nobody of changes (IPVS, control groups, iptables beside nf_tables) is searched so often.
const PERIOD: Duration = Duration::from_secs(60);
/// Its name among tasks.
const TASK: &str = "shadows";
/// Our own table.
const OWN: &str = "fanlight";

/// Rest after services changed: many do at once.
const BURST: Duration = Duration::from_millis(100);

/// Finds other software that translates the services' VIPs, as long as the agent runs; reasons are sent whenever they differ
/// from those before.
pub(super) fn start(view: watch::Receiver<View>, faults: &Faults) -> mpsc::Receiver<Vec<String>> {
    let (reasons, shadowed) = mpsc::channel(1);
    start_with(view, reasons, faults, find);
    shadowed
}

fn start_with(
    view: watch::Receiver<View>,
    reasons: mpsc::Sender<Vec<String>>,
    faults: &Faults,
    find: fn(&[Served]) -> Vec<String>,
) {
    let blocking = faults.clone();
    drop(faults.keep(TASK, move || run(view.clone(), reasons.clone(), blocking.clone(), find)));
}

async fn run(
    mut view: watch::Receiver<View>,
    reasons: mpsc::Sender<Vec<String>>,
    faults: Faults,
    find: fn(&[Served]) -> Vec<String>,
) {
    let mut changes = None;
    let mut former = Vec::new();
    let mut last: Option<Instant> = None;
    loop {
        if let Some(last) = last {
            sleep((last + REST).saturating_duration_since(Instant::now())).await;
        }
        let served = served(&view.borrow_and_update());
        let is_idle = served.is_empty();
        let found = if is_idle {
            (changes, last) = (None, None);
            Vec::new()
        } else {
            watch_from_now(&mut changes);
            let sought = Arc::clone(&served);
            let found = faults.blocking(TASK, move || find(&sought)).await;
            last = Some(Instant::now());
            // One that panicked has found nothing out: what was found before holds.
            found.ok().flatten().unwrap_or_else(|| former.clone())
        };
        if found != former {
            former.clone_from(&found);
            if reasons.send(found).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changed(&mut view, &served) => if changed.is_err() { return },
            () = next_change(&mut changes) => {}
            () = sleep(PERIOD), if !is_idle => {}
        }
    }
}

/// The services that the kernel serves.
fn served(view: &View) -> Arc<[Served]> {
    let services = view.desired.entries().map(|entry| &entry.wanted);
    let served = services.filter(|service| !view.failed.contains(&service.vip));
    served.map(|service| Served { name: service.name.clone(), vip: service.vip }).collect()
}

/// Waits until services of other names or VIPs are served.
async fn changed(view: &mut watch::Receiver<View>, former: &[Served]) -> Result<(), watch::error::RecvError> {
    loop {
        view.changed().await?;
        sleep(BURST).await;
        if *served(&view.borrow_and_update()) != *former {
            return Ok(());
        }
    }
}

/// Watches the packet filter, from before the next search on.
fn watch_from_now(changes: &mut Option<NftWatch>) {
    if changes.as_mut().is_some_and(|changes| changes.forget().is_ok()) {
        return;
    }
    *changes = NftWatch::open(nft_watch::ANY)
        .inspect_err(|error| tracing::debug!("shadows: changes of the packet filter: {error}"))
        .ok();
}

async fn next_change(changes: &mut Option<NftWatch>) {
    match changes {
        Some(watch) => {
            if watch.changed().await.is_err() {
                *changes = None;
            }
        }
        None => pending().await,
    }
}

/// Why packets of these services are translated before our programs see them, one line a reason.
fn find(services: &[Served]) -> Vec<String> {
    let start = Instant::now();
    let vips = Vips::new(services);
    let mut reasons = Reasons::default();
    let mut failures = Vec::new();
    let places =
        [("nftables", nftables as Find), ("iptables", legacy), ("ip_vs", ipvs), ("connect()", programs)];
    for (place, find) in places {
        if let Err(error) = find(&vips, &mut reasons) {
            failures.push(format!("shadowed: whether {place} translates VIPs can't be told: {error:#}"));
        }
    }
    tracing::debug!(services = services.len(), time = ?start.elapsed(), "searched for others that translate VIPs");
    let mut lines = reasons.lines(services);
    lines.extend(failures);
    lines
}

type Find = fn(&Vips<'_>, &mut Reasons) -> Result<()>;

fn nftables(vips: &Vips<'_>, reasons: &mut Reasons) -> Result<()> {
    let ruleset = Ruleset::open()?;
    let chains = match ruleset.output_translators() {
        // The kernel has no nf_tables.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
        other => other?,
    };
    for chain in chains.iter().filter(|chain| chain.table.as_ref() != OWN) {
        for (service, name) in filter::translated(vips.packets(), &mut ruleset.table(chain), &chain.name)? {
            reasons.chain(service, &format!("{} {} {name}", chain.family(), chain.table));
        }
    }
    Ok(())
}

fn legacy(vips: &Vips<'_>, reasons: &mut Reasons) -> Result<()> {
    if let Some(text) = iptables::legacy("nat")? {
        for (service, name) in filter::translated(vips.packets(), &mut Saved::read(&text), "OUTPUT")? {
            reasons.legacy(service, &name);
        }
    }
    Ok(())
}

fn ipvs(vips: &Vips<'_>, reasons: &mut Reasons) -> Result<()> {
    for (service, theirs) in shadow::ipvs::find(vips, &ip_vs::list()?) {
        reasons.ip_vs(service, theirs);
    }
    Ok(())
}

/// Where there are programs on connect(), they are asked by connecting.
fn programs(vips: &Vips<'_>, reasons: &mut Reasons) -> Result<()> {
    let programs = bpf::connect_programs()?;
    if programs.is_empty() {
        return Ok(());
    }
    let names: Vec<String> =
        programs.iter().map(|program| format!("{} ({})", program.id, program.name)).collect();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let wanted: HashMap<SocketAddrV4, usize> = vips
            .iter()
            .filter(|(_, vip)| vip.protocol == protocol && vip.port != 0)
            .filter_map(|(number, vip)| match vip.address {
                IpAddr::V4(address) => Some((SocketAddrV4::new(address, vip.port), number)),
                IpAddr::V6(_) => None,
            })
            .collect();
        let all: Vec<SocketAddrV4> = wanted.keys().copied().collect();
        let translated =
            destinations::translated(&all, protocol).with_context(|| format!("connecting by {protocol}"))?;
        for (service, _) in translated {
            if let Some(&number) = wanted.get(&service) {
                reasons.programs(number, &names.join(", "));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use control::{
        desired::{Desired, Dirty, Input, Inputs, SourceId, desired},
        service::{Algorithm, Service},
    };

    use super::*;

    fn view(services: &[(&str, &str)], algorithm: Algorithm) -> View {
        let service = |&(name, vip): &(&str, &str)| Service {
            name: name.to_owned(),
            vip: vip.parse().unwrap(),
            algorithm,
            checking: None,
            backends: Vec::new(),
        };
        let services: Vec<Service> = services.iter().map(service).collect();
        let mut inputs = Inputs::default();
        inputs.replace(SourceId::File, Input::defining("a file", &services));
        View { desired: desired(&inputs, &Desired::default(), &Dirty::All).0, ..View::default() }
    }

    #[tokio::test]
    async fn a_search_that_panics_is_a_fault_and_not_the_news_that_nobody_translates() {
        let faults = Faults::default();
        let (reasons, mut found) = mpsc::channel(1);
        let (_sender, views) = watch::channel(view(&[("web", "10.96.0.10:80/tcp")], Algorithm::Maglev));
        start_with(views, reasons, &faults, |_| panic!("half a rule"));
        while faults.reasons().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(faults.reasons()[0].starts_with("task-failed: shadows: panicked: half a rule; "));
        assert!(found.try_recv().is_err());
    }

    #[test]
    fn only_other_names_and_vips_are_searched_for_again() {
        let of = |services, algorithm| served(&view(services, algorithm));
        let web = of(&[("web", "10.96.0.10:80/tcp")], Algorithm::Maglev);
        assert_eq!(web.len(), 1);
        assert_eq!(web, of(&[("web", "10.96.0.10:80/tcp")], Algorithm::Random));
        assert_ne!(web, of(&[("web", "10.96.0.10:81/tcp")], Algorithm::Maglev));
        let failed = Arc::new([web[0].vip].into());
        assert!(
            served(&View { failed, ..view(&[("web", "10.96.0.10:80/tcp")], Algorithm::Maglev) }).is_empty()
        );
    }
}
