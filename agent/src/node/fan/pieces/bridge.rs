//! The bridge of a fan, with the gateway's address: made by us, or adopted.

use std::net::Ipv4Addr;

use control::{
    model::Fan,
    observed::{Address, Adopted, Entry, Link, Mark, Standing},
};

use super::{Work, made_by_us};
use crate::{
    kernel::{
        dhcp,
        netlink::BridgeRequest,
        sysctl::{Before, Key},
    },
    node::fan::error::Fault,
};

/// MAC address of the bridge of an underlay address: one a host, and the same after it was deleted and made anew.
pub(super) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xfa, a, b, c, d]
}

impl Work<'_> {
    /// Remembers the fan before anything is made, and what an adopted bridge was like. A fan that stands with
    /// another slice becomes stale.
    pub(super) async fn remember(&mut self, fan: &Fan) -> Result<(), Fault> {
        let by_bridge = self.observed.standing.iter().find(|standing| standing.mark.bridge() == fan.bridge);
        let by_bridge = by_bridge.cloned();
        if let Some(other) = by_bridge.as_ref().filter(|other| other.mark.overlay() != fan.spec.overlay) {
            return Err(Fault::BridgeTaken { name: fan.bridge.clone(), overlay: other.mark.overlay() });
        }
        let mark = Mark::of(fan);
        let former =
            self.observed.fan(fan.spec.overlay).filter(|standing| standing.mark.bridge() != fan.bridge);
        if let Some(former) = former.cloned() {
            self.retire(former).await?;
        }
        let link = self.observed.link(&fan.bridge).cloned();
        let adopted = link.as_ref().and_then(|link| self.adoption(fan, link, by_bridge.as_ref()));
        self.memory.put(Entry { mark: mark.clone(), adopted })?;
        self.observed.standing.retain(|standing| standing.mark.bridge() != fan.bridge);
        self.observed.standing.push(Standing { mark, adopted, bridge: link });
        Ok(())
    }

    /// What has to be known to give an adopted bridge back; `None` for a bridge of our own.
    fn adoption(&self, fan: &Fan, link: &Link, standing: Option<&Standing>) -> Option<Adopted> {
        let marked = link.alias.as_deref().and_then(Mark::from_alias).is_some();
        if marked || made_by_us(link, standing) {
            return None;
        }
        let known = standing.and_then(|standing| standing.adopted);
        let had_address = self.observed.addresses.contains(&gateway(fan, link.index));
        let mut adopted = known.unwrap_or(Adopted { mtu: None, had_address });
        if link.mtu > fan.mtu && adopted.mtu.is_none() {
            adopted.mtu = Some(link.mtu);
        }
        Some(adopted)
    }

    /// Keeps a fan's former bridge for its containers, as stale.
    async fn retire(&mut self, mut former: Standing) -> Result<(), Fault> {
        former.mark.stale = true;
        dhcp::stop(&former.mark.bridge())?;
        if let Some(bridge) = former.bridge.as_ref().filter(|_| former.adopted.is_none()) {
            self.netlink.set_alias(bridge.index, &former.mark.to_alias()).await?;
        }
        self.memory.put(Entry { mark: former.mark.clone(), adopted: former.adopted })?;
        self.did(format!("bridge {} kept as stale", former.mark.bridge()));
        self.observed.standing.retain(|standing| standing.mark.bridge() != former.mark.bridge());
        self.observed.standing.push(former);
        Ok(())
    }

    /// Makes the bridge, or repairs it.
    pub(super) async fn bridge(&mut self, fan: &Fan) -> Result<Link, Fault> {
        let mut link = match self.netlink.link_by_name(&fan.bridge).await? {
            Some(link) => link,
            None => {
                let request = BridgeRequest { name: &fan.bridge, mac: mac(fan.address), mtu: fan.mtu };
                let link = self.netlink.create_bridge(request).await?;
                self.did(format!("bridge {} created", fan.bridge));
                link
            }
        };
        let ours = self
            .observed
            .standing
            .iter()
            .any(|standing| standing.mark.bridge() == fan.bridge && standing.adopted.is_none());
        if ours {
            self.own_bridge(fan, &mut link).await?;
        }
        if !ours {
            self.keep_mtu(fan, &link).await?;
        }
        if link.mtu > fan.mtu || (ours && link.mtu != fan.mtu) {
            self.netlink.set_mtu(link.index, fan.mtu).await?;
            self.did(format!("MTU of {} set to {}", fan.bridge, fan.mtu));
        }
        if !link.up {
            self.netlink.set_up(link.index, true).await?;
            self.did(format!("{} set up", fan.bridge));
        }
        let address = gateway(fan, link.index);
        if !self.netlink.addresses().await?.contains(&address) {
            self.netlink.add_address(address).await?;
            self.did(format!("address {} added to {}", fan.gateway, fan.bridge));
        }
        self.bridge_settings(&fan.bridge, ours)?;
        if let Some(standing) = self.observed.standing.iter_mut().find(|it| it.mark.bridge() == fan.bridge) {
            standing.bridge = Some(link.clone());
        }
        Ok(link)
    }

    /// A bridge follows the smallest MTU of its ports until somebody sets its own, and the ports of our endpoints are
    /// larger than any fan: an adopted bridge keeps the one that it has, to be given back.
    async fn keep_mtu(&mut self, fan: &Fan, link: &Link) -> Result<(), Fault> {
        let mut standing = self.observed.standing.iter_mut();
        let standing = standing.find(|standing| standing.mark.bridge() == fan.bridge);
        let Some((mark, adopted)) = standing.and_then(|it| Some((&it.mark, it.adopted.as_mut()?))) else {
            return Ok(());
        };
        if adopted.mtu.is_none() {
            // The same value again would not count as set.
            self.netlink.set_mtu(link.index, link.mtu + 1).await?;
            self.netlink.set_mtu(link.index, link.mtu).await?;
            adopted.mtu = Some(link.mtu);
            self.memory.put(Entry { mark: mark.clone(), adopted: Some(*adopted) })?;
        }
        Ok(())
    }

    /// What only a bridge of our own gets.
    async fn own_bridge(&mut self, fan: &Fan, link: &mut Link) -> Result<(), Fault> {
        let alias = Mark::of(fan).to_alias();
        if link.alias.as_deref() != Some(&alias) {
            self.netlink.set_alias(link.index, &alias).await?;
            self.did(format!("{} marked", fan.bridge));
        }
        if link.mac != mac(fan.address) {
            self.netlink.set_mac(link.index, mac(fan.address)).await?;
            link.mac = mac(fan.address);
            self.did(format!("MAC address of {} set", fan.bridge));
        }
        Ok(())
    }

    /// Routed endpoints share the slice with bridged ones: the gateway answers for them, at once. Redirects would
    /// send bridged endpoints past it.
    fn bridge_settings(&mut self, bridge: &str, ours: bool) -> Result<(), Fault> {
        let settings = [
            (Key::conf(bridge, "proxy_arp"), "1"),
            (Key::conf(bridge, "send_redirects"), "0"),
            (Key::conf(bridge, "forwarding"), "1"),
            (Key::neigh(bridge, "proxy_delay"), "0"),
        ];
        for (key, value) in settings {
            if ours {
                self.own_setting(&key, value)?;
            } else if self.sysctls.set(&key, value, Before::default)? {
                self.did(format!("{key} set to {value}"));
            }
        }
        Ok(())
    }
}

/// The gateway's address on the bridge.
fn gateway(fan: &Fan, index: u32) -> Address {
    Address { index, address: fan.gateway, prefix_len: fan.slice.prefix_len() }
}
