//! The announcer's place in the agent: what it is told of the configuration and of what the kernel holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use control::{
    announce::{Facts, ServiceFact},
    desired::{Desired, Entry},
    model::network,
};
use ipnet::{IpNet, Ipv4Net};
use tokio::sync::watch;

use crate::{
    announce::{Announcer, Ending, Interest, Reader, Setup},
    cluster,
    kernel::tasks::Faults,
    node::writer::{Applied, Wanted},
    sources::config,
};

/// What is on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Here {
    slices: Vec<Ipv4Net>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Here {
    fn of(applied: &Applied) -> Self {
        let fans = applied.fans.iter().filter(|fan| fan.in_use());
        Self {
            slices: fans.map(|fan| network(fan.slice, fan.slice_mask)).collect(),
            addresses: applied.taken.own.keys().copied().collect(),
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.addresses.contains(&address) || self.slices.iter().any(|slice| slice.contains(&address))
    }

    /// The services that somebody asks for.
    fn services(&self, desired: &Desired, interest: &Interest) -> Vec<ServiceFact> {
        let entries = desired.entries().filter(|entry| interest.wants(&entry.wanted.name));
        let mut services: Vec<_> = entries.map(|entry| self.service(entry)).collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        services
    }

    fn service(&self, entry: &Entry) -> ServiceFact {
        let is_usable = |socket| !entry.down.contains_key(&socket);
        let backends = entry.wanted.backends.iter().filter(|own| own.weight > 0 && is_usable(own.socket()));
        let (mut has_backend, mut has_local) = (false, false);
        for backend in backends {
            has_backend = true;
            has_local |= self.has(backend.address);
        }
        ServiceFact { name: entry.wanted.name.clone(), vip: entry.wanted.vip.address, has_backend, has_local }
    }
}

/// Tells the announcer of services that are about to go, before they do.
#[derive(Clone, Debug)]
pub(super) struct Foresight {
    reader: Reader,
    here: watch::Receiver<Here>,
}

impl Foresight {
    /// The kernel is about to get this. Waits for the withdrawals of what is no more then, for a moment at most.
    pub(super) fn see(&self, desired: &Desired) {
        let interest = self.reader.interest();
        if *interest != Interest::Nothing {
            self.reader.foresee(|| self.here.borrow().services(desired, &interest));
        }
    }
}

/// The announcer, and what it is told.
pub(super) struct Announcing {
    announcer: Announcer,
    here: watch::Sender<Here>,
    /// Until the first state is complete, nothing is announced: peers keep what they have from before.
    is_complete: bool,
}

impl Announcing {
    pub(super) fn new(clusters: watch::Receiver<Option<cluster::Reader>>, faults: Faults) -> Self {
        Self {
            announcer: Announcer::new(clusters, faults),
            here: watch::Sender::default(),
            is_complete: false,
        }
    }

    pub(super) fn reader(&self) -> Reader {
        self.announcer.reader()
    }

    /// What other speakers' tables are to have.
    pub(super) fn tables(&self) -> Wanted {
        self.announcer.tables()
    }

    pub(super) fn foresight(&self) -> Foresight {
        Foresight { reader: self.announcer.reader(), here: self.here.subscribe() }
    }

    /// Follows a configuration; says what is wrong.
    pub(super) fn follow(&mut self, files: &config::Sources, node: &Arc<str>) -> Vec<String> {
        let setup = Setup {
            bgp: files.config.bgp.as_deref().cloned(),
            announcements: files.config.announcements.clone(),
            uplinks: files.config.node.uplink.clone(),
            node: Arc::clone(node),
        };
        let outcome = self.announcer.configure(setup);
        outcome.err().map(|error| format!("announcer: no thread for it: {error}")).into_iter().collect()
    }

    /// The first state is complete.
    pub(super) fn begin(&mut self, applied: &Applied) {
        self.is_complete = true;
        self.hold(applied);
    }

    /// Tells what the kernel holds now.
    pub(super) fn hold(&mut self, applied: &Applied) {
        let here = Here::of(applied);
        let interest = self.announcer.reader().interest();
        if self.is_complete {
            let mut services = here.services(&applied.desired, &interest);
            let is_held = applied.services.is_some();
            services.retain(|_| is_held);
            let failed: BTreeSet<IpAddr> = applied.failed.iter().map(|vip| vip.address).collect();
            services.iter_mut().filter(|service| failed.contains(&service.vip)).for_each(|service| {
                (service.has_backend, service.has_local) = (false, false);
            });
            let slices = here.slices.iter().map(|slice| IpNet::V4(*slice)).collect();
            let endpoints = applied.endpoints.iter().map(|address| IpAddr::V4(*address)).collect();
            let loopback = (*applied.loopback).clone();
            self.announcer.hold(Facts { services, slices, endpoints, loopback, taken: BTreeMap::new() });
        }
        self.here.send_if_modified(|former| {
            let is_news = *former != here;
            if is_news {
                *former = here;
            }
            is_news
        });
    }

    /// Waits for other reasons to be degraded. Dropping this loses nothing.
    pub(super) async fn changed(&mut self) -> Vec<String> {
        self.announcer.changed().await
    }

    /// Ends the sessions.
    pub(super) async fn stop(&mut self, is_detached: bool) {
        let ending = if is_detached { Ending::Detach } else { Ending::Leave };
        self.announcer.stop(ending).await;
    }
}
