//! TCP sockets with what routers ask of them: signed segments (RFC 2385), a TTL that tells how far away a peer is (RFC 5082).

use std::{
    io,
    mem::size_of_val,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use control::bgp::Ttl;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// `TCP_MD5SIG_MAXKEYLEN`
const MAX_KEY: usize = 80;
/// `TTL` of a packet that no router has passed on.
const HIGHEST: u8 = 255;
/// `IP_MINTTL`
const IP_MINTTL: libc::c_int = 21;
/// `IPV6_MINHOPCOUNT`
const IPV6_MINHOPCOUNT: libc::c_int = 73;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// What is special about connections with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    pub peer: IpAddr,
    pub ttl: Ttl,
    /// The key of signed segments.
    pub key: Option<Box<[u8]>>,
}

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C, align(8))]
struct Md5 {
    /// `struct sockaddr_storage`
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; MAX_KEY],
}

/// Opens a connection.
///
/// # Errors
/// The system or the peer refuses.
pub async fn connect(to: SocketAddr, source: Option<IpAddr>, manner: &Manner) -> io::Result<TcpStream> {
    let socket = socket_for(to)?;
    distance(socket.as_fd(), to.ip(), manner.ttl)?;
    sign(socket.as_fd(), manner)?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Listens for peers.
///
/// # Errors
/// The system refuses.
pub fn listen(at: SocketAddr, peers: &[Manner]) -> io::Result<TcpListener> {
    let socket = socket_for(at)?;
    socket.set_reuseaddr(true)?;
    let peers: Vec<_> = peers.iter().filter(|peer| peer.peer.is_ipv4() == at.is_ipv4()).collect();
    for peer in &peers {
        sign(socket.as_fd(), peer)?;
    }
    // Its answers to the first packet have to come far enough for all, and only where all are that near does it tell.
    let is_secure = |peer: &&&Manner| peer.ttl == Ttl::Security;
    if peers.iter().any(|peer| is_secure(&peer)) {
        send_ttl(socket.as_fd(), at.ip(), HIGHEST)?;
    }
    if !peers.is_empty() && peers.iter().all(|peer| is_secure(&peer)) {
        least_ttl(socket.as_fd(), at.ip())?;
    }
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Makes a connection that came in one of that peer's.
///
/// # Errors
/// The system refuses.
pub fn adopt(stream: &TcpStream, manner: &Manner) -> io::Result<()> {
    stream.set_nodelay(true)?;
    distance(stream.as_fd(), manner.peer, manner.ttl)
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

fn distance(socket: BorrowedFd<'_>, family: IpAddr, ttl: Ttl) -> io::Result<()> {
    match ttl {
        Ttl::System => Ok(()),
        Ttl::Hops(hops) => send_ttl(socket, family, hops),
        Ttl::Security => send_ttl(socket, family, HIGHEST).and_then(|()| least_ttl(socket, family)),
    }
}

fn send_ttl(socket: BorrowedFd<'_>, family: IpAddr, ttl: u8) -> io::Result<()> {
    let ttl = libc::c_int::from(ttl);
    match family {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_TTL, &ttl),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &ttl),
    }
}

/// Packets of a lower TTL are dropped by the kernel.
fn least_ttl(socket: BorrowedFd<'_>, family: IpAddr) -> io::Result<()> {
    let ttl = libc::c_int::from(HIGHEST);
    match family {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, IP_MINTTL, &ttl),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, &ttl),
    }
}

fn sign(socket: BorrowedFd<'_>, manner: &Manner) -> io::Result<()> {
    let Some(given) = &manner.key else { return Ok(()) };
    let mut key = [0; MAX_KEY];
    let room = key.get_mut(..given.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(given);
    let key_length = u16::try_from(given.len()).map_err(io::Error::other)?;
    let md5 =
        Md5 { address: storage(manner.peer), flags: 0, prefix_length: 0, key_length, interface: 0, key };
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &md5)
}

/// `struct sockaddr_in` and `struct sockaddr_in6`, with port 0, in the room of any address.
fn storage(address: IpAddr) -> [u8; 128] {
    let mut storage = [0; 128];
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // Address families are small numbers.
    storage[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
    match address {
        IpAddr::V4(address) => storage[4..8].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => storage[8..24].copy_from_slice(&address.octets()),
    }
    storage
}

/// Sets an option whose value is `value` as it lies in memory.
fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes from `value` and keeps no pointer; the socket is open.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn manner(ttl: Ttl, key: Option<&[u8]>) -> Manner {
        Manner { peer: IpAddr::from([127, 0, 0, 1]), ttl, key: key.map(Into::into) }
    }

    async fn greet(here: &Manner, there: &Manner) -> io::Result<[u8; 2]> {
        let listener = listen("127.0.0.1:0".parse().unwrap(), std::slice::from_ref(there))?;
        let at = listener.local_addr()?;
        let greeting = async {
            let (mut stream, _) = listener.accept().await?;
            adopt(&stream, there)?;
            stream.write_all(b"hi").await
        };
        let reading = async {
            let mut stream = connect(at, Some(here.peer), here).await?;
            let mut read = [0; 2];
            stream.read_exact(&mut read).await?;
            Ok(read)
        };
        let both = async { tokio::join!(greeting, reading).1 };
        tokio::time::timeout(std::time::Duration::from_millis(500), both)
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    #[test]
    fn the_kernels_structure_has_its_size() {
        assert_eq!(size_of::<Md5>(), 216);
    }

    #[tokio::test]
    async fn peers_of_one_key_and_distance_hear_each_other() {
        let signed = |key: &'static [u8]| manner(Ttl::Security, Some(key));
        assert_eq!(greet(&signed(b"one"), &signed(b"one")).await.unwrap(), *b"hi");
        assert_eq!(greet(&manner(Ttl::Hops(1), None), &manner(Ttl::System, None)).await.unwrap(), *b"hi");
    }

    #[tokio::test]
    async fn who_has_another_key_or_is_farther_away_is_not_heard() {
        let one = manner(Ttl::System, Some(b"one"));
        assert_eq!(
            greet(&one, &manner(Ttl::System, Some(b"two"))).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        let far = manner(Ttl::Hops(64), None);
        assert_eq!(
            greet(&far, &manner(Ttl::Security, None)).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
