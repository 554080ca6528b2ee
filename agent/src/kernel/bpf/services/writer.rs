//! Changes of services, one at a time.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use dataplane_common::abi::{MAX_BACKENDS, MAX_SERVICES, ServiceWord, VipKey, vip_bit};

use super::{
    Error, Gone, Held, HeldRow, HeldService, Maps, Result, ServiceOp,
    bits::Bits,
    filters::Filter,
    missing,
    records::key_of,
    rings::{Extent, Rings, Shape},
    rows::{self, Rows},
};
use crate::{
    kernel::bpf::config_map::wait_for_readers,
    service::{Algorithm, Backend, Service, Vip, ring},
};

/// Changes services. One at a time: callers hold the agent's lock.
#[derive(Debug)]
pub struct Writer {
    pub(super) maps: Arc<Maps>,
    pub(super) held: Held,
    pub(super) rings: Rings,
    pub(super) rows: Rows,
    /// The ring of an index, where it has one.
    pub(super) extents: HashMap<u32, Extent>,
    /// Free indices.
    pub(super) indices: Bits,
    /// Rows that say that they are an index's.
    pub(super) users: HashMap<u32, u32>,
    pub(super) vips: Filter,
    pub(super) backends: Filter,
    /// Rows that new flows come to.
    pub(super) named: Bits,
    /// Rows that only flows may remember.
    pub(super) idle: Bits,
    pub(super) leaving: Leaving,
    /// Backends that are gone and of which nobody was told yet, as flows name them.
    pub(super) gone: Vec<u32>,
    /// This host's own addresses.
    own: HashSet<Ipv4Addr>,
}

/// What a program run under way may still read.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pub(super) extents: Vec<Extent>,
    pub(super) rows: Vec<u32>,
    pub(super) indices: Vec<u32>,
}

impl Leaving {
    fn is_empty(&self) -> bool {
        self.extents.is_empty() && self.rows.is_empty() && self.indices.is_empty()
    }
}

/// A set of backends that is written, but not published.
struct Prepared {
    word: ServiceWord,
    extent: Option<Extent>,
    usable: Vec<Backend>,
    /// A row for each.
    rows: Vec<u32>,
    /// Those among them that are new.
    fresh: Vec<HeldRow>,
}

impl Writer {
    pub(super) fn empty(maps: Arc<Maps>) -> Result<Self> {
        let mut indices = Bits::none(MAX_SERVICES);
        (0..MAX_SERVICES).for_each(|index| indices.insert(index));
        Ok(Self {
            rings: maps.rings()?,
            rows: Rows::read(&maps.backends),
            held: Held::default(),
            extents: HashMap::new(),
            indices,
            users: HashMap::new(),
            vips: Filter::default(),
            backends: Filter::default(),
            named: Bits::none(MAX_BACKENDS),
            idle: Bits::none(MAX_BACKENDS),
            leaving: Leaving::default(),
            gone: Vec::new(),
            own: HashSet::new(),
            maps,
        })
    }

    /// What the kernel holds.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Backends that are gone since this was asked last, and those that were when the writer was opened.
    pub fn take_gone(&mut self) -> Gone {
        std::mem::take(&mut self.gone).into_iter().collect()
    }

    /// Says which addresses are this host's own: a backend there answers otherwise.
    pub fn set_own_addresses(&mut self, own: HashSet<Ipv4Addr>) {
        if self.own == own {
            return;
        }
        self.own = own;
        for held in self.held.services.values().flat_map(|service| &service.rows) {
            rows::mark_here(&self.maps.backends, held.row, self.own.contains(held.socket.ip()));
        }
    }

    /// Makes one change. One that fails has changed nothing that packets see.
    pub fn apply(&mut self, op: &ServiceOp) -> Result<()> {
        match op {
            ServiceOp::Remove(vip) => self.remove(*vip),
            ServiceOp::Retire { vip, row } => {
                self.retire(*vip, *row);
                Ok(())
            }
            ServiceOp::Change(service) => self.change(service),
            ServiceOp::Add(service) => self.add(service),
        }
    }

    /// Waits, once for all changes so far, until no program run reads what they replaced.
    pub fn settle(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        wait_for_readers();
        let leaving = std::mem::take(&mut self.leaving);
        leaving.extents.into_iter().for_each(|extent| self.rings.release(extent));
        leaving
            .rows
            .into_iter()
            .filter(|&row| !self.named.contains(row))
            .for_each(|row| self.idle.insert(row));
        let unused = leaving.indices.into_iter().filter(|index| !self.users.contains_key(index));
        unused.for_each(|index| self.indices.insert(index));
    }

    /// Publishes a service's record before anything leads to it.
    fn add(&mut self, service: &Service) -> Result<()> {
        let key = key_of(service.vip)?;
        if self.held.services.contains_key(&service.vip) {
            return self.change(service);
        }
        let full = Error::Full { what: "services", most: u64::from(MAX_SERVICES) };
        let index = self.indices.from(0).next().ok_or(full)?;
        let prepared = self.prepare(index, key, &[], service)?;
        self.maps.records.set_word(index, prepared.word);
        self.maps.records.set_key(index, key);
        if let Err(error) = self.maps.records.insert(key, index) {
            self.undo(index, key, prepared);
            return Err(error);
        }
        self.vips.add(&self.maps.vip_filter, vip_bit(key.address));
        self.indices.remove(index);
        let held = HeldService { index, algorithm: service.algorithm, usable: None, rows: Vec::new() };
        self.published(held, service, prepared);
        Ok(())
    }

