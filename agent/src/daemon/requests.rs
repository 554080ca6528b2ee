//! Requests to the API that only the main loop can answer: what there is, and changes of services.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use ipnet::Ipv4Net;

use super::{
    agent::Agent,
    services::{route, v4},
};
use crate::{
    api::{Applied, Drained, Refusal, Request, Snapshot},
    config::{
        Problem,
        service::{Placed, check_fans},
    },
    kernel::bpf::Datapath,
    reconcile::{self, RouteOp},
    service::{BookError, Change, Entry, Service, Vip},
    status::BackendLife,
};

impl Agent {
    /// Answers a request; who asked may have given up meanwhile.
    pub(super) async fn answer(&mut self, request: Request) {
        match request {
            Request::Services(answer) => drop(answer.send(Ok(self.snapshot()))),
            Request::Apply(services, answer) => drop(answer.send(self.apply_services(&services).await)),
            Request::Remove(name, answer) => drop(answer.send(self.remove_service(&name).await)),
            Request::Drain { service, backend, drain, answer } => {
                drop(answer.send(self.drain(service, backend, drain).await));
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let datapath = self.datapath.as_ref();
        Snapshot {
            entries: self.services.book.entries().values().cloned().collect(),
            failed: Arc::clone(&self.services.failed),
            node: self.report.node().to_owned(),
            fans: datapath.map(|datapath| datapath.config().fans()).unwrap_or_default(),
            map: datapath.map(|datapath| datapath.services().clone()),
        }
    }

    async fn apply_services(&mut self, placed: &[Placed]) -> Result<Applied, Refusal> {
        let problems = check_fans(placed, &self.overlays());
        if !problems.is_empty() {
            return Err(Refusal::invalid(problems));
        }
        let own = &self.services.own;
        let taken = placed.iter().filter_map(|placed| {
            let address = v4(placed.service.vip)?;
            let device = own.get(&address)?;
            Some(
                placed
                    .wrong_vip(format!("{address} is an address of {device}; give the service another VIP")),
            )
        });
        let taken: Vec<Problem> = taken.collect();
        if !taken.is_empty() {
            return Err(Refusal::conflicts(taken));
        }
        let services: Vec<&Service> = placed.iter().map(|placed| &placed.service).collect();
        let changed = self.services.book.check(&services).map_err(|problems| {
            let problem = |(place, error): (usize, BookError)| match error {
                BookError::VipTaken { .. } => placed[place].wrong_vip(error.to_string()),
                _ => placed[place].wrong_name(error.to_string()),
            };
            Refusal::conflicts(problems.into_iter().map(problem).collect())
        })?;
        let changes: Vec<Change> =
            changed.iter().map(|&place| Change::Set(services[place].clone())).collect();
        if self.datapath.is_none() && !changes.is_empty() {
            return Err(Refusal::conflict(
                "no fan is up, so that no service can be served; bring one up first",
            ));
        }
        self.make(&changes).await?;
        let applied = changes.len();
        Ok(Applied { applied, unchanged: services.len() - applied, ..Applied::default() })
    }

    async fn remove_service(&mut self, name: &str) -> Result<Applied, Refusal> {
        let change = self.services.book.remove(name).map_err(refuse)?;
        self.make(&[change]).await?;
        Ok(Applied { removed: 1, ..Applied::default() })
    }

    async fn drain(&mut self, service: String, backend: SocketAddr, drain: bool) -> Result<Drained, Refusal> {
        let change = self.services.book.drain(&service, backend, drain).map_err(refuse)?;
        let changed = change.is_some();
        self.make(change.as_slice()).await?;
        let entry = self.services.book.get(&service);
        let takes_flows = entry.is_some_and(|entry| {
            entry.wanted.backends.iter().any(|own| own.socket() == backend && own.weight > 0)
        });
        let state = if takes_flows { BackendLife::Up } else { BackendLife::Drained };
        Ok(Drained { service, backend, state, changed })
    }

    /// Networks that backends may live in: those of all fans, of the files or by hand.
    fn overlays(&self) -> Vec<Ipv4Net> {
        let wanted = self.wanted.iter().map(|(spec, _)| spec.overlay);
        let fans = self.datapath.as_ref().map(|datapath| datapath.config().fans()).unwrap_or_default();
        let standing = fans.iter().filter_map(|fan| {
            let (address, mask) = (Ipv4Addr::from_bits(fan.overlay), Ipv4Addr::from_bits(fan.overlay_mask));
            Ipv4Net::with_netmask(address, mask).ok()
        });
        wanted.chain(standing).collect()
    }

    /// Makes changes, on disk and in the kernel: all of them or none.
    async fn make(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        if changes.is_empty() {
            return Ok(());
        }
        let (path, start) = (self.services.store.path(), Instant::now());
        self.services.store.append(changes).map_err(|error| {
            Refusal::failed(format!(
                "nothing was changed: {}: {error}; see whether the disk is full",
                path.display()
            ))
        })?;
        let kept = start.elapsed();
        let (inverse, faults) = self.bring(changes).await;
        tracing::debug!(changes = changes.len(), ?kept, made = ?start.elapsed() - kept, "services changed");
        self.services.is_untold = true;
        self.pace.changed(Instant::now());
        let Some(fault) = faults.first() else { return Ok(()) };
        let kept = self.services.store.append(&inverse);
        let (_, left) = self.bring(&inverse).await;
        let undone = if kept.is_ok() && left.is_empty() {
            "nothing was changed"
        } else {
            "it could not be taken back; see 'fanlight status'"
        };
        Err(Refusal::failed(format!("{fault}; {undone}")))
    }

    /// Makes changes in the book and in the kernel; gives what would take them back, and what failed.
    async fn bring(&mut self, changes: &[Change]) -> (Vec<Change>, Vec<String>) {
        let names: BTreeSet<String> = changes.iter().map(|change| change.name().to_owned()).collect();
        let book = &mut self.services.book;
        let vip_of = |entry: Option<&Arc<Entry>>| entry.map(|entry| entry.wanted.vip);
        let former: Vec<Vip> = names.iter().filter_map(|name| vip_of(book.get(name))).collect();
        let inverse = book.make(changes);
        let gone: Vec<Vip> = former.into_iter().filter(|&vip| book.at(vip).is_none()).collect();
        let wanted: Vec<Vip> = names.iter().filter_map(|name| vip_of(book.get(name))).collect();
        let mut faults = Vec::new();
        // Without a datapath the next look that finds one brings them all.
        if let Some(datapath) = &self.datapath {
            if self.services.has_writer() {
                self.services.apply_some(datapath, &gone, &names, &mut faults);
                let (mut set, mut deleted) = (addresses(&wanted), addresses(&gone));
                set.retain(|address| !self.services.foreign.contains(address));
                deleted.retain(|&address| !self.services.holds(address));
                faults.extend(self.set_routes(datapath, &set, &deleted).await);
            } else if let Err(error) = self.look_at_services().await {
                faults.push(format!("{error:#}"));
            }
        }
        let failed = Arc::make_mut(&mut self.services.failed);
        for vip in gone.iter().chain(&wanted) {
            failed.remove(vip);
        }
        (inverse, faults)
    }

    /// Sets and deletes routes of VIPs, whatever others stand.
    async fn set_routes(
        &self,
        datapath: &Datapath,
        set: &BTreeSet<Ipv4Addr>,
        deleted: &BTreeSet<Ipv4Addr>,
    ) -> Vec<String> {
        let (helper, _) = datapath.config().helper();
        let fans = datapath.config().fans();
        let routes = |vips| reconcile::vips(helper, &fans, vips, &[]).ops;
        let mut faults = Vec::new();
        for op in routes(deleted) {
            if let RouteOp::Set(old) = op {
                faults.extend(route(self.node.netlink(), &RouteOp::Delete(old)).await);
            }
        }
        for op in routes(set) {
            faults.extend(route(self.node.netlink(), &op).await);
        }
        faults
    }
}

fn addresses(vips: &[Vip]) -> BTreeSet<Ipv4Addr> {
    vips.iter().copied().filter_map(v4).collect()
}

fn refuse(error: BookError) -> Refusal {
    match error {
        BookError::NoService(_) | BookError::NoBackend { .. } => Refusal::not_found(error.to_string()),
        _ => Refusal::conflict(error.to_string()),
    }
}
