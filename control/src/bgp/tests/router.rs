//! A router that keeps what it is sent, read by the library's own parser.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::IpNet;
use netgauze_bgp_pkt::{
    BgpMessage,
    capabilities::{BgpCapability, FourOctetAsCapability, MultiProtocolExtensionsCapability},
    open::{BgpOpenMessage, BgpOpenMessageParameter},
    path_attribute::{AsPath, MpReach, MpUnreach, PathAttributeValue},
    update::BgpUpdateMessage,
    wire::deserializer::BgpParsingContext,
};
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::{reader::SliceReader, traits::ParseFromWithOneInput as _};

use super::pair::{address, local, peer};
use crate::bgp::{Action, Link, Session, message::encode};

pub(super) const NOW: Duration = Duration::ZERO;

/// What a router knows of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) next_hop: Option<IpAddr>,
    pub(super) med: Option<u32>,
    pub(super) local_preference: Option<u32>,
    pub(super) as_path: Vec<u32>,
    pub(super) communities: usize,
}

#[derive(Default)]
pub(super) struct Router {
    pub(super) table: BTreeMap<IpNet, Held>,
    pub(super) updates: usize,
    pub(super) ends_of_rib: usize,
    /// Prefixes in what arrived last, announced and withdrawn.
    pub(super) touched: BTreeSet<IpNet>,
}

/// A router's OPEN; without `asn4` it knows ASNs of 16 bits alone.
pub(super) fn open(asn: u32, hold_time: u16, asn4: bool) -> Vec<u8> {
    let families = [AddressType::Ipv4Unicast, AddressType::Ipv6Unicast];
    let mut capabilities: Vec<_> = families
        .map(MultiProtocolExtensionsCapability::new)
        .map(BgpCapability::MultiProtocolExtensions)
        .into();
    if asn4 {
        capabilities.push(BgpCapability::FourOctetAs(FourOctetAsCapability::new(asn)));
    }
    let parameters = [BgpOpenMessageParameter::new_capabilities(capabilities)];
    let short = u16::try_from(asn).unwrap_or(23_456);
    encode(&BgpMessage::Open(BgpOpenMessage::new(short, hold_time, Ipv4Addr::new(192, 0, 2, 2), parameters)))
        .unwrap()
}

/// A session that has just been established with a router of this ASN, and its connection.
pub(super) fn established(own: u32, asn: u32, asn4: bool) -> (Session, Link) {
    let mut session = Session::new(local(own, 1), peer(asn, 2), 7, false, NOW);
    let Some(Action::Connect(link)) = session.take_actions().pop() else { panic!("no connection is opened") };
    session.opened(link, address(1), NOW);
    session.received(link, &open(asn, 9, asn4), NOW);
    session.received(link, &encode(&BgpMessage::KeepAlive).unwrap(), NOW);
    session.take_actions();
    (session, link)
}

impl Router {
    /// Takes what a session sends.
    pub(super) fn take(&mut self, session: &mut Session, link: Link, asn4: bool) {
        self.touched.clear();
        loop {
            let actions = session.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                let Action::Send(_, bytes) = action else { panic!("{action:?}") };
                assert!(bytes.len() <= 4_096);
                session.written(link, bytes.len(), NOW);
                let mut context = BgpParsingContext::new(
                    asn4,
                    Default::default(),
                    Default::default(),
                    true,
                    true,
                    true,
                    true,
                );
                let message = BgpMessage::parse(&mut SliceReader::new(&bytes), &mut context).unwrap();
                if let BgpMessage::Update(update) = message {
                    self.update(&update);
                }
            }
        }
    }

    fn update(&mut self, update: &BgpUpdateMessage) {
        if update.end_of_rib().is_some() {
            self.ends_of_rib += 1;
            return;
        }
        self.updates += 1;
        let mut held = Held::default();
        let v4 = |prefixes: &[netgauze_bgp_pkt::nlri::Ipv4UnicastAddress]| -> Vec<IpNet> {
            prefixes.iter().map(|prefix| prefix.network().address().into()).collect()
        };
        let (mut reached, mut gone) = (v4(update.nlri()), v4(update.withdraw_routes()));
        for attribute in update.path_attributes() {
            match attribute.value() {
                PathAttributeValue::NextHop(hop) => held.next_hop = Some(hop.next_hop().into()),
                PathAttributeValue::MultiExitDiscriminator(med) => held.med = Some(med.metric()),
                PathAttributeValue::LocalPreference(own) => held.local_preference = Some(own.metric()),
                PathAttributeValue::AsPath(AsPath::As4PathSegments(path)) => {
                    held.as_path = path.iter().flat_map(|part| part.as_numbers().to_vec()).collect();
                }
                PathAttributeValue::AsPath(AsPath::As2PathSegments(path)) => {
                    let all = path.iter().flat_map(|part| part.as_numbers().to_vec());
                    held.as_path = all.map(u32::from).collect();
                }
                PathAttributeValue::As4Path(path) => {
                    held.as_path =
                        path.segments().iter().flat_map(|part| part.as_numbers().to_vec()).collect();
                }
                PathAttributeValue::Communities(list) => held.communities += list.communities().len(),
                PathAttributeValue::LargeCommunities(list) => held.communities += list.communities().len(),
                PathAttributeValue::ExtendedCommunities(list) => held.communities += list.communities().len(),
                PathAttributeValue::MpReach(MpReach::Ipv6Unicast { next_hop_global, nlri, .. }) => {
                    held.next_hop = Some((*next_hop_global).into());
                    reached.extend(nlri.iter().map(|prefix| IpNet::from(prefix.network().address())));
                }
                PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                    gone.extend(nlri.iter().map(|prefix| IpNet::from(prefix.network().address())));
                }
                _ => {}
            }
        }
        for prefix in gone {
            assert!(self.table.remove(&prefix).is_some(), "{prefix} is withdrawn and was not there");
            self.touched.insert(prefix);
        }
        for prefix in reached {
            self.table.insert(prefix, held.clone());
            self.touched.insert(prefix);
        }
    }
}
