//! Everything that wakes the agent.

use std::{future::pending, time::Instant};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::keeping::{Keeping, Kept};
use crate::{
    kernel::{
        bpf::EventReader,
        netlink::{Event, Netlink, Watch},
        nft_watch::{self, NftWatch},
    },
    serve::Request,
};

/// Why the agent woke up.
#[derive(Debug)]
pub(super) enum Wake {
    /// The kernel's tables changed.
    Network(Event),
    /// Somebody took something out of the packet filter.
    Filter,
    /// A program learnt a smaller path.
    Path,
    /// Somebody asks.
    Request(Request),
    /// What was asked for is kept, or can't be.
    Kept(Kept),
    /// Others translate VIPs, or do no more: all that is to be said of it.
    Shadowed(Vec<String>),
    /// The time has come.
    Time,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// The sources of [`Wake`]s. Waiting for one loses nothing of the others.
pub(super) struct Sources {
    watch: Watch,
    /// Networks whose routes it tells of.
    followed: Vec<Ipv4Net>,
    filter: Option<NftWatch>,
    paths: Option<EventReader>,
    requests: mpsc::Receiver<Request>,
    shadowed: mpsc::Receiver<Vec<String>>,
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Sources {
    /// Starts watching: before the first look, so that no change falls between the two.
    pub(super) fn open(
        requests: mpsc::Receiver<Request>,
        shadowed: mpsc::Receiver<Vec<String>>,
    ) -> Result<Self> {
        let filter = NftWatch::open(nft_watch::TAKEN);
        if let Err(error) = &filter {
            tracing::warn!("changes of the packet filter are noticed by the periodic check only: {error}");
        }
        let on = |kind| signal(kind).context("agent: signals");
        Ok(Self {
            watch: Netlink::watch()?,
            followed: Vec::new(),
            filter: filter.ok(),
            paths: None,
            requests,
            shadowed,
            reload: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
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

    /// The next reason to wake up, [`Wake::Time`] at `due` at the latest.
    pub(super) async fn next(&mut self, due: Instant, keeping: &mut Option<Keeping>) -> Result<Wake> {
        let takes_requests = keeping.is_none();
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Ok(Wake::Stop),
            _ = self.interrupt.recv() => Ok(Wake::Stop),
            _ = self.reload.recv() => Ok(Wake::Reload),
            () = tokio::time::sleep_until(due.into()) => Ok(Wake::Time),
            kept = Keeping::end(keeping) => Ok(Wake::Kept(kept?)),
            Some(request) = self.requests.recv(), if takes_requests => Ok(Wake::Request(request)),
            Some(reasons) = self.shadowed.recv() => Ok(Wake::Shadowed(reasons)),
            event = next_path(&mut self.paths) => event.map(|()| Wake::Path),
            event = self.watch.next() => Ok(Wake::Network(event?)),
            event = next_change(&mut self.filter) => event.map(|()| Wake::Filter),
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
