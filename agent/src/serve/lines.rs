//! Answers that go on for as long as the client listens: a JSON line for each thing that happens.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use futures_util::Stream;
use hyper::{StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Refusal, events::READERS};

/// Those who follow what members share; clones count together.
#[derive(Clone, Debug)]
pub struct Followers(Arc<Semaphore>);

impl Default for Followers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

impl Followers {
    /// A place for one more, for as long as it is held.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_full| {
            let message = format!(
                "{READERS} readers follow keys and events of the cluster, and no more may; end one, such as a 'fanlight kv watch'"
            );
            Refusal::unavailable(message)
        })
    }
}

/// Something as a line.
pub(super) fn line(row: &impl Serialize) -> String {
    let mut line = serde_json::to_string(row).unwrap_or_default();
    line.push('\n');
    line
}

/// An answer of lines.
pub(super) fn answer<L: Into<axum::body::Bytes> + Send + 'static>(
    lines: impl Stream<Item = L> + Send + 'static,
) -> Response {
    let lines = futures_util::StreamExt::map(lines, Ok::<L, Infallible>);
    (StatusCode::OK, [(CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}
