//! IPv4 addresses: list, add, delete.

use control::observed::Address;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags},
};
use rtnetlink::AddressMessageBuilder;

use super::{Netlink, Result, refused, values::FromMessage as _};

impl Netlink {
    /// All IPv4 addresses.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        self.collect("addresses", request.execute(), Address::from_message).await
    }

    /// Adds an address; one that is there already is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn add_address(&self, address: Address) -> Result<()> {
        let Address { index, address: ip, prefix_len } = address;
        let request = self.handle.address().add(index, ip.into(), prefix_len);
        match request.execute().await.map_err(refused(format!("address {ip}/{prefix_len}"))) {
            Err(error) if error.already_exists() => Ok(()),
            other => other,
        }
    }

    /// Adds an address without the route to its network; one that is there already is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn add_lone_address(&self, address: Address) -> Result<()> {
        let Address { index, address: ip, prefix_len } = address;
        let mut request = self.handle.address().add(index, ip.into(), prefix_len);
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        match request.execute().await.map_err(refused(format!("address {ip}/{prefix_len}"))) {
            Err(error) if error.already_exists() => Ok(()),
            other => other,
        }
    }

    /// Deletes an address; one that is not there is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn delete_address(&self, address: Address) -> Result<()> {
        let Address { index, address: ip, prefix_len } = address;
        let message =
            AddressMessageBuilder::<std::net::Ipv4Addr>::new().index(index).address(ip, prefix_len).build();
        let request = self.handle.address().del(message);
        match request.execute().await.map_err(refused(format!("deletion of address {ip}/{prefix_len}"))) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }
}
