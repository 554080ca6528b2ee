//! The side of the command line.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::CONTENT_TYPE,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, task::JoinHandle};

use super::refusal;
use crate::sources::config::{Problem, SOCKET};

/// How long an answer may take: a little longer than the agent gives itself.
const LIMIT: Duration = Duration::from_secs(40);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens.
    #[error("no agent is running: {}: {source}; start it with 'fanlight agent'", path.display())]
    NoAgent {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not there.
        source: io::Error,
    },
    /// This process may not.
    #[error("the agent's socket {}: {source}; run this as root", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the agent gave no answer: {0}; see its log")]
    Broken(#[from] hyper::Error),
    /// It took too long.
    #[error("the agent gave no answer within {} s; see its log", LIMIT.as_secs())]
    TimedOut,
    /// What came is not what was asked for.
    #[error("the agent's answer can't be read: {0}; is it of another version?")]
    Unreadable(#[from] serde_json::Error),
    /// The agent said no.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Problem>),
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    requests: SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    /// Connects to this host's agent.
    ///
    /// # Errors
    /// None runs, or this process may not.
    pub async fn connect() -> Result<Self, ClientError> {
        Self::connect_to(Path::new(SOCKET)).await
    }

    pub(super) async fn connect_to(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Denied { path, source },
                _ => ClientError::NoAgent { path, source },
            }
        })?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { requests, connection: tokio::spawn(connection) })
    }

    /// Reads what is at a path.
    ///
    /// # Errors
    /// The agent refuses, or does not answer.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// Sends a request; `body` is a content type and what is sent.
    ///
    /// # Errors
    /// The agent refuses, or does not answer.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<T, ClientError> {
        let answer = async {
            let body = self.send(method, path, body).await?;
            Ok::<_, ClientError>(body.collect().await?.to_bytes())
        };
        let bytes = tokio::time::timeout(LIMIT, answer).await.map_err(|_late| ClientError::TimedOut)??;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Reads lines for as long as they come.
    ///
    /// # Errors
    /// The agent refuses, or does not answer.
    pub async fn lines(mut self, path: &str) -> Result<Lines, ClientError> {
        let body = self.send(Method::GET, path, None);
        let body = tokio::time::timeout(LIMIT, body).await.map_err(|_late| ClientError::TimedOut)??;
        Ok(Lines { body, rest: Vec::new(), _client: self })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Incoming, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header("host", "fanlight");
        if let Some((kind, _)) = body {
            request = request.header(CONTENT_TYPE, kind);
        }
        let body = Full::new(body.map(|(_, body)| body).unwrap_or_default().into());
        let request = request
            .body(body)
            .map_err(|error| ClientError::Refused(vec![Problem::general(error.to_string())]))?;
        self.requests.ready().await?;
        let answer = self.requests.send_request(request).await?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let bytes = answer.into_body().collect().await?.to_bytes();
        Err(ClientError::Refused(serde_json::from_slice::<refusal::Body>(&bytes)?.errors))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Lines of an answer that may never end.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
    _client: Client,
}

impl Lines {
    /// The next line without its end; `None` when the agent has stopped.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let rest = self.rest.split_off(end + 1);
                let line = std::mem::replace(&mut self.rest, rest);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.body.frame().await {
                Some(frame) => self.rest.extend(frame?.into_data().unwrap_or_default()),
                None => return Ok(None),
            }
        }
    }
}
