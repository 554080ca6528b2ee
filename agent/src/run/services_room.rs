//! Room for the flows of services: a node without any has small tables, and larger ones when the first comes.

use anyhow::Result;

use super::{agent::Agent, services::Services};
use crate::kernel::bpf::{Datapath, IDLE_FLOWS, flows_held};

impl Services {
    /// How many flows the datapath ought to hold; `None`: as the memory allows.
    pub(super) fn flows(&self) -> Option<u32> {
        if self.book.entries().is_empty() { Some(IDLE_FLOWS) } else { self.settings.flows }
    }

    /// Whether the services need other flow tables: larger ones than those of a node without any, or such as are
    /// configured. The last service leaves them as they are.
    pub(super) fn needs_other_flows(&self, datapath: &Datapath) -> Result<bool> {
        if self.book.entries().is_empty() {
            return Ok(false);
        }
        let (held, wanted) = (datapath.services().flow_capacity()?, flows_held(self.flows())?);
        Ok(held < wanted || held > wanted && self.settings.flows.is_some())
    }

    /// What there is to say of the flow table's size.
    pub(super) fn lacks_room(&self) -> Result<Option<String>> {
        let Some(configured) = self.settings.flows.filter(|_| !self.book.entries().is_empty()) else {
            return Ok(None);
        };
        let least = flows_held(Some(configured))?;
        Ok((least != configured).then(|| {
            format!(
                "config-invalid: datapath.flows: {configured} is fewer than 1,024 for each possible CPU; use at least {least}"
            )
        }))
    }
}

impl Agent {
    /// Has the flows brought over that are left in tables which others have replaced. In a thread of its own: there may be
    /// a million.
    pub(super) fn bring_flows_over(&mut self) {
        let is_over = self.moving.as_ref().is_none_or(|moving| moving.is_finished());
        if is_over && self.datapath.as_ref().is_some_and(Datapath::has_former_flows) {
            self.moving = Some(self.faults.blocking("moving-flows", || match Datapath::bring_flows_over() {
                Ok(entries) => tracing::info!(entries, "flows: brought over to other tables"),
                Err(error) => tracing::warn!("flows: {error}; it is tried again"),
            }));
        }
    }
}
