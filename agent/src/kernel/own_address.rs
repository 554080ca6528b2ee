//! This host's own addresses, as the kernel would choose them.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use nix::ifaddrs::getifaddrs;

/// The first IPv4 address of a device.
pub fn of_device(name: &str) -> Option<Ipv4Addr> {
    let mut own = getifaddrs().ok()?.filter(|address| address.interface_name == name);
    own.find_map(|address| Some(address.address?.as_sockaddr_in()?.ip()))
}

/// The source address of packets to a destination; none without a route. Nothing is sent.
pub fn towards(destination: SocketAddrV4) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(destination).ok()?;
    match socket.local_addr().ok()? {
        std::net::SocketAddr::V4(own) if !own.ip().is_unspecified() => Some(*own.ip()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_reached_from_its_own_address() {
        assert_eq!(of_device("lo"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(of_device("no-such-device"), None);
        assert_eq!(towards(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9)), Some(Ipv4Addr::LOCALHOST));
    }
}
