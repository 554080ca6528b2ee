//! What a change writes where no packet sees it yet: rows of backends, and rings. Computing rings takes the most time by
//! far, so that all processors do it.

use std::net::SocketAddrV4;

use control::{
    observed::HeldRow,
    reconcile::ServiceOp,
    service::{Algorithm, Backend, Service},
};
use dataplane_common::abi::{MAX_SERVICES, ServiceWord, VipKey};

use super::{
    Error, MakeRing, Result, Writer, missing,
    records::key_of,
    rings::{Extent, Rings, Shape},
    rows::{self, Rows},
    spread::spread,
};

/// Extents that were replaced and may still be read, from how many on it is worth the wait (8 ms) to have them back.
const WORTH_A_WAIT: usize = 8;

/// A service's set of backends that is written, but not published.
pub(super) struct Prepared<'s> {
    pub(super) service: &'s Service,
    pub(super) index: u32,
    pub(super) key: VipKey,
    pub(super) word: ServiceWord,
    pub(super) extent: Option<Extent>,
    pub(super) usable: Vec<Backend>,
    /// A row for each.
    pub(super) rows: Vec<u32>,
    /// Those among them that are new.
    pub(super) fresh: Vec<HeldRow>,
}

impl Prepared<'_> {
    fn write_ring(&self, rings: &Rings, make_ring: MakeRing) {
        if let Some(extent) = self.extent {
            let locals: Vec<u16> = self.rows.iter().map(|row| (row - self.word.base) as u16).collect();
            rings.write(extent, &make_ring(&self.usable), &locals);
        }
    }
}

impl Writer {
    /// Prepares operations that need it, each about another VIP.
    pub(super) fn prepare<'o>(&mut self, ops: &[&'o ServiceOp]) -> Vec<Option<Result<Prepared<'o>>>> {
        let reserved: Vec<_> = ops.iter().map(|op| self.reserve(op)).collect();
        let prepared: Vec<&Prepared<'_>> = reserved.iter().flatten().flatten().collect();
        spread(&prepared, |prepared| prepared.write_ring(&self.rings, self.make_ring));
        reserved
    }

    fn reserve<'o>(&mut self, op: &'o ServiceOp) -> Option<Result<Prepared<'o>>> {
        match op {
            ServiceOp::Remove(_) | ServiceOp::Retire { .. } => None,
            ServiceOp::Change(service) if !self.held.services.contains_key(&service.vip) => {
                Some(Err(missing(service.vip)))
            }
            ServiceOp::Change(service) | ServiceOp::Add(service) => Some(self.reserve_for(service)),
        }
    }

    /// Takes an index, rows and an extent, and writes the rows.
    fn reserve_for<'s>(&mut self, service: &'s Service) -> Result<Prepared<'s>> {
        let key = key_of(service.vip)?;
        let (index, own) = match self.held.services.get(&service.vip) {
            Some(held) => (held.index, held.rows.clone()),
            None => (self.free_index()?, Vec::new()),
        };
        let usable = service.usable();
        let (rows, fresh) = self.assign(&own, &sockets(&usable)?)?;
        let extent = match self.place(&rows) {
            Ok(extent) => extent,
            Err(error) => {
                fresh.iter().for_each(|row| self.rows.give_back(&[row.row]));
                return Err(error);
            }
        };
        self.indices.remove(index);
        self.write_rows(index, key, &fresh);
        let word = word(service, &rows, extent);
        Ok(Prepared { service, index, key, word, extent, usable, rows, fresh })
    }

    fn free_index(&self) -> Result<u32> {
        let full = Error::Full { what: "services", most: u64::from(MAX_SERVICES) };
        self.indices.from(0).next().ok_or(full)
    }

    /// An extent for the ring of two or more backends in these rows.
    fn place(&mut self, rows: &[u32]) -> Result<Option<Extent>> {
        match (rows.iter().min(), rows.iter().max()) {
            (Some(first), Some(last)) if rows.len() > 1 => {
                let shape = Shape::new(rows.len(), last - first);
                // A segment is never given back: what these extents are read for is worth the wait.
                if self.leaving.extents.len() >= WORTH_A_WAIT && !self.rings.has_room(shape) {
                    self.settle();
                }
                self.rings.allocate(shape).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn write_rows(&mut self, index: u32, key: VipKey, fresh: &[HeldRow]) {
        for &HeldRow { row, socket, .. } in fresh {
            rows::write(&self.maps.backends, row, socket, index);
            rows::mark_here(&self.maps.backends, row, self.own.contains(socket.ip()));
            rows::mark_absent(&self.maps.backends, row, self.absent.contains(socket.ip()));
            let record = rows::record(&self.maps.backends, row);
            self.backends.add(&self.maps.backend_filter, rows::filter_bit(&record, key.protocol));
            *self.users.entry(index).or_default() += 1;
        }
    }

    /// A row for each backend: the one that it has, or a new one.
    fn assign(&mut self, own: &[HeldRow], sockets: &[SocketAddrV4]) -> Result<(Vec<u32>, Vec<HeldRow>)> {
        let row_of = |socket: &SocketAddrV4| {
            let mut alive = own.iter().filter(|row| row.socket == *socket && !row.is_gone);
            alive.clone().find(|row| row.is_named).or_else(|| alive.next()).map(|row| row.row)
        };
        let mut rows: Vec<Option<u32>> = sockets.iter().map(row_of).collect();
        let present: Vec<u32> = rows.iter().copied().flatten().collect();
        let mut new = if Rows::are_near(&present) {
            self.rows.allocate(sockets.len() - present.len(), &present)?
        } else {
            self.rows.allocate(sockets.len(), &[])?
        };
        let all: Vec<u32> = present.iter().chain(&new).copied().collect();
        if new.len() == sockets.len() || !Rows::are_near(&all) {
            if new.len() < sockets.len() {
                self.rows.give_back(&new);
                new = self.rows.allocate(sockets.len(), &[])?;
            }
            rows.fill(None);
        }
        let mut unused = new.into_iter();
        let mut fresh = Vec::new();
        for (row, &socket) in rows.iter_mut().zip(sockets) {
            if row.is_none()
                && let Some(number) = unused.next()
            {
                *row = Some(number);
                fresh.push(HeldRow { row: number, socket, is_gone: false, is_named: false });
            }
        }
        Ok((rows.into_iter().flatten().collect(), fresh))
    }
}

/// What a service's record says: where its ring is, and from which row on it counts.
fn word(service: &Service, rows: &[u32], extent: Option<Extent>) -> ServiceWord {
    let base = rows.iter().copied().min().unwrap_or_default();
    let empty = if rows.is_empty() { ServiceWord::EMPTY } else { 0 };
    let random = if service.algorithm == Algorithm::Random { ServiceWord::RANDOM } else { 0 };
    let flags = empty | random;
    let without = ServiceWord { base, ring: 0, log2_bits: 0, flags };
    extent.map_or(without, |extent| extent.word(base, flags))
}

fn sockets(usable: &[Backend]) -> Result<Vec<SocketAddrV4>> {
    let socket = |backend: &Backend| match backend.v4() {
        Some((address, port)) => Ok(SocketAddrV4::new(address, port)),
        None => Err(Error::NotV4(backend.address)),
    };
    usable.iter().map(socket).collect()
}
