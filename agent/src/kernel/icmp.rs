//! Echo requests with sockets of our own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use dataplane_common::checksum;
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recv, sendto,
        setsockopt, socket, sockopt,
    },
    time::TimeVal,
};

/// Bytes of an IPv4 header.
const IP_HEADER: usize = 20;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const FRAGMENTATION_NEEDED: u8 = 4;

/// An echo request to send.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// Source address, one of this host's.
    pub from: Ipv4Addr,
    /// Destination.
    pub to: Ipv4Addr,
    /// Bytes of the whole IPv4 packet.
    pub size: usize,
    /// How long to wait for an answer.
    pub patience: Duration,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An echo reply, after this time.
    Reply(Duration),
    /// The path is smaller: the size that a router or the destination named.
    TooBig(u32),
    /// The destination can't be reached: the host that said so, and the code.
    Unreachable(Ipv4Addr, u8),
    /// Nothing.
    Silence,
}

/// Sends an echo request with don't-fragment set and waits for its answer.
///
/// # Errors
/// The kernel gives no socket, or refuses to send.
pub fn echo(request: Echo) -> io::Result<Answer> {
    let socket = open(request.from)?;
    let identifier = (std::process::id() & 0xffff) as u16;
    let packet = packet(identifier, request.size);
    let [a, b, c, d] = request.to.octets();
    let start = Instant::now();
    match sendto(socket.as_raw_fd(), &packet, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty()) {
        Ok(_) => {}
        // The kernel knows already that the way is too narrow.
        Err(nix::errno::Errno::EMSGSIZE) => return Ok(Answer::TooBig(0)),
        Err(errno) => return Err(errno.into()),
    }
    let mut buffer = vec![0; usize::from(u16::MAX)];
    while let Some(left) = request.patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        setsockopt(
            &socket.as_fd(),
            sockopt::ReceiveTimeout,
            &TimeVal::new(0, left.as_micros().min(999_999) as i64),
        )?;
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let received = buffer.get(..length).unwrap_or_default();
                if let Some(answer) = answer(received, request, identifier, start.elapsed()) {
                    return Ok(answer);
                }
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Answer::Silence)
}

fn open(from: Ipv4Addr) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    let probe: libc::c_int = libc::IP_PMTUDISC_DO;
    // SAFETY: the option takes an int, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            std::ptr::from_ref(&probe).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// An ICMP echo request that makes an IPv4 packet of `size` bytes.
fn packet(identifier: u16, size: usize) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    let mut header = [ECHO_REQUEST, 0, 0, 0, high, low, 0, 1];
    // The payload is zeros, which add nothing to the sum.
    let [first, second] = checksum::finish(checksum::add(&header, 0));
    header[2] = first;
    header[3] = second;
    let mut packet = header.to_vec();
    packet.resize(size.saturating_sub(IP_HEADER).max(header.len()), 0);
    packet
}

/// What a received packet says about the request; `None` when it is about something else.
fn answer(packet: &[u8], request: Echo, identifier: u16, after: Duration) -> Option<Answer> {
    let (source, icmp) = split(packet)?;
    let [kind, code, _, _, a, b, c, d, rest @ ..] = icmp else { return None };
    match *kind {
        ECHO_REPLY => {
            let ours = source == request.to && [*a, *b] == identifier.to_be_bytes();
            ours.then_some(Answer::Reply(after))
        }
        UNREACHABLE => {
            let (_, quoted) = split(rest)?;
            let ours = quoted.get(4..6)? == identifier.to_be_bytes() && destination(rest)? == request.to;
            let size = u32::from(u16::from_be_bytes([*c, *d]));
            let answer = if *code == FRAGMENTATION_NEEDED {
                Answer::TooBig(size)
            } else {
                Answer::Unreachable(source, *code)
            };
            ours.then_some(answer)
        }
        _ => None,
    }
}

/// Source address and payload of an IPv4 packet.
fn split(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((source.into(), packet.get(header..)?))
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Echo {
        Echo {
            from: [250, 0, 28, 1].into(),
            to: [250, 0, 27, 1].into(),
            size: 84,
            patience: Duration::from_secs(1),
        }
    }

    fn ip(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend(source.into_iter().chain(destination).chain(payload.iter().copied()));
        packet
    }

    #[test]
    fn a_request_has_the_size_asked_for_and_a_valid_checksum() {
        let packet = packet(7, 84);
        assert_eq!(packet.len(), 64);
        let packet: [u8; 64] = packet.try_into().unwrap();
        assert_eq!(checksum::fold(checksum::add(&packet, 0)), 0xffff);
    }

    #[test]
    fn only_an_answer_to_this_request_counts() {
        let after = Duration::from_millis(1);
        let reply = ip([250, 0, 27, 1], [250, 0, 28, 1], &[0, 0, 0, 0, 0, 7, 0, 1]);
        assert_eq!(answer(&reply, request(), 7, after), Some(Answer::Reply(after)));
        assert_eq!(answer(&reply, request(), 8, after), None);
        let other = ip([250, 0, 26, 1], [250, 0, 28, 1], &[0, 0, 0, 0, 0, 7, 0, 1]);
        assert_eq!(answer(&other, request(), 7, after), None);
    }

    #[test]
    fn an_error_about_this_request_says_what_it_says() {
        let quoted = ip([250, 0, 28, 1], [250, 0, 27, 1], &[8, 0, 0, 0, 0, 7, 0, 1]);
        let error = |code: u8, mtu: u8| {
            let mut icmp = vec![3, code, 0, 0, 0, 0, 5, mtu];
            icmp.extend(&quoted);
            ip([10, 0, 0, 1], [250, 0, 28, 1], &icmp)
        };
        let after = Duration::ZERO;
        assert_eq!(answer(&error(4, 100), request(), 7, after), Some(Answer::TooBig(1380)));
        let unreachable = Answer::Unreachable([10, 0, 0, 1].into(), 1);
        assert_eq!(answer(&error(1, 0), request(), 7, after), Some(unreachable));
        assert_eq!(answer(&[0x45; 10], request(), 7, after), None);
    }
}
