//! Room for the flows of services: a node without any has small tables, and larger ones when the first comes.

use anyhow::Result;

use super::services::Services;
use crate::kernel::bpf::{Datapath, IDLE_FLOWS, flows_held};

impl Services {
    /// How many flows the datapath ought to hold; `None`: as the memory allows.
    pub(super) fn flows(&self) -> Option<u32> {
        if self.book.entries().is_empty() { Some(IDLE_FLOWS) } else { self.settings.flows }
    }

    /// Whether the first services need larger flow tables than those of a node without any, which are empty.
    pub(super) fn is_cramped(&self, datapath: &Datapath) -> Result<bool> {
        let held = datapath.services().flow_capacity()?;
        Ok(held == flows_held(Some(IDLE_FLOWS))?
            && held < flows_held(self.flows())?
            && datapath.services().vips()?.is_empty())
    }

    /// What there is to say of the flow table's size.
    pub(super) fn lacks_room(&self, datapath: &Datapath) -> Result<Option<String>> {
        let Some(configured) = self.settings.flows.filter(|_| !self.book.entries().is_empty()) else {
            return Ok(None);
        };
        let held = datapath.services().flow_capacity()?;
        let least = flows_held(Some(configured))?;
        Ok(if least != configured {
            Some(format!(
                "config-invalid: datapath.flows: {configured} is fewer than 1,024 for each possible CPU; use at least {least}"
            ))
        } else if held != configured {
            Some(format!(
                "flow-table: it holds {held} flows, and {configured} are configured; another size comes when the last \
                 fan was taken down"
            ))
        } else {
            None
        })
    }
}
