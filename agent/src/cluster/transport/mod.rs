//! What carries the core's datagrams and exchanges: one UDP socket, and TCP streams ([`channel`]), both at one address.
//!
//! What comes from outside is bounded: streams at a time, in all and of one address; how long each may take; the bytes of a
//! message.

mod channel;
mod places;
mod traffic;

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use control::cluster::{keyring::Keyring, membership::MAX_EXCHANGE};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

pub(super) use self::traffic::Traffic;
use self::{
    channel::{Channel, Common, Message},
    places::Places,
    traffic::Counted,
};

/// Datagrams that wait in the kernel, in bytes: those of a second in a large cluster.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the other side of a stream may take to show that it has a key.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long an exchange may take.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Exchanges of this node's own at a time.
const OWN_EXCHANGES: usize = 16;
/// What streams have said and waits for the core.
const NEWS: usize = 64;
/// Pause after a connection that could not be accepted: without descriptors, the next can't either.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a conversation may take.
const CONVERSATION: Duration = Duration::from_secs(120);

/// What a stream is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Two nodes compare what they know of members: one question, one answer.
    Membership = 1,
    /// Two nodes give each other what they lack of the logs.
    Logs = 2,
    /// A write of a user key that another node decides on.
    Write = 3,
}

impl Kind {
    fn read(kind: u8) -> Option<Self> {
        [Self::Membership, Self::Logs, Self::Write].into_iter().find(|known| *known as u8 == kind)
    }
}

/// Names a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StreamId {
    /// This node began it.
    Own(u64),
    Other(u64),
}

/// What members have in common; it changes by rotation of the keys. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Credentials(Arc<Mutex<Common>>);

impl Credentials {
    pub(super) fn new(cluster: &str, ring: Option<Keyring>) -> Self {
        let common = Common { cluster: cluster.into(), ring: ring.map(Arc::new) };
        Self(Arc::new(Mutex::new(common)))
    }

    /// Other keys for streams that begin from now on.
    pub(super) fn set_ring(&self, ring: Option<Keyring>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ring = ring.map(Arc::new);
    }

    fn common(&self) -> Common {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the other side of a stream has said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) stream: StreamId,
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
    /// Where what is said to it goes; none ends the stream.
    pub(super) answer: oneshot::Sender<Option<Vec<u8>>>,
}

/// The sockets of a node; streams end with them.
pub(super) struct Transport {
    pub(super) datagrams: UdpSocket,
    credentials: Credentials,
    traffic: Traffic,
    news: mpsc::Receiver<News>,
    tell: mpsc::Sender<News>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Transport {
    /// Listens.
    ///
    /// # Errors
    /// The address is not this host's, or in use.
    pub(super) async fn listen(
        at: SocketAddrV4,
        credentials: Credentials,
        traffic: Traffic,
    ) -> io::Result<Self> {
        let datagrams = UdpSocket::bind(at).await?;
        // The kernel gives as much as its limit allows.
        if let Err(error) = setsockopt(&datagrams, sockopt::RcvBuf, &RECEIVE_BUFFER) {
            tracing::debug!("cluster: receive buffer: {error}");
        }
        let listener = TcpListener::bind(at).await?;
        let (tell, news) = mpsc::channel(NEWS);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, credentials.clone(), traffic.clone(), tell.clone()));
        let slots = Arc::new(Semaphore::new(OWN_EXCHANGES));
        Ok(Self { datagrams, credentials, traffic, news, tell, slots, tasks })
    }

    /// Begins a conversation with a member; [`Self::news`] tells what it says, and the end. Without a free slot it ends at
    /// once.
    pub(super) fn converse(&mut self, number: u64, with: SocketAddrV4, kind: Kind, first: Vec<u8>) {
        while self.tasks.try_join_next().is_some() {}
        let (common, traffic, tell) = (self.credentials.common(), self.traffic.clone(), self.tell.clone());
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let stream = StreamId::Own(number);
        self.tasks.spawn(async move {
            let ended = match &slot {
                Ok(_slot) => {
                    let spoken = speak(stream, with, (&common, traffic), (kind, first), &tell);
                    timeout(CONVERSATION, spoken).await
                }
                Err(_none) => Ok(Err(io::Error::other("too many streams at a time"))),
            };
            if let Err(error) = ended.unwrap_or_else(|late| Err(late.into())) {
                tracing::debug!("cluster: stream to {with}: {error}");
            }
            // Without a receiver the agent is stopping.
            drop(tell.send(News::Ended(stream)).await);
        });
    }

    /// What streams say, or that there are datagrams. Dropping this loses nothing.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            Some(news) = self.news.recv() => news,
            readable = self.datagrams.readable() => match readable {
                Ok(()) => News::Datagrams,
                Err(error) => News::Broken(error),
            },
        }
    }

    /// A datagram that has arrived, and where it came from.
    pub(super) fn datagram<'b>(&self, buffer: &'b mut [u8]) -> Option<(&'b [u8], SocketAddr)> {
        loop {
            match self.datagrams.try_recv_from(buffer) {
                Ok((length, source)) => {
                    self.traffic.add_received(length);
                    return Some((buffer.get(..length)?, source));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // What the network says of a datagram that was sent.
                Err(error) => tracing::debug!("cluster: {error}"),
            }
        }
    }

    /// Sends a datagram; one that can't leave is lost as on the way.
    pub(super) fn send(&self, to: SocketAddrV4, datagram: &[u8]) {
        match self.datagrams.try_send_to(datagram, to.into()) {
            Ok(sent) => self.traffic.add_sent(sent),
            Err(error) => tracing::debug!("cluster: datagram to {to}: {error}"),
        }
    }
}

