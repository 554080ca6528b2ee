//! Room for the flows of services: a node without any has small tables, and larger ones when the first comes.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{agent::Agent, services::Services};
use crate::kernel::bpf::{Datapath, IDLE_FLOWS, check_flows, flows_held};

/// Flow tables that the kernel did not give.
#[derive(Debug)]
pub(super) struct RefusedFlows {
    /// As the configuration has them.
    configured: Option<u32>,
    why: String,
    again: Instant,
}

impl RefusedFlows {
    /// Each attempt asks the kernel for much memory.
    const REST: Duration = Duration::from_secs(60);

    /// Whether they need not be asked for now.
    fn holds(&self, configured: Option<u32>) -> bool {
        self.configured == configured && Instant::now() < self.again
    }
}

impl Services {
    /// How many flows the datapath ought to hold; `None`: as the memory allows.
    pub(super) fn flows(&self) -> Option<u32> {
        if self.book.entries().is_empty() {
            return Some(IDLE_FLOWS);
        }
        self.settings.flows.filter(|&flows| check_flows(flows).is_ok())
    }

    /// Whether the services need other flow tables: larger ones than those of a node without any, or such as are
    /// configured. The last service leaves them as they are.
    pub(super) fn needs_other_flows(&self, datapath: &Datapath) -> Result<bool> {
        if self.book.entries().is_empty() {
            return Ok(false);
        }
        let held = datapath.services().flow_capacity()?;
        if self.settings.flows.is_some_and(|flows| check_flows(flows).is_err()) {
            // Tables of a size that was possible stay; those of a node without services hold too little.
            return Ok(held <= flows_held(Some(IDLE_FLOWS))?);
        }
        if self.refused_flows.as_ref().is_some_and(|refused| refused.holds(self.settings.flows)) {
            return Ok(false);
        }
        let wanted = flows_held(self.flows())?;
        Ok(held < wanted || held > wanted && self.settings.flows.is_some())
    }

    /// Notes that the kernel did not give the tables that were asked for last; `None`: it did.
    pub(super) fn note_flows(&mut self, refused: Option<String>) {
        let configured = self.settings.flows;
        self.refused_flows =
            refused.map(|why| RefusedFlows { configured, why, again: Instant::now() + RefusedFlows::REST });
    }

    /// What there is to say of the flow table's size.
    pub(super) fn lacks_room(&self, datapath: &Datapath) -> Result<Option<String>> {
        if self.book.entries().is_empty() {
            return Ok(None);
        }
        if let Some(Err(error)) = self.settings.flows.map(check_flows) {
            return Ok(Some(format!("config-invalid: datapath.flows: {error}")));
        }
        if let Some(refused) = &self.refused_flows {
            let held = datapath.services().flow_capacity()?;
            let RefusedFlows { why, .. } = refused;
            return Ok(Some(format!(
                "flow-tables: they stay at {held} flows, whose flows go on: {why}; free memory or set fewer in datapath.flows; \
                 it is tried again every minute"
            )));
        }
        let Some(configured) = self.settings.flows else { return Ok(None) };
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
