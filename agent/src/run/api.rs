//! The API's place in the agent: the server's life.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::monitor::Monitor;
use crate::{
    kernel::{bpf::Datapath, tasks::Faults},
    serve::{App, Events, Request, Server, Socket},
    sources::config::SOCKET,
};

/// The server and what it needs.
pub(super) struct Api {
    app: App,
    wanted: PathBuf,
    server: Option<Server>,
    /// From the first time on it is opened again where it ought to be and is not.
    is_open: bool,
    faults: Faults,
}

impl Api {
    pub(super) fn new(requests: mpsc::Sender<Request>, faults: Faults) -> Self {
        let app = App { requests, events: Events::default() };
        Self { app, wanted: PathBuf::from(SOCKET), server: None, is_open: false, faults }
    }

    /// Where it ought to listen from now on.
    pub(super) fn want(&mut self, socket: &Path) {
        self.wanted = socket.to_owned();
    }

    /// Whether it listens, or ought to.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Listens, at another place than before if that is wanted, and anew where clients find it no more. The former socket
    /// goes when its successor is there.
    pub(super) fn open(&mut self) -> Result<()> {
        self.is_open = true;
        if self.server.as_ref().is_some_and(|server| !server.is_running()) {
            self.faults.note("api", "its thread ended");
        }
        let former = self.server.as_ref().filter(|server| server.is_running());
        if former.is_some_and(|former| former.socket().path() == self.wanted && former.socket().is_in_place())
        {
            return Ok(());
        }
        let socket = Socket::bind(&self.wanted, former.map(Server::socket))?;
        self.server = Some(Server::start(socket, self.app.clone()).context("API: no thread for it")?);
        tracing::debug!("API: listening at {}", self.wanted.display());
        Ok(())
    }

    /// What tells its readers of a datapath's events.
    pub(super) fn monitor(&self, datapath: &Datapath) -> Result<Monitor> {
        let App { requests, events } = self.app.clone();
        Ok(Monitor { watcher: datapath.watcher()?, services: datapath.services().clone(), events, requests })
    }

    /// Listens again where that is not so; says why it can't.
    pub(super) fn repair(&mut self) -> Vec<String> {
        let outcome = if self.is_open { self.open() } else { Ok(()) };
        outcome.err().map(|error| format!("{error:#}")).into_iter().collect()
    }
}
