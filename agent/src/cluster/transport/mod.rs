//! What carries the core's datagrams and exchanges: one UDP socket, and TCP streams ([`channel`]), both at one address.
//!
//! What comes from outside is bounded: streams at a time, in all and of one address; how long each may take; the bytes of a
//! message.

mod channel;
mod places;

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

use self::{
    channel::{Channel, Common, Message},
    places::Places,
};

/// Datagrams that wait in the kernel, in bytes: those of a second in a large cluster.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the other side of a stream may take to show that it has a key.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long an exchange may take.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Exchanges of this node's own at a time.
const OWN_EXCHANGES: usize = 16;
/// Requests of others that wait for the core.
const REQUESTS: usize = 32;
/// Pause after a connection that could not be accepted: without descriptors, the next can't either.
const PAUSE: Duration = Duration::from_millis(100);
/// The kind of messages that compare what two nodes know of members.
const MEMBERSHIP: u8 = 1;

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

/// A member's request, and where the answer goes; none ends the stream.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Vec<u8>,
    pub(super) answer: oneshot::Sender<Option<Vec<u8>>>,
}

/// The end of an exchange of this node's own.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) with: SocketAddrV4,
    pub(super) answer: Option<Vec<u8>>,
}

/// The sockets of a node; streams end with them.
pub(super) struct Transport {
    pub(super) datagrams: UdpSocket,
    credentials: Credentials,
    asked: mpsc::Receiver<Asked>,
    exchanged: mpsc::Receiver<Exchanged>,
    ended: mpsc::Sender<Exchanged>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Transport {
    /// Listens.
    ///
    /// # Errors
    /// The address is not this host's, or in use.
    pub(super) async fn listen(at: SocketAddrV4, credentials: Credentials) -> io::Result<Self> {
        let datagrams = UdpSocket::bind(at).await?;
        // The kernel gives as much as its limit allows.
        if let Err(error) = setsockopt(&datagrams, sockopt::RcvBuf, &RECEIVE_BUFFER) {
            tracing::debug!("cluster: receive buffer: {error}");
        }
        let listener = TcpListener::bind(at).await?;
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (ended, exchanged) = mpsc::channel(OWN_EXCHANGES);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, credentials.clone(), requests));
        let slots = Arc::new(Semaphore::new(OWN_EXCHANGES));
        Ok(Self { datagrams, credentials, asked, exchanged, ended, slots, tasks })
    }

    /// Carries a request to a member; [`Self::news`] tells the end. Without a free slot there is no answer.
    pub(super) fn exchange(&mut self, with: SocketAddrV4, request: Vec<u8>) {
        while self.tasks.try_join_next().is_some() {}
        let (common, ended) = (self.credentials.common(), self.ended.clone());
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        self.tasks.spawn(async move {
            let answer = match &slot {
                Ok(_slot) => timeout(EXCHANGE, ask(with, &common, request)).await,
                Err(_none) => Ok(Err(io::Error::other("too many exchanges at a time"))),
            };
            let answer = answer.unwrap_or_else(|late| Err(late.into()));
            let answer =
                answer.map_err(|error| tracing::debug!("cluster: exchange with {with}: {error}")).ok();
            // Without a receiver the agent is stopping.
            drop(ended.send(Exchanged { with, answer }).await);
        });
    }

    /// The next request of a member or end of an exchange, or that there are datagrams. Dropping this loses nothing.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            Some(asked) = self.asked.recv() => News::Asked(asked),
            Some(exchanged) = self.exchanged.recv() => News::Exchanged(exchanged),
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
                Ok((length, source)) => return Some((buffer.get(..length)?, source)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // What the network says of a datagram that was sent.
                Err(error) => tracing::debug!("cluster: {error}"),
            }
        }
    }

    /// Sends a datagram; one that can't leave is lost as on the way.
    pub(super) fn send(&self, to: SocketAddrV4, datagram: &[u8]) {
        if let Err(error) = self.datagrams.try_send_to(datagram, to.into()) {
            tracing::debug!("cluster: datagram to {to}: {error}");
        }
    }
}

/// What the transport tells.
#[derive(Debug)]
pub(super) enum News {
    Asked(Asked),
    Exchanged(Exchanged),
    Datagrams,
    Broken(io::Error),
}

async fn ask(with: SocketAddrV4, common: &Common, request: Vec<u8>) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(with).await?;
    stream.set_nodelay(true)?;
    let mut channel = Channel::open(stream, common).await?;
    channel.send(&Message { kind: MEMBERSHIP, bytes: request }).await?;
    Ok(channel.receive(MAX_EXCHANGE).await?.bytes)
}

/// Takes streams of members for as long as the transport lives.
async fn accept(listener: TcpListener, credentials: Credentials, requests: mpsc::Sender<Asked>) {
    let places = Places::default();
    let mut streams = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = streams.join_next() => continue,
        };
        match accepted {
            Ok((stream, source)) => {
                // One that finds no place is closed without a word.
                let Some(place) = places.take(source.ip()) else { continue };
                let (common, requests) = (credentials.common(), requests.clone());
                streams.spawn(async move {
                    let served = timeout(EXCHANGE, serve(stream, &common, &requests)).await;
                    if let Err(error) = served.unwrap_or_else(|late| Err(late.into())) {
                        tracing::debug!("cluster: stream of {source}: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("cluster: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, common: &Common, requests: &mpsc::Sender<Asked>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut channel = timeout(HANDSHAKE, Channel::accept(stream, common)).await??;
    let Message { kind, bytes: request } = channel.receive(MAX_EXCHANGE).await?;
    if kind != MEMBERSHIP {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("a message of kind {kind}")));
    }
    let (answer, answered) = oneshot::channel();
    let stopping = || io::Error::other("the agent is stopping");
    requests.send(Asked { request, answer }).await.map_err(|_gone| stopping())?;
    let answer = answered.await.map_err(|_gone| stopping())?;
    if let Some(bytes) = answer {
        channel.send(&Message { kind, bytes }).await?;
    }
    channel.finish().await
}
