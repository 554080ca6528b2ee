//! Where peers connect: those that are configured get through, others are closed at once.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

use super::links::News;
use crate::kernel::tcp::{self, Manner};

/// Pause after a connection that could not be accepted: without descriptors, the next can't either.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening sockets as they are configured.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    wanted: Vec<SocketAddr>,
    peers: Vec<Manner>,
    running: Vec<(SocketAddr, JoinHandle<()>)>,
    reasons: Vec<String>,
}

impl Listeners {
    /// Listens there for these peers from now on.
    pub(super) fn follow(&mut self, wanted: &[SocketAddr], peers: Vec<Manner>, news: &mpsc::Sender<News>) {
        if peers != self.peers {
            // Keys belong to the socket.
            self.running.drain(..).for_each(|(_, task)| task.abort());
        }
        (self.wanted, self.peers) = (wanted.to_vec(), peers);
        self.repair(news);
    }

    /// Listens where that is not so.
    pub(super) fn repair(&mut self, news: &mpsc::Sender<News>) {
        let wanted = &self.wanted;
        self.running.retain(|(address, task)| {
            let is_wanted = wanted.contains(address) && !task.is_finished();
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        self.reasons.clear();
        for &address in wanted {
            if self.running.iter().any(|(running, _)| *running == address) {
                continue;
            }
            match tcp::listen(address, &self.peers) {
                Ok(listener) => {
                    let task = tokio::spawn(accept(listener, news.clone()));
                    self.running.push((address, task));
                }
                Err(error) => self.reasons.push(reason(address, &error)),
            }
        }
    }

    pub(super) fn reasons(&self) -> &[String] {
        &self.reasons
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.running.drain(..).for_each(|(_, task)| task.abort());
    }
}

fn reason(address: SocketAddr, error: &io::Error) -> String {
    format!("bgp-listen: {address}: {error}; end who listens there, or change bgp.listen")
}

async fn accept(listener: TcpListener, news: mpsc::Sender<News>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if news.send(News::Accepted(stream, from.ip().to_canonical())).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!("bgp: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
