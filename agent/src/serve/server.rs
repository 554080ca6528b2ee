//! The side of the agent: a thread that takes requests.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use axum::{
    BoxError, Json, Router,
    body::Body,
    extract::{Path, Request as HttpRequest, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use control::{
    desired::ChangeError,
    model::{clipped, quoted},
};
use futures_util::stream;
use hyper::{StatusCode, Uri, header::CONTENT_TYPE, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot, watch},
};

use super::{
    Answer, Applied, Contributed, Drained, Events, Followers, OwnBackend, Refusal, Reloaded, Request,
    ServiceRow, Socket, View, announce, checks, counts::Counts, events::READERS, keys, lines, messages,
    metrics, nodes, paths,
};
use crate::{
    cluster::Reader,
    health,
    kernel::bpf,
    sources::config::{Problem, format::Format, service::parse},
};

/// Connections at a time; further ones wait to be accepted. Those of readers that follow something stay: others have their own
/// beside.
pub(super) const CONNECTIONS: usize = 2 * READERS + 64;
/// How long a client may take for a request's head, and may stay without one.
const HEAD: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_SIZE: usize = 16 * 1024;
/// How long a client may take for a request's body.
const BODY: Duration = Duration::from_secs(30);
/// Bytes of a request's body: four times what the largest set of services takes.
const BODY_SIZE: usize = 32 << 20;
/// How long the agent may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a server that is replaced goes on with what it was asked.
const LINGER: Duration = ANSWER;
/// Pause after a connection that could not be accepted: without descriptors, the next can't either.
const PAUSE: Duration = Duration::from_millis(100);

/// What the API is made of.
#[derive(Clone, Debug)]
pub struct App {
    /// Changes, to the event loop.
    pub requests: mpsc::Sender<Request>,
    /// What reads are answered from.
    pub view: watch::Receiver<View>,
    /// What happens.
    pub events: Events,
    /// What readers know of flows.
    pub counts: Counts,
    /// Who follows what members share.
    pub followers: Followers,
    /// What checks have found.
    pub checks: health::Reader,
    /// The cluster, once this node takes part in one.
    pub cluster: watch::Receiver<Option<Reader>>,
    /// The announcer.
    pub announcer: crate::announce::Reader,
    /// When the agent started.
    pub started: Instant,
}

/// The running server. It ends with the value and its socket with it, after what it was asked is answered.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    thread: JoinHandle<()>,
    _stop: oneshot::Sender<Infallible>,
}

impl Server {
    /// Starts serving a socket.
    ///
    /// # Errors
    /// There is no thread or event queue to be had.
    pub fn start(socket: Socket, app: App) -> io::Result<Self> {
        let listener = socket.listener.try_clone()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let thread = thread::Builder::new().name("api".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    outcome = serve(listener, app, &places) => outcome.unwrap_or_else(|error| tracing::error!("API: {error}")),
                    _ = stopped => {}
                }
                // Connections hold places. What listens to events has no end of its own.
                drop(tokio::time::timeout(LINGER, places.acquire_many(CONNECTIONS as u32)).await);
            });
        })?;
        Ok(Self { socket, thread, _stop: stop })
    }

    /// Whether it serves: it ends where the system gives it no event queue, or by a defect.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Where it listens.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

async fn serve(
    listener: std::os::unix::net::UnixListener,
    app: App,
    places: &Arc<Semaphore>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    accept(async || Ok(listener.accept().await?.0), router(app), places).await;
    Ok(())
}

