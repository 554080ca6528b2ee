//! The writer's work: observe, plan, apply, whenever an order or the kernel says that something changed.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use control::{
    desired::{Desired, Dirty, Name},
    observed::Presence,
};
use tokio::sync::{mpsc, watch};

use super::{
    applied::{Applied, Topic},
    endpoints::Endpoints,
    events::Events,
    fans::{self, Fans},
    filters::Filters,
    lock::{Held, lock_soon},
    orders::{Done, Fault, Next, Order, Orders},
    pace::Pace,
    programs::{Programs, Watched, flows},
    relevance::{Concern, Known},
    services::{Scope, Services},
    silent::Silent,
    tables::{self, Wanted},
};
use crate::{
    kernel::{capabilities, lock::Lock, tasks::Faults},
    node::fan::Node,
};

mod news;

/// Everything that the writer owns.
pub(super) struct Worker {
    orders: Arc<Orders>,
    output: watch::Sender<Applied>,
    applied: Applied,
    desired: Arc<Desired>,
    node: Node,
    events: Events,
    programs: Programs,
    fans: Fans,
    endpoints: Endpoints,
    services: Services,
    known: Known,
    silent: Silent,
    tables: Wanted,
    pace: Pace,
    held: Held,
    /// What the kernel told of since the last pass.
    concern: Concern,
    /// When others' packet filters were read.
    filters: Filters,
    /// Orders about everything, which a pass has to answer.
    waiting: Vec<Done>,
    /// Programs may still read what single changes replaced.
    is_unsettled: bool,
}

impl Worker {
    /// Opens what the work needs, in the network namespace of this thread.
    pub(super) fn open(
        orders: Arc<Orders>,
        output: watch::Sender<Applied>,
        watchers: mpsc::Sender<Option<Watched>>,
        tables: Wanted,
        faults: Faults,
    ) -> Result<Self> {
        let applied = output.borrow().clone();
        let desired = Arc::clone(&applied.desired);
        let uplinks = desired.settings.uplinks.clone();
        Ok(Self {
            orders,
            output,
            node: Node::open(uplinks)?.with_flows(flows(&desired)),
            events: Events::open()?,
            programs: Programs::new(watchers, faults),
            fans: Fans::default(),
            endpoints: Endpoints::new(Presence::without((*applied.absent).clone())),
            services: Services::new(Arc::clone(&applied.failed)),
            known: Known::default(),
            silent: Silent::default(),
            tables,
            pace: Pace::new(Instant::now()),
            held: Held::default(),
            concern: Concern::Fans,
            filters: Filters::default(),
            waiting: Vec::new(),
            is_unsettled: false,
            applied,
            desired,
        })
    }

    /// Works until it is told to end.
    pub(super) async fn run(mut self) {
        let mut is_first = true;
        loop {
            let due = tokio::time::sleep_until(self.pace.due().into());
            tokio::select! {
                biased;
                next = self.orders.next(), if !is_first => match next {
                    Next::Order(order) => {
                        self.orders.begin();
                        self.follow(order).await;
                        self.orders.end();
                    }
                    Next::TakeDown(answer) => {
                        // Another pass would bring the fans up again.
                        drop(answer.send(self.take_down().await));
                        return;
                    }
                    Next::Stop => return,
                },
                () = due => {
                    self.orders.begin();
                    self.pass().await;
                    self.orders.end();
                    if std::mem::take(&mut is_first)
                        && let Err(error) = capabilities::drop_unused()
                    {
                        tracing::warn!("capabilities are kept: {error}");
                    }
                },
                () = tables::changed(&mut self.tables) => {
                    self.follow_tables().await;
                    self.publish();
                }
                event = self.events.next() => self.note(&event).await,
            }
        }
    }

    /// Does what was ordered, and says so.
    async fn follow(&mut self, order: Order) {
        let former = std::mem::replace(&mut self.desired, order.desired);
        match order.dirty {
            Dirty::All => {
                self.follow_settings(&former);
                self.waiting.extend(order.done);
                self.concern = Concern::Fans;
                self.pass().await;
            }
            Dirty::Names(names) => {
                let faults = self.change(&former, &names).await;
                self.pace.changed(Instant::now());
                self.applied.desired = Arc::clone(&self.desired);
                self.publish();
                order.done.into_iter().for_each(|done| done.tell(&faults));
            }
        }
    }

    fn follow_settings(&mut self, former: &Desired) {
        if former.settings.uplinks != self.desired.settings.uplinks {
            self.open_node();
        }
        self.fans.forget();
        self.filters = Filters::default();
        self.services.reopen();
        self.programs.forget_refusals();
    }

