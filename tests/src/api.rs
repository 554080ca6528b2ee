//! Requests to an agent's API, timed.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::host::Host;

/// Where the agent listens.
const SOCKET: &str = "/run/fanlight/api.sock";
/// Longer than the agent gives itself.
const LIMIT: Duration = Duration::from_secs(60);

/// An answer, and how long it took from before the connection was made.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// What came after the head.
    pub body: Vec<u8>,
    /// Until the first byte of the answer was there.
    pub first: Duration,
    /// Until its end.
    pub last: Duration,
}

/// Asks the agent of a host over a connection of its own. HTTP/1.0, so that the body ends with the connection and comes
/// without chunks' heads.
///
/// # Errors
/// The connection breaks, or what comes is no HTTP.
pub fn ask(host: &Host, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let start = Instant::now();
    let mut stream = again(|| UnixStream::connect(host.path(SOCKET)))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\ncontent-type: application/toml\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut bytes = vec![0; 1 << 16];
    let length = again(|| stream.read(&mut bytes))?;
    let first = start.elapsed();
    bytes.truncate(length);
    stream.read_to_end(&mut bytes)?;
    let last = start.elapsed();
    // The agent may have closed it already.
    drop(stream.shutdown(Shutdown::Both));
    let (status, head) = read_head(&bytes).ok_or_else(|| io::Error::other("no HTTP answer"))?;
    Ok(Answer { status, body: bytes.split_off(head), first, last })
}

/// Calls that wait return early where a signal stops and continues this process (signal(7)).
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The status, and where the body begins.
fn read_head(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let line = std::str::from_utf8(&bytes[..end]).ok()?.lines().next()?;
    let status = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_begins_after_the_first_empty_line() {
        assert_eq!(read_head(b"HTTP/1.0 200 OK\r\nx: y\r\n\r\n[]\r\n\r\n"), Some((200, 25)));
        assert_eq!(read_head(b"HTTP/1.0 200 OK\r\nx: y\r\n"), None);
        assert_eq!(read_head(b"SSH-2.0\r\n\r\n"), None);
    }
}
