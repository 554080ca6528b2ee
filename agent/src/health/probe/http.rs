//! A request that is answered with an expected status. Redirects are not followed, and no more is read than the answer's head.

use std::net::SocketAddr;

use control::health::Http;
use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Seen, tcp, tls::Trust};

/// Bytes of an answer's head.
const HEAD: usize = 16 * 1024;
/// Fields of it.
const FIELDS: usize = 100;

/// Asks, and looks at the answer's status.
pub(super) async fn answers(http: &Http, address: SocketAddr, trust: &Trust) -> Seen {
    let stream = tcp::open(address).await?;
    let status = match &http.tls {
        None => ask(stream, http, address).await?,
        Some(tls) => {
            let stream = trust.connect(stream, tls, name_of(http, address)).await?;
            ask(stream, http, address).await?
        }
    };
    let said = match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    };
    if http.expect.has(status.as_u16()) { Ok(said) } else { Err(said) }
}

/// The name that the target's certificate is for: the host that is asked for, without its port, else the address.
fn name_of(http: &Http, address: SocketAddr) -> String {
    let authority = http.host.as_deref().and_then(|host| host.parse::<hyper::http::uri::Authority>().ok());
    let host = authority.map(|authority| authority.host().trim_matches(['[', ']']).to_owned());
    host.unwrap_or_else(|| address.ip().to_string())
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http: &Http,
    address: SocketAddr,
) -> Result<StatusCode, String> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .max_headers(FIELDS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| why(&error))?;
    let host = http.host.clone().unwrap_or_else(|| address.to_string());
    let request = Request::builder()
        .method(http.method.as_str())
        .uri(http.path.as_str())
        .header(HOST, host)
        .header(USER_AGENT, concat!("fanlight/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("the request can't be made: {error}"))?;
    let answer = sender.send_request(request);
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answer => answer.map(|answer| answer.status()).map_err(|error| why(&error)),
        ended = &mut connection => match ended {
            // The answer came with the end.
            Ok(()) => answer.await.map(|answer| answer.status()).map_err(|error| why(&error)),
            Err(error) => Err(why(&error)),
        },
    }
}

fn why(error: &hyper::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return tcp::why(error);
        }
        source = cause.source();
    }
    match () {
        () if error.is_parse_too_large() => "the answer's head is too long".to_owned(),
        () if error.is_parse() => "the answer is no HTTP".to_owned(),
        () if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            "the connection ended without an answer".to_owned()
        }
        () => error.to_string(),
    }
}
