//! Connections with peers: each has a task that reads and one that writes, and tells of both by [`News`].

use std::{io, net::IpAddr, time::Duration};

use control::bgp::Link;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;
/// Bytes that are written at a time, and a message.
const TOGETHER: usize = 64 * 1024;
/// How long what is left to send may take once a connection is to be closed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Which connection something is about: a session's number tells it from the peer's former ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) peer: IpAddr,
    pub(super) session: u64,
    pub(super) link: Link,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum News {
    /// A connection of ours is open.
    Opened(Place, TcpStream),
    /// It is not, or is closed.
    Closed(Place, String),
    /// A peer has connected.
    Accepted(TcpStream, IpAddr),
    Arrived(Place, Vec<u8>),
    /// The system has taken so many bytes.
    Written(Place, usize),
}

/// A connection, or one that is being opened.
#[derive(Debug)]
pub(super) enum Wire {
    Opening(AbortHandle),
    Open { reader: AbortHandle, writer: mpsc::UnboundedSender<Vec<u8>>, end: JoinHandle<()> },
}

impl Wire {
    /// Opens a connection by `connecting`.
    pub(super) fn open(
        place: Place,
        news: mpsc::Sender<News>,
        connecting: impl Future<Output = io::Result<TcpStream>> + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(async move {
            let told = match connecting.await {
                Ok(stream) => News::Opened(place, stream),
                Err(error) => News::Closed(place, error.to_string()),
            };
            drop(news.send(told).await);
        });
        Self::Opening(task.abort_handle())
    }

    /// Serves a connection that is open.
    pub(super) fn serve(place: Place, news: &mpsc::Sender<News>, stream: TcpStream) -> Self {
        let (input, output) = stream.into_split();
        let (writer, queue) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read(place, news.clone(), input)).abort_handle();
        let end = tokio::spawn(write(place, news.clone(), output, queue));
        Self::Open { reader, writer, end }
    }

    /// Has bytes sent. The session bounds how many wait.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        if let Self::Open { writer, .. } = self {
            // One that has broken tells of itself.
            drop(writer.send(bytes));
        }
    }

    /// Closes it after what is left to send; gives what ends with that.
    pub(super) fn close(self) -> Option<JoinHandle<()>> {
        match self {
            Self::Opening(task) => {
                task.abort();
                None
            }
            Self::Open { reader, writer, end } => {
                reader.abort();
                drop(writer);
                Some(end)
            }
        }
    }
}

async fn read(place: Place, news: mpsc::Sender<News>, mut input: OwnedReadHalf) {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK);
        let told = match input.read_buf(&mut bytes).await {
            Ok(0) => News::Closed(place, "the peer closed the connection".to_owned()),
            Ok(_) => News::Arrived(place, bytes),
            Err(error) => News::Closed(place, error.to_string()),
        };
        let is_last = matches!(told, News::Closed(..));
        // Where nobody takes what arrives, nothing more is read.
        if news.send(told).await.is_err() || is_last {
            return;
        }
    }
}

async fn write(
    place: Place,
    news: mpsc::Sender<News>,
    mut output: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
) {
    while let Some(mut bytes) = queue.recv().await {
        // What waits goes together: a change of many routes is many messages.
        while bytes.len() < TOGETHER
            && let Ok(further) = queue.try_recv()
        {
            bytes.extend(further);
        }
        let is_closing = queue.is_closed() && queue.sender_strong_count() == 0;
        let writing = output.write_all(&bytes);
        let written = match is_closing {
            true => timeout(LAST_WORDS, writing).await.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
            false => tokio::select! {
                written = writing => written,
                // A peer that reads no more holds nobody up.
                () = closed_for_long(&queue) => return,
            },
        };
        match written {
            Ok(()) if is_closing => {}
            Ok(()) => drop(news.send(News::Written(place, bytes.len())).await),
            Err(error) => {
                if !is_closing {
                    drop(news.send(News::Closed(place, error.to_string())).await);
                }
                return;
            }
        }
    }
    drop(output.shutdown().await);
}

/// Ends when nothing more can come, and a while longer.
async fn closed_for_long(queue: &mpsc::UnboundedReceiver<Vec<u8>>) {
    const LOOK: Duration = Duration::from_millis(200);
    while queue.sender_strong_count() > 0 {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(LAST_WORDS).await;
}
