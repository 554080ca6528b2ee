//! What an endpoint's host-side device says of itself: the kernel is the database, the record dies with the device.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::observed::Link;

/// Longest alias that the kernel keeps (`IFALIASZ` less the closing zero).
const ALIAS_MAX: usize = 255;

/// Value of [`Record::fanlight`]: tells an endpoint's alias from any other.
const KIND: &str = "endpoint";

/// An endpoint as its host-side device's alias describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    fanlight: String,
    /// Name, unique on the node.
    pub name: String,
    /// Namespace, as it was given.
    pub netns: String,
    /// Whether the device has a route of its own instead of being a port of the fan's bridge.
    pub routed: bool,
    /// Overlay addresses, one per fan.
    pub addresses: Vec<Ipv4Addr>,
    /// MTU that the device inside was given; absent in records of versions that gave it to both ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// The record can't be kept in an alias.
#[derive(Debug, thiserror::Error)]
#[error(
    "the endpoint's record is {length} bytes long, the kernel keeps {ALIAS_MAX}; use a shorter name or path"
)]
pub struct TooLong {
    length: usize,
}

impl Record {
    /// A record of these values, without MTU.
    pub fn new(name: String, netns: String, routed: bool, addresses: Vec<Ipv4Addr>) -> Self {
        Self { fanlight: KIND.to_owned(), name, netns, routed, addresses, mtu: None }
    }

    /// The same record with another MTU.
    pub fn with_mtu(self, mtu: Option<u32>) -> Self {
        Self { mtu, ..self }
    }

    /// The record in an alias, if that is what it holds.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let record: Self = serde_json::from_str(alias).ok()?;
        (record.fanlight == KIND && !record.addresses.is_empty()).then_some(record)
    }

    /// The text of the alias.
    ///
    /// # Errors
    /// It is longer than the kernel keeps.
    pub fn to_alias(&self) -> Result<String, TooLong> {
        let alias = serde_json::to_string(self).unwrap_or_default();
        if alias.len() > ALIAS_MAX { Err(TooLong { length: alias.len() }) } else { Ok(alias) }
    }

    /// MAC address of the device inside. It follows from the address, so that neighbours of an endpoint that was
    /// removed and added again need not learn another; addresses are unique, and so it is.
    pub fn mac(&self) -> [u8; 6] {
        mac([0x02, 0xfb], self.addresses.first())
    }

    /// MAC address of the host-side device.
    pub fn host_mac(&self) -> [u8; 6] {
        mac([0x02, 0xfc], self.addresses.first())
    }
}

fn mac(prefix: [u8; 2], address: Option<&Ipv4Addr>) -> [u8; 6] {
    let [a, b, c, d] = address.copied().unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
    [prefix[0], prefix[1], a, b, c, d]
}

/// An endpoint that `endpoint add` wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wired {
    /// Index of the host-side device.
    pub index: u32,
    pub device: String,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// Its MTU.
    pub mtu: u32,
    /// What it says of itself.
    pub record: Record,
}

impl Wired {
    /// The endpoints among a node's interfaces.
    pub fn among(links: &[Link]) -> Vec<Self> {
        links.iter().filter_map(Self::of).collect()
    }

    fn of(link: &Link) -> Option<Self> {
        let record = Record::from_alias(link.alias.as_deref()?)?;
        Some(Self {
            index: link.index,
            device: link.name.clone(),
            master: link.master,
            mtu: link.mtu,
            record,
        })
    }

    /// MTU that the device inside was given. Whoever is inside may have changed it since.
    pub fn given_mtu(&self) -> u32 {
        self.record.mtu.unwrap_or(self.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new("web".into(), "blue".into(), true, vec![Ipv4Addr::new(250, 0, 28, 2)])
    }

    #[test]
    fn a_record_survives_the_way_through_an_alias() {
        let alias = record().to_alias().unwrap();
        assert_eq!(Record::from_alias(&alias), Some(record()));
        assert!(
            alias.starts_with(r#"{"fanlight":"endpoint","name":"web","netns":"blue","routed":true"#),
            "{alias}"
        );
    }

    #[test]
    fn a_record_without_mtu_means_that_both_ends_have_the_same() {
        let alias = record().to_alias().unwrap();
        assert!(!alias.contains("mtu"), "{alias}");
        let link = Link { alias: Some(alias), mtu: 1400, ..Link::default() };
        assert_eq!(Wired::among(&[link])[0].given_mtu(), 1400);
        let alias = record().with_mtu(Some(1480)).to_alias().unwrap();
        let link = Link { alias: Some(alias), mtu: 65_535, ..Link::default() };
        assert_eq!(Wired::among(&[link])[0].given_mtu(), 1480);
    }

    #[test]
    fn aliases_of_others_are_no_records() {
        for alias in ["", "my veth", "{}", r#"{"fanlight":"fan"}"#] {
            assert_eq!(Record::from_alias(alias), None, "{alias}");
        }
        let other = record().to_alias().unwrap().replace("\"endpoint\"", "\"fan\"");
        assert_eq!(Record::from_alias(&other), None);
    }

    #[test]
    fn a_record_that_the_kernel_would_cut_is_refused() {
        let long = Record { netns: "/".repeat(300), ..record() };
        assert!(long.to_alias().is_err());
    }

    #[test]
    fn both_ends_have_mac_addresses_of_their_own_that_follow_from_the_address() {
        assert_eq!(record().mac(), [0x02, 0xfb, 250, 0, 28, 2]);
        assert_ne!(record().mac(), record().host_mac());
    }
}
