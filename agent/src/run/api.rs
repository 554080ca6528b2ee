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

    /// A server for another socket than the present one, which goes on; none where that is not needed.
    pub(super) fn prepare(&self, socket: &Path) -> Result<Option<Server>> {
        if self.is_open && !self.is_at(socket) { self.serve(socket).map(Some) } else { Ok(None) }
    }

    /// Listens there from now on, by a server that was prepared.
    pub(super) fn move_to(&mut self, socket: &Path, server: Option<Server>) {
        self.wanted = socket.to_owned();
        if server.is_some() {
            // The former one answers what it was asked, and ends.
            self.server = server;
        }
    }

    fn is_at(&self, socket: &Path) -> bool {
        self.server.as_ref().is_some_and(|server| server.socket().path() == socket)
    }

    fn serve(&self, path: &Path) -> Result<Server> {
        let socket = Socket::bind(path, self.server.as_ref().map(Server::socket))?;
        Server::start(socket, self.app.clone()).context("API: no thread for it")
    }

    /// Whether it listens, or ought to.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Listens where it ought to, and anew where clients find it no more.
    pub(super) fn open(&mut self) -> Result<()> {
        self.is_open = true;
        if self.server.as_ref().is_some_and(|server| !server.is_running()) {
            self.faults.note("api", "its thread ended");
            self.server = None;
        }
        let is_found = self.server.as_ref().is_some_and(|server| server.socket().is_in_place());
        if !is_found || !self.is_at(&self.wanted) {
            self.server = Some(self.serve(&self.wanted)?);
        }
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
