//! The filters of VIPs and backends: a bit is set while a VIP or backend needs it.

use std::{collections::HashMap, sync::atomic::Ordering};

use super::super::sys::Mapping;

/// How many VIPs or backends need each bit of a filter.
#[derive(Debug, Default)]
pub(super) struct Filter {
    users: HashMap<u32, u32>,
}

impl Filter {
    /// Sets a bit for one more user.
    pub(super) fn add(&mut self, map: &Mapping, bit: u32) {
        let users = self.users.entry(bit).or_default();
        *users += 1;
        if *users == 1 {
            let (offset, mask) = place(bit);
            map.u64(offset).fetch_or(mask, Ordering::Release);
        }
    }

    /// Takes a user away, and with the last one the bit.
    pub(super) fn remove(&mut self, map: &Mapping, bit: u32) {
        let Some(users) = self.users.get_mut(&bit) else { return };
        *users -= 1;
        if *users == 0 {
            self.users.remove(&bit);
            let (offset, mask) = place(bit);
            map.u64(offset).fetch_and(!mask, Ordering::Release);
        }
    }

    /// Clears every bit that nobody needs; says how many words that changed.
    pub(super) fn clean(&self, map: &Mapping, bits: u32) -> u32 {
        let mut wanted: HashMap<usize, u64> = HashMap::new();
        for &bit in self.users.keys() {
            let (offset, mask) = place(bit);
            *wanted.entry(offset).or_default() |= mask;
        }
        let mut cleaned = 0;
        for offset in (0..bits as usize / 8).step_by(size_of::<u64>()) {
            let wanted = wanted.get(&offset).copied().unwrap_or_default();
            if map.u64(offset).load(Ordering::Relaxed) & !wanted != 0 {
                map.u64(offset).fetch_and(wanted, Ordering::Release);
                cleaned += 1;
            }
        }
        cleaned
    }
}

fn place(bit: u32) -> (usize, u64) {
    ((bit / u64::BITS) as usize * size_of::<u64>(), 1 << (bit % u64::BITS))
}
