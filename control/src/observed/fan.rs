//! What a fan's bridge says of it: the kernel is the database.

use std::net::Ipv4Addr;

use dataplane_common::fan::FanMap;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::model::{Fan, FanSpec, Origin, bridge_name};

/// What a bridge's alias starts with when the bridge is a fan's.
const ALIAS: &str = "fanlight fan ";

/// A fan as it was brought up: enough to repair it and to take it down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// As it was asked for.
    #[serde(flatten)]
    pub spec: FanSpec,
    /// Where.
    pub origin: Origin,
    /// This host's address in the underlay then.
    pub address: Ipv4Addr,
    /// Length of the underlay network.
    pub len: u8,
    /// The host has another address by now; the bridge stays for its containers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Mark {
    /// The mark of a resolved fan.
    pub fn of(fan: &Fan) -> Self {
        Self {
            spec: fan.spec.clone(),
            origin: fan.origin,
            address: fan.address,
            len: fan.underlay.prefix_len(),
            stale: false,
        }
    }

    /// Overlay network.
    pub fn overlay(&self) -> Ipv4Net {
        self.spec.overlay
    }

    /// Underlay network.
    pub fn underlay(&self) -> Ipv4Net {
        Ipv4Net::new_assert(self.address, self.len.min(32)).trunc()
    }

    /// This host's slice.
    pub fn slice(&self) -> Ipv4Net {
        let base = self.map().and_then(|map| Some((map.slice_of(self.address.to_bits())?, map.slice_len())));
        base.map_or(self.spec.overlay, |(base, len)| Ipv4Net::new_assert(base.into(), len))
    }

    /// This host's address in the slice.
    pub fn gateway(&self) -> Ipv4Addr {
        (self.slice().network().to_bits() | 1).into()
    }

    /// Name of the bridge.
    pub fn bridge(&self) -> String {
        self.spec.bridge.clone().unwrap_or_else(|| bridge_name(self.slice()))
    }

    /// The arithmetic; `None` for a mark that somebody damaged.
    pub fn map(&self) -> Option<FanMap> {
        let underlay = self.underlay();
        let overlay = (self.spec.overlay.addr(), self.spec.overlay.prefix_len());
        FanMap::new(overlay, (underlay.addr(), underlay.prefix_len())).ok()
    }

    /// The text for the bridge's alias; it has no room for resolvers, which only the file remembers.
    pub fn to_alias(&self) -> String {
        let mut mark = self.clone();
        mark.spec.dns.clear();
        format!("{ALIAS}{}", serde_json::to_string(&mark).unwrap_or_default())
    }

    /// The mark in an alias, if that is what it holds.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let mark: Self = serde_json::from_str(alias.strip_prefix(ALIAS)?).ok()?;
        mark.map().map(|_| mark)
    }
}

/// What an adopted bridge was like before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Its MTU, once we set it, be it to the same.
    pub mtu: Option<u32>,
    /// It had the gateway's address already.
    pub had_address: bool,
}

/// A fan as the file of remembered fans has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What is remembered of it.
    pub mark: Mark,
    /// Set when its bridge was there before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
}

#[cfg(any(test, feature = "fixtures"))]
impl Mark {
    /// 250.0.0.0/8 on host 172.30.0.28, for tests to start from.
    pub fn example() -> Self {
        Self {
            spec: FanSpec::example(),
            origin: Origin::Manual,
            address: [172, 30, 0, 28].into(),
            len: 16,
            stale: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Egress, UnderlaySpec};

    #[test]
    fn a_mark_survives_the_way_through_an_alias() {
        assert_eq!(Mark::from_alias(&Mark::example().to_alias()), Some(Mark::example()));
        assert_eq!(Mark::from_alias("fanlight fan {}"), None);
        assert_eq!(Mark::from_alias("uplink to the rack"), None);
        assert_eq!(Mark::example().slice(), "250.0.28.0/24".parse().unwrap());
        assert_eq!(Mark::example().gateway(), Ipv4Addr::new(250, 0, 28, 1));
    }

    #[test]
    fn the_longest_mark_fits_into_an_alias() {
        let mut long = Mark::example();
        long.spec.overlay = "240.128.224.0/19".parse().unwrap();
        long.spec.underlay = UnderlaySpec::Device { name: "fifteen-letters".to_owned(), len: Some(30) };
        long.spec.host_reserve = 1_000_000;
        long.spec.egress = Egress::Route;
        long.spec.bridge = Some("bridge-of-15-ch".to_owned());
        long.spec.dhcp = true;
        long.spec.dns = vec![[203, 203, 203, 203].into(); 3];
        long.address = [203, 203, 203, 203].into();
        long.len = 30;
        long.stale = true;
        let alias = long.to_alias();
        assert!(alias.len() <= 255, "{} bytes: {alias}", alias.len());
        long.spec.dns.clear();
        assert_eq!(Mark::from_alias(&alias), Some(long));
    }
}
