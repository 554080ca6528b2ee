//! What the kernel tells the writer of.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;

use crate::kernel::{
    bpf::EventReader,
    netlink::{self, Netlink, Watch},
    nft_watch::{self, Change, NftWatch},
};

/// A change in the kernel.
#[derive(Debug)]
pub(super) enum KernelEvent {
    /// Its tables changed.
    Network(netlink::Event),
    /// Something was taken out of the packet filter.
    Filter,
    /// Something else in it changed.
    Rules,
    /// A program learnt a smaller path.
    Path,
    /// A source broke: it is opened again by the next pass, which finds what it would have told.
    Lost,
}

/// The sources of [`KernelEvent`]s. Waiting for one loses nothing of the others, and one that breaks ends no other.
pub(super) struct Events {
    watch: Source<Watch>,
    /// Networks whose routes it tells of.
    followed: Vec<Ipv4Net>,
    filter: Source<NftWatch>,
    paths: Option<EventReader>,
    path_fault: Fault,
}

impl Events {
    /// Starts watching: before the first pass, so that no change falls between the two.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub(super) fn open() -> Result<Self> {
        let mut watch = Source::new("tables", || Ok(Netlink::watch()?));
        watch.opened = Some(Netlink::watch()?);
        let mut filter = Source::new("packet filter", || Ok(NftWatch::open(nft_watch::ANY)?));
        filter.repair();
        let path_fault = Fault::default();
        Ok(Self { watch, followed: Vec::new(), filter, paths: None, path_fault })
    }

    /// Opens what is not open: before a pass looks, so that no change falls between the two.
    pub(super) fn repair(&mut self) {
        if self.watch.repair() {
            self.followed.clear();
        }
        self.filter.repair();
    }

    /// Sets the ring that the programs write to.
    pub(super) fn set_paths(&mut self, paths: Option<EventReader>) {
        self.paths = paths;
    }

    /// Tells of routes of others that overlap these networks from now on.
    pub(super) fn follow_routes(&mut self, networks: Vec<Ipv4Net>) -> Result<()> {
        let Some(watch) = &mut self.watch.opened else { return Ok(()) };
        if networks != self.followed {
            watch.follow_routes(&networks)?;
            self.followed = networks;
        }
        Ok(())
    }

    /// What there is to say of changes that can't be heard or read.
    pub(super) fn reasons(&self) -> Vec<String> {
        let now = Instant::now();
        let unreadable = self.watch.opened.as_ref().and_then(Watch::unreadable).map(|error| {
            format!(
                "netlink-unreadable: {error}; what changes is found by the check every few seconds: update fanlight"
            )
        });
        let lost = [
            self.watch.reason(now),
            self.filter.reason(now),
            self.path_fault.reason("programs", self.paths.is_some(), now),
        ];
        unreadable.into_iter().chain(lost.into_iter().flatten()).collect()
    }

    /// The next change.
    pub(super) async fn next(&mut self) -> KernelEvent {
        tokio::select! {
            event = next_path(&mut self.paths) => match event {
                Ok(()) => KernelEvent::Path,
                Err(error) => {
                    self.paths = None;
                    self.path_fault.note("programs", &error);
                    KernelEvent::Lost
                }
            },
            event = next_change(&mut self.watch.opened) => match event {
                Ok(event) => KernelEvent::Network(event),
                Err(error) => self.watch.lose(&error),
            },
            event = next_rules(&mut self.filter.opened) => match event {
                Ok(Change::Taken) => KernelEvent::Filter,
                Ok(Change::Other) => KernelEvent::Rules,
                Err(error) => self.filter.lose(&error),
            },
        }
    }
}

/// A subscription that is opened again when it broke.
struct Source<T> {
    /// What it tells of.
    name: &'static str,
    open: fn() -> Result<T>,
    opened: Option<T>,
    fault: Fault,
}

impl<T> Source<T> {
    fn new(name: &'static str, open: fn() -> Result<T>) -> Self {
        Self { name, open, opened: None, fault: Fault::default() }
    }

    /// Opens it where it is not open; says whether that was so and worked.
    fn repair(&mut self) -> bool {
        if self.opened.is_some() {
            return false;
        }
        match (self.open)() {
            Ok(opened) => self.opened = Some(opened),
            Err(error) => self.fault.note(self.name, &error),
        }
        self.opened.is_some()
    }

    fn lose(&mut self, error: &anyhow::Error) -> KernelEvent {
        self.opened = None;
        self.fault.note(self.name, error);
        KernelEvent::Lost
    }

    fn reason(&self, now: Instant) -> Option<String> {
        self.fault.reason(self.name, self.opened.is_some(), now)
    }
}

/// Why a source could not be opened, or broke.
#[derive(Debug, Default)]
struct Fault(Option<(Instant, String)>);

impl Fault {
    /// How long one is told whose source was opened again: one that breaks all the time is not hidden by that.
    const TOLD: Duration = Duration::from_secs(60);

    fn note(&mut self, name: &str, error: &anyhow::Error) {
        let error = format!("{error:#}");
        if self.0.as_ref().is_none_or(|(_, former)| *former != error) {
            tracing::warn!("events of the kernel's {name}: {error}");
        }
        self.0 = Some((Instant::now(), error));
    }

    fn reason(&self, name: &str, is_open: bool, now: Instant) -> Option<String> {
        let (noted, error) = self.0.as_ref()?;
        let is_told = !is_open || now.saturating_duration_since(*noted) < Self::TOLD;
        is_told.then(|| {
            format!(
                "kernel-events: changes of the kernel's {name} can't be followed: {error}; they are found by the check \
                 every few seconds, and following is tried again"
            )
        })
    }
}

async fn next_path(paths: &mut Option<EventReader>) -> Result<()> {
    match paths {
        Some(paths) => Ok(paths.next().await.map(drop)?),
        None => pending().await,
    }
}

async fn next_change(watch: &mut Option<Watch>) -> Result<netlink::Event> {
    match watch {
        Some(watch) => Ok(watch.next().await?),
        None => pending().await,
    }
}

async fn next_rules(filter: &mut Option<NftWatch>) -> Result<Change> {
    match filter {
        Some(filter) => filter.changed().await.context("agent: changes of the packet filter"),
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_that_can_not_be_opened_is_told_until_it_is() {
        let mut events = Events::open().unwrap();
        assert_eq!(events.reasons(), [""; 0]);
        events.filter = Source::new("packet filter", || anyhow::bail!("no socket"));
        events.repair();
        assert_eq!(
            events.reasons(),
            [
                "kernel-events: changes of the kernel's packet filter can't be followed: no socket; they are found by the \
                 check every few seconds, and following is tried again"
            ]
        );
        events.filter.open = || Ok(NftWatch::open(nft_watch::ANY)?);
        events.repair();
        assert!(events.filter.opened.is_some() && events.watch.opened.is_some());
        assert_eq!(events.filter.reason(Instant::now() + Fault::TOLD), None);
    }

    #[tokio::test]
    async fn a_source_that_breaks_all_the_time_is_not_hidden_by_opening_it_again() {
        let mut source = Source::new("tables", || Ok(()));
        assert!(source.repair() && source.reason(Instant::now()).is_none());
        assert!(matches!(source.lose(&anyhow::anyhow!("cut")), KernelEvent::Lost));
        assert!(source.repair() && !source.repair());
        assert!(
            source
                .reason(Instant::now())
                .is_some_and(|reason| reason.contains("tables can't be followed: cut"))
        );
        assert_eq!(source.reason(Instant::now() + Fault::TOLD), None);
    }
}
