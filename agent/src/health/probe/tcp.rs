//! A connection that opens.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::TcpStream;

use super::Seen;

/// Opens a connection and ends it.
pub(super) async fn connects(address: SocketAddr) -> Seen {
    open(address).await.map(|_stream| "connected".to_owned())
}

/// Opens a connection that is reset when it is let go: thousands a second would leave as many sockets waiting (TIME_WAIT).
pub(super) async fn open(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| why(&error))?;
    stream.set_zero_linger().map_err(|error| why(&error))?;
    Ok(stream)
}

/// Why a connection failed, in few words.
pub(super) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::TimedOut => format!("no answer within {}", super::shown(CONNECT)),
        _ => error.to_string(),
    }
}

/// How long Linux tries to connect, with the usual `net.ipv4.tcp_syn_retries`.
const CONNECT: Duration = Duration::from_secs(127);
