//! What is announced, in the API and in numbers.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{MethodRouter, get, put},
};
use hyper::Uri;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{App, Refusal, paths};
use crate::announce::{AnnouncementRow, PeerRow, RouteRow, Switched, Unanswered};

impl From<Unanswered> for Refusal {
    fn from(error: Unanswered) -> Self {
        let why = error.to_string();
        match error {
            Unanswered::Unknown(_) => Self::not_found(why),
            Unanswered::Refused(_) => Self::conflict(why),
            Unanswered::Failed(_) => Self::failed(why),
            Unanswered::NoAnswer => Self::unavailable(why),
        }
    }
}

/// What reads.
pub(super) fn readers() -> Router<App> {
    Router::new()
        .route(paths::ANNOUNCEMENTS, get(list))
        .route(paths::ANNOUNCEMENT, get(show))
        .route(paths::BGP_PEERS, get(peers))
        .route(paths::BGP_ROUTES, get(routes))
}

async fn list(State(app): State<App>) -> Result<Json<Vec<AnnouncementRow>>, Refusal> {
    Ok(Json(app.announcer.announcements().await?))
}

async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<AnnouncementRow>, Refusal> {
    let found = app.announcer.announcements().await?.into_iter().find(|row| row.name == name);
    Ok(Json(found.ok_or(Unanswered::Unknown(name))?))
}

/// Disables an announcement, or enables it again.
pub(super) fn disabled() -> MethodRouter<App> {
    put(async |app, name| switch(app, name, true).await)
        .delete(async |app, name| switch(app, name, false).await)
}

async fn switch(
    State(app): State<App>,
    Path(name): Path<String>,
    disable: bool,
) -> Result<Json<Switched>, Refusal> {
    Ok(Json(app.announcer.switch(name, disable).await?))
}

async fn peers(State(app): State<App>) -> Result<Json<Vec<PeerRow>>, Refusal> {
    Ok(Json(app.announcer.peers().await?))
}

/// All of them, or with `?peer=ADDRESS` one peer's.
async fn routes(State(app): State<App>, uri: Uri) -> Result<Json<Vec<RouteRow>>, Refusal> {
    let mut routes = app.announcer.routes().await?;
    if let Some(peer) = uri.query().and_then(|query| query.strip_prefix("peer=")) {
        let peers = app.announcer.peers().await?;
        if peers.iter().all(|row| row.address != peer) {
            let peer = control::model::quoted(peer);
            return Err(Refusal::not_found(format!("no peer {peer}; 'fanlight bgp peers' lists them")));
        }
        routes.retain(|route| route.peer == peer);
    }
    Ok(Json(routes))
}

/// Peers in numbers.
pub(super) fn register(peers: &[PeerRow], registry: &mut Registry) {
    type Label = [(&'static str, String); 1];
    let gauges = |value: fn(&PeerRow) -> u64| {
        let family = Family::<Label, Gauge>::default();
        for peer in peers {
            let value = i64::try_from(value(peer)).unwrap_or(i64::MAX);
            family.get_or_create(&[("peer", peer.address.clone())]).set(value);
        }
        family
    };
    let counters = |value: fn(&PeerRow) -> u64| {
        let family = Family::<Label, Counter>::default();
        for peer in peers {
            family.get_or_create(&[("peer", peer.address.clone())]).inc_by(value(peer));
        }
        family
    };
    let is_up = |peer: &PeerRow| u64::from(peer.state == "established");
    registry.register("bgp_established", "Whether the session with a peer is established", gauges(is_up));
    registry.register("bgp_routes", "Prefixes that a peer has from this node", gauges(|peer| peer.routes));
    registry.register("bgp_sent", "Prefixes announced to a peer", counters(|peer| peer.sent));
    registry.register("bgp_withdrawn", "Prefixes withdrawn from a peer", counters(|peer| peer.withdrawn));
    let help = "Prefixes that a peer has announced, all of which were dropped";
    registry.register("bgp_received", help, counters(|peer| peer.received));
    registry.register(
        "bgp_flaps",
        "Established sessions with a peer that were lost",
        counters(|peer| peer.flaps),
    );
}
