//! Destinations of sockets, as `/proc/net/tcp` and `/proc/net/udp` list them.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
};

/// The destinations by the sockets' inodes.
pub(super) fn destinations(text: &str) -> HashMap<u64, SocketAddrV4> {
    text.lines().filter_map(destination).collect()
}

/// `0: 0100007F:0016 0A00600A:0050 02 00000000:00000000 00:00000000 00000000 0 0 12345 ..`
fn destination(line: &str) -> Option<(u64, SocketAddrV4)> {
    let mut words = line.split_whitespace();
    let (address, port) = words.nth(2)?.split_once(':')?;
    // As it lies in memory; the port is a number.
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    let inode = words.nth(6)?.parse().ok()?;
    Some((inode, SocketAddrV4::new(address, u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_found_by_the_sockets_inodes() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                    0: 0100007F:0016 0A00600A:0050 02 00000000:00000000 00:00000000 00000000     0        0 12345 1 0\n";
        let expected = SocketAddrV4::new(Ipv4Addr::from(0x0a00_600a_u32.to_ne_bytes()), 80);
        assert_eq!(destinations(text), HashMap::from([(12345, expected)]));
        assert_eq!(destinations("garbage\n1: 2 3 4\n"), HashMap::new());
    }
}
