//! A writer's start: what stands in the maps, and repair of what no change would ever touch.

use std::{collections::HashMap, sync::Arc};

use control::{
    observed::{HeldRow, HeldService},
    service::{Algorithm, Backend, Service, Vip},
};
use dataplane_common::abi::{
    BACKEND_FILTER_BITS, BackendRecord, MAX_BACKENDS, ServiceWord, VIP_FILTER_BITS, vip_bit,
};

use super::{
    MakeRing, Maps, Result, Writer,
    records::{is_index, key_of},
    rings::Extent,
    rows,
    spread::spread,
};

impl Writer {
    pub(super) fn open(maps: Arc<Maps>, make_ring: MakeRing) -> Result<Self> {
        let mut writer = Self::empty(maps, make_ring)?;
        for (vip, index) in writer.maps.records.list()? {
            writer.read_service(vip, index)?;
        }
        writer.read_rings();
        let keys: Vec<_> = writer.held.services.keys().map(|&vip| key_of(vip)).collect::<Result<_>>()?;
        writer.maps.records.recount(keys.into_iter())?;
        writer.read_rows();
        writer.vips.clean(&writer.maps.vip_filter, VIP_FILTER_BITS);
        writer.backends.clean(&writer.maps.backend_filter, BACKEND_FILTER_BITS);
        Ok(writer)
    }

    /// A VIP whose record is not its own came from a change that was never completed: it goes.
    fn read_service(&mut self, vip: Vip, index: u32) -> Result<()> {
        let key = key_of(vip)?;
        if !is_index(index) || self.maps.records.key(index) != key || !self.indices.contains(index) {
            return self.maps.records.remove(key);
        }
        self.indices.remove(index);
        let word = self.maps.records.word(index);
        if let Some(extent) = Extent::of(word).filter(|&extent| self.rings.claim(extent)) {
            self.extents.insert(index, extent);
        } else if word.log2_bits == 0 && word.flags & ServiceWord::EMPTY == 0 && word.base < MAX_BACKENDS {
            self.named.insert(word.base);
        }
        let algorithm =
            if word.flags & ServiceWord::RANDOM == 0 { Algorithm::Maglev } else { Algorithm::Random };
        let held = HeldService { index, algorithm, usable: None, rows: Vec::new() };
        self.held.services.insert(vip, held);
        self.vips.add(&self.maps.vip_filter, vip_bit(key.address));
        Ok(())
    }

    /// Notes which rows rings name.
    fn read_rings(&mut self) {
        let extents: Vec<(u32, Extent)> =
            self.extents.iter().map(|(&index, &extent)| (index, extent)).collect();
        let named = spread(&extents, |&(index, extent)| {
            let base = self.maps.records.word(index).base;
            let named = self.rings.named(extent).into_iter().map(|local| base + u32::from(local));
            named.filter(|&row| row < MAX_BACKENDS).collect::<Vec<u32>>()
        });
        named.into_iter().flatten().for_each(|row| self.named.insert(row));
    }

    fn read_rows(&mut self) {
        let mut rows_of: HashMap<u32, &mut Vec<HeldRow>> =
            self.held.services.values_mut().map(|held| (held.index, &mut held.rows)).collect();
        for row in 0..MAX_BACKENDS {
            let record = rows::record(&self.maps.backends, row);
            if rows::is_free(&record) {
                continue;
            }
            let is_named = self.named.contains(row);
            if !is_named {
                self.leaving.rows.push(row);
            }
            // An earlier version did not say it, and one that was killed may not have come to it.
            if (record.flags & BackendRecord::OUT != 0) == is_named {
                rows::mark_out(&self.maps.backends, row, !is_named);
            }
            let is_gone = record.flags & BackendRecord::GONE != 0;
            if is_gone {
                self.gone.push(rows::named_by_flows(&self.maps.backends, row));
            }
            let held = HeldRow { row, socket: rows::socket(&record), is_gone, is_named };
            if record.flags & BackendRecord::ABSENT != 0 {
                self.absent.insert(*held.socket.ip());
            }
            match rows_of.get_mut(&record.service) {
                Some(rows) => rows.push(held),
                None => self.held.orphans.push(held),
            }
            if !is_index(record.service) {
                continue;
            }
            let protocol = self.maps.records.key(record.service).protocol;
            self.backends.add(&self.maps.backend_filter, rows::filter_bit(&record, protocol));
            *self.users.entry(record.service).or_default() += 1;
            self.indices.remove(record.service);
        }
    }

    /// Finds out which of the services that were read are as wanted: their rings tell no weights.
    pub fn recognise<'s>(&mut self, wanted: impl IntoIterator<Item = &'s Service>) {
        let is_unknown = |service: &&Service| {
            self.held.services.get(&service.vip).is_some_and(|held| held.usable.is_none())
        };
        let unknown: Vec<&Service> = wanted.into_iter().filter(is_unknown).collect();
        let found = spread(&unknown, |service| {
            let usable = service.usable();
            let held = self.held.services.get(&service.vip);
            held.is_some_and(|held| self.is_computed_from(held, &usable)).then_some(usable)
        });
        for (service, usable) in unknown.into_iter().zip(found) {
            if let Some(held) = self.held.services.get_mut(&service.vip) {
                held.usable = usable;
            }
        }
    }

    /// Whether a service's word leads to these backends, and no other set's ring would be the same.
    fn is_computed_from(&self, held: &HeldService, usable: &[Backend]) -> bool {
        let word = self.maps.records.word(held.index);
        let named = |backend: &Backend| {
            let own = held.rows.iter().filter(|row| row.is_named && !row.is_gone);
            let mut own = own.filter(|row| Some((*row.socket.ip(), row.socket.port())) == backend.v4());
            own.next().map(|row| row.row)
        };
        let is_empty = word.flags & ServiceWord::EMPTY != 0;
        match usable {
            [] => is_empty,
            [one] => !is_empty && word.log2_bits == 0 && named(one) == Some(word.base),
            _ => {
                let Some(&extent) = self.extents.get(&held.index) else { return false };
                let ring = (self.make_ring)(usable);
                if extent.slots() != ring.len() {
                    return false;
                }
                let local = |backend| named(backend)?.checked_sub(word.base)?.try_into().ok();
                // One whose weight is too small for a slot is not named.
                let none = |place| (!ring.contains(&place)).then_some(0);
                let locals = usable.iter().zip(0..).map(|(one, place)| local(one).or_else(|| none(place)));
                let locals: Option<Vec<u16>> = locals.collect();
                locals.is_some_and(|locals| self.rings.holds(extent, &ring, &locals))
            }
        }
    }
}
