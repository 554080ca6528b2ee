//! The helper device: overlay routes point to it, and what leaves or enters the datapath on the slow path goes
//! through it.

use control::{
    model::{HELPER, VETH_MTU},
    observed::Link,
};

use super::Work;
use crate::{
    kernel::{
        netlink::{VethEnd, VethRequest},
        sysctl::Key,
    },
    node::fan::error::Fault,
};

/// MAC addresses of its ends.
const MACS: [[u8; 6]; 2] = [[0x02, 0xfa, 0x66, 0x61, 0x6e, 0x00], [0x02, 0xfa, 0x66, 0x61, 0x6e, 0x01]];
/// The routes' MTU is what counts.
const MTU: u32 = VETH_MTU;

/// Whether an interface of the helper's name is ours, by its MAC address or, where somebody set another one, by the
/// device at its other end.
pub(in crate::node::fan) fn is_helper(link: &Link, far: Option<&Link>) -> bool {
    link.kind.as_deref() == Some("veth") && (link.mac == MACS[0] || is_pair(link, far))
}

/// Whether the other end is where it belongs.
fn is_pair(near: &Link, far: Option<&Link>) -> bool {
    !near.peer_netns && far.is_some_and(|far| near.peer == Some(far.index))
}

impl Work<'_> {
    /// Makes the helper device, or repairs it.
    pub(super) async fn helper(&mut self) -> Result<Link, Fault> {
        let [near, far] = HELPER;
        let other = self.netlink.link_by_name(far).await?;
        let mut link = match self.netlink.link_by_name(near).await? {
            None => self.create_helper().await?,
            Some(link) if !is_helper(&link, other.as_ref()) => {
                return Err(Fault::Foreign { name: link.name });
            }
            Some(link) if is_pair(&link, other.as_ref()) => link,
            Some(link) => {
                self.netlink.delete_link(link.index).await?;
                self.create_helper().await?
            }
        };
        for name in HELPER {
            // Nothing but our routes may send through it.
            self.own_setting(&Key::new(&format!("net/ipv6/conf/{name}/disable_ipv6")), "1")?;
        }
        // Packets come out of tunnels with addresses of this host's slices, and strict checking of the way back
        // would pass them only by luck.
        for (name, value) in
            [("accept_local", "1"), ("rp_filter", "0"), ("forwarding", "1"), ("send_redirects", "0")]
        {
            self.own_setting(&Key::conf(near, name), value)?;
        }
        if !link.noarp {
            self.netlink.set_noarp(link.index, true).await?;
            self.did(format!("address resolution on {near} switched off"));
        }
        let mut far = self.netlink.link(far).await?;
        for (end, mac) in [&mut link, &mut far].into_iter().zip(MACS) {
            if end.mac != mac {
                self.netlink.set_mac(end.index, mac).await?;
                end.mac = mac;
                self.did(format!("MAC address of {} set", end.name));
            }
            if !end.up {
                self.netlink.set_up(end.index, true).await?;
                self.did(format!("{} set up", end.name));
            }
            if end.mtu != MTU {
                self.netlink.set_mtu(end.index, MTU).await?;
                self.did(format!("MTU of {} set", end.name));
            }
        }
        Ok(link)
    }

    async fn create_helper(&mut self) -> Result<Link, Fault> {
        if let Some(link) = self.netlink.link_by_name(HELPER[1]).await? {
            return Err(Fault::Foreign { name: link.name });
        }
        let end = |side: usize| VethEnd { name: HELPER[side], mac: MACS[side], mtu: MTU };
        let request = VethRequest { end: end(0), peer: end(1), peer_netns: None };
        let link = self.netlink.create_veth(request).await?;
        self.did(format!("{} created", link.name));
        Ok(link)
    }
}
