//! Notices to systemd, which may not read them for a while: nothing waits for that (sd_notify(3) does).

use std::{ffi::OsString, fmt::Write as _, future::pending, io, path::PathBuf};

use sd_notify::NotifyState;
use tokio::net::UnixDatagram;

/// The socket that systemd names.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// What was said, and what is left to say.
#[derive(Debug, Default)]
pub(super) struct Notices {
    path: Option<OsString>,
    /// Not sent yet, in order; at most one of a kind.
    waiting: Vec<Notice>,
    /// The socket that has no room for it.
    socket: Option<UnixDatagram>,
}

#[derive(Debug)]
struct Notice {
    /// What its first line sets.
    kind: String,
    text: String,
}

impl Notices {
    /// To whom systemd's variable names; nobody without it.
    pub(super) fn to_systemd() -> Self {
        Self { path: std::env::var_os(VARIABLE), ..Self::default() }
    }

    /// Says this, in place of what waits and was said of the same; what can't be sent now waits.
    pub(super) fn say(&mut self, states: &[NotifyState<'_>]) {
        if self.path.is_none() {
            return;
        }
        let text = states.iter().fold(String::new(), |mut text, state| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{state}");
            text
        });
        let kind = text.split('=').next().unwrap_or_default().to_owned();
        self.waiting.retain(|earlier| earlier.kind != kind);
        self.waiting.push(Notice { kind, text });
        self.send();
    }

    /// Sends what waits as soon as there is room; never ends while nothing waits. Dropping this loses nothing.
    pub(super) async fn send_rest(&mut self) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.waiting.is_empty()) else {
            return pending().await;
        };
        if let Err(error) = socket.writable().await {
            self.give_up(&error);
        }
        self.send();
    }

    fn send(&mut self) {
        match self.try_send() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.give_up(&error),
            _ => {}
        }
        if self.waiting.is_empty() {
            self.socket = None;
        }
    }

    fn try_send(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        while let Some(notice) = self.waiting.first() {
            let text = notice.text.as_bytes();
            if let Some(socket) = &self.socket {
                socket.try_send(text)?;
            } else {
                self.socket = send_at_once(path, text)?;
                if self.socket.is_some() {
                    return Ok(());
                }
            }
            self.waiting.remove(0);
        }
        Ok(())
    }

    /// Nobody listens.
    fn give_up(&mut self, error: &io::Error) {
        tracing::debug!("notice to systemd: {error}");
        self.waiting.clear();
    }
}

/// Sends it, or gives the socket that has no room for it.
fn send_at_once(path: &OsString, text: &[u8]) -> io::Result<Option<UnixDatagram>> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(PathBuf::from(path))?;
    match socket.send(text) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => UnixDatagram::from_std(socket).map(Some),
        sent => sent.map(|_length| None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::time::timeout;

    use super::*;

    /// A socket that has room for a few notices (`net.unix.max_dgram_qlen`), and who speaks to it.
    fn pair() -> (tempfile::TempDir, std::os::unix::net::UnixDatagram, Notices) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let reader = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        reader.set_nonblocking(true).unwrap();
        (folder, reader, Notices { path: Some(path.into()), ..Notices::default() })
    }

    fn read(reader: &std::os::unix::net::UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        let mut texts = Vec::new();
        while let Ok(length) = reader.recv(&mut buffer) {
            texts.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        texts
    }

    #[tokio::test]
    async fn a_notice_is_there_when_it_was_said() {
        let (_folder, reader, mut notices) = pair();
        notices.say(&[NotifyState::Reloading, NotifyState::MonotonicUsec(7)]);
        notices.say(&[NotifyState::Ready]);
        assert_eq!(read(&reader), ["RELOADING=1\nMONOTONIC_USEC=7\n", "READY=1\n"]);
        assert!(timeout(Duration::from_millis(20), notices.send_rest()).await.is_err());
    }

    #[tokio::test]
    async fn a_full_socket_stops_nobody_and_gets_the_latest_of_each_kind_when_it_is_read() {
        let (_folder, reader, mut notices) = pair();
        let start = Instant::now();
        for number in 0..5000 {
            notices.say(&[NotifyState::Status(&number.to_string())]);
        }
        notices.say(&[NotifyState::Reloading]);
        notices.say(&[NotifyState::Status("last")]);
        notices.say(&[NotifyState::Ready]);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(notices.waiting.len(), 3);
        assert!(timeout(Duration::from_millis(20), notices.send_rest()).await.is_err(), "it has room");
        let early = read(&reader);
        assert_eq!(early.first().map(String::as_str), Some("STATUS=0\n"));
        let sent = timeout(Duration::from_secs(5), async {
            while !notices.waiting.is_empty() {
                notices.send_rest().await;
            }
        });
        sent.await.expect("a socket that was read has room");
        assert_eq!(read(&reader), ["RELOADING=1\n", "STATUS=last\n", "READY=1\n"]);
    }

    #[tokio::test]
    async fn nothing_is_kept_for_nobody() {
        let mut silent = Notices::default();
        silent.say(&[NotifyState::Ready]);
        assert!(silent.waiting.is_empty());
        let (folder, reader, mut notices) = pair();
        drop((folder, reader));
        notices.say(&[NotifyState::Ready]);
        assert!(notices.waiting.is_empty() && notices.socket.is_none());
    }
}
