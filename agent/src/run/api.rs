//! The API's place in the agent: the server's life, and what it answers from.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};

use crate::{
    announce,
    cluster::Reader,
    health,
    kernel::tasks::Faults,
    node::writer::Applied,
    serve::{App, Counts, Events, Followers, ListenError, Listener, Request, Server, Socket, View},
    sources::config::{ApiConfig, SOCKET},
};

/// The server and what it needs.
pub(super) struct Api {
    app: App,
    wanted: PathBuf,
    server: Option<Server>,
    /// Where readers by TCP are wanted, and answered.
    wanted_listen: Option<SocketAddr>,
    listener: Option<Listener>,
    /// From the first time on it is opened again where it ought to be and is not.
    is_open: bool,
    faults: Faults,
}

/// Servers that listen where a new configuration asks for it.
#[derive(Default)]
pub(super) struct Prepared {
    server: Option<Server>,
    listener: Option<Listener>,
}

/// What the API reads beside the view.
pub(super) struct Readers {
    pub(super) cluster: watch::Receiver<Option<Reader>>,
    pub(super) announcer: announce::Reader,
    pub(super) checks: health::Reader,
}

impl Api {
    pub(super) fn new(
        requests: mpsc::Sender<Request>,
        view: watch::Receiver<View>,
        readers: Readers,
        faults: Faults,
    ) -> Self {
        let (events, counts) = (Events::default(), Counts::default());
        let followers = Followers::default();
        let Readers { cluster, announcer, checks } = readers;
        let started = Instant::now();
        let app = App { requests, view, cluster, announcer, checks, events, counts, followers, started };
        Self {
            app,
            wanted: PathBuf::from(SOCKET),
            server: None,
            wanted_listen: None,
            listener: None,
            is_open: false,
            faults,
        }
    }

    /// What other servers than the present ones, which go on, a configuration asks for.
    pub(super) fn prepare(&self, config: &ApiConfig) -> Result<Prepared> {
        let (socket, listen) = (&config.socket, config.listen);
        let server = (self.is_open && !self.is_at(socket)).then(|| self.serve(socket)).transpose()?;
        let listener = listen.filter(|_| self.is_open && !self.listens_at(listen));
        let listener = listener.map(|address| self.listen(address)).transpose()?;
        Ok(Prepared { server, listener })
    }

    /// Listens as a configuration asks for from now on, by servers that were prepared.
    pub(super) fn move_to(&mut self, config: &ApiConfig, prepared: Prepared) {
        let Prepared { server, listener } = prepared;
        self.wanted.clone_from(&config.socket);
        if server.is_some() {
            // The former one answers what it was asked, and ends.
            self.server = server;
        }
        self.wanted_listen = config.listen;
        if listener.is_some() || config.listen.is_none() {
            self.listener = listener;
        }
    }

    /// Whether readers are answered there, or nowhere.
    fn listens_at(&self, address: Option<SocketAddr>) -> bool {
        let present = self.listener.as_ref().filter(|listener| listener.is_running());
        present.map(Listener::address) == address
    }

    fn listen(&self, address: SocketAddr) -> Result<Listener, ListenError> {
        Listener::start(address, self.app.clone())
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
        if !self.is_open {
            return Vec::new();
        }
        let socket = self.open().err().map(|error| format!("{error:#}"));
        let mut reasons: Vec<String> = socket.into_iter().collect();
        if let Some(address) = self.wanted_listen.filter(|_| !self.listens_at(self.wanted_listen)) {
            // One that has ended holds the address no more.
            self.listener = None;
            match self.listen(address) {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        reasons
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
