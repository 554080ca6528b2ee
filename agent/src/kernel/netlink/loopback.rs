//! Addresses on `lo`. Ours carry our protocol (`IFA_PROTO`, Linux 5.18): the kernel remembers which are.

use std::net::{IpAddr, Ipv6Addr};

use control::model::ROUTE_PROTOCOL;
use futures_util::TryStreamExt as _;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use nix::net::if_::if_nametoindex;
use rtnetlink::AddressMessageBuilder;

use super::{Netlink, Result, refused, refused_io};

/// An address on `lo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddress {
    pub address: IpAddr,
    pub prefix_length: u8,
    /// Whether we put it there.
    pub is_own: bool,
}

impl Netlink {
    /// The addresses on `lo`, of both families.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn loopback(&self) -> Result<Vec<LoopbackAddress>> {
        let index = loopback_index()?;
        let request = self.handle.address().get().set_link_index_filter(index);
        let what = || "list of addresses on lo".to_owned();
        let messages: Vec<AddressMessage> = request.execute().try_collect().await.map_err(refused(what()))?;
        Ok(messages.iter().filter(|message| message.header.index == index).filter_map(read).collect())
    }

    /// Puts a host's address there; one that is there already is as it was.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn add_loopback(&self, address: IpAddr) -> Result<()> {
        let mut request = self.handle.address().add(loopback_index()?, address, length(address));
        let own = AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL));
        request.message_mut().attributes.push(own);
        match request.execute().await.map_err(refused(format!("address {address} on lo"))) {
            Err(error) if error.already_exists() => Ok(()),
            other => other,
        }
    }

    /// Takes a host's address away; one that is not there is fine.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn delete_loopback(&self, address: IpAddr) -> Result<()> {
        let (index, length) = (loopback_index()?, length(address));
        let message = match address {
            IpAddr::V4(address) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(index)
                .address(address, length)
                .build(),
            IpAddr::V6(address) => {
                AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, length).build()
            }
        };
        let what = format!("deletion of address {address} on lo");
        match self.handle.address().del(message).execute().await.map_err(refused(what)) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }
}

const fn length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn loopback_index() -> Result<u32> {
    if_nametoindex("lo").map_err(|errno| refused_io("look-up of lo")(errno.into()))
}

fn read(message: &AddressMessage) -> Option<LoopbackAddress> {
    let (mut found, mut is_own) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) if found.is_none() => found = Some(*address),
            AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL)) => is_own = true,
            _ => {}
        }
    }
    Some(LoopbackAddress { address: found?, prefix_length: message.header.prefix_len, is_own })
}
