//! Messages to all members of the cluster in the API.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    response::Response,
};
use control::{cluster::events::Event, model::utc};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Refusal, keys::text_or_base64, lines, server::App};
use crate::cluster::Unsent;

/// What somebody who follows messages is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventRow {
    /// A message.
    Message(MessageRow),
    /// So many came faster than they were read.
    Lost { lost: u64 },
}

/// A message as `event watch` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    pub name: String,
    /// What it says, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload64: Option<String>,
    /// Who sent it.
    pub node: String,
    /// When, in UTC by its sender's clock.
    pub time: String,
}

impl From<&Event> for MessageRow {
    fn from(event: &Event) -> Self {
        let (payload, payload64) = text_or_base64(event.payload.as_slice().to_vec());
        let (name, node) = (event.name.to_string(), event.node.to_string());
        Self { name, payload, payload64, node, time: utc(event.time_ms / 1_000) }
    }
}

/// Which messages are followed.
#[derive(Deserialize)]
pub(super) struct Wanted {
    name: Option<String>,
}

pub(super) async fn send(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<MessageRow>, Refusal> {
    let sent = app.cluster()?.send_event(name, body.to_vec()).await;
    sent.map(|event| Json(MessageRow::from(&*event))).map_err(|error| match error {
        Unsent::Refused(why) => Refusal::conflict(why.to_string()),
        Unsent::NoAnswer => Refusal::failed(error.to_string()),
    })
}

pub(super) async fn follow(
    State(app): State<App>,
    Query(Wanted { name }): Query<Wanted>,
) -> Result<Response, Refusal> {
    let place = app.followers.admit()?;
    let events = app.cluster()?.events();
    Ok(lines::answer(stream::unfold((events, name, place), async |(mut events, name, place)| {
        let row = next(&mut events, name.as_deref()).await?;
        Some((lines::line(&row), (events, name, place)))
    })))
}

/// The next one that is wanted; none when there will be no more.
async fn next(events: &mut broadcast::Receiver<Arc<Event>>, name: Option<&str>) -> Option<EventRow> {
    loop {
        match events.recv().await {
            Ok(event) if name.is_some_and(|name| *name != *event.name) => {}
            Ok(event) => return Some(EventRow::Message(MessageRow::from(&*event))),
            Err(RecvError::Lagged(lost)) => return Some(EventRow::Lost { lost }),
            Err(RecvError::Closed) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_learns_how_much_it_lost() {
        let (sender, mut events) = broadcast::channel(2);
        let event = |name: &str| {
            let payload = b"v2".as_slice().into();
            Arc::new(Event { node: "host-28".into(), name: name.into(), payload, time_ms: 1_795_242_852_000 })
        };
        for name in ["a", "b", "c", "d"] {
            sender.send(event(name)).unwrap();
        }
        drop(sender);
        let mut told = Vec::new();
        while let Some(row) = next(&mut events, Some("d")).await {
            told.push(lines::line(&row));
        }
        let time = utc(1_795_242_852);
        let message =
            format!("{{\"name\":\"d\",\"payload\":\"v2\",\"node\":\"host-28\",\"time\":\"{time}\"}}\n");
        assert_eq!(told, ["{\"lost\":2}\n".to_owned(), message]);
    }
}
