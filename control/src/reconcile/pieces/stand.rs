//! What is remembered of a fan: before anything is made, and what an adopted bridge was like.

use super::{PieceError, PieceOp, Pieces, gateway};
use crate::{
    model::{Fan, bridge_mac},
    observed::{Adopted, Entry, Link, Mark, ObservedHost, Standing},
};

/// What is to be remembered.
pub(super) fn entry(fan: &Fan, observed: &ObservedHost) -> Result<Entry, PieceError> {
    let by_bridge = by_bridge(fan, observed);
    if let Some(other) = by_bridge.filter(|other| other.mark.overlay() != fan.spec.overlay) {
        return Err(PieceError::BridgeTaken { name: fan.bridge.clone(), overlay: other.mark.overlay() });
    }
    let adopted = observed.link(&fan.bridge).and_then(|link| adoption(fan, observed, link, by_bridge));
    Ok(Entry { mark: Mark::of(fan), adopted })
}

/// A fan that stands with another slice becomes stale, and the fan is remembered.
pub(super) fn plan(fan: &Fan, observed: &ObservedHost, held: &Pieces, entry: &Entry) -> Vec<PieceOp> {
    let former = observed.fan(fan.spec.overlay).filter(|standing| standing.mark.bridge() != fan.bridge);
    let retired = former.cloned().map(|mut former| {
        former.mark.stale = true;
        PieceOp::Retire(former)
    });
    let remembered = (!held.entries.contains(entry)).then(|| PieceOp::Remember(entry.clone()));
    retired.into_iter().chain(remembered).collect()
}

fn by_bridge<'o>(fan: &Fan, observed: &'o ObservedHost) -> Option<&'o Standing> {
    observed.standing.iter().find(|standing| standing.mark.bridge() == fan.bridge)
}

/// What has to be known to give an adopted bridge back; `None` for a bridge of our own.
fn adoption(fan: &Fan, observed: &ObservedHost, link: &Link, standing: Option<&Standing>) -> Option<Adopted> {
    let marked = link.alias.as_deref().and_then(Mark::from_alias).is_some();
    if marked || made_by_us(link, standing) {
        return None;
    }
    let known = standing.and_then(|standing| standing.adopted);
    let had_address = observed.addresses.contains(&gateway(fan, link.index));
    let mut adopted = known.unwrap_or(Adopted { mtu: None, had_address });
    if link.mtu > fan.mtu && adopted.mtu.is_none() {
        adopted.mtu = Some(link.mtu);
    }
    Some(adopted)
}

/// Whether a fan's bridge is of our making, judging by its MAC address: for the moment between its creation and the
/// alias that says so.
fn made_by_us(bridge: &Link, standing: Option<&Standing>) -> bool {
    standing
        .is_some_and(|standing| standing.adopted.is_none() && bridge.mac == bridge_mac(standing.mark.address))
}
