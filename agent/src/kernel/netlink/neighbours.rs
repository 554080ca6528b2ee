//! IPv4 neighbours and bridge forwarding entries.

use std::net::Ipv4Addr;

use control::observed::{FdbEntry, Neighbour};
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Kernel,
    },
};

use super::{Netlink, Result, refused, values::FromMessage as _};

impl Netlink {
    /// The IPv4 neighbours of an interface.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn neighbours(&self, index: u32) -> Result<Vec<Neighbour>> {
        let mut request = self.handle.neighbours().get().set_address_family(AddressFamily::Inet);
        request.message_mut().attributes.push(NeighbourAttribute::IfIndex(index));
        self.collect("neighbours", request.execute(), Neighbour::from_message).await
    }

    /// The forwarding entries of a bridge.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn fdb(&self, bridge: u32) -> Result<Vec<FdbEntry>> {
        let mut request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        request.message_mut().attributes.push(NeighbourAttribute::Controller(bridge));
        self.collect("forwarding entries", request.execute(), FdbEntry::from_message).await
    }

    /// Makes the kernel forget a neighbour; one that is not there is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn delete_neighbour(&self, index: u32, address: Ipv4Addr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = index;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
        let request = self.handle.neighbours().del(message);
        match request.execute().await.map_err(refused(format!("deletion of neighbour {address}"))) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    /// Asks the kernel to find out (again) whether a neighbour is there.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn probe_neighbour(&self, index: u32, address: Ipv4Addr) -> Result<()> {
        let request = self
            .handle
            .neighbours()
            .add(index, address.into())
            .state(Kernel::None)
            .flags(NeighbourFlags::Use)
            .replace();
        request.execute().await.map_err(refused(format!("neighbour {address}")))
    }
}
