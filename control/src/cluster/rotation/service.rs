//! One service as this node is to serve it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use crate::{
    cluster::{
        log::Name,
        records::{Conflict, Offer, Parts},
    },
    service::Definition,
};

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Alive, or suspected only.
    Alive,
    /// In maintenance: it takes no new flows.
    Maintenance,
    /// Dead.
    Gone,
    /// It has said good-bye.
    Left,
}

impl Standing {
    /// Whether nothing of it answers any more.
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Gone | Self::Left)
    }
}

/// Whether a backend takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It does.
    Up,
    /// Its member is gone, and it does all the same.
    Kept,
    /// A mark, or its member is in maintenance.
    Drained,
    /// Its member is gone.
    Down,
}

/// A backend as this node is to serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedBackend {
    /// Address and port.
    pub socket: SocketAddr,
    /// Its share of new flows: of several nodes the one of the smallest name says so.
    pub weight: u32,
    /// The member that has the address; `None`: it is external.
    pub node: Option<Name>,
    /// How that member stands.
    pub standing: Standing,
    /// The members that contribute it.
    pub contributors: Arc<[Name]>,
    /// Whether it takes new flows.
    pub rotation: Rotation,
    /// Whether it is up by what members find; `None`: not known, or not checked.
    pub is_checked_up: Option<bool>,
}

impl PlacedBackend {
    /// Whether it takes new flows.
    pub fn is_in_rotation(&self) -> bool {
        self.weight > 0 && matches!(self.rotation, Rotation::Up | Rotation::Kept)
    }
}

/// Whether deaths are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deaths {
    /// Dead members' backends are out.
    Followed,
    /// Fewer than half would be left, or the ring would shrink too fast: they stay.
    Kept,
    /// None would be left: all stay.
    AllDown,
}

/// A service as this node is to serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What it is.
    pub definition: Definition,
    /// When it was created, as a number that is greater of later ones.
    pub age: u64,
    /// The older service that has the VIP: this one is not served.
    pub clash: Option<Name>,
    /// Files of living members that define it in different ways.
    pub conflict: Option<Conflict>,
    /// Its backends, by address.
    pub backends: Vec<PlacedBackend>,
    /// Whether deaths are followed.
    pub deaths: Deaths,
}

impl Placed {
    /// How many backends take new flows.
    pub fn in_rotation(&self) -> usize {
        self.backends.iter().filter(|backend| backend.is_in_rotation()).count()
    }

    fn is_in_rotation(&self, socket: SocketAddr) -> bool {
        let place = self.backends.binary_search_by_key(&socket, |backend| backend.socket);
        place.is_ok_and(|place| self.backends[place].is_in_rotation())
    }
}

/// A ring that deaths have shrunk within the last second.
pub(super) struct Shrunk<'p> {
    /// How many backends are to stay in it, as far as deaths go.
    pub(super) at_least: usize,
    /// The service as it was.
    pub(super) former: &'p Placed,
}

/// A service's backends and how deaths count for them.
///
/// `where_is` tells the member that has an address, and how it stands.
pub(super) fn backends<'v>(
    parts: &'v Parts,
    where_is: impl Fn(SocketAddr) -> (Option<&'v Name>, Standing),
    shrunk: Option<Shrunk<'_>>,
) -> (Vec<PlacedBackend>, Deaths) {
    let drained: BTreeSet<SocketAddr> = parts.drained().collect();
    let mut backends: Vec<PlacedBackend> = Vec::new();
    let offers: Vec<Offer<'_>> = parts.offers().collect();
    for of_one in offers.chunk_by(|one, next| one.socket == next.socket) {
        let Offer { socket, weight, .. } = of_one[0];
        let (node, standing) = where_is(socket);
        let contributors = contributors(of_one, backends.last());
        let rotation = match standing {
            _ if drained.contains(&socket) => Rotation::Drained,
            Standing::Alive => Rotation::Up,
            Standing::Maintenance => Rotation::Drained,
            Standing::Gone | Standing::Left => Rotation::Down,
        };
        let node = node.cloned();
        let is_checked_up = None;
        backends.push(PlacedBackend {
            socket,
            weight,
            node,
            standing,
            contributors,
            rotation,
            is_checked_up,
        });
    }
    // Ten thousand services are held.
    backends.shrink_to_fit();
    let count = |rotation| {
        backends.iter().filter(|backend| backend.weight > 0 && backend.rotation == rotation).count()
    };
    let (up, down) = (count(Rotation::Up), count(Rotation::Down));
    let deaths = match (up, down) {
        (_, 0) => Deaths::Followed,
        (0, _) => Deaths::AllDown,
        _ if up < down => Deaths::Kept,
        _ => Deaths::Followed,
    };
    if deaths != Deaths::Followed {
        keep(&mut backends, |_| true);
        return (backends, deaths);
    }
    let has_fallen = |shrunk: &Shrunk<'_>| up < shrunk.at_least;
    let Some(Shrunk { former, .. }) = shrunk.filter(has_fallen) else { return (backends, deaths) };
    let has_kept = keep(&mut backends, |socket| former.is_in_rotation(socket));
    (backends, if has_kept { Deaths::Kept } else { deaths })
}

/// Who contributes a backend. Mostly that is the same for all backends of a service, which then share it.
fn contributors(offers: &[Offer<'_>], former: Option<&PlacedBackend>) -> Arc<[Name]> {
    let names = || offers.iter().map(|offer| offer.node);
    match former.filter(|former| former.contributors.iter().eq(names())) {
        Some(former) => Arc::clone(&former.contributors),
        None => names().cloned().collect(),
    }
}

/// Keeps backends of gone members; says whether there are such.
fn keep(backends: &mut [PlacedBackend], is_kept: impl Fn(SocketAddr) -> bool) -> bool {
    let mut has_kept = false;
    for backend in backends {
        if backend.rotation == Rotation::Down && is_kept(backend.socket) {
            backend.rotation = Rotation::Kept;
            has_kept = true;
        }
    }
    has_kept
}
