//! Whether anybody on a link uses an address (RFC 5227, section 2.1.1).

use std::{
    io,
    mem::zeroed,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::{
    socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socket, sockopt},
    time::TimeVal,
};

/// Probes, and the time for an answer to each. RFC 5227 has seconds between them, for switches that come up slowly; a
/// bridge of this host has its containers behind a queue at most.
const PROBES: u32 = 3;
const SPACING: Duration = Duration::from_millis(100);

/// Bytes of an ARP packet for IPv4 over Ethernet, and its fields (RFC 826).
const LENGTH: usize = 28;
const SENDER_MAC: std::ops::Range<usize> = 8..14;
const SENDER_ADDRESS: std::ops::Range<usize> = 14..18;
const TARGET_ADDRESS: std::ops::Range<usize> = 24..28;

/// The MAC address that answers for `address` on an interface, whose own one is `mac`.
///
/// # Errors
/// The kernel gives no socket, or the interface does not send.
pub fn probe(interface: u32, mac: [u8; 6], address: Ipv4Addr) -> io::Result<Option<[u8; 6]>> {
    let socket = open(interface)?;
    for _ in 0..PROBES {
        send(&socket, interface, &request(mac, address))?;
        let start = Instant::now();
        while let Some(left) = SPACING.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            let limit = TimeVal::new(0, left.as_micros().clamp(1, 999_999) as i64);
            setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &limit)?;
            let mut packet = [0; LENGTH];
            match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(LENGTH..) => {
                    if let Some(holder) = holder(&packet, mac, address) {
                        return Ok(Some(holder));
                    }
                }
                Ok(_) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(None)
}

/// A probe: a request without a sender's address (RFC 5227, section 2.1.1), so that it changes no neighbour table.
fn request(mac: [u8; 6], address: Ipv4Addr) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    // Ethernet, IPv4, lengths of 6 and 4 bytes, a request.
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    packet[SENDER_MAC].copy_from_slice(&mac);
    packet[TARGET_ADDRESS].copy_from_slice(&address.octets());
    packet
}

/// The MAC address of a host that speaks from the address. Another host's probe for it names no sender and does not count:
/// that host does not have it yet.
fn holder(packet: &[u8; LENGTH], mac: [u8; 6], address: Ipv4Addr) -> Option<[u8; 6]> {
    let sender: [u8; 6] = packet[SENDER_MAC].try_into().ok()?;
    (packet[SENDER_ADDRESS] == address.octets() && sender != mac).then_some(sender)
}

/// A socket for the ARP packets of an interface.
fn open(interface: u32) -> io::Result<OwnedFd> {
    // Without a protocol it hears nothing before it is bound to the interface.
    let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let place = place(interface);
    // SAFETY: the address lives through the call, with its size.
    let outcome = unsafe {
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&place).cast(), size_of_val(&place) as u32)
    };
    if outcome == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn send(socket: &OwnedFd, interface: u32, packet: &[u8; LENGTH]) -> io::Result<()> {
    let place = place(interface);
    // SAFETY: packet and address live through the call, with their sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            std::ptr::from_ref(&place).cast(),
            size_of_val(&place) as u32,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Everybody's ARP on an interface.
fn place(interface: u32) -> libc::sockaddr_ll {
    // SAFETY: all of its fields are numbers, for which zero is a value.
    let empty: libc::sockaddr_ll = unsafe { zeroed() };
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: interface.cast_signed(),
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        ..empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 9);

    fn spoken(mac: [u8; 6], address: Ipv4Addr) -> Option<[u8; 6]> {
        let mut packet = request(mac, [250, 0, 28, 1].into());
        packet[SENDER_ADDRESS].copy_from_slice(&address.octets());
        holder(&packet, OURS, ADDRESS)
    }

    #[test]
    fn whoever_speaks_from_the_address_has_it() {
        assert_eq!(spoken(THEIRS, ADDRESS), Some(THEIRS));
        assert_eq!(spoken(THEIRS, [250, 0, 28, 8].into()), None);
        assert_eq!(spoken(OURS, ADDRESS), None, "our own packets come back to us");
        assert_eq!(holder(&request(THEIRS, ADDRESS), OURS, ADDRESS), None, "another's probe");
    }

    #[test]
    fn a_link_without_anybody_answers_nothing() {
        // Every namespace has it, as interface 1; ARP on it comes back to nobody.
        assert_eq!(probe(1, [0; 6], ADDRESS).ok().flatten(), None);
    }
}
