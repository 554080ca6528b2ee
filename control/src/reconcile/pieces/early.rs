//! The program in front of `uplink-ingress`, where one is asked for.

use dataplane_common::outcome::Hook;

use super::{PieceOp, Programs};
use crate::{
    model::{Fan, UplinkHook},
    observed::{Link, ObservedHost},
    reconcile,
};

/// On every uplink, or off it. It learns the device's address before it runs: without, it leaves everything to tc.
pub(super) fn plan(
    fan: &Fan,
    observed: &ObservedHost,
    asked: UplinkHook,
    programs: &Programs,
) -> Vec<PieceOp> {
    let find = |index| observed.links.iter().find(|link| link.index == index);
    let uplinks = fan.uplinks().filter_map(|uplink| find(uplink.index));
    uplinks.flat_map(|uplink| of_uplink(uplink, &observed.links, asked, programs)).collect()
}

fn of_uplink(uplink: &Link, links: &[Link], asked: UplinkHook, programs: &Programs) -> Vec<PieceOp> {
    let &Link { index, mac, .. } = uplink;
    let name = || uplink.name.clone();
    let runs = programs.early.iter().find(|(device, _)| *device == index);
    let ours: Vec<u32> = runs.iter().map(|&&(_, id)| id).collect();
    let Ok(modes) = reconcile::early(asked, uplink, links, &ours) else {
        return runs.map(|_| PieceOp::DetachEarly { name: name(), index }).into_iter().collect();
    };
    let mut ops = Vec::new();
    let is_other_mode =
        uplink.xdp.iter().any(|program| ours.contains(&program.id) && !modes.contains(&program.mode));
    if is_other_mode {
        ops.push(PieceOp::DetachEarly { name: name(), index });
    }
    if programs.refused.contains(&index) {
        return ops;
    }
    if is_other_mode || !programs.macs.contains(&(index, mac)) {
        ops.push(PieceOp::KnowUplink(index, mac));
    }
    if is_other_mode || !programs.hooks.contains(&(Hook::UplinkXdp, index)) {
        ops.push(PieceOp::AttachEarly { name: name(), index, modes });
    }
    ops
}
