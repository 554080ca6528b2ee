//! Many TCP connections, each end of them in one thread: those that stay and speak now and then, and those that come
//! and go.

use std::{
    future::Future,
    io,
    net::SocketAddrV4,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{
        mpsc::{UnboundedSender, unbounded_channel},
        watch,
    },
    task::LocalSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{command::eventually, site::Site, sys};

/// How long a connection may take to be made, and an answer to come. Below TCP's second retransmission: a lost SYN is
/// seen as what it is only where it is lost twice.
const PATIENCE: Duration = Duration::from_secs(3);
const SAID: [u8; 64] = [0x5a; 64];

/// How connections fared.
#[derive(Clone, Debug, Default)]
pub struct Fared {
    /// Answers that came.
    pub answers: u64,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// A server that sends every byte back, for as long as the value lives.
pub struct CrowdServer {
    _stop: watch::Sender<bool>,
}

impl CrowdServer {
    /// Starts one at an address of a site.
    #[track_caller]
    pub fn start(site: &Site, address: SocketAddrV4) -> Self {
        sys::allow_descriptors().unwrap_or_else(|error| panic!("cannot open many sockets: {error}"));
        let (stop, mut stopped) = watch::channel(false);
        let listener = site.bound(|| std::net::TcpListener::bind(address));
        site.inside(|| {
            thread::spawn(move || {
                run(async {
                    tokio::select! {
                        _ = accept(listener) => (),
                        _ = stopped.changed() => (),
                    }
                });
            });
        });
        Self { _stop: stop }
    }

    /// Serves where this process is, until it ends.
    pub fn serve(address: SocketAddrV4) -> io::Result<()> {
        sys::allow_descriptors()?;
        run(accept(std::net::TcpListener::bind(address)?))
    }
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.split();
    // A client that goes away ends its own connection.
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

/// Clients of a [`CrowdServer`] in the background, until they are asked how they fared.
pub struct Crowd {
    stop: watch::Sender<bool>,
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Fared>>,
}

impl Crowd {
    /// So many connections that stay, each of which speaks once an interval.
    #[track_caller]
    pub fn staying(from: &Site, to: SocketAddrV4, count: usize, every: Duration) -> Self {
        let crowd = Self::start(from, async move |stop, open, failures| {
            let talkers = (0..count).map(|number| {
                let (stop, open, failures) = (stop.clone(), open.clone(), failures.clone());
                tokio::task::spawn_local(async move {
                    // Spread over the interval, and opened no faster than a server accepts.
                    sleep(every.mul_f64(number as f64 / count as f64).min(OPENING * number as u32)).await;
                    let talked = talk(to, every, stop, &open).await;
                    tell(&failures, talked)
                })
            });
            let mut answers = 0;
            for talker in talkers.collect::<Vec<_>>() {
                answers += talker.await.expect("no talker panics");
            }
            answers
        });
        eventually("all connections are open", Duration::from_secs(60), || {
            (crowd.open.load(Ordering::Relaxed) == count).then_some(())
        });
        crowd
    }

    /// So many new connections a second: each is opened, speaks once and is closed.
    #[track_caller]
    pub fn coming_and_going(from: &Site, to: SocketAddrV4, per_second: u32) -> Self {
        Self::start(from, async move |stop, _, failures| {
            let mut tick = interval(Duration::from_secs(1) / per_second);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut visits = Vec::new();
            while !*stop.borrow() {
                tick.tick().await;
                let failures = failures.clone();
                visits.push(tokio::task::spawn_local(async move { tell(&failures, visit(to).await) }));
            }
            let mut answers = 0;
            for visit in visits {
                answers += visit.await.expect("no visit panics");
            }
            answers
        })
    }

    #[track_caller]
    fn start(
        from: &Site,
        work: impl AsyncFnOnce(watch::Receiver<bool>, Arc<AtomicUsize>, UnboundedSender<String>) -> u64
        + Send
        + 'static,
    ) -> Self {
        sys::allow_descriptors().unwrap_or_else(|error| panic!("cannot open many sockets: {error}"));
        let (stop, stopped) = watch::channel(false);
        let open = Arc::new(AtomicUsize::new(0));
        let opened = open.clone();
        let thread = from.inside(|| {
            thread::spawn(move || {
                run(async move {
                    let (failures, mut failed) = unbounded_channel();
                    let answers = work(stopped, opened, failures).await;
                    let failures = std::iter::from_fn(|| failed.try_recv().ok()).collect();
                    Fared { answers, failures }
                })
            })
        });
        Self { stop, open, thread: Some(thread) }
    }

    /// Ends them.
    #[track_caller]
    pub fn stop(mut self) -> Fared {
        self.end();
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A thread that has panicked listens no more, and need not.
    fn end(&self) {
        let _ = self.stop.send(true);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

/// Time between two openings of connections that stay.
const OPENING: Duration = Duration::from_micros(300);

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime of one thread"), work)
}

fn tell(failures: &UnboundedSender<String>, done: (u64, io::Result<()>)) -> u64 {
    if let Err(error) = done.1 {
        // The receiver has gone: then nobody asks.
        let _ = failures.send(error.to_string());
    }
    done.0
}

async fn visit(to: SocketAddrV4) -> (u64, io::Result<()>) {
    let visited = async {
        let mut stream = connect(to).await?;
        exchange(&mut stream).await
    };
    let visited = visited.await;
    (u64::from(visited.is_ok()), visited)
}

async fn talk(
    to: SocketAddrV4,
    every: Duration,
    mut stop: watch::Receiver<bool>,
    open: &AtomicUsize,
) -> (u64, io::Result<()>) {
    let mut answers = 0;
    let talked = async {
        let mut stream = connect(to).await?;
        open.fetch_add(1, Ordering::Relaxed);
        while !*stop.borrow() {
            exchange(&mut stream).await?;
            answers += 1;
            tokio::select! {
                () = sleep(every) => (),
                _ = stop.changed() => (),
            }
        }
        // What was silent at the end speaks once more.
        exchange(&mut stream).await
    };
    let talked = talked.await;
    (answers, talked)
}

async fn connect(to: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = within("connect", TcpStream::connect(to)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    within("exchange", async {
        stream.write_all(&SAID).await?;
        let mut back = SAID;
        stream.read_exact(&mut back).await?;
        Ok(())
    })
    .await
}

async fn within<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}"))),
        Err(_) => Err(io::Error::other(format!("{what}: nothing within {PATIENCE:?}"))),
    }
}
