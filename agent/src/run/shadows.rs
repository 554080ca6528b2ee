//! Looks for others that translate VIPs, beside the main loop: what they have may be large.

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::{IpAddr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use control::{
    filter,
    service::{Protocol, Service},
};
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
};

/// Its name.
const TASK: &str = "shadows";

/// Between two looks.
const REST: Duration = Duration::from_secs(10);
/// What tells nobody of changes (IPVS, control groups, iptables beside nf_tables) is asked so often.
const PERIOD: Duration = Duration::from_secs(60);
/// Our own table.
const OWN: &str = "fanlight";

/// The services to look for.
#[derive(Debug)]
pub(super) struct Shadows(watch::Sender<Arc<[Served]>>);

impl Shadows {
    /// Nothing is looked for until [`watch`] runs.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }

    /// Looks for these from now on.
    pub(super) fn serve<'a>(&self, services: impl Iterator<Item = &'a Service> + Clone) {
        self.0.send_if_modified(|former| {
            let is_same = |(former, service): (&Served, &Service)| {
                former.vip == service.vip && former.name == service.name
            };
            if former.len() == services.clone().count() && former.iter().zip(services.clone()).all(is_same) {
                return false;
            }
            *former =
                services.map(|Service { name, vip, .. }| Served { name: name.clone(), vip: *vip }).collect();
            true
        });
    }

    /// Starts looking; reasons come whenever they are others than before.
    pub(super) fn start(&self, reasons: mpsc::Sender<Vec<String>>, faults: &Faults) {
        self.start_with(reasons, faults, look);
    }

    fn start_with(
        &self,
        reasons: mpsc::Sender<Vec<String>>,
        faults: &Faults,
        look: fn(&[Served]) -> Vec<String>,
    ) {
        let (services, blocking) = (self.0.subscribe(), faults.clone());
        faults.keep(TASK, move || run(services.clone(), reasons.clone(), blocking.clone(), look));
    }
}

async fn run(
    mut services: watch::Receiver<Arc<[Served]>>,
    reasons: mpsc::Sender<Vec<String>>,
    faults: Faults,
    look: fn(&[Served]) -> Vec<String>,
) {
    let mut changes = None;
    let mut told = Vec::new();
    let mut last: Option<Instant> = None;
    loop {
        if let Some(last) = last.filter(|_| !services.borrow().is_empty()) {
            sleep((last + REST).saturating_duration_since(Instant::now())).await;
        }
        let served = Arc::clone(&services.borrow_and_update());
        let is_idle = served.is_empty();
        let found = if is_idle {
            changes = None;
            Vec::new()
        } else {
            watch_from_now(&mut changes);
            let found = faults.blocking(TASK, move || look(&served)).await;
            last = Some(Instant::now());
            // One that panicked has found nothing out: what was told holds.
            found.ok().flatten().unwrap_or_else(|| told.clone())
        };
        if found != told {
            told.clone_from(&found);
            if reasons.send(found).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = services.changed() => if changed.is_err() { return },
            () = next_change(&mut changes) => {}
            () = sleep(PERIOD), if !is_idle => {}
        }
    }
}

/// Watches the packet filter, from before the next look on.
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

/// What others do to these services, one line a reason.
fn look(services: &[Served]) -> Vec<String> {
    let start = Instant::now();
    let vips = Vips::new(services);
    let mut reasons = Reasons::default();
    let mut failures = Vec::new();
    let looks =
        [("nftables", nftables as Look), ("iptables", legacy), ("ip_vs", ipvs), ("connect()", programs)];
    for (who, look) in looks {
        if let Err(error) = look(&vips, &mut reasons) {
            failures.push(format!("shadowed: whether {who} translates VIPs can't be told: {error:#}"));
        }
    }
    tracing::debug!(services = services.len(), time = ?start.elapsed(), "looked for who else translates VIPs");
    let mut lines = reasons.lines(services);
    lines.extend(failures);
    lines
}

type Look = fn(&Vips<'_>, &mut Reasons) -> Result<()>;

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
    use control::service::Algorithm;

    use super::*;

    fn service(name: &str, vip: &str) -> Service {
        Service {
            name: name.to_owned(),
            vip: vip.parse().unwrap(),
            algorithm: Algorithm::Maglev,
            backends: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_look_that_panics_is_a_fault_and_not_the_news_that_nobody_translates() {
        let (shadows, faults) = (Shadows::new(), Faults::default());
        let (reasons, mut told) = mpsc::channel(1);
        shadows.start_with(reasons, &faults, |_| panic!("half a rule"));
        shadows.serve([service("web", "10.96.0.10:80/tcp")].iter());
        while faults.reasons().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(faults.reasons()[0].starts_with("task-failed: shadows: panicked: half a rule; "));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn only_other_names_and_vips_have_them_looked_for_again() {
        let shadows = Shadows::new();
        let mut seen = shadows.0.subscribe();
        let mut is_news = |services: &[Service]| {
            shadows.serve(services.iter());
            let is_news = seen.has_changed().unwrap();
            seen.mark_unchanged();
            is_news
        };
        let (web, dns) = (service("web", "10.96.0.10:80/tcp"), service("dns", "10.96.0.10:53/udp"));
        assert!(!is_news(&[]));
        assert!(is_news(std::slice::from_ref(&web)));
        let other_choice = Service { algorithm: Algorithm::Random, ..web.clone() };
        assert!(!is_news(&[other_choice]));
        assert!(is_news(&[web.clone(), dns]));
        assert!(is_news(&[service("web", "10.96.0.10:81/tcp")]));
    }
}