    /// Requests go through a socket that may break; who waited for an answer was told.
    fn renew_netlink(&mut self) {
        if !self.node.netlink().is_open() {
            self.programs.faults().note("netlink", "the socket for requests broke");
            self.open_node();
        }
    }

    fn open_node(&mut self) {
        match Node::open(self.desired.settings.uplinks.clone()) {
            Ok(node) => self.node = node,
            Err(error) => self.applied.set(Topic::Fans, vec![error.to_string()]),
        }
    }

    /// Changes single services; gives what failed.
    async fn change(&mut self, former: &Desired, names: &BTreeSet<Name>) -> Vec<Fault> {
        self.is_unsettled = true;
        match self.try_change(former, names).await {
            Ok(faults) => faults,
            Err(error) => {
                self.services.reopen();
                vec![Fault { service: None, why: format!("{error:#}") }]
            }
        }
    }

    async fn try_change(&mut self, former: &Desired, names: &BTreeSet<Name>) -> Result<Vec<Fault>> {
        let desired = Arc::clone(&self.desired);
        let has_room = !self.programs.needs_other_flows(&desired)?;
        let is_known = self.programs.datapath().is_none() || self.services.is_opened(&self.programs);
        let found = if has_room && is_known {
            let scope = Scope::Some { former, names };
            self.services.reconcile(&self.node, &self.programs, &desired, scope).await?
        } else {
            let lock = lock_soon().await?;
            self.programs.adopt(&self.node, &lock, &desired).await?;
            self.hear().await;
            if self.programs.is_fresh {
                // No packet finds a service before the programs of all ports look for its flows in the same tables.
                self.reconcile_endpoints(&lock).await;
            }
            self.services
                .reconcile(&self.node, &self.programs, &desired, Scope::All(&lock, &self.known.uplinks))
                .await?
        };
        if found.needs_all {
            self.changed(Concern::Fans);
        }
        Ok(found.faults)
    }

    /// One pass over what changed; the periodic one finds nothing noted and goes over everything.
    async fn pass(&mut self) {
        let concern = std::mem::replace(&mut self.concern, Concern::Nothing);
        let now = Instant::now();
        let is_periodic = self.pace.is_periodic(now);
        let is_due = is_periodic || self.endpoints.next_look.is_some_and(|next| next <= now);
        if concern == Concern::Nothing && self.is_unsettled && !is_due {
            self.settle();
            self.pace.skipped(Instant::now(), false);
            return;
        }
        // The periodic pass is one over everything, and so is the one after a failure, whatever else is to be looked at by then.
        let concern = if concern == Concern::Nothing || is_periodic { Concern::Fans } else { concern };
        match self.held.attempt() {
            Ok(Some(lock)) => self.pass_under(&lock, concern).await,
            Ok(None) => {
                self.concern = self.concern.max(concern);
                self.pace.put_off(now);
                self.applied.set(Topic::Lock, self.held.reason().into_iter().collect());
            }
            Err(error) => {
                self.concern = self.concern.max(concern);
                self.applied.set(Topic::Lock, vec![error.to_string()]);
                self.pace.passed(Instant::now(), true, true);
            }
        }
        self.publish();
    }

    async fn pass_under(&mut self, lock: &Lock, concern: Concern) {
        self.applied.set(Topic::Lock, Vec::new());
        self.events.repair();
        self.renew_netlink();
        let mut faults = Vec::new();
        if concern != Concern::Endpoints {
            self.node = fans::wanting(self.node.clone(), &self.desired);
            faults.extend(self.reconcile_fans(lock).await);
            if self.programs.is_fresh {
                // No packet finds a service before the programs of all ports look for its flows in the same tables.
                faults.extend(self.reconcile_endpoints(lock).await);
            }
            faults.extend(self.reconcile_services(lock).await);
        }
        faults.extend(self.reconcile_endpoints(lock).await);
        if faults.is_empty() {
            // No program of an earlier version is left on any hook.
            self.programs.bring_flows_over();
        }
        self.check_filters().await;
        self.applied.set(Topic::Kernel, self.events.reasons());
        self.pace.passed(Instant::now(), !faults.is_empty(), concern == Concern::Fans);
        self.pace.by(self.endpoints.next_look);
        self.look_at_rules();
        if concern == Concern::Fans {
            self.follow_tables().await;
            self.applied.passes += 1;
            self.applied.desired = Arc::clone(&self.desired);
            let done = std::mem::take(&mut self.waiting);
            self.publish();
            done.into_iter().for_each(|done| done.tell(&faults));
        }
    }

