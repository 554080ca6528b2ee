//! The way of super-packets into a bridge of our own: a device pair, one end of which is a port of the bridge.
//!
//! The programs put what comes for an endpoint that they do not know into that port as if it had arrived there. By the stack
//! it would leave through the bridge's own device, which takes super-packets out of tunnels in pieces before Linux 6.19.
//!
//! What they send through the other end comes to the bridge in segments: super-packets with an endpoint's own tunnel inside, which
//! the kernel can't put into another.

use super::{LinkChange, PieceError, PieceOp, Pieces, Setting};
use crate::{
    model::inlet_names,
    observed::{Link, ObservedHost},
};

/// Nobody speaks through it.
pub(super) fn settings(bridge: &str) -> [Setting; 2] {
    inlet_names(bridge).map(|name| Setting::new(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1"))
}

/// Makes the inlet of a bridge of our own, or repairs it; gives the indices of both ends, or 0 for what the
/// programs must not use.
pub(super) fn plan(
    bridge: &Link,
    is_ours: bool,
    observed: &ObservedHost,
    held: &Pieces,
    ops: &mut Vec<PieceOp>,
) -> Result<[u32; 2], PieceError> {
    if !is_ours {
        return Ok([0; 2]);
    }
    // What is sent through the other end goes to the host: no filter for what is bridged sees it.
    let known = |near, far| [if held.bars_inlet { 0 } else { near }, far];
    let names = inlet_names(&bridge.name);
    let [near, far] = names.each_ref().map(|name| observed.link(name));
    let is_veth = |link: &&Link| link.kind.as_deref() == Some("veth");
    if let Some(foreign) = [near, far].into_iter().flatten().find(|link| !is_veth(link)) {
        return Err(PieceError::Foreign { name: foreign.name.clone() });
    }
    let (Some(near), Some(far)) = (near, far) else {
        ops.extend(near.or(far).map(|half| PieceOp::DeleteInlet(half.index)));
        ops.push(PieceOp::CreateInlet { names: names.clone() });
        ops.extend(settings(&bridge.name).map(PieceOp::OwnSetting));
        let [near, far] = names;
        // Before it is up: the host must not answer for its addresses there.
        ops.push(PieceOp::Link(far.clone(), LinkChange::NoArp));
        ops.push(PieceOp::Link(far.clone(), LinkChange::Segments));
        ops.push(PieceOp::JoinInlet { device: near, bridge: bridge.name.clone() });
        ops.push(PieceOp::Link(far, LinkChange::Up));
        return Ok(known(PieceOp::INLET_TO_COME, PieceOp::INLET_TO_COME));
    };
    let others = settings(&bridge.name).into_iter().filter(|setting| held.differs(setting));
    ops.extend(others.map(PieceOp::OwnSetting));
    if !far.noarp {
        ops.push(PieceOp::Link(far.name.clone(), LinkChange::NoArp));
    }
    if far.gso_segments != 1 {
        ops.push(PieceOp::Link(far.name.clone(), LinkChange::Segments));
    }
    if bridge.index == 0 || near.master != Some(bridge.index) {
        ops.push(PieceOp::JoinInlet { device: near.name.clone(), bridge: bridge.name.clone() });
    }
    let down = [near, far].into_iter().filter(|end| !end.up);
    ops.extend(down.map(|end| PieceOp::Link(end.name.clone(), LinkChange::Up)));
    Ok(known(near.index, far.index))
}
