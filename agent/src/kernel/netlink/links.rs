//! Interfaces: list, create, change, delete.

use std::os::fd::{AsRawFd, BorrowedFd};

use control::observed::Link;
use futures_util::TryStreamExt;
use netlink_packet_route::link::{BridgeStpState, InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Error, Netlink, Result, refused, values::FromMessage as _};

/// A bridge to create, up, without spanning tree and forwarding at once.
#[derive(Clone, Copy, Debug)]
pub struct BridgeRequest<'a> {
    pub name: &'a str,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu: u32,
}

/// One end of a veth pair to create.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    pub name: &'a str,
    /// Its MAC address: given in the create request, because udev rewrites random ones.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu: u32,
}

/// A veth pair to create.
#[derive(Clone, Copy, Debug)]
pub struct VethRequest<'a> {
    /// The end in this namespace; it starts up.
    pub end: VethEnd<'a>,
    /// The other end; it starts down, because the kernel refuses to open it before the pair is complete.
    pub peer: VethEnd<'a>,
    /// The other end's namespace; this one when absent.
    pub peer_netns: Option<BorrowedFd<'a>>,
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn links(&self) -> Result<Vec<Link>> {
        self.collect("interfaces", self.handle.link().get().execute(), Link::from_message).await
    }

    /// The interface of a name, if there is one.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>> {
        // The kernel answers "result out of range" to longer names.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        self.find_link(self.handle.link().get().match_name(name), name).await
    }

    /// The interface of a name.
    ///
    /// # Errors
    /// There is none, or the kernel refuses the request.
    pub async fn link(&self, name: &str) -> Result<Link> {
        self.link_by_name(name).await?.ok_or_else(|| Error::NoLink { name: name.to_owned() })
    }

    /// The interface of an index, if there is one.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        self.find_link(self.handle.link().get().match_index(index), &format!("number {index}")).await
    }

    async fn find_link(&self, request: rtnetlink::LinkGetRequest, name: &str) -> Result<Option<Link>> {
        let mut answers = std::pin::pin!(request.execute());
        match answers.try_next().await.map_err(refused(format!("interface {name}"))) {
            Ok(message) => Ok(message.as_ref().and_then(Link::from_message)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a bridge and returns it.
    ///
    /// # Errors
    /// The name is taken, or the kernel refuses the request.
    pub async fn create_bridge(&self, request: BridgeRequest<'_>) -> Result<Link> {
        let message = LinkBridge::new(request.name)
            .address(request.mac.to_vec())
            .mtu(request.mtu + 1)
            .stp_state(BridgeStpState::Disabled)
            .forward_delay(0)
            .build();
        self.create(message, &format!("bridge {}", request.name)).await?;
        // A bridge follows the smallest MTU of its ports until somebody changes its own.
        let created = self.link(request.name).await?;
        self.set_mtu(created.index, request.mtu).await?;
        Ok(Link { mtu: request.mtu, ..created })
    }

    /// Creates a veth pair and returns the end in this namespace.
    ///
    /// # Errors
    /// A name is taken, or the kernel refuses the request.
    pub async fn create_veth(&self, request: VethRequest<'_>) -> Result<Link> {
        let VethRequest { end, peer, peer_netns } = request;
        let mut peer_message = end_of(LinkMessageBuilder::<LinkUnspec>::new().name(peer.name), &peer);
        if let Some(netns) = peer_netns {
            peer_message = peer_message.setns_by_fd(netns.as_raw_fd());
        }
        let pair = LinkMessageBuilder::<LinkVeth>::new(end.name, peer.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer_message.build())));
        self.create(end_of(pair, &end).up().build(), &format!("veth pair {}, {}", end.name, peer.name))
            .await?;
        self.link(end.name).await
    }

    async fn create(&self, message: LinkMessage, what: &str) -> Result<()> {
        self.handle.link().add(message).execute().await.map_err(refused(what))
    }

    /// Deletes an interface.
    ///
    /// # Errors
    /// There is none, or the kernel refuses the request.
    pub async fn delete_link(&self, index: u32) -> Result<()> {
        self.handle
            .link()
            .del(index)
            .execute()
            .await
            .map_err(refused(format!("deletion of interface {index}")))
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<()> {
        let link = LinkUnspec::new_with_index(index);
        self.set_link(index, if up { link.up() } else { link.down() }).await
    }

    /// Sets an interface's MTU.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.set_link(index, LinkUnspec::new_with_index(index).mtu(mtu)).await
    }

    /// Sets an interface's MAC address.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_mac(&self, index: u32, mac: [u8; 6]) -> Result<()> {
        self.set_link(index, LinkUnspec::new_with_index(index).address(mac.to_vec())).await
    }

    /// Makes an interface a port of a bridge, or of none.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_master(&self, index: u32, master: Option<u32>) -> Result<()> {
        let link = LinkUnspec::new_with_index(index);
        let link = match master {
            Some(master) => link.controller(master),
            None => link.nocontroller(),
        };
        self.set_link(index, link).await
    }

    /// Makes an interface a port of a bridge that brings frames in and gets none but those to its own address.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_inlet_of(&self, index: u32, bridge: u32) -> Result<()> {
        self.set_master(index, Some(bridge)).await?;
        let port = LinkBridgePort::new(index).learning(false).flood(false).mcast_flood(false);
        let request = self.handle.link().set_port(port.bcast_flood(false).build());
        request.execute().await.map_err(refused(format!("change of bridge port {index}")))
    }

    /// Sets an interface's alias: text of up to 255 bytes that lives and dies with it.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<()> {
        self.set_link(index, LinkUnspec::new_with_index(index).alias(alias)).await
    }

    /// Has the kernel cut super-packets of more segments before they are sent through an interface.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_gso_segments(&self, index: u32, most: u32) -> Result<()> {
        let attribute = LinkAttribute::GsoMaxSegs(most);
        self.set_link(index, LinkUnspec::new_with_index(index).append_extra_attribute(attribute)).await
    }

    /// Turns neighbour resolution on an interface off or on.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub async fn set_noarp(&self, index: u32, noarp: bool) -> Result<()> {
        self.set_link(index, LinkUnspec::new_with_index(index).arp(!noarp)).await
    }

    async fn set_link(&self, index: u32, link: LinkMessageBuilder<LinkUnspec>) -> Result<()> {
        let what = format!("change of interface {index}");
        self.handle.link().set(link.build()).execute().await.map_err(refused(what))
    }
}

fn end_of<T>(link: LinkMessageBuilder<T>, end: &VethEnd<'_>) -> LinkMessageBuilder<T> {
    link.address(end.mac.to_vec()).mtu(end.mtu)
}
