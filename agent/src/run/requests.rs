//! Requests to the API that only the main loop can answer: what there is, and changes of services.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use anyhow::Result as Outcome;
use control::{
    model::network,
    observed::Route,
    reconcile::{self, RouteOp, Vips},
    service::{Backend, BackendLife, BookError, Change, Entry, Service, Vip},
};
use ipnet::Ipv4Net;

use super::{
    agent::Agent,
    keeping::{Keeping, Kept, Waiting},
    locking::lock_soon,
    relevance::Concern,
    services::v4,
};
use crate::{
    kernel::bpf::Datapath,
    node::routes::change_routes,
    serve::{Applied, Drained, Refusal, Request, Snapshot},
    sources::config::{
        Problem,
        service::{Placed, check_addresses, check_beside},
    },
};

impl Agent {
    /// Answers a request, or begins to do what it asks for; who asked may have given up meanwhile.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Services(answer) => drop(answer.send(Ok(self.snapshot()))),
            Request::Apply(services, answer) => match self.plan_apply(&services) {
                Ok((changes, applied)) => self.keep(changes, Waiting::Applied(answer, applied)),
                Err(refusal) => drop(answer.send(Err(refusal))),
            },
            Request::Remove(name, answer) => match self.services.book.remove(&name) {
                Ok(change) => {
                    let removed = Applied { removed: 1, ..Applied::default() };
                    self.keep(vec![change], Waiting::Applied(answer, removed));
                }
                Err(error) => drop(answer.send(Err(refuse(error)))),
            },
            // The loop's own, which changes all that this is about.
            Request::Reload(answer) => {
                drop(answer.send(Err(Refusal::failed("a reload is no change of services"))))
            }
            Request::Drain { service, backend, drain, answer } => {
                match self.plan_drain(service, backend, drain) {
                    Ok((changes, drained)) => self.keep(changes, Waiting::Drained(answer, drained)),
                    Err(error) => drop(answer.send(Err(refuse(error)))),
                }
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

    fn plan_apply(&self, placed: &[Placed]) -> Result<(Vec<Change>, Applied), Refusal> {
        let problems = check_addresses(placed, &self.overlays());
        if !problems.is_empty() {
            return Err(Refusal::invalid(problems));
        }
        let standing = self.services.book.entries().values().map(|entry| &entry.wanted);
        let all = placed.iter().map(|placed| &placed.service).chain(standing);
        let taken = placed.iter().filter_map(|placed| {
            let Vip { address, .. } = placed.service.vip;
            let why = self.services.reserved.why(placed.service.vip, all.clone())?;
            Some(placed.wrong_vip(format!("{address} {why}; give the service another VIP")))
        });
        let taken: Vec<Problem> = taken.collect();
        if !taken.is_empty() {
            return Err(Refusal::conflicts(taken));
        }
        let standing = self.services.book.entries().values();
        let problems = check_beside(placed, standing.map(|entry| &entry.wanted));
        if !problems.is_empty() {
            return Err(Refusal::conflicts(problems));
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
        let applied = changes.len();
        Ok((changes, Applied { applied, unchanged: services.len() - applied, ..Applied::default() }))
    }

    fn plan_drain(
        &self,
        service: String,
        backend: SocketAddr,
        drain: bool,
    ) -> Result<(Vec<Change>, Drained), BookError> {
        let change = self.services.book.drain(&service, backend, drain)?;
        let entry = self.services.book.get(&service);
        let weighs = |own: &Backend| own.socket() == backend && own.weight > 0;
        let state = match entry {
            Some(entry) if !drain && entry.absent.contains(&backend) => BackendLife::Down,
            Some(entry) if !drain && entry.defined.backends.iter().any(weighs) => BackendLife::Up,
            _ => BackendLife::Drained,
        };
        let changed = change.is_some();
        Ok((change.into_iter().collect(), Drained { service, backend, state, changed }))
    }

    /// Networks that backends may live in: those of all fans, of the files or by hand.
    fn overlays(&self) -> Vec<Ipv4Net> {
        let wanted = self.wanted.iter().map(|(spec, _)| spec.overlay);
        let fans = self.datapath.as_ref().map(|datapath| datapath.config().fans()).unwrap_or_default();
        let standing = fans.iter().map(|fan| network(fan.overlay, fan.overlay_mask));
        wanted.chain(standing).collect()
    }

    /// Begins to keep changes; they are made when that is done.
    fn keep(&mut self, changes: Vec<Change>, waiting: Waiting) {
        if changes.is_empty() {
            return waiting.tell(Ok(()));
        }
        match self.services.store.take() {
            Some(store) => self.services.keeping = Some(Keeping::append(store, changes, waiting)),
            None => waiting.tell(Err(Refusal::failed("an earlier change is being made; try again"))),
        }
    }

    /// Waits until nothing is being written, and does what was to follow.
    pub(super) async fn finish_keeping(&mut self) -> Outcome<()> {
        if self.services.keeping.is_some() {
            let kept = Keeping::end(&mut self.services.keeping).await?;
            self.kept(kept).await;
        }
        Ok(())
    }

    /// Makes what is kept by now.
    pub(super) async fn kept(&mut self, (store, outcome): Kept) {
        let path = store.path();
        self.services.store = Some(store);
        let Some(Keeping { changes, waiting, .. }) = self.services.keeping.take() else { return };
        if let Err(error) = outcome {
            tracing::warn!("{}: {error}", path.display());
            let why =
                format!("nothing was changed: {}: {error}; see whether the disk is full", path.display());
            return waiting.tell(Err(Refusal::failed(why)));
        }
        let start = Instant::now();
        let outcome = self.make(&changes).await;
        tracing::debug!(changes = changes.len(), time = ?start.elapsed(), "services changed");
        waiting.tell(outcome);
    }

    /// Makes changes that are kept: all of them, or none after all.
    async fn make(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        let (inverse, faults) = self.bring(changes).await;
        self.services.is_untold = true;
        self.pace.changed(Instant::now());
        let Some(fault) = faults.first() else { return Ok(()) };
        let kept = self.services.store.as_mut().is_some_and(|store| store.append(&inverse).is_ok());
        let (_, left) = self.bring(&inverse).await;
        let undone = if kept && left.is_empty() {
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
        let gone: Vec<Vip> = former.iter().copied().filter(|&vip| book.at(vip).is_none()).collect();
        let wanted: Vec<Vip> = names.iter().filter_map(|name| vip_of(book.get(name))).collect();
        let mut faults = Vec::new();
        // What is said of a clash changes with its end.
        let mut needs_look =
            changes.iter().any(|change| matches!(change, Change::Remove(_)) && !wanted.is_empty());
        faults.extend(self.make_room().await.err().map(|error| format!("{error:#}")));
        // Without a datapath the next look that finds one brings them all.
        if let Some(datapath) = &self.datapath {
            if self.services.has_writer() {
                self.services.apply_some(datapath, &gone, &names, &mut faults);
                // A route that is set again is an event, after which everything would be looked at.
                let set = &addresses(&wanted) - &addresses(&former);
                let mut deleted = addresses(&gone);
                let range = self.services.range();
                deleted.retain(|&address| {
                    !self.services.holds(address) && !range.is_some_and(|range| range.contains(&address))
                });
                needs_look |= self.set_routes(datapath, &set, &deleted, &mut faults).await;
            } else if let Err(error) = self.bring_all().await {
                faults.push(format!("{error:#}"));
            }
        }
        let failed = Arc::make_mut(&mut self.services.failed);
        for vip in gone.iter().chain(&wanted) {
            failed.remove(vip);
        }
        if needs_look {
            self.note(Concern::Fans);
        }
        (inverse, faults)
    }

    async fn bring_all(&mut self) -> anyhow::Result<()> {
        let lock = lock_soon().await?;
        self.look_at_services(&lock).await.map(drop)
    }

    /// Replaces flow tables that are too small for services.
    async fn make_room(&mut self) -> anyhow::Result<()> {
        if let Some(datapath) = &self.datapath
            && self.services.needs_other_flows(datapath)?
        {
            self.adopt_datapath(&lock_soon().await?).await?;
        }
        Ok(())
    }

    /// Sets and deletes routes of VIPs; says whether others have routes in the place of some.
    async fn set_routes(
        &self,
        datapath: &Datapath,
        set: &BTreeSet<Ipv4Addr>,
        deleted: &BTreeSet<Ipv4Addr>,
        faults: &mut Vec<String>,
    ) -> bool {
        let (helper, _) = datapath.config().helper();
        let fans = datapath.config().fans();
        let routes = |addresses: &BTreeSet<Ipv4Addr>, range| {
            reconcile::vips(helper, &fans, &Vips { addresses: addresses.clone(), range }, &[]).ops
        };
        let old = routes(deleted, None).into_iter().filter_map(|op| match op {
            RouteOp::Set(old) => Some(RouteOp::Delete(old)),
            RouteOp::Delete(_) => None,
        });
        faults.extend(change_routes(self.node.netlink(), &old.collect::<Vec<_>>()).await);
        let netlink = self.node.netlink();
        let wanted =
            Vips { addresses: set.clone(), range: self.services.range().filter(|_| !set.is_empty()) };
        let there = netlink.routes_of(wanted.destinations()).await.unwrap_or_else(|error| {
            faults.push(error.to_string());
            Vec::new()
        });
        let is_held = |wanted: &Route| {
            there.iter().any(|route| route.destination == wanted.destination && route.oif != Some(helper))
        };
        let (held, free): (Vec<_>, Vec<_>) = routes(&wanted.addresses, wanted.range)
            .into_iter()
            .partition(|op| matches!(op, RouteOp::Set(wanted) if is_held(wanted)));
        faults.extend(change_routes(netlink, &free).await);
        !held.is_empty()
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
