//! This host's addresses, asked for at once.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use nix::ifaddrs::getifaddrs;

/// All IPv4 addresses of this host's devices.
///
/// # Errors
/// The kernel refuses.
pub fn own() -> io::Result<BTreeSet<Ipv4Addr>> {
    let all = getifaddrs()?;
    Ok(all.filter_map(|device| Some(device.address?.as_sockaddr_in()?.ip())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_one_of_them() {
        assert!(own().unwrap().contains(&Ipv4Addr::LOCALHOST));
    }
}
