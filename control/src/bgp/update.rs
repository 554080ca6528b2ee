//! UPDATE messages: as many prefixes of equal attributes in each as it holds.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::{
    BgpMessage, community as wire,
    nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress},
    path_attribute::{
        As2PathSegment, As4Path, As4PathSegment, AsPath, AsPathSegmentType, Communities, ExtendedCommunities,
        LargeCommunities, LocalPreference, MpReach, MpUnreach, MultiExitDiscriminator, NextHop, Origin,
        PathAttribute, PathAttributeValue,
    },
    update::BgpUpdateMessage,
};

use super::{
    message::{EncodeError, MAX_MESSAGE, encode},
    route::{Attributes, Family},
};

/// What stands for an ASN of 32 bits towards a peer that knows 16 (RFC 6793).
pub(super) const AS_TRANS: u16 = 23_456;

/// The End-of-RIB marker of a family (RFC 4724, section 2).
pub(super) fn end_of_rib(family: Family) -> Result<Vec<u8>, EncodeError> {
    let attributes = match family {
        Family::V4 => Vec::new(),
        Family::V6 => unreachable(&[])?,
    };
    encode(&BgpMessage::Update(BgpUpdateMessage::new([], attributes, [])))
}

/// The messages that withdraw prefixes.
pub(super) fn withdraw(prefixes: &BTreeSet<IpNet>) -> Result<Vec<Vec<u8>>, EncodeError> {
    let (v4, v6) = split(prefixes.iter());
    let mut messages = Vec::new();
    let empty = BgpMessage::Update(BgpUpdateMessage::new([], [], []));
    for prefixes in chunks(&v4, room(&empty)?) {
        messages.push(encode(&BgpMessage::Update(BgpUpdateMessage::new(v4_addresses(prefixes)?, [], [])))?);
    }
    let empty = BgpMessage::Update(BgpUpdateMessage::new([], unreachable(&[])?, []));
    for prefixes in chunks(&v6, room(&empty)?) {
        messages.push(encode(&BgpMessage::Update(BgpUpdateMessage::new([], unreachable(prefixes)?, [])))?);
    }
    Ok(messages)
}

/// The messages that announce prefixes of one family of equal attributes. `asn4`: the peer knows ASNs of 32 bits.
pub(super) fn announce(
    attributes: &Attributes,
    prefixes: &[IpNet],
    asn4: bool,
) -> Result<Vec<Vec<u8>>, EncodeError> {
    let (v4, v6) = split(prefixes.iter());
    let mut messages = Vec::new();
    let common = common_attributes(attributes, asn4)?;
    match attributes.next_hop {
        IpAddr::V4(next_hop) => {
            let hop = PathAttributeValue::NextHop(NextHop::new(next_hop));
            let whole = with(&common, plain(hop)?);
            let room = room(&BgpMessage::Update(BgpUpdateMessage::new([], whole.clone(), [])))?;
            for prefixes in chunks(&v4, room) {
                let update = BgpUpdateMessage::new([], whole.clone(), v4_addresses(prefixes)?);
                messages.push(encode(&BgpMessage::Update(update))?);
            }
        }
        IpAddr::V6(next_hop) => {
            let reach = |prefixes: &[Ipv6Net]| -> Result<Vec<PathAttribute>, EncodeError> {
                let nlri = v6_addresses(prefixes)?.into();
                let value = MpReach::Ipv6Unicast { next_hop_global: next_hop, next_hop_local: None, nlri };
                Ok(with(&common, attribute((true, false), true, PathAttributeValue::MpReach(value))?))
            };
            let room = room(&BgpMessage::Update(BgpUpdateMessage::new([], reach(&[])?, [])))?;
            for prefixes in chunks(&v6, room) {
                messages.push(encode(&BgpMessage::Update(BgpUpdateMessage::new([], reach(prefixes)?, [])))?);
            }
        }
    }
    Ok(messages)
}

/// Everything but the next hop, in the order of the attributes' types.
fn common_attributes(attributes: &Attributes, asn4: bool) -> Result<Vec<PathAttribute>, EncodeError> {
    let mut whole = vec![plain(PathAttributeValue::Origin(Origin::IGP))?];
    whole.push(plain(PathAttributeValue::AsPath(as_path(&attributes.as_path, asn4)))?);
    let med = PathAttributeValue::MultiExitDiscriminator(MultiExitDiscriminator::new(attributes.med));
    whole.push(attribute((true, false), false, med)?);
    if let Some(preference) = attributes.local_preference {
        whole.push(plain(PathAttributeValue::LocalPreference(LocalPreference::new(preference)))?);
    }
    if !attributes.communities.is_empty() {
        let list: Vec<_> = attributes.communities.iter().map(|own| wire::Community::new(own.0)).collect();
        whole.push(transitive(PathAttributeValue::Communities(Communities::new(list)))?);
    }
    if !attributes.extended_communities.is_empty() {
        let list: Vec<_> = attributes.extended_communities.iter().map(|own| extended(own.0)).collect();
        whole.push(transitive(PathAttributeValue::ExtendedCommunities(ExtendedCommunities::new(list)))?);
    }
    let is_long = attributes.as_path.iter().any(|asn| u16::try_from(*asn).is_err());
    if !asn4 && is_long {
        let segment = As4PathSegment::new(AsPathSegmentType::AsSequence, attributes.as_path.clone());
        whole.push(transitive(PathAttributeValue::As4Path(As4Path::new([segment])))?);
    }
    if !attributes.large_communities.is_empty() {
        let large = attributes.large_communities.iter();
        let list: Vec<_> = large.map(|own| wire::LargeCommunity::new(own.0, own.1, own.2)).collect();
        whole.push(transitive(PathAttributeValue::LargeCommunities(LargeCommunities::new(list)))?);
    }
    Ok(whole)
}

