//! The tables held in memory: decides on the host what the programs would decide in the kernel. Feature `memory`, which
//! the kernel programs are built without: this module alone allocates.

use alloc::collections::BTreeMap;

use bytemuck::Zeroable;

use crate::{
    abi::{Config, EndpointRecord, FanRecord},
    decide::Tables,
};

/// The tables of one node.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Fans and devices.
    pub config: Config,
    /// Endpoints by overlay address.
    pub endpoints: BTreeMap<u32, EndpointRecord>,
    /// Largest inner packets by remote host; [`Memory::learn`] adds one.
    pub paths: BTreeMap<u32, u32>,
}

impl Memory {
    /// A node with these fans, as many as have a slot, and these endpoints, that has learnt no path.
    pub fn new(fans: &[FanRecord], endpoints: &[EndpointRecord]) -> Self {
        let mut config = Config::zeroed();
        for fan in &mut config.fans {
            (fan.overlay, fan.overlay_mask) = FanRecord::UNUSED;
        }
        for (slot, (record, fan)) in config.fans.iter_mut().zip(fans).enumerate() {
            *record = fan.at(slot);
            config.fan_slots += 1;
        }
        config.smallest_path_mtu = u32::MAX;
        let endpoints = endpoints.iter().map(|record| (record.address, *record)).collect();
        Self { config, endpoints, paths: BTreeMap::new() }
    }

    /// Remembers what [`Verdict::LearnPathMtu`](crate::decide::Verdict::LearnPathMtu) says.
    pub fn learn(&mut self, host: u32, mtu: u32) {
        self.paths.insert(host, mtu);
        self.config.smallest_path_mtu = self.config.smallest_path_mtu.min(mtu);
    }
}

impl Tables for Memory {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn endpoint(&self, address: u32) -> Option<&EndpointRecord> {
        self.endpoints.get(&address)
    }

    fn path_mtu(&self, host: u32) -> Option<u32> {
        self.paths.get(&host).copied()
    }
}