/// Serves the connections that come by `next`, each of which holds a place.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    next: impl AsyncFn() -> io::Result<S>,
    router: Router,
    places: &Arc<Semaphore>,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        match next().await {
            Ok(stream) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("API: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves what comes by one connection.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_SIZE);
    let outcome = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
    if let Err(error) = outcome {
        tracing::debug!("API: {error}");
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route(paths::SERVICES, get(services).post(apply))
        .route(paths::SERVICE, get(service).delete(remove))
        .route(paths::CHECK, post(checks::run))
        .route(paths::DRAINED, put(drain).delete(undrain))
        .route(paths::BACKENDS, get(all_backends))
        .route(paths::OWN_BACKENDS, get(own_backends))
        .route(paths::OWN_BACKEND, put(offer).delete(withdraw))
        .route(paths::NODES, get(nodes::list))
        .route(paths::NODE, get(nodes::show).delete(nodes::forget))
        .route(paths::MAINTENANCE, nodes::maintenance())
        .route(paths::ANNOUNCEMENTS, get(announce::list))
        .route(paths::ANNOUNCEMENT, get(announce::show))
        .route(paths::ANNOUNCE_DISABLED, announce::disabled())
        .route(paths::BGP_PEERS, get(announce::peers))
        .route(paths::BGP_ROUTES, get(announce::routes))
        .route(paths::KEYS, get(keys::list))
        .route(paths::KEY, get(keys::show).put(keys::put).delete(keys::delete))
        .route(paths::MESSAGES, get(messages::follow))
        .route(paths::MESSAGE, post(messages::send))
        .route(paths::RELOAD, post(reload))
        .route(paths::EVENTS, get(events))
        .route(paths::METRICS, get(metrics::show))
        .route(paths::HEALTH, get(alive))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(app)
}

/// Each part is made when the former one is on its way, and not on the thread that serves: other answers come between.
pub(super) async fn services(State(app): State<App>, uri: Uri) -> Result<Response, Refusal> {
    let counts = (uri.query() != Some("flows=no")).then(|| app.counts.clone());
    let list = app.read(move |view| view.list(counts.as_ref())).await?;
    let parts = stream::try_unfold(list, async |mut list| {
        let (part, list) = tokio::task::spawn_blocking(move || (list.part(), list)).await?;
        let part = part?;
        Ok::<_, BoxError>((!part.is_empty()).then_some((part, list)))
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(parts)).into_response())
}

pub(super) async fn service(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<ServiceRow>, Refusal> {
    let (sought, counts) = (name.clone(), app.counts.clone());
    let checks = app.checks.results.clone();
    let row = app.read(move |view| view.named(&sought, &counts, &checks)).await?;
    row.map(Json).ok_or_else(|| Refusal::not_found(ChangeError::NoService(name).to_string()))
}

async fn apply(State(app): State<App>, request: HttpRequest) -> Result<Json<Applied>, Refusal> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let format = Format::TYPES.into_iter().find(|(_, name)| *name == essence).map(|(format, _)| format);
    let Some(format) = format else {
        let types = Format::TYPES.map(|(_, name)| name).join(", ");
        let message = format!("content type {} is not read here; use one of {types}", quoted(kind));
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    };
    let body = tokio::time::timeout(BODY, axum::body::to_bytes(request.into_body(), BODY_SIZE)).await;
    let body =
        body.map_err(|_late| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request came too slowly"))?;
    let body = body.map_err(|error| {
        let message = format!("{error}: a request has at most {} MiB", BODY_SIZE >> 20);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    })?;
    let start = Instant::now();
    let parsed = tokio::task::spawn_blocking(move || match std::str::from_utf8(&body) {
        Ok(text) => parse(text, format),
        Err(error) => Err(vec![Problem::general(format!("is no text: {error}"))]),
    });
    let services =
        parsed.await.map_err(|error| Refusal::failed(error.to_string()))?.map_err(Refusal::invalid)?;
    tracing::debug!(services = services.len(), time = ?start.elapsed(), "services read");
    let applied = app.ask(|answer| Request::Apply(services, answer)).await?;
    Ok(Json(timed(applied, start)))
}

async fn reload(State(app): State<App>) -> Result<Json<Reloaded>, Refusal> {
    app.ask(Request::Reload).await.map(Json)
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Applied>, Refusal> {
    let start = Instant::now();
    let removed = app.ask(|answer| Request::Remove(name, answer)).await?;
    Ok(Json(timed(removed, start)))
}

fn timed(applied: Applied, start: Instant) -> Applied {
    Applied { ms: (start.elapsed().as_secs_f64() * 1e6).round() / 1e3, ..applied }
}

async fn drain(app: State<App>, path: Path<(String, String)>) -> Result<Json<Drained>, Refusal> {
    set_drained(app, path, true).await
}

async fn undrain(app: State<App>, path: Path<(String, String)>) -> Result<Json<Drained>, Refusal> {
    set_drained(app, path, false).await
}

async fn set_drained(
    State(app): State<App>,
    Path((service, backend)): Path<(String, String)>,
    drain: bool,
) -> Result<Json<Drained>, Refusal> {
    let backend = socket(&backend)?;
    app.ask(|answer| Request::Drain { service, backend, drain, answer }).await.map(Json)
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_other| {
        let message = format!("{} is no backend; write ADDRESS:PORT, such as 250.0.27.3:8080", quoted(text));
        Refusal::invalid(vec![Problem::general(message)])
    })
}

pub(super) async fn all_backends(State(app): State<App>) -> Result<Response, Refusal> {
    backends(&app, None).await
}

pub(super) async fn own_backends(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    backends(&app, Some(name)).await
}

async fn backends(app: &App, service: Option<String>) -> Result<Response, Refusal> {
    let view = app.view.borrow().clone();
    let cluster = app.cluster.borrow().clone();
    if let Some(cluster) = cluster.filter(|_| view.desired.is_clustered) {
        let offers = cluster.own_backends(service).await?;
        let rows: Vec<OwnBackend> = offers.into_iter().map(OwnBackend::from).collect();
        return Ok(Json(rows).into_response());
    }
    let sought = service.clone();
    let rows = tokio::task::spawn_blocking(move || view.own_backends(sought.as_deref())).await;
    let rows = rows.map_err(|error| Refusal::failed(error.to_string()))?;
    match rows.map_err(|error| Refusal::failed(error.to_string()))? {
        Some(json) => Ok(([(CONTENT_TYPE, "application/json")], json).into_response()),
        None => Err(Refusal::not_found(ChangeError::NoService(service.unwrap_or_default()).to_string())),
    }
}

async fn offer(
    State(app): State<App>,
    Path((service, backend)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Contributed>, Refusal> {
    let backend = socket(&backend)?;
    let weight = match uri.query() {
        None => None,
        Some(query) => {
            Some(query.strip_prefix("weight=").and_then(|text| text.parse().ok()).ok_or_else(|| {
                let message =
                    format!("{} is no weight; write weight=N, N from 0 to {}", quoted(query), u32::MAX);
                Refusal::invalid(vec![Problem::general(message)])
            })?)
        }
    };
    app.ask(|answer| Request::Offer { service, backend, weight, answer }).await.map(Json)
}

async fn withdraw(
    State(app): State<App>,
    Path((service, backend)): Path<(String, String)>,
) -> Result<Json<Contributed>, Refusal> {
    let backend = socket(&backend)?;
    app.ask(|answer| Request::Withdraw { service, backend, answer }).await.map(Json)
}

pub(super) async fn events(State(app): State<App>) -> Result<Response, Refusal> {
    let reader = app.events.listen().ok_or_else(|| {
        let message = format!(
            "{READERS} readers follow the events, and no more may; end one, such as a 'fanlight monitor'"
        );
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    Ok(lines::answer(stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((format!("{event}\n"), reader))
    })))
}

pub(super) async fn alive() -> &'static str {
    "ok\n"
}

pub(super) async fn unknown(request: HttpRequest) -> Refusal {
    Refusal::not_found(format!("{}: no such path", clipped(request.uri().path())))
}

pub(super) async fn not_allowed(request: HttpRequest) -> Refusal {
    let message = format!(
        "{} {}: no such method here",
        clipped(request.method().as_str()),
        clipped(request.uri().path())
    );
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

impl App {
    /// Answers from the latest view, not on the thread that serves: an answer may wait for a count of the flows.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> bpf::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let view = self.view.borrow().clone();
        let answer = tokio::task::spawn_blocking(move || read(&view)).await;
        let answer = answer.map_err(|error| Refusal::failed(error.to_string()))?;
        answer.map_err(|error| Refusal::failed(error.to_string()))
    }

    /// Hands a request to the event loop, and waits for its answer, at most for [`ANSWER`].
    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Refusal> {
        const BUSY: &str = "the agent is busy; try again, and see 'fanlight status'";
        let busy = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY);
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(request(answer)).map_err(|_full| busy())?;
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping")),
            Err(_) => Err(busy()),
        }
    }
}

#[cfg(test)]
mod tests;
