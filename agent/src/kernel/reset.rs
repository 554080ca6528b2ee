//! TCP resets of connections whose packets pass no socket of this host.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
};

use dataplane_common::{packet::Packet as _, tcp, wire::Ipv4};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

/// Bytes of an IPv4 and a TCP header.
const HEADERS: usize = 40;
const IPV4_HEADER: usize = 20;
const ACK: u8 = 0x10;

/// Sends resets, each routed to the connection's client as any packet of this host.
#[derive(Debug)]
pub struct Resetter {
    socket: OwnedFd,
}

/// A connection, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This end.
    pub client: SocketAddrV4,
    /// The other end, from which the reset comes.
    pub server: SocketAddrV4,
    /// The next sequence number that the client expects: it believes no other reset (RFC 9293, section 3.5.3).
    pub expected: u32,
}

impl Resetter {
    /// Opens a socket that sends packets with a header of their own.
    ///
    /// # Errors
    /// The kernel gives none.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw)?;
        Ok(Self { socket })
    }

    /// Resets a connection at its client.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn reset(&self, connection: &Connection) -> io::Result<()> {
        let packet = packet(connection).ok_or(io::ErrorKind::InvalidInput)?;
        let [a, b, c, d] = connection.client.ip().octets();
        let to = SockaddrIn::new(a, b, c, d, 0);
        sendto(self.socket.as_raw_fd(), &packet, &to, MsgFlags::empty())?;
        Ok(())
    }
}

/// The answer to what the client sent last.
fn packet(connection: &Connection) -> Option<[u8; tcp::RESET_LEN]> {
    let octets = |address: &Ipv4Addr| address.octets();
    let mut last = [0; HEADERS];
    [last[0], last[3], last[9]] = [0x45, HEADERS as u8, 6];
    last[12..16].copy_from_slice(&octets(connection.client.ip()));
    last[16..20].copy_from_slice(&octets(connection.server.ip()));
    last[20..22].copy_from_slice(&connection.client.port().to_be_bytes());
    last[22..24].copy_from_slice(&connection.server.port().to_be_bytes());
    last[28..32].copy_from_slice(&connection.expected.to_be_bytes());
    [last[32], last[33]] = [5 << 4, ACK];
    Some(tcp::reset(&Ipv4::new(last.read(0)?), &last.read(IPV4_HEADER)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_comes_from_the_server_with_the_number_that_the_client_expects() {
        let [client, server] = ["250.0.28.2:40000", "10.96.0.10:80"].map(|text| text.parse().unwrap());
        let packet = packet(&Connection { client, server, expected: 0x0102_0304 }).unwrap();
        assert_eq!(packet[12..20], [10, 96, 0, 10, 250, 0, 28, 2]);
        assert_eq!(packet[20..24], [0, 80, 0x9c, 0x40]);
        assert_eq!(packet[24..28], [1, 2, 3, 4]);
        assert_eq!(packet[33], 0x04, "RST alone");
    }
}
