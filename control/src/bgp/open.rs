//! OPEN: what this node offers, and what both know.

use std::collections::BTreeSet;

use netgauze_bgp_pkt::{
    BgpMessage,
    capabilities::{
        BgpCapability, FourOctetAsCapability, GracefulRestartAddressFamily, GracefulRestartCapability,
        MultiProtocolExtensionsCapability,
    },
    notification::{BgpNotificationMessage, OpenMessageError},
    open::{BgpOpenMessage, BgpOpenMessageParameter},
};
use netgauze_iana::address_family::AddressType;

use super::{
    message::{EncodeError, encode},
    route::Family,
    update::AS_TRANS,
    values::{Local, Peer},
};

/// What two speakers have agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Seconds; 0: no keepalives.
    pub(super) hold_time: u16,
    pub(super) asn4: bool,
    pub(super) families: BTreeSet<Family>,
    /// The peer keeps routes while we are away.
    pub(super) graceful_restart: bool,
    pub(super) router_id: u32,
}

/// The address type of a family.
pub(super) const fn address_type(family: Family) -> AddressType {
    match family {
        Family::V4 => AddressType::Ipv4Unicast,
        Family::V6 => AddressType::Ipv6Unicast,
    }
}

/// This node's OPEN. `restarted`: it was away, and its routes are as before (RFC 4724, section 3).
pub(super) fn offer(local: &Local, restarted: bool) -> Result<Vec<u8>, EncodeError> {
    let mut capabilities: Vec<_> = Family::ALL
        .map(|family| MultiProtocolExtensionsCapability::new(address_type(family)))
        .map(BgpCapability::MultiProtocolExtensions)
        .into();
    capabilities.push(BgpCapability::RouteRefresh);
    capabilities.push(BgpCapability::FourOctetAs(FourOctetAsCapability::new(local.asn)));
    if local.graceful_restart > 0 {
        // The datapath forwards without an agent: it always has what was announced.
        let families =
            Family::ALL.map(|family| GracefulRestartAddressFamily::new(true, address_type(family)));
        capabilities.push(BgpCapability::GracefulRestartCapability(GracefulRestartCapability::new(
            restarted,
            false,
            local.graceful_restart,
            families,
        )));
    }
    let asn = u16::try_from(local.asn).unwrap_or(AS_TRANS);
    let parameters = [BgpOpenMessageParameter::new_capabilities(capabilities)];
    encode(&BgpMessage::Open(BgpOpenMessage::new(asn, local.hold_time, local.router_id, parameters)))
}

/// What follows from a peer's OPEN.
///
/// # Errors
/// It can't be accepted: what the peer is to be told.
pub(super) fn agree(
    local: &Local,
    peer: &Peer,
    open: &BgpOpenMessage,
) -> Result<Agreed, BgpNotificationMessage> {
    let refuse = |error| Err(BgpNotificationMessage::OpenMessageError(error));
    if open.my_asn4() != peer.asn {
        return refuse(OpenMessageError::BadPeerAs { value: Box::default() });
    }
    if open.bgp_id() == local.router_id && peer.is_internal(local) {
        return refuse(OpenMessageError::BadBgpIdentifier { value: Box::default() });
    }
    let (mut asn4, mut graceful_restart) = (false, false);
    let mut spoken = BTreeSet::new();
    let mut is_plain = true;
    for capability in open.capabilities() {
        match capability {
            BgpCapability::FourOctetAs(_) => asn4 = true,
            BgpCapability::GracefulRestartCapability(_) => graceful_restart = local.graceful_restart > 0,
            BgpCapability::MultiProtocolExtensions(offered) => {
                is_plain = false;
                spoken.extend(
                    Family::ALL.into_iter().filter(|family| address_type(*family) == offered.address_type()),
                );
            }
            _ => {}
        }
    }
    if is_plain {
        // A speaker that says nothing of families speaks IPv4 (RFC 4760, section 8).
        spoken.insert(Family::V4);
    }
    Ok(Agreed {
        hold_time: local.hold_time.min(open.hold_time()),
        asn4,
        families: spoken,
        graceful_restart,
        router_id: open.bgp_id().to_bits(),
    })
}
