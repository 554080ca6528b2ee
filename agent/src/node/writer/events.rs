//! What the kernel tells the writer of.

use std::future::pending;

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;

use crate::kernel::{
    bpf::EventReader,
    netlink::{self, Netlink, Watch},
    nft_watch::{self, NftWatch},
};

/// A change in the kernel.
#[derive(Debug)]
pub(super) enum KernelEvent {
    /// Its tables changed.
    Network(netlink::Event),
    /// Something was taken out of the packet filter.
    Filter,
    /// A program learnt a smaller path.
    Path,
}

/// The sources of [`KernelEvent`]s. Waiting for one loses nothing of the others.
pub(super) struct Events {
    watch: Watch,
    /// Networks whose routes it tells of.
    followed: Vec<Ipv4Net>,
    filter: Option<NftWatch>,
    paths: Option<EventReader>,
}

impl Events {
    /// Starts watching: before the first pass, so that no change falls between the two.
    pub(super) fn open() -> Result<Self> {
        let filter = NftWatch::open(nft_watch::TAKEN);
        if let Err(error) = &filter {
            tracing::warn!("changes of the packet filter are noticed by the periodic check only: {error}");
        }
        Ok(Self { watch: Netlink::watch()?, followed: Vec::new(), filter: filter.ok(), paths: None })
    }

    /// Sets the ring that the programs write to.
    pub(super) fn set_paths(&mut self, paths: Option<EventReader>) {
        self.paths = paths;
    }

    /// Tells of routes of others that overlap these networks from now on.
    pub(super) fn follow_routes(&mut self, networks: Vec<Ipv4Net>) -> Result<()> {
        if networks != self.followed {
            self.watch.follow_routes(&networks)?;
            self.followed = networks;
        }
        Ok(())
    }

    /// What there is to say of changes that can't be read.
    pub(super) fn unreadable(&self) -> Option<String> {
        let error = self.watch.unreadable()?;
        Some(format!(
            "netlink-unreadable: {error}; what changes is found by the check every few seconds: update fanlight"
        ))
    }

    /// The next change.
    pub(super) async fn next(&mut self) -> Result<KernelEvent> {
        tokio::select! {
            event = next_path(&mut self.paths) => event.map(|()| KernelEvent::Path),
            event = self.watch.next() => Ok(KernelEvent::Network(event?)),
            event = next_change(&mut self.filter) => event.map(|()| KernelEvent::Filter),
        }
    }
}

async fn next_path(paths: &mut Option<EventReader>) -> Result<()> {
    match paths {
        Some(paths) => Ok(paths.next().await.map(drop)?),
        None => pending().await,
    }
}

async fn next_change(filter: &mut Option<NftWatch>) -> Result<()> {
    match filter {
        Some(filter) => filter.changed().await.context("agent: changes of the packet filter"),
        None => pending().await,
    }
}
