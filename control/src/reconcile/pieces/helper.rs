//! The helper device: overlay routes point to it, and what leaves or enters the datapath on the slow path goes
//! through it.

use super::{LinkChange, PieceError, PieceOp, Pieces, Setting};
use crate::{
    model::{HELPER, HELPER_MACS, VETH_MTU},
    observed::{Link, ObservedHost},
};

/// Whether an interface of the helper's name is ours, by its MAC address or, where somebody set another one, by the
/// device at its other end.
pub fn is_helper(link: &Link, far: Option<&Link>) -> bool {
    link.kind.as_deref() == Some("veth") && (link.mac == HELPER_MACS[0] || is_pair(link, far))
}

/// Whether the other end is where it belongs.
fn is_pair(near: &Link, far: Option<&Link>) -> bool {
    !near.peer_netns && far.is_some_and(|far| near.peer == Some(far.index))
}

/// Nothing but our routes may send through it. Packets come out of tunnels with addresses of this host's slices, and
/// strict checking of the way back would pass them only by luck.
pub(super) fn settings() -> Vec<Setting> {
    let conf = |name: &str, value| Setting::new(&format!("net/ipv4/conf/{}/{name}", HELPER[0]), value);
    let own = HELPER.map(|name| Setting::new(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1"));
    own.into_iter()
        .chain([conf("accept_local", "1"), conf("rp_filter", "0")])
        .chain([conf("forwarding", "1"), conf("send_redirects", "0")])
        .collect()
}

/// Makes the helper device, or repairs it. Its index, unless it is to be made.
pub(super) fn plan(
    observed: &ObservedHost,
    held: &Pieces,
    ops: &mut Vec<PieceOp>,
) -> Result<Option<u32>, PieceError> {
    let [near, far] = HELPER.map(|name| observed.link(name));
    let foreign = |link: &Link| PieceError::Foreign { name: link.name.clone() };
    if let Some(near) = near.filter(|near| !is_helper(near, far)) {
        return Err(foreign(near));
    }
    if let (Some(near), Some(far)) = (near.filter(|near| is_pair(near, far)), far) {
        repair(near, far, held, ops);
        return Ok(Some(near.index));
    }
    // Its other end is no longer the one of that name, which would stay when it goes.
    if let Some(far) = far {
        return Err(foreign(far));
    }
    ops.extend(near.map(|near| PieceOp::DeleteHelper(near.index)));
    ops.push(PieceOp::CreateHelper);
    ops.extend(settings().into_iter().map(PieceOp::OwnSetting));
    ops.push(PieceOp::Link(HELPER[0].to_owned(), LinkChange::NoArp));
    ops.push(PieceOp::Link(HELPER[1].to_owned(), LinkChange::Up));
    Ok(None)
}

fn repair(near: &Link, far: &Link, held: &Pieces, ops: &mut Vec<PieceOp>) {
    let others = settings().into_iter().filter(|setting| held.differs(setting));
    ops.extend(others.map(PieceOp::OwnSetting));
    let change = |link: &Link, change| PieceOp::Link(link.name.clone(), change);
    if !near.noarp {
        ops.push(change(near, LinkChange::NoArp));
    }
    for (end, mac) in [near, far].into_iter().zip(HELPER_MACS) {
        if end.mac != mac {
            ops.push(change(end, LinkChange::Mac(mac)));
        }
        if !end.up {
            ops.push(change(end, LinkChange::Up));
        }
        // The routes' MTU is what counts.
        if end.mtu != VETH_MTU {
            ops.push(change(end, LinkChange::Mtu(VETH_MTU)));
        }
    }
}
