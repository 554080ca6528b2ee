use std::os::fd::AsFd as _;

use aya::maps::MapData;

use super::{
    config_map::ConfigMap,
    counters::CounterMap,
    endpoints::EndpointMap,
    error::{Context as _, Error, Result},
    flow_maps,
    object::duplicate,
    paths::PathMap,
    services::ServiceMap,
    sys,
    translated::{self, TranslatedMap},
    uplink_map::UplinkMap,
};

const FAN: [&str; 12] = [
    "config",
    "uplinks",
    "endpoints",
    "near",
    "paths",
    "counters",
    "events",
    "watch",
    "trace_events",
    "trace_pace",
    translated::NAME,
    "translated_slots",
];
const SERVICE: [&str; 6] = ["services", "service", "backends", "rings", "vip_filter", "backend_filter"];
const FLOW: [&str; 7] =
    ["flows", "datagrams", "unconfirmed", flow_maps::PRESENT, flow_maps::FORMER, "flow_books", "taken_over"];

/// All maps, pinned or private.
pub(super) struct Tables {
    pub(super) config: ConfigMap,
    /// The kernel's number for map `config`.
    pub(super) config_id: u32,
    /// The kernel's number for map `flow_tables`.
    pub(super) flows_id: u32,
    pub(super) uplinks: UplinkMap,
    pub(super) endpoints: EndpointMap,
    pub(super) paths: PathMap,
    pub(super) translated: TranslatedMap,
    pub(super) services: ServiceMap,
    pub(super) counters: CounterMap,
    pub(super) events: MapData,
    all: Vec<(&'static str, MapData)>,
}

/// Bytes of kernel memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapMemory {
    /// All maps.
    pub maps: u64,
    /// Those of flows.
    pub flows: u64,
    /// Those of services, backends and rings.
    pub services: u64,
}

impl Tables {
    /// Opens each map by `source`.
    pub(super) fn new(source: impl Fn(&str) -> Result<MapData>) -> Result<Self> {
        let config = source("config")?;
        let names = FAN.iter().chain(&SERVICE).chain(&FLOW);
        Ok(Self {
            flows_id: source(flow_maps::PRESENT)?.info().map_err(Error::map(flow_maps::PRESENT))?.id(),
            config_id: config.info().map_err(Error::map("config"))?.id(),
            config: ConfigMap::new(&config)?,
            uplinks: UplinkMap::new(&source("uplinks")?)?,
            endpoints: EndpointMap::new(source("endpoints")?, &source("near")?)?,
            paths: PathMap::new(source("paths")?)?,
            translated: TranslatedMap::new(source(translated::NAME)?)?,
            services: ServiceMap::new(&source)?,
            counters: CounterMap::new(source("counters")?)?,
            events: source("events")?,
            all: names.map(|&name| Ok((name, source(name)?))).collect::<Result<_>>()?,
        })
    }

    /// Another handle of a map.
    pub(super) fn duplicate(&self, name: &str) -> Result<MapData> {
        let found = self.all.iter().find(|(known, _)| *known == name);
        let (_, data) = found.ok_or_else(|| Error::Object { what: format!("map {name}") })?;
        duplicate(data, name)
    }

    /// Bytes of kernel memory that the maps take.
    pub(super) fn memory(&self) -> Result<MapMemory> {
        let segments = self.services.segment_memory()?;
        let mut memory = MapMemory { maps: segments, services: segments, flows: 0 };
        for (name, data) in &self.all {
            let bytes =
                sys::map_memory(data.fd().as_fd()).during(|| format!("asking for the size of map {name}"))?;
            memory.maps += bytes;
            if SERVICE.contains(name) {
                memory.services += bytes;
            }
            if FLOW.contains(name) {
                memory.flows += bytes;
            }
        }
        Ok(memory)
    }
}