/// What the transport tells.
#[derive(Debug)]
pub(super) enum News {
    Said(Said),
    Ended(StreamId),
    Datagrams,
    Broken(io::Error),
}

/// The side of a stream that has connected.
async fn speak(
    stream: StreamId,
    with: SocketAddrV4,
    (common, traffic): (&Common, Traffic),
    (kind, first): (Kind, Vec<u8>),
    tell: &mpsc::Sender<News>,
) -> io::Result<()> {
    let connection = timeout(EXCHANGE, TcpStream::connect(with)).await??;
    connection.set_nodelay(true)?;
    let connection = Counted::new(connection, traffic);
    let mut channel = timeout(HANDSHAKE, Channel::open(connection, common)).await??;
    let mut bytes = first;
    loop {
        timeout(EXCHANGE, channel.send(&Message { kind: kind as u8, bytes })).await??;
        let said = timeout(EXCHANGE, channel.receive(MAX_EXCHANGE)).await??.bytes;
        match hear(stream, kind, said, tell).await? {
            Some(next) => bytes = next,
            None => return channel.finish().await,
        }
    }
}

/// Has the core answer what was said.
async fn hear(
    stream: StreamId,
    kind: Kind,
    bytes: Vec<u8>,
    tell: &mpsc::Sender<News>,
) -> io::Result<Option<Vec<u8>>> {
    let stopping = || io::Error::other("the agent is stopping");
    let (answer, answered) = oneshot::channel();
    tell.send(News::Said(Said { stream, kind, bytes, answer })).await.map_err(|_gone| stopping())?;
    answered.await.map_err(|_gone| stopping())
}

/// Takes streams of members for as long as the transport lives.
async fn accept(listener: TcpListener, credentials: Credentials, traffic: Traffic, tell: mpsc::Sender<News>) {
    let places = Places::default();
    let mut streams = JoinSet::new();
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = streams.join_next() => continue,
        };
        match accepted {
            Ok((stream, source)) => {
                // One that finds no place is closed without a word.
                let Some(place) = places.take(source.ip()) else { continue };
                let (common, traffic, tell) = (credentials.common(), traffic.clone(), tell.clone());
                number += 1;
                let id = StreamId::Other(number);
                streams.spawn(async move {
                    let served = timeout(CONVERSATION, serve(id, stream, (&common, traffic), &tell)).await;
                    if let Err(error) = served.unwrap_or_else(|late| Err(late.into())) {
                        tracing::debug!("cluster: stream of {source}: {error}");
                    }
                    drop(place);
                    drop(tell.send(News::Ended(id)).await);
                });
            }
            Err(error) => {
                tracing::warn!("cluster: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The side of a stream that was connected to.
async fn serve(
    id: StreamId,
    stream: TcpStream,
    (common, traffic): (&Common, Traffic),
    tell: &mpsc::Sender<News>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = Counted::new(stream, traffic);
    let mut channel = timeout(HANDSHAKE, Channel::accept(stream, common)).await??;
    loop {
        let Message { kind, bytes } = match timeout(EXCHANGE, channel.receive(MAX_EXCHANGE)).await? {
            // The other side has nothing more to say.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return channel.finish().await,
            message => message?,
        };
        let unknown = || io::Error::new(io::ErrorKind::Unsupported, format!("a message of kind {kind}"));
        let known = Kind::read(kind).ok_or_else(unknown)?;
        match hear(id, known, bytes, tell).await? {
            Some(bytes) => timeout(EXCHANGE, channel.send(&Message { kind, bytes })).await??,
            None => return channel.finish().await,
        }
    }
}
