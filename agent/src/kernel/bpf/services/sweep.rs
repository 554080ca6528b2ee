//! Rows that no flow remembers are free again.

use dataplane_common::abi::{FlowRecord, MAX_BACKENDS};

use super::{Result, Writer, bits::Bits, records::is_index, rows, walk::is_old};
use crate::kernel::bpf::flows::coarse_now;

impl Writer {
    /// Frees rows that no ring names and no flow remembers; says how many. Walks over the flow tables only where there
    /// are such rows.
    pub fn sweep(&mut self) -> Result<usize> {
        if self.idle.from(0).next().is_none() {
            return Ok(0);
        }
        let (now, backends) = (coarse_now()?, &self.maps.backends);
        let mut remembered = Bits::none(MAX_BACKENDS);
        self.maps.flows.each(|key, flow| {
            let row = FlowRecord::row_of(flow.backend);
            let is_row =
                || FlowRecord::backend_of(row, rows::record(backends, row).generation) == flow.backend;
            if self.idle.contains(row) && !is_old(key, flow, now) && is_row() {
                remembered.insert(row);
            }
        })?;
        let over: Vec<u32> = self.idle.from(0).filter(|&row| !remembered.contains(row)).collect();
        over.iter().for_each(|&row| self.free(row));
        self.held.orphans.retain(|row| !over.contains(&row.row));
        Ok(over.len())
    }

    fn free(&mut self, row: u32) {
        let index = rows::record(&self.maps.backends, row).service;
        let key = if is_index(index) { self.maps.records.key(index) } else { bytemuck::Zeroable::zeroed() };
        self.idle.remove(row);
        self.forget(index, key, row);
        let owner = self.held.services.values_mut().find(|held| held.index == index);
        match owner {
            Some(held) => held.rows.retain(|held| held.row != row),
            None if is_index(index)
                && !self.users.contains_key(&index)
                && !self.leaving.indices.contains(&index) =>
            {
                self.indices.insert(index);
            }
            None => {}
        }
    }
}