fn as_path(path: &[u32], asn4: bool) -> AsPath {
    if asn4 {
        let segment = As4PathSegment::new(AsPathSegmentType::AsSequence, path);
        return AsPath::as4_path_segments(if path.is_empty() { vec![] } else { vec![segment] });
    }
    let short: Vec<u16> = path.iter().map(|asn| u16::try_from(*asn).unwrap_or(AS_TRANS)).collect();
    let segment = As2PathSegment::new(AsPathSegmentType::AsSequence, short);
    AsPath::as2_path_segments(if path.is_empty() { vec![] } else { vec![segment] })
}

fn extended([code, sub_type, value @ ..]: [u8; 8]) -> wire::ExtendedCommunity {
    wire::ExtendedCommunity::Unknown(wire::UnknownExtendedCommunity::new(code, sub_type, value))
}

fn unreachable(prefixes: &[Ipv6Net]) -> Result<Vec<PathAttribute>, EncodeError> {
    let value = MpUnreach::Ipv6Unicast { nlri: v6_addresses(prefixes)?.into() };
    Ok(vec![attribute((true, false), true, PathAttributeValue::MpUnreach(value))?])
}

/// A well-known attribute.
fn plain(value: PathAttributeValue) -> Result<PathAttribute, EncodeError> {
    attribute((false, true), false, value)
}

/// An optional attribute that others pass on; one of many communities has a length of two bytes.
fn transitive(value: PathAttributeValue) -> Result<PathAttribute, EncodeError> {
    attribute((true, true), true, value)
}

fn attribute(
    (optional, transitive): (bool, bool),
    extended_length: bool,
    value: PathAttributeValue,
) -> Result<PathAttribute, EncodeError> {
    PathAttribute::from(optional, transitive, false, extended_length, value)
        .map_err(|(_value, why)| EncodeError::Attribute(format!("{why:?}")))
}

fn with(common: &[PathAttribute], further: PathAttribute) -> Vec<PathAttribute> {
    let mut whole = common.to_vec();
    whole.push(further);
    whole
}

/// Bytes that prefixes may take in a message that holds nothing else but what `empty` does.
fn room(empty: &BgpMessage) -> Result<usize, EncodeError> {
    Ok(MAX_MESSAGE.saturating_sub(encode(empty)?.len()))
}

fn split<'p>(prefixes: impl Iterator<Item = &'p IpNet>) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => v4.push(*prefix),
            IpNet::V6(prefix) => v6.push(*prefix),
        }
    }
    (v4, v6)
}

/// Runs of prefixes that take up to `room` bytes.
fn chunks<T: Copy + Into<IpNet>>(prefixes: &[T], room: usize) -> Vec<&[T]> {
    let mut found = Vec::new();
    let (mut start, mut taken) = (0, 0);
    for (place, prefix) in prefixes.iter().enumerate() {
        let prefix: IpNet = (*prefix).into();
        let size = 1 + usize::from(prefix.prefix_len()).div_ceil(8);
        if taken + size > room && place > start {
            found.push(&prefixes[start..place]);
            (start, taken) = (place, 0);
        }
        taken += size;
    }
    if start < prefixes.len() {
        found.push(&prefixes[start..]);
    }
    found
}

fn v4_addresses(prefixes: &[Ipv4Net]) -> Result<Vec<Ipv4UnicastAddress>, EncodeError> {
    let address = |prefix: &Ipv4Net| Ipv4Unicast::from_net(*prefix).map(Ipv4UnicastAddress::new_no_path_id);
    prefixes.iter().map(address).collect::<Result<_, _>>().map_err(|why| EncodeError::Prefix(why.0.into()))
}

fn v6_addresses(prefixes: &[Ipv6Net]) -> Result<Vec<Ipv6UnicastAddress>, EncodeError> {
    let address = |prefix: &Ipv6Net| {
        Ipv6Unicast::from_net(*prefix).map(|network| Ipv6UnicastAddress::new(None, network))
    };
    prefixes.iter().map(address).collect::<Result<_, _>>().map_err(|why| EncodeError::Prefix(why.0.into()))
}
