//! Where the kernel has sockets of this process go that connect to an address: what programs on connect() make of it.
//!
//! Nothing is sent. A datagram socket sends nothing on connect(), and a stream socket whose SYN waits for data neither.
//! The socket is asked for in `/proc`: who translates on the way out translates getpeername() back.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddrV4,
    os::fd::{AsRawFd as _, OwnedFd},
};

use control::service::Protocol;
use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket},
        stat::fstat,
    },
};

use super::sockets;

/// Sockets that are open at once.
const BATCH: usize = 128;

/// The destinations among these that become others, with what they become.
///
/// # Errors
/// The kernel gives no sockets, or `/proc` isn't mounted.
pub fn translated(
    wanted: &[SocketAddrV4],
    protocol: Protocol,
) -> io::Result<Vec<(SocketAddrV4, SocketAddrV4)>> {
    let mut found = Vec::new();
    for batch in wanted.chunks(BATCH) {
        let mut sockets = HashMap::new();
        for &wanted in batch {
            match connected(wanted, protocol) {
                Ok(Some(socket)) => drop(sockets.insert(fstat(&socket)?.st_ino, (wanted, socket))),
                // This one is refused or has no route.
                Err(Errno::EPERM | Errno::EACCES | Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {}
                Ok(None) | Err(Errno::EOPNOTSUPP) => return Ok(found),
                Err(error) => return Err(error.into()),
            }
        }
        let list = fs::read_to_string(format!("/proc/thread-self/net/{protocol}"))?;
        for (inode, actual) in sockets::destinations(&list) {
            if let Some((wanted, _)) = sockets.get(&inode)
                && *wanted != actual
            {
                found.push((*wanted, actual));
            }
        }
    }
    Ok(found)
}

/// A socket that has sent nothing; `None`: it would have to.
fn connected(to: SocketAddrV4, protocol: Protocol) -> Result<Option<OwnedFd>, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, kind, flags, None)?;
    if protocol == Protocol::Tcp {
        wait_for_data(&socket)?;
    }
    match connect(socket.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) => Ok(Some(socket)),
        // The kernel has switched TCP fast open off for a while, and a SYN is on its way.
        Err(Errno::EINPROGRESS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has connect() only note where to; a cookie would have to be asked for first.
fn wait_for_data(socket: &OwnedFd) -> Result<(), Errno> {
    /// `linux/tcp.h`
    const TCP_FASTOPEN_NO_COOKIE: libc::c_int = 34;
    let (yes, length): (libc::c_int, _) = (1, size_of::<libc::c_int>() as libc::socklen_t);
    for option in [libc::TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE] {
        let (fd, value) = (socket.as_raw_fd(), (&raw const yes).cast());
        // SAFETY: pointer and length describe the integer above.
        Errno::result(unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, value, length) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn nobody_hears_of_sockets_whose_destinations_stay_as_they_are() {
        let stream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        stream.set_nonblocking(true).unwrap();
        datagrams.set_nonblocking(true).unwrap();
        let v4 = |address| match address {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        };
        let tcp = [v4(stream.local_addr().unwrap()); 2 * BATCH];
        assert_eq!(translated(&tcp, Protocol::Tcp).unwrap(), []);
        assert_eq!(translated(&[v4(datagrams.local_addr().unwrap())], Protocol::Udp).unwrap(), []);
        assert_eq!(stream.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(datagrams.recv(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
