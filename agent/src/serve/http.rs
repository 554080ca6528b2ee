//! The API by TCP, for readers: it changes nothing.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use control::model::quoted;
use hyper::{StatusCode, header::HOST, http::uri::Authority};
use tokio::sync::{Semaphore, oneshot};

use super::{
    App, Refusal, announce, keys, messages, metrics, nodes, paths,
    server::{
        CONNECTIONS, accept, alive, all_backends, events, not_allowed, own_backends, service, services,
        unknown,
    },
};

/// Why nobody can read by TCP.
#[derive(Debug, thiserror::Error)]
#[error("api-listen {address}: {why}; free it, or set another address in api.listen")]
pub struct ListenError {
    address: SocketAddr,
    why: io::Error,
}

/// The running server of an address; it ends with the value.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    thread: JoinHandle<()>,
    _stop: oneshot::Sender<Infallible>,
}

impl Listener {
    /// Listens at an address.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(address: SocketAddr, app: App) -> Result<Self, ListenError> {
        let failed = |why| ListenError { address, why };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let thread = thread::Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    outcome = serve(listener, app) => {
                        outcome.unwrap_or_else(|error| tracing::error!("API at {address}: {error}"));
                    }
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, thread: thread.map_err(failed)?, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it serves: it ends where the system gives it no event queue, or by a defect.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }
}

async fn serve(listener: TcpListener, app: App) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    accept(async || Ok(listener.accept().await?.0), router(app), &places).await;
    Ok(())
}

fn router(app: App) -> Router {
    Router::new()
        .route(paths::SERVICES, get(services))
        .route(paths::SERVICE, get(service))
        .route(paths::BACKENDS, get(all_backends))
        .route(paths::OWN_BACKENDS, get(own_backends))
        .route(paths::NODES, get(nodes::list))
        .route(paths::NODE, get(nodes::show))
        .route(paths::ANNOUNCEMENTS, get(announce::list))
        .route(paths::ANNOUNCEMENT, get(announce::show))
        .route(paths::BGP_PEERS, get(announce::peers))
        .route(paths::BGP_ROUTES, get(announce::routes))
        .route(paths::KEYS, get(keys::list))
        .route(paths::KEY, get(keys::show))
        .route(paths::MESSAGES, get(messages::follow))
        .route(paths::EVENTS, get(events))
        .route(paths::METRICS, get(metrics::show))
        .route(paths::HEALTH, get(alive))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(app.clone(), for_this_host))
        .with_state(app)
}

/// Refuses what is meant for another host: a page in somebody's browser may call this address by a name of its own.
async fn for_this_host(State(app): State<App>, request: Request, next: Next) -> Response {
    let node = Arc::clone(&app.view.borrow().node);
    let mut hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    match (hosts.next(), hosts.next()) {
        (None, _) => next.run(request).await,
        (Some(host), None) if is_own(host, &node) => next.run(request).await,
        (Some(host), _) => {
            let message =
                format!("{} is no name of this host; ask by its address, or as {node}", quoted(host));
            Refusal::new(StatusCode::MISDIRECTED_REQUEST, message).into_response()
        }
    }
}

/// Whether `host`, as HTTP names it, is an address, this host itself or the node's name.
fn is_own(host: &str, node: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_name = |own: &str| !own.is_empty() && name.eq_ignore_ascii_case(own);
    name.parse::<IpAddr>().is_ok() || is_name("localhost") || is_name(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_names_of_this_host_are_asked_for() {
        for own in ["127.0.0.1", "127.0.0.1:7480", "[::1]:7480", "LocalHost:7480", "host-28", "Host-28:7480"]
        {
            assert!(is_own(own, "host-28"), "{own}");
        }
        for other in
            ["evil.example", "evil.example:7480", "host-28.evil.example", "localhost.evil", "", "a b"]
        {
            assert!(!is_own(other, "host-28"), "{other}");
        }
        assert!(!is_own("", "") && !is_own(":80", ""));
    }
}
