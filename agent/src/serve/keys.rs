//! User keys of the cluster in the API.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    routing::{MethodRouter, get},
};
use control::model::{quoted, utc};
use serde::{Deserialize, Serialize};

use super::{Refusal, server::App};
use crate::cluster::{KeyRead, KeyRefusal, KeyValue, KeyWrite, KeyWritten, Reader};

/// A key as `kv get` and `kv list` give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: String,
    /// The value, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value64: Option<String>,
    /// Grows with every change.
    pub version: u64,
    /// Who wrote it.
    pub node: String,
    /// When, in UTC by its writer's clock.
    pub time: String,
}

impl From<KeyValue> for KeyRow {
    fn from(KeyValue { key, value, version, node, time_ms }: KeyValue) -> Self {
        let time = utc(time_ms / 1_000);
        let (value, value64) = match String::from_utf8(value) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(base64(bytes.as_bytes()))),
        };
        Self { key, value, value64, version, node, time }
    }
}

/// As in RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Where a write is to happen only with a version.
#[derive(Deserialize)]
pub(super) struct Expected {
    #[serde(rename = "if")]
    version: Option<u64>,
}

/// Which keys are listed.
#[derive(Deserialize)]
pub(super) struct Listed {
    #[serde(default)]
    prefix: String,
}

fn refused(refusal: KeyRefusal) -> Refusal {
    match refusal {
        KeyRefusal::Refused(why) => Refusal::conflict(why),
        KeyRefusal::Unavailable(why) => Refusal::unavailable(why),
    }
}

impl App {
    /// The cluster; without one there are no user keys.
    pub(super) fn cluster(&self) -> Result<Reader, Refusal> {
        let cluster = self.cluster.borrow().clone();
        cluster.ok_or_else(|| {
            Refusal::conflict("no cluster is configured; add [cluster] to the configuration and reload")
        })
    }
}

async fn read(app: &App, wanted: KeyRead) -> Result<Vec<KeyRow>, Refusal> {
    let found = app.cluster()?.read_keys(wanted).await.map_err(refused)?;
    Ok(found.into_iter().map(KeyRow::from).collect())
}

pub(super) async fn list(
    State(app): State<App>,
    Query(Listed { prefix }): Query<Listed>,
) -> Result<Json<Vec<KeyRow>>, Refusal> {
    read(&app, KeyRead::Prefix(prefix)).await.map(Json)
}

/// Reading, writing and deleting one key.
pub(super) fn one() -> MethodRouter<App> {
    get(show).put(put).delete(delete)
}

async fn show(State(app): State<App>, Path(key): Path<String>) -> Result<Json<KeyRow>, Refusal> {
    let found = read(&app, KeyRead::One(key.clone())).await?;
    let none = || Refusal::not_found(format!("no key {}; 'fanlight kv list' lists them", quoted(&key)));
    found.into_iter().next().map(Json).ok_or_else(none)
}

async fn put(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(Expected { version }): Query<Expected>,
    body: Bytes,
) -> Result<Json<KeyWritten>, Refusal> {
    let write = KeyWrite { key, value: Some(body.to_vec()), expected: version };
    app.cluster()?.write_key(write).await.map(Json).map_err(refused)
}

async fn delete(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(Expected { version }): Query<Expected>,
) -> Result<Json<KeyWritten>, Refusal> {
    let write = KeyWrite { key, value: None, expected: version };
    app.cluster()?.write_key(write).await.map(Json).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_text_or_base64() {
        let row = |value: &[u8]| {
            let (key, node) = ("a".to_owned(), "host-28".to_owned());
            let value = value.to_vec();
            KeyRow::from(KeyValue { key, value, version: 7, node, time_ms: 1_795_242_852_000 })
        };
        let json = serde_json::to_value(row(b"x")).unwrap();
        let want = serde_json::json!({
            "key": "a", "value": "x", "version": 7, "node": "host-28", "time": utc(1_795_242_852),
        });
        assert_eq!(json, want);
        let binary = row(&[255, 0]);
        assert_eq!((binary.value, binary.value64.as_deref()), (None, Some("/wA=")));
    }
}
