//! Map `translated`: what answers flows that the host's connection tracking translates, as the programs have seen.

use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, Map, MapData};
use dataplane_common::abi::{FlowKey, idle, translated_life};

use super::{
    endpoints::is_missing,
    error::{Error, Result},
};

pub(super) const NAME: &str = "translated";

/// Flows that connection tracking translates.
#[derive(Debug)]
pub struct TranslatedMap {
    map: Mutex<HashMap<MapData, [u8; size_of::<FlowKey>()], u32>>,
}

impl TranslatedMap {
    pub(super) fn new(data: MapData) -> Result<Self> {
        let map = Map::from_map_data(data).and_then(HashMap::try_from).map_err(Error::map(NAME))?;
        Ok(Self { map: Mutex::new(map) })
    }

    /// Whether packets of this key answer one.
    pub fn holds(&self, key: &FlowKey, now: u32) -> Result<bool> {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get(&bytemuck::cast(*key), 0) {
            Ok(seen) => Ok(idle(seen, now) <= translated_life(key)),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(Error::map(NAME)(error)),
        }
    }
}
