//! Checks: what they have found of backends, and one made now.

use std::net::SocketAddr;

use axum::{
    Json,
    extract::{Path, State},
};
use control::{
    desired::ChangeError,
    model::{quoted, utc},
};
use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::{App, Refusal, server::socket};
use crate::health::{self, Found};

/// Backends that are checked at once by one request.
const TOGETHER: usize = 16;

/// What this node's checks have found of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// `init`, `rising`, `up`, `falling` or `down`.
    pub state: control::health::State,
    /// Since when, in UTC.
    pub since: String,
    /// When the last check ended, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Whether it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
    /// What it has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many milliseconds it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

impl From<Found> for CheckRow {
    fn from(Found { state, since, last }: Found) -> Self {
        Self {
            state,
            since: time(since),
            passed: last.as_ref().map(|last| last.passed),
            reason: last.as_ref().map(|last| last.said.to_string()),
            ms: last.as_ref().map(|last| ms(last.took)),
            last: last.map(|last| time(last.time)),
        }
    }
}

/// What a check has seen that was made now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckedRow {
    /// The backend.
    pub backend: SocketAddr,
    /// Whether the check passed.
    pub passed: bool,
    /// What it has seen.
    pub reason: String,
    /// How many milliseconds it took.
    pub ms: f64,
    /// What a program has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// `2026-11-21T06:34:12Z` (RFC 3339)
fn time(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    utc(seconds).replace(' ', "T")
}

fn ms(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// Makes the checks of a service's backends now, or with `?backend=` of one.
pub(super) async fn run(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<Vec<CheckedRow>>, Refusal> {
    let entry = app.view.borrow().desired.get(&name).cloned();
    let entry = entry.ok_or_else(|| Refusal::not_found(ChangeError::NoService(name.clone()).to_string()))?;
    let Some(checking) = &entry.defined.checking else {
        let message =
            format!("service {name} has no check; give it one, such as check = {{ kind = \"tcp\" }}");
        return Err(Refusal::conflict(message));
    };
    let mut backends: Vec<SocketAddr> = entry.defined.backends.iter().map(|own| own.socket()).collect();
    if let Some(query) = uri.query() {
        let text = query.strip_prefix("backend=").ok_or_else(|| {
            Refusal::not_found(format!("{} is unknown; write backend=ADDRESS:PORT", quoted(query)))
        })?;
        let one = socket(text)?;
        if !backends.contains(&one) {
            let message = ChangeError::NoBackend { service: name, backend: one, has: backends }.to_string();
            return Err(Refusal::not_found(message));
        }
        backends = vec![one];
    }
    let one = async |backend: SocketAddr| {
        let health::Seen { passed, said, took, output } =
            app.checks.check(&checking.check, &entry.defined.name, backend).await;
        CheckedRow { backend, passed, reason: said, ms: ms(took), output }
    };
    let mut rows = Vec::with_capacity(backends.len());
    for some in backends.chunks(TOGETHER) {
        rows.extend(futures_util::future::join_all(some.iter().map(|backend| one(*backend))).await);
    }
    Ok(Json(rows))
}
