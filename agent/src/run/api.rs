//! The API's place in the agent: the server's life, and what it answers from.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};

use crate::{
    cluster::Reader,
    kernel::tasks::Faults,
    node::writer::Applied,
    serve::{App, Counts, Events, Request, Server, Socket, View},
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
    pub(super) fn new(
        requests: mpsc::Sender<Request>,
        view: watch::Receiver<View>,
        cluster: watch::Receiver<Option<Reader>>,
        faults: Faults,
    ) -> Self {
        let (events, counts) = (Events::default(), Counts::default());
        let app = App { requests, view, cluster, events, counts, started: Instant::now() };
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

    /// Whether clients find it there.
    fn is_at(&self, path: &Path) -> bool {
        let is_at = |server: &Server| server.socket().path() == path && server.socket().is_in_place();
        self.server.as_ref().is_some_and(|server| server.is_running() && is_at(server))
    }

    fn serve(&self, path: &Path) -> Result<Server> {
        let socket = Socket::bind(path, self.server.as_ref().map(Server::socket))?;
        Server::start(socket, self.app.clone()).context("API: no thread for it")
    }

    /// Listens where it ought to, and anew where clients find it no more. The former socket goes when its successor is
    /// there.
    pub(super) fn open(&mut self) -> Result<()> {
        self.is_open = true;
        if self.server.as_ref().is_some_and(|server| !server.is_running()) {
            self.faults.note("api", "its thread ended");
            self.server = None;
        }
        if !self.is_at(&self.wanted) {
            self.server = Some(self.serve(&self.wanted)?);
        }
        Ok(())
    }

    /// Where what happens is told.
    pub(super) fn events(&self) -> Events {
        self.app.events.clone()
    }

    /// Listens again where that is not so; says why it can't.
    pub(super) fn repair(&mut self) -> Vec<String> {
        let outcome = if self.is_open { self.open() } else { Ok(()) };
        outcome.err().map(|error| format!("{error:#}")).into_iter().collect()
    }
}

/// What reads are answered from, once this is what packets find.
pub(super) fn view_of(node: &Arc<str>, applied: &Applied) -> View {
    View {
        desired: Arc::clone(&applied.desired),
        failed: Arc::clone(&applied.failed),
        node: Arc::clone(node),
        fans: Arc::clone(&applied.fans),
        map: applied.services.clone(),
    }
}
