//! Devices with their addresses of both families, and news of either.

use std::{collections::BTreeMap, io, net::IpAddr};

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use rtnetlink::MulticastGroup;

use super::{Result, refused_io, watch::groups};

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Whether it is up and its wire carries something.
    pub has_carrier: bool,
    pub addresses: Vec<IpAddr>,
}

/// All devices by name.
///
/// # Errors
/// The kernel refuses to tell.
pub fn devices() -> io::Result<BTreeMap<String, Device>> {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    for found in getifaddrs()? {
        let device = devices.entry(found.interface_name).or_default();
        device.has_carrier = found.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        let Some(address) = found.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        device.addresses.extend(v4.or(v6));
    }
    Ok(devices)
}

/// Tells that something about devices or their addresses has changed, not what.
pub struct DeviceWatch {
    socket: TokioSocket,
}

impl DeviceWatch {
    /// Watches the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self> {
        const GROUPS: [MulticastGroup; 3] =
            [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(refused_io("netlink socket for devices"))?;
        let bound = socket.socket_mut().bind(&SocketAddr::new(0, groups(&GROUPS)));
        bound.map_err(refused_io("netlink multicast groups"))?;
        Ok(Self { socket })
    }

    /// Waits for a change. Dropping the future loses none.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn changed(&mut self) -> Result<()> {
        match self.socket.recv_from_full().await {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => {
                Err(refused_io("netlink socket for devices")(error))
            }
            // What was left out is a change as well.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
