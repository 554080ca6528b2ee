use std::os::fd::AsFd as _;

use aya::maps::MapData;

use super::{
    config_map::ConfigMap,
    counters::CounterMap,
    endpoints::EndpointMap,
    error::{Context as _, Error, Result},
    paths::PathMap,
    sys,
};

/// The five maps, pinned or private.
pub(super) struct Tables {
    pub(super) config: ConfigMap,
    /// The kernel's number for map `config`.
    pub(super) config_id: u32,
    pub(super) endpoints: EndpointMap,
    pub(super) paths: PathMap,
    pub(super) counters: CounterMap,
    pub(super) events: MapData,
    all: Vec<(&'static str, MapData)>,
}

impl Tables {
    /// Opens each map by `source`.
    pub(super) fn new(source: impl Fn(&str) -> Result<MapData>) -> Result<Self> {
        const NAMES: [&str; 6] = ["config", "endpoints", "near", "paths", "counters", "events"];
        let config = source("config")?;
        Ok(Self {
            config_id: config.info().map_err(Error::map("config"))?.id(),
            config: ConfigMap::new(&config)?,
            endpoints: EndpointMap::new(source("endpoints")?, &source("near")?)?,
            paths: PathMap::new(source("paths")?)?,
            counters: CounterMap::new(source("counters")?)?,
            events: source("events")?,
            all: NAMES.iter().map(|&name| Ok((name, source(name)?))).collect::<Result<_>>()?,
        })
    }

    /// Bytes of kernel memory that the maps take.
    pub(super) fn memory(&self) -> Result<u64> {
        self.all
            .iter()
            .map(|(name, data)| {
                sys::map_memory(data.fd().as_fd()).during(|| format!("asking for the size of map {name}"))
            })
            .sum()
    }
}
