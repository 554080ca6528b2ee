//! User keys of the cluster in the API.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
};
use control::model::{quoted, utc};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::{Refusal, lines, server::App};
use crate::cluster::{KeyEvent, KeyRead, KeyRefusal, KeyValue, KeyWrite, KeyWritten, Reader};

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
        let (value, value64) = text_or_base64(value);
        Self { key, value, value64, version, node, time }
    }
}

/// What happened to a key, as `kv watch` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum KeyEventRow {
    /// It has a value.
    Put(KeyRow),
    /// It is no more.
    Delete { key: String },
    /// All that was there has been told.
    Ready,
    /// Changes were lost: all that is there follows.
    Resync,
}

impl From<KeyEvent> for KeyEventRow {
    fn from(event: KeyEvent) -> Self {
        match event {
            KeyEvent::Put(value) => Self::Put(value.into()),
            KeyEvent::Delete(key) => Self::Delete { key },
            KeyEvent::Ready => Self::Ready,
            KeyEvent::Resync => Self::Resync,
        }
    }
}

/// Bytes as text, or, where they are none, in base64 (RFC 4648, section 4).
pub(super) fn text_or_base64(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    use base64::Engine as _;
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(bytes) => (None, Some(base64::engine::general_purpose::STANDARD.encode(bytes.as_bytes()))),
    }
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
    /// Whether what happens to them follows.
    #[serde(default)]
    watch: bool,
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
    Query(Listed { prefix, watch }): Query<Listed>,
) -> Result<Response, Refusal> {
    if watch {
        return follow(&app, prefix).await;
    }
    Ok(Json(read(&app, KeyRead::Prefix(prefix)).await?).into_response())
}

async fn follow(app: &App, prefix: String) -> Result<Response, Refusal> {
    let place = app.followers.admit()?;
    let events = app.cluster()?.watch_keys(prefix).await.map_err(refused)?;
    Ok(lines::answer(stream::unfold((events, place), async |(mut events, place)| {
        let batch = events.next().await?.into_iter();
        let lines: String = batch.map(|event| lines::line(&KeyEventRow::from(event))).collect();
        Some((lines, (events, place)))
    })))
}

pub(super) async fn show(State(app): State<App>, Path(key): Path<String>) -> Result<Json<KeyRow>, Refusal> {
    let found = read(&app, KeyRead::One(key.clone())).await?;
    let none = || Refusal::not_found(format!("no key {}; 'fanlight kv list' lists them", quoted(&key)));
    found.into_iter().next().map(Json).ok_or_else(none)
}

pub(super) async fn put(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(Expected { version }): Query<Expected>,
    body: Bytes,
) -> Result<Json<KeyWritten>, Refusal> {
    let write = KeyWrite { key, value: Some(body.to_vec()), expected: version };
    app.cluster()?.write_key(write).await.map(Json).map_err(refused)
}

pub(super) async fn delete(
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

    #[test]
    fn what_happens_to_a_key_is_told_with_its_keys() {
        let (key, value, node) = ("a".to_owned(), b"x".to_vec(), "host-28".to_owned());
        let put = KeyEvent::Put(KeyValue { key, value, version: 7, node, time_ms: 1_795_242_852_000 });
        let line = |event| lines::line(&KeyEventRow::from(event));
        let time = utc(1_795_242_852);
        let told = format!(
            "{{\"event\":\"put\",\"key\":\"a\",\"value\":\"x\",\"version\":7,\"node\":\"host-28\",\"time\":\"{time}\"}}\n"
        );
        assert_eq!(line(put), told);
        assert_eq!(line(KeyEvent::Delete("a".to_owned())), "{\"event\":\"delete\",\"key\":\"a\"}\n");
        assert_eq!(line(KeyEvent::Ready), "{\"event\":\"ready\"}\n");
        assert_eq!(line(KeyEvent::Resync), "{\"event\":\"resync\"}\n");
    }
}