    fn change(&mut self, service: &Service) -> Result<()> {
        let held = self.held.services.get(&service.vip).ok_or_else(|| missing(service.vip))?.clone();
        let prepared = self.prepare(held.index, key_of(service.vip)?, &held.rows, service)?;
        self.maps.records.set_word(held.index, prepared.word);
        self.leaving.extents.extend(self.extents.remove(&held.index));
        self.published(held, service, prepared);
        Ok(())
    }

    /// Takes down what was published.
    fn published(&mut self, mut held: HeldService, service: &Service, prepared: Prepared) {
        held.algorithm = service.algorithm;
        held.usable = Some(prepared.usable);
        held.rows.extend(prepared.fresh);
        for row in &mut held.rows {
            let is_named = prepared.rows.contains(&row.row);
            if is_named {
                self.named.insert(row.row);
                self.idle.remove(row.row);
            } else if row.is_named {
                self.named.remove(row.row);
                self.leaving.rows.push(row.row);
            }
            row.is_named = is_named;
        }
        if let Some(extent) = prepared.extent {
            self.extents.insert(held.index, extent);
        }
        self.held.services.insert(service.vip, held);
    }

    /// In reverse: nothing leads to the service before its backends go.
    fn remove(&mut self, vip: Vip) -> Result<()> {
        let key = key_of(vip)?;
        let index = self.held.services.get(&vip).ok_or_else(|| missing(vip))?.index;
        self.maps.records.remove(key)?;
        self.vips.remove(&self.maps.vip_filter, vip_bit(key.address));
        let nobody = ServiceWord { base: 0, ring: 0, log2_bits: 0, flags: ServiceWord::EMPTY };
        self.maps.records.set_word(index, nobody);
        self.leaving.extents.extend(self.extents.remove(&index));
        self.leaving.indices.push(index);
        for row in self.held.services.remove(&vip).into_iter().flat_map(|held| held.rows) {
            rows::mark_gone(&self.maps.backends, row.row);
            self.gone.push(rows::named_by_flows(&self.maps.backends, row.row));
            if row.is_named {
                self.named.remove(row.row);
                self.leaving.rows.push(row.row);
            }
            self.held.orphans.push(HeldRow { is_gone: true, is_named: false, ..row });
        }
        Ok(())
    }

    fn retire(&mut self, vip: Option<Vip>, number: u32) {
        let rows = match vip {
            Some(vip) => self.held.services.get_mut(&vip).map(|held| &mut held.rows),
            None => Some(&mut self.held.orphans),
        };
        if let Some(row) = rows.into_iter().flatten().find(|row| row.row == number) {
            rows::mark_gone(&self.maps.backends, number);
            self.gone.push(rows::named_by_flows(&self.maps.backends, number));
            row.is_gone = true;
        }
    }

    /// Writes backends and ring where no packet sees them yet.
    fn prepare(&mut self, index: u32, key: VipKey, own: &[HeldRow], service: &Service) -> Result<Prepared> {
        let usable = service.usable();
        let sockets = sockets(&usable)?;
        let (rows, fresh) = self.assign(own, &sockets)?;
        let base = rows.iter().copied().min().unwrap_or_default();
        let locals: Vec<u16> = rows.iter().map(|row| (row - base) as u16).collect();
        let extent = match self.place(&usable, &locals) {
            Ok(extent) => extent,
            Err(error) => {
                fresh.iter().for_each(|row| self.rows.give_back(&[row.row]));
                return Err(error);
            }
        };
        for &HeldRow { row, socket, .. } in &fresh {
            rows::write(&self.maps.backends, row, socket, index);
            rows::mark_here(&self.maps.backends, row, self.own.contains(socket.ip()));
            let record = rows::record(&self.maps.backends, row);
            self.backends.add(&self.maps.backend_filter, rows::filter_bit(&record, key.protocol));
            *self.users.entry(index).or_default() += 1;
        }
        let empty = if usable.is_empty() { ServiceWord::EMPTY } else { 0 };
        let random = if service.algorithm == Algorithm::Random { ServiceWord::RANDOM } else { 0 };
        let flags = empty | random;
        let without = ServiceWord { base, ring: 0, log2_bits: 0, flags };
        let word = extent.map_or(without, |extent| extent.word(base, flags));
        Ok(Prepared { word, extent, usable, rows, fresh })
    }

    /// Writes the ring of two or more backends into a free extent; `locals` are their rows, counted from the first.
    fn place(&mut self, usable: &[Backend], locals: &[u16]) -> Result<Option<Extent>> {
        if usable.len() < 2 {
            return Ok(None);
        }
        let reach = locals.iter().copied().max().unwrap_or_default();
        let extent = self.rings.allocate(Shape::new(usable.len(), reach.into()))?;
        self.rings.write(extent, &ring::build(usable), locals);
        Ok(Some(extent))
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

    /// Takes back what was written and never published.
    fn undo(&mut self, index: u32, key: VipKey, prepared: Prepared) {
        prepared.extent.into_iter().for_each(|extent| self.rings.release(extent));
        for row in prepared.fresh {
            self.forget(index, key, row.row);
        }
    }

    /// Frees a row that nobody reads.
    pub(super) fn forget(&mut self, index: u32, key: VipKey, row: u32) {
        let record = rows::record(&self.maps.backends, row);
        self.backends.remove(&self.maps.backend_filter, rows::filter_bit(&record, key.protocol));
        self.rows.release(&self.maps.backends, row);
        if let Some(users) = self.users.get_mut(&index) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&index);
            }
        }
    }
}

fn sockets(usable: &[Backend]) -> Result<Vec<SocketAddrV4>> {
    let socket = |backend: &Backend| match backend.v4() {
        Some((address, port)) => Ok(SocketAddrV4::new(address, port)),
        None => Err(Error::NotV4(backend.address)),
    };
    usable.iter().map(socket).collect()
}
