//! Changes of services.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
    slice,
    sync::Arc,
};

use control::{
    observed::{Held, HeldRow, HeldService},
    reconcile::ServiceOp,
    service::Vip,
};
use dataplane_common::abi::{MAX_BACKENDS, MAX_SERVICES, ServiceWord, VipKey, vip_bit};

use super::{
    Error, Gone, MakeRing, Maps, Result,
    batches::batches,
    bits::Bits,
    filters::Filter,
    missing,
    prepare::Prepared,
    records::key_of,
    rings::{Extent, Rings},
    rows::{self, Rows},
};
use crate::kernel::bpf::config_map::wait_for_readers;

/// Changes services. One at a time: callers hold the agent's lock.
#[derive(Debug)]
pub struct Writer {
    pub(super) maps: Arc<Maps>,
    pub(super) held: Held,
    pub(super) rings: Rings,
    pub(super) make_ring: MakeRing,
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
    /// Backends that are gone, as flows name them, until a caller has asked for them.
    pub(super) gone: Vec<u32>,
    /// This host's own addresses.
    pub(super) own: HashSet<Ipv4Addr>,
    /// Addresses whose endpoints have vanished.
    pub(super) absent: BTreeSet<Ipv4Addr>,
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

impl Writer {
    pub(super) fn empty(maps: Arc<Maps>, make_ring: MakeRing) -> Result<Self> {
        let mut indices = Bits::none(MAX_SERVICES);
        (0..MAX_SERVICES).for_each(|index| indices.insert(index));
        Ok(Self {
            rings: maps.rings()?,
            make_ring,
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
            absent: BTreeSet::new(),
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
        for held in self.rows_in_services() {
            rows::mark_here(&self.maps.backends, held.row, self.own.contains(held.socket.ip()));
        }
    }

    /// Says whose endpoints have vanished: their flows of UDP move on. After the rings have changed, so that these find
    /// another backend.
    pub fn set_absent_addresses(&mut self, absent: &BTreeSet<Ipv4Addr>) {
        let changed: HashSet<Ipv4Addr> = self.absent.symmetric_difference(absent).copied().collect();
        if changed.is_empty() {
            return;
        }
        self.absent.clone_from(absent);
        for held in self.rows_in_services().filter(|row| changed.contains(row.socket.ip())) {
            rows::mark_absent(&self.maps.backends, held.row, self.absent.contains(held.socket.ip()));
        }
    }

    fn rows_in_services(&self) -> impl Iterator<Item = &HeldRow> {
        self.held.services.values().flat_map(|service| &service.rows)
    }

    /// Makes one change. One that fails has changed nothing that packets see.
    pub fn apply(&mut self, op: &ServiceOp) -> Result<()> {
        let failed = self.apply_all(slice::from_ref(op)).pop();
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Makes changes, one after the other as packets see it; gives those that failed. What follows for the VIP of one
    /// that failed is not done.
    pub fn apply_all<'o>(&mut self, ops: &'o [ServiceOp]) -> Vec<(&'o ServiceOp, Error)> {
        let (mut failed, mut over) = (Vec::new(), HashSet::new());
        let is_over = |op: &ServiceOp, over: &HashSet<Vip>| op.vip().is_some_and(|vip| over.contains(&vip));
        for batch in batches(ops) {
            let due: Vec<&ServiceOp> = batch.iter().filter(|op| !is_over(op, &over)).collect();
            let prepared = self.prepare(&due);
            for (op, prepared) in due.into_iter().zip(prepared) {
                if is_over(op, &over) {
                    continue;
                }
                if let Err(error) = self.make(op, prepared) {
                    over.extend(op.vip());
                    failed.push((op, error));
                }
            }
        }
        failed
    }

    fn make(&mut self, op: &ServiceOp, prepared: Option<Result<Prepared<'_>>>) -> Result<()> {
        match op {
            ServiceOp::Remove(vip) => self.remove(*vip),
            ServiceOp::Retire { vip, row } => {
                self.retire(*vip, *row);
                Ok(())
            }
            ServiceOp::Change(_) | ServiceOp::Add(_) => {
                prepared.map_or(Ok(()), |prepared| self.publish(prepared?))
            }
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

    fn publish(&mut self, prepared: Prepared<'_>) -> Result<()> {
        let Some(held) = self.held.services.remove(&prepared.service.vip) else { return self.add(prepared) };
        self.maps.records.set_word(held.index, prepared.word);
        self.leaving.extents.extend(self.extents.remove(&held.index));
        self.note_published(held, prepared);
        Ok(())
    }

    /// Publishes a service's record before anything leads to it.
    fn add(&mut self, prepared: Prepared<'_>) -> Result<()> {
        let Prepared { service, index, key, word, .. } = prepared;
        self.maps.records.set_word(index, word);
        self.maps.records.set_key(index, key);
        if let Err(error) = self.maps.records.insert(key, index) {
            self.undo(prepared);
            return Err(error);
        }
        self.vips.add(&self.maps.vip_filter, vip_bit(key.address));
        let held = HeldService { index, algorithm: service.algorithm, usable: None, rows: Vec::new() };
        self.note_published(held, prepared);
        Ok(())
    }

    /// Enters into the writer's own records what the kernel holds of a service that was published just now.
    fn note_published(&mut self, mut held: HeldService, prepared: Prepared<'_>) {
        held.algorithm = prepared.service.algorithm;
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
            rows::mark_out(&self.maps.backends, row.row, !is_named);
        }
        if let Some(extent) = prepared.extent {
            self.extents.insert(held.index, extent);
        }
        self.held.services.insert(prepared.service.vip, held);
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

    /// Takes back what was written and never published.
    fn undo(&mut self, prepared: Prepared<'_>) {
        prepared.extent.into_iter().for_each(|extent| self.rings.release(extent));
        for row in prepared.fresh {
            self.forget(prepared.index, prepared.key, row.row);
        }
        self.indices.insert(prepared.index);
    }

    /// Frees a row that no program reads.
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
