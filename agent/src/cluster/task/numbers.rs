//! The cluster in numbers.

use control::cluster::membership::Refusal;

use super::Task;
use crate::cluster::numbers::{Numbers, Slices, Stored};

impl Task<'_> {
    /// The overlay networks of members, as far as they say.
    pub(super) fn slices(&self) -> Slices {
        let Some(shared) = &self.shared else { return Slices::new() };
        let facts = shared.replication.state().view().facts();
        facts.map(|(node, facts)| (node.to_string(), facts.slices.clone())).collect()
    }

    pub(super) fn numbers(&mut self) -> Numbers {
        let now = self.now();
        let traffic = &self.inbox.traffic;
        let refused = self.core.refused();
        let refused = Refusal::ALL.map(|refusal| {
            let count = refused.get(&refusal).copied().unwrap_or_default();
            (refusal.name(), count)
        });
        let stored = self.shared.as_mut().map(|shared| {
            let logs = shared.replication.state().logs();
            Stored {
                records: logs.entries().filter(|(.., item)| item.value.is_some()).count() as u64,
                removals: logs.entries().filter(|(.., item)| item.value.is_none()).count() as u64,
                memory: logs.bytes() as u64,
                file: shared.store.size(),
                lag: shared.lag.longest(now),
            }
        });
        Numbers { sent: traffic.sent(), received: traffic.received(), refused: refused.to_vec(), stored }
    }
}
