//! How many streams of others there may be at a time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// In all: that many handshakes are a few milliseconds of work.
const ALL: usize = 128;
/// Of one address: it can't keep others out.
const OF_ONE: usize = 8;

/// Streams by address; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place for one stream, for as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// A place for a stream from this address, if there is one.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.lock();
        let of_one = taken.get(&address).copied().unwrap_or_default();
        if of_one >= OF_ONE || taken.values().sum::<usize>() >= ALL {
            return None;
        }
        taken.insert(address, of_one + 1);
        Some(Place { places: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let places = Places::default();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let many: Vec<_> = (0..100).map_while(|_| places.take(address(1))).collect();
        assert_eq!(many.len(), OF_ONE);
        let one = places.take(address(2)).expect("a place of its own");
        let others: Vec<_> = (3..=255).filter_map(|last| places.take(address(last))).collect();
        assert_eq!(many.len() + 1 + others.len(), ALL);
        drop(one);
        assert!(places.take(address(254)).is_some() && places.take(address(1)).is_none());
        drop((many, others));
        assert_eq!(places.lock().len(), 0);
    }
}
