//! Load generator of the benchmarks: a server and its clients, one process each, entered into namespaces by the
//! caller. All runs are bounded by time; every client says what *arrived*, as counted by the server. Every thread runs
//! where [`Processors`] places it.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::processors::Processors;

/// Receives streams; answers with the number of bytes when a stream ends.
const STREAM_PORT: u16 = 5001;
/// Echoes what it receives.
pub const ECHO_PORT: u16 = 5002;
/// One request, one answer, closed by the server: `TIME_WAIT` stays there and costs the client no port.
pub const CONNECT_PORT: u16 = 5003;
/// Counts datagrams.
const DATAGRAM_PORT: u16 = 5004;
/// Answers with the number of datagrams counted so far.
const COUNT_PORT: u16 = 5005;

/// The TCP ports.
pub const STREAM_PORTS: [u16; 4] = [STREAM_PORT, ECHO_PORT, CONNECT_PORT, COUNT_PORT];
/// The UDP ports.
pub const DATAGRAM_PORTS: [u16; 1] = [DATAGRAM_PORT];

/// A server is this many backends, told apart by their ports.
pub const REPLICAS: u16 = 2;

/// Where a backend listens instead of `port`; the first one's own ports are the ports themselves.
pub const fn replica(port: u16, number: u16) -> u16 {
    port + 1000 * number
}

const REQUEST: [u8; 64] = [0x5a; 64];
const CHUNK: usize = 128 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

static DATAGRAMS: AtomicU64 = AtomicU64::new(0);

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// One TCP stream: bytes a second.
    Stream,
    /// Four TCP streams: bytes a second.
    Streams4,
    /// UDP datagrams of 64 bytes: received a second.
    Datagrams,
    /// Request and answer on one connection: round trips a second.
    RoundTrips,
    /// Connect, request, answer, close: connections a second.
    Connections,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Stream, Self::Streams4, Self::Datagrams, Self::RoundTrips, Self::Connections];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "TCP, 1 stream",
            Self::Streams4 => "TCP, 4 streams",
            Self::Datagrams => "UDP packets/s",
            Self::RoundTrips => "round trips/s",
            Self::Connections => "connections/s",
        }
    }
}

/// What a client measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Units that arrived: bytes, datagrams, round trips, connections.
    pub units: u64,
    /// In this many seconds.
    pub seconds: f64,
    /// How long a round trip took, where these are measured.
    pub latency: Option<Latency>,
}

/// Quantiles of a round trip's time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Nanoseconds.
    pub median: f64,
    /// Nanoseconds; one in a hundred takes longer.
    pub p99: f64,
}

impl Latency {
    /// Of some round trips; `None` of none.
    fn of(mut taken: Vec<Duration>) -> Option<Self> {
        taken.sort_unstable();
        let at = |share: f64| {
            let place = (share * taken.len() as f64) as usize;
            taken.get(place).map(|taken| taken.as_nanos() as f64)
        };
        Some(Self { median: at(0.5)?, p99: at(0.99)? })
    }
}

impl Measured {
    /// Units a second.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.seconds
    }
}

/// Runs the server until the process ends; prints `ready` when all ports listen.
pub fn serve() -> Result<()> {
    let replicas: Vec<_> = (0..REPLICAS).map(Sockets::open).collect::<Result<_>>()?;
    let processors = Processors::allowed()?;
    println!("ready");
    let servers: Vec<_> = replicas.into_iter().flat_map(|sockets| sockets.serve(processors)).collect();
    for server in servers {
        server.join().ok().context("a server panicked")??;
    }
    Ok(())
}

/// Where one backend listens.
struct Sockets {
    streams: TcpListener,
    echoes: TcpListener,
    connections: TcpListener,
    counts: TcpListener,
    datagrams: UdpSocket,
}

impl Sockets {
    fn open(number: u16) -> Result<Self> {
        let listen = |port| {
            let port = replica(port, number);
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("listen on port {port}"))
        };
        let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, replica(DATAGRAM_PORT, number)));
        Ok(Self {
            streams: listen(STREAM_PORT)?,
            echoes: listen(ECHO_PORT)?,
            connections: listen(CONNECT_PORT)?,
            counts: listen(COUNT_PORT)?,
            datagrams: datagrams.context("bind the datagram port")?,
        })
    }

    /// A thread a socket.
    fn serve(self, processors: Processors) -> [thread::JoinHandle<Result<()>>; 5] {
        let Self { streams, echoes, connections, counts, datagrams } = self;
        let receiver = |serve: Box<dyn FnOnce() + Send>| {
            thread::spawn(move || processors.pin_to_receiver().map(|()| serve()))
        };
        let client = |serve: Box<dyn FnOnce() + Send>| {
            thread::spawn(move || processors.pin_to_client().map(|()| serve()))
        };
        let count = |mut peer: TcpStream| peer.write_all(&DATAGRAMS.load(Ordering::Relaxed).to_be_bytes());
        [
            receiver(Box::new(move || each_in_thread(&streams, sink))),
            receiver(Box::new(move || count_datagrams(&datagrams))),
            receiver(Box::new(move || each(&counts, count))),
            client(Box::new(move || each_in_thread(&echoes, echo))),
            client(Box::new(move || each(&connections, answer_once))),
        ]
    }
}

fn each(listener: &TcpListener, mut handle: impl FnMut(TcpStream) -> io::Result<()>) {
    for peer in listener.incoming().flatten() {
        // A client that goes away ends its own measurement, not the server.
        let _ = handle(peer);
    }
}

