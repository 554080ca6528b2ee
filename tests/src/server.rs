//! Servers inside the test that tell clients their name, for as long as the value lives.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

use crate::{
    container::Container,
    fleet::{Fleet, overlay},
    site::Site,
    sys,
};

/// A server that greets every connection with its name and the client's address, and then sends every byte back; and
/// answers every datagram with the same line.
pub struct Named {
    stop: Arc<AtomicBool>,
    port: u16,
    address: Ipv4Addr,
}

impl Named {
    /// Starts one on an address and port of the site.
    #[track_caller]
    pub fn start(site: &Site, name: &str, address: Ipv4Addr, port: u16) -> Self {
        let listener = site.bound(|| TcpListener::bind((address, port)));
        let datagrams = site.bound(|| UdpSocket::bind((address, port)));
        datagrams.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket takes a time");
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp, udp) = ((name.to_owned(), stop.clone()), (name.to_owned(), stop.clone()));
        thread::spawn(move || serve_connections(&listener, &tcp.0, &tcp.1));
        thread::spawn(move || serve_datagrams(&datagrams, &udp.0, &udp.1));
        Self { stop, port, address }
    }

    /// A container on each host, and a server in each: `b0`, `b1`, ...
    #[track_caller]
    pub fn on_each(fleet: &Fleet) -> (Vec<Container<'_>>, Vec<Self>) {
        let containers: Vec<_> = (0..fleet.hosts().len()).map(|host| fleet.endpoint(host, 9)).collect();
        let servers = containers.iter().enumerate();
        let servers = servers
            .map(|(host, container)| Self::start(container, &format!("b{host}"), overlay(host, 9), 8080));
        let servers = servers.collect();
        (containers, servers)
    }

    /// Where it listens, as a backend is written.
    pub fn backend(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve_connections(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    listener.set_nonblocking(true).expect("a listener can be asked");
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, client)) => {
                let name = name.to_owned();
                thread::spawn(move || greet(stream, &name, client));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn greet(mut stream: TcpStream, name: &str, client: SocketAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.write_all(format!("{name} {client}\n").as_bytes())?;
    let mut back = stream.try_clone()?;
    io::copy(&mut stream, &mut back)?;
    back.shutdown(Shutdown::Write)
}

fn serve_datagrams(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut datagram = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, client)) = socket.recv_from(&mut datagram) {
            // A client that has gone is its own affair.
            let _ = socket.send_to(format!("{name} {client}\n").as_bytes(), client);
        }
    }
}

/// Connects the calling thread's network namespace from a given port.
pub fn connect_from(port: u16, to: SocketAddrV4) -> io::Result<TcpStream> {
    connect_with(&[], port, to)
}

/// As [`connect_from`], with IPv4 options in every packet.
fn connect_with(options: &[u8], port: u16, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    sys::set_ip_options(&socket, options)?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(socket.into())
}

/// A connection to a [`Named`] server.
pub struct Greeted {
    reader: BufReader<TcpStream>,
    /// The server's name.
    pub name: String,
    /// The client's address as the server sees it.
    pub seen_as: SocketAddr,
}

const PATIENCE: Duration = Duration::from_secs(3);

impl Greeted {
    /// Connects from a site.
    pub fn connect(from: &Site, to: SocketAddrV4) -> io::Result<Self> {
        from.inside(|| Self::after_greeting(TcpStream::connect_timeout(&to.into(), PATIENCE)?))
    }

    /// Connects from a given port of a site.
    pub fn connect_from(from: &Site, port: u16, to: SocketAddrV4) -> io::Result<Self> {
        from.inside(|| Self::after_greeting(connect_from(port, to)?))
    }

    /// Connects from a site, with IPv4 options in every packet.
    pub fn connect_with(from: &Site, options: &[u8], to: SocketAddrV4) -> io::Result<Self> {
        from.inside(|| Self::after_greeting(connect_with(options, 0, to)?))
    }

    fn after_greeting(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (name, seen_as) = told(&line)?;
        Ok(Self { reader, name, seen_as })
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends bytes and reads them back.
    pub fn echo(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        self.reader.read_exact(&mut back)?;
        if back == bytes { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
    }
}

/// Asks a [`Named`] server by a connected datagram socket: its name, and the client's address as it sees it.
pub fn ask(from: &Site, to: SocketAddrV4) -> io::Result<(String, SocketAddr)> {
    ask_from(from, 0, to)
}

/// As [`ask`], from a port of one's own choice.
pub fn ask_from(from: &Site, port: u16, to: SocketAddrV4) -> io::Result<(String, SocketAddr)> {
    from.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"who")?;
        let mut answer = [0; 256];
        let length = socket.recv(&mut answer)?;
        told(&String::from_utf8_lossy(&answer[..length]))
    })
}

/// Whether nobody answers, neither connections nor datagrams, in a time in which any host near does.
pub fn is_silent(from: &Site, to: SocketAddrV4) -> bool {
    const LIMIT: Duration = Duration::from_millis(500);
    from.inside(|| {
        let asked = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.connect(to)?;
            socket.send(b"who")?;
            socket.recv(&mut [0; 256])
        };
        TcpStream::connect_timeout(&to.into(), LIMIT).is_err() && asked().is_err()
    })
}

fn told(line: &str) -> io::Result<(String, SocketAddr)> {
    let parts = line.trim_end().split_once(' ').and_then(|(name, seen)| Some((name, seen.parse().ok()?)));
    let (name, seen_as) = parts.ok_or_else(|| io::Error::other(format!("told {line:?}")))?;
    Ok((name.to_owned(), seen_as))
}