    async fn reconcile_fans(&mut self, lock: &Lock) -> Vec<Fault> {
        let Self { node, desired, programs, known, .. } = self;
        let outcome = self.fans.reconcile(node, lock, desired, programs, known).await;
        let is_heard = self.hear().await;
        let mut faults = match outcome {
            Ok(found) => {
                let reasons = found.faults.iter().chain(&found.notes).cloned().collect();
                self.applied.set(Topic::Fans, reasons);
                host_faults(found.faults)
            }
            Err(error) => self.failed(Topic::Fans, &error),
        };
        faults.extend(is_heard);
        faults
    }

    async fn reconcile_endpoints(&mut self, lock: &Lock) -> Vec<Fault> {
        let Self { node, programs, known, events, .. } = self;
        self.endpoints.follow(&self.desired);
        match self.endpoints.reconcile(node.netlink(), lock, programs, known, events).await {
            Ok(faults) => {
                self.applied.set(Topic::Endpoints, faults.clone());
                host_faults(faults)
            }
            Err(error) => self.failed(Topic::Endpoints, &error),
        }
    }

    async fn reconcile_services(&mut self, lock: &Lock) -> Vec<Fault> {
        let desired = Arc::clone(&self.desired);
        let scope = Scope::All(lock, &self.known.uplinks);
        self.is_unsettled = false;
        match self.services.reconcile(&self.node, &self.programs, &desired, scope).await {
            Ok(found) => {
                let faults = found.faults.iter().map(|fault| fault.why.clone());
                self.applied.set(Topic::Services, found.notes.iter().cloned().chain(faults).collect());
                found.faults
            }
            Err(error) => self.failed(Topic::Services, &error),
        }
    }

    /// Follows what the programs tell; gives what failed.
    async fn hear(&mut self) -> Option<Fault> {
        let followed = self.programs.follow(&mut self.events, &mut self.endpoints.presence).await;
        let outcome = followed.context("events of the kernel programs, which are asked for again");
        let why = outcome.err().map(|error| format!("{error:#}"));
        self.applied.set(Topic::Programs, why.iter().cloned().collect());
        why.map(|why| Fault { service: None, why })
    }

    /// What could not even be observed is a failure, too.
    fn failed(&mut self, topic: Topic, error: &anyhow::Error) -> Vec<Fault> {
        let why = format!("{error:#}");
        self.applied.set(topic, vec![why.clone()]);
        vec![Fault { service: None, why }]
    }

    /// Finds rules of others that drop the fans' packets, if there may be others than before.
    async fn check_filters(&mut self) {
        let began = Instant::now();
        if !self.filters.is_due(began) {
            return;
        }
        let reasons = match self.node.check_filters(self.programs.datapath()).await {
            Ok(reasons) => reasons,
            Err(error) => vec![error.to_string()],
        };
        self.filters.read(began, Instant::now());
        self.applied.set(Topic::Forward, reasons);
    }

    fn settle(&mut self) {
        self.services.settle();
        self.is_unsettled = false;
    }

    async fn follow_tables(&mut self) {
        let placed = tables::reconcile(self.node.netlink(), &mut self.tables).await;
        self.applied.set(Topic::Tables, placed.faults);
        if *self.applied.loopback != placed.loopback {
            self.applied.loopback = Arc::new(placed.loopback);
        }
    }

    /// Tells what the kernel holds now.
    fn publish(&mut self) {
        let absent = self.endpoints.presence.absent();
        if *self.applied.absent != absent {
            self.applied.absent = Arc::new(absent);
        }
        if *self.applied.endpoints != self.endpoints.addresses {
            self.applied.endpoints = Arc::new(self.endpoints.addresses.clone());
        }
        let datapath = self.programs.datapath();
        let fans = datapath.map(|datapath| datapath.config().fans()).unwrap_or_default();
        if *self.applied.fans != *fans {
            self.applied.fans = fans.into();
        }
        self.applied.services = datapath.map(|datapath| datapath.services().clone());
        self.applied.taken = Arc::clone(&self.services.taken);
        self.applied.failed = Arc::clone(&self.services.failed);
        self.applied.flow_count = self.services.flow_count();
        self.output.send_replace(self.applied.clone());
    }

    async fn take_down(&mut self) -> Result<()> {
        self.follow_tables().await;
        let lock = lock_soon().await?;
        fans::take_down(&self.node, &lock, &mut self.programs).await?;
        self.publish();
        Ok(())
    }
}

fn host_faults(faults: Vec<String>) -> Vec<Fault> {
    faults.into_iter().map(|why| Fault { service: None, why }).collect()
}