fn each_in_thread(listener: &TcpListener, handle: fn(TcpStream) -> io::Result<()>) {
    for peer in listener.incoming().flatten() {
        thread::spawn(move || handle(peer));
    }
}

fn sink(mut peer: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut received = 0u64;
    loop {
        match peer.read(&mut chunk)? {
            0 => return peer.write_all(&received.to_be_bytes()),
            n => received += n as u64,
        }
    }
}

fn echo(mut peer: TcpStream) -> io::Result<()> {
    peer.set_nodelay(true)?;
    let mut request = REQUEST;
    loop {
        peer.read_exact(&mut request)?;
        peer.write_all(&request)?;
    }
}

fn answer_once(mut peer: TcpStream) -> io::Result<()> {
    let mut request = REQUEST;
    peer.read_exact(&mut request)?;
    peer.write_all(&request)
}

fn count_datagrams(socket: &UdpSocket) {
    let mut datagram = [0; 2048];
    while socket.recv(&mut datagram).is_ok() {
        DATAGRAMS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs one client against a server for about `duration`.
pub fn run(load: Load, server: Ipv4Addr, duration: Duration) -> Result<Measured> {
    Processors::allowed()?.pin_to_client()?;
    match load {
        Load::Stream => streams(server, 1, duration),
        Load::Streams4 => streams(server, 4, duration),
        Load::Datagrams => datagrams(server, duration),
        Load::RoundTrips => round_trips(server, End::At(duration)),
        Load::Connections => connections(server, End::At(duration)),
    }
    .with_context(|| format!("{} to {server}", load.name()))
}

/// Runs `count` round trips or connections, however long they take.
pub fn run_count(load: Load, server: Ipv4Addr, count: u64) -> Result<Measured> {
    let end = End::After(count);
    match load {
        Load::RoundTrips => round_trips(server, end),
        Load::Connections => connections(server, end),
        Load::Stream | Load::Streams4 | Load::Datagrams => anyhow::bail!("{} cannot be counted", load.name()),
    }
    .with_context(|| format!("{} to {server}", load.name()))
}

/// When a repetition ends.
#[derive(Clone, Copy)]
enum End {
    At(Duration),
    After(u64),
}

impl End {
    fn reached(self, start: Instant, units: u64) -> bool {
        match self {
            Self::At(duration) => start.elapsed() >= duration,
            Self::After(count) => units >= count,
        }
    }
}

fn connect(server: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let peer = TcpStream::connect_timeout(&SocketAddrV4::new(server, port).into(), PATIENCE)?;
    peer.set_nodelay(true)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    Ok(peer)
}

/// Runs `step` until the end.
fn repeat(end: End, mut step: impl FnMut() -> Result<u64>) -> Result<Measured> {
    let start = Instant::now();
    let mut units = 0;
    while !end.reached(start, units) {
        units += step()?;
    }
    Ok(Measured { units, seconds: start.elapsed().as_secs_f64(), latency: None })
}

fn streams(server: Ipv4Addr, count: usize, duration: Duration) -> Result<Measured> {
    let start = Instant::now();
    let senders: Vec<_> =
        (0..count).map(|_| thread::spawn(move || stream(server, start + duration))).collect();
    let mut units = 0;
    for sender in senders {
        units += sender.join().ok().context("a sender panicked")??;
    }
    Ok(Measured { units, seconds: start.elapsed().as_secs_f64(), latency: None })
}

fn stream(server: Ipv4Addr, end: Instant) -> Result<u64> {
    let mut peer = connect(server, STREAM_PORT)?;
    let chunk = vec![0x5a; CHUNK];
    while Instant::now() < end {
        peer.write_all(&chunk)?;
    }
    peer.shutdown(Shutdown::Write)?;
    read_u64(&mut peer)
}

fn read_u64(peer: &mut TcpStream) -> Result<u64> {
    let mut bytes = [0; 8];
    peer.read_exact(&mut bytes).context("read the server's count")?;
    Ok(u64::from_be_bytes(bytes))
}

fn datagrams(server: Ipv4Addr, duration: Duration) -> Result<Measured> {
    let counted = || read_u64(&mut connect(server, COUNT_PORT)?);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((server, DATAGRAM_PORT))?;
    let before = counted()?;
    let sent = repeat(End::At(duration), || {
        for _ in 0..16 {
            socket.send(&REQUEST)?;
        }
        Ok(16)
    })?;
    Ok(Measured { units: counted()? - before, ..sent })
}

fn round_trips(server: Ipv4Addr, end: End) -> Result<Measured> {
    let mut peer = connect(server, ECHO_PORT)?;
    let mut answer = REQUEST;
    let mut taken = Vec::new();
    let mut last = Instant::now();
    let measured = repeat(end, || {
        peer.write_all(&REQUEST)?;
        peer.read_exact(&mut answer)?;
        let now = Instant::now();
        taken.push(now - last);
        last = now;
        Ok(1)
    })?;
    Ok(Measured { latency: Latency::of(taken), ..measured })
}

fn connections(server: Ipv4Addr, end: End) -> Result<Measured> {
    let mut answer = Vec::with_capacity(REQUEST.len());
    repeat(end, || {
        // Without the options of `connect`, whose system calls would be part of what is measured: who started this process
        // bounds its time.
        let mut peer = TcpStream::connect((server, CONNECT_PORT))?;
        peer.write_all(&REQUEST)?;
        answer.clear();
        peer.read_to_end(&mut answer)?;
        anyhow::ensure!(answer.len() == REQUEST.len(), "answer of {} bytes", answer.len());
        Ok(1)
    })
}
