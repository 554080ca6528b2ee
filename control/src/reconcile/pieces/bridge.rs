//! The bridge of a fan, with the gateway's address: made by us, or adopted.

use super::{LinkChange, PieceOp, Pieces, Setting, gateway};
use crate::{
    model::{Fan, bridge_mac},
    observed::{Adopted, Entry, Link, ObservedHost},
};

/// Routed endpoints share the slice with bridged ones: the gateway answers for them, at once. Redirects would send
/// bridged endpoints past it.
pub(super) fn settings(bridge: &str) -> Vec<Setting> {
    let conf = |name: &str, value| Setting::new(&format!("net/ipv4/conf/{bridge}/{name}"), value);
    vec![
        conf("proxy_arp", "1"),
        conf("send_redirects", "0"),
        conf("forwarding", "1"),
        Setting::new(&format!("net/ipv4/neigh/{bridge}/proxy_delay"), "0"),
    ]
}

/// Makes the bridge, or repairs it; gives it as it is to be, with the index 0 where it is to be made.
pub(super) fn plan(
    fan: &Fan,
    observed: &ObservedHost,
    held: &Pieces,
    entry: &Entry,
    ops: &mut Vec<PieceOp>,
) -> Link {
    let there = observed.link(&fan.bridge);
    let mut bridge = there.cloned().unwrap_or_else(|| {
        let (name, mac, mtu) = (fan.bridge.clone(), bridge_mac(fan.address), fan.mtu);
        ops.push(PieceOp::CreateBridge { name: name.clone(), mac, mtu });
        Link { name, mac, mtu, ..Link::default() }
    });
    match entry.adopted {
        None => own(fan, &mut bridge, ops),
        Some(adopted) => keep_mtu(entry, adopted, &bridge, ops),
    }
    let is_ours = entry.adopted.is_none();
    let change = |change| PieceOp::Link(fan.bridge.clone(), change);
    if bridge.mtu > fan.mtu || (is_ours && bridge.mtu != fan.mtu) {
        ops.push(change(LinkChange::Mtu(fan.mtu)));
    }
    if !bridge.up {
        ops.push(change(LinkChange::Up));
    }
    if there.is_none() || !observed.addresses.contains(&gateway(fan, bridge.index)) {
        ops.push(PieceOp::Address {
            device: fan.bridge.clone(),
            address: fan.gateway,
            prefix_len: fan.slice.prefix_len(),
        });
    }
    let set = if is_ours { PieceOp::OwnSetting } else { PieceOp::Setting };
    let others = settings(&fan.bridge);
    let others = others.into_iter().filter(|setting| there.is_none() || held.differs(setting));
    ops.extend(others.map(set));
    bridge
}

/// What only a bridge of our own gets.
fn own(fan: &Fan, bridge: &mut Link, ops: &mut Vec<PieceOp>) {
    let alias = crate::observed::Mark::of(fan).to_alias();
    if bridge.alias.as_deref() != Some(&alias) {
        ops.push(PieceOp::Link(fan.bridge.clone(), LinkChange::Alias(alias)));
    }
    let mac = bridge_mac(fan.address);
    if bridge.mac != mac {
        ops.push(PieceOp::Link(fan.bridge.clone(), LinkChange::Mac(mac)));
        bridge.mac = mac;
    }
}

/// A bridge follows the smallest MTU of its ports until somebody sets its own, and the ports of our endpoints are
/// larger than any fan: an adopted bridge keeps the one that it has, to be given back.
fn keep_mtu(entry: &Entry, adopted: Adopted, bridge: &Link, ops: &mut Vec<PieceOp>) {
    if adopted.mtu.is_none() {
        ops.push(PieceOp::Link(bridge.name.clone(), LinkChange::HoldMtu(bridge.mtu)));
        let adopted = Some(Adopted { mtu: Some(bridge.mtu), ..adopted });
        ops.push(PieceOp::Remember(Entry { mark: entry.mark.clone(), adopted }));
    }
}
