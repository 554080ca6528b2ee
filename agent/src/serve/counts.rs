//! Flows of services, counted for all who ask at about one time: a count walks the whole flow table.

use std::{
    collections::HashMap,
    net::SocketAddrV4,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use control::service::Vip;

use crate::kernel::bpf::{self, ServiceMap};

/// Established flows of each service and backend.
pub(super) type Flows = HashMap<(Vip, SocketAddrV4), u64>;

/// Until this age a count is given out as it is.
const FRESH: Duration = Duration::from_millis(250);
/// Until this age a count is given out, and the next one is begun: readers that come again and again never wait for one.
/// docs/api.md promises it.
const STALE: Duration = Duration::from_secs(1);

/// The latest count; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    latest: Option<(Instant, Arc<Flows>)>,
    /// Whether the next one is under way, beside the readers.
    is_begun: bool,
}

impl Counts {
    /// A count that is at most [`STALE`] old. Whoever finds none makes it, and the others wait; on a thread that may block.
    pub(super) fn of(&self, map: &ServiceMap) -> bpf::Result<Arc<Flows>> {
        let map = map.clone();
        self.get(Instant::now(), move || map.count_flows())
    }

    fn get(
        &self,
        now: Instant,
        count: impl FnOnce() -> bpf::Result<Flows> + Send + 'static,
    ) -> bpf::Result<Arc<Flows>> {
        let mut state = self.state();
        if let Some((time, flows)) = &state.latest {
            let age = now.saturating_duration_since(*time);
            if age < STALE {
                let flows = Arc::clone(flows);
                if age >= FRESH && !state.is_begun {
                    state.is_begun = true;
                    self.begin(count);
                }
                return Ok(flows);
            }
        }
        let flows = Arc::new(count()?);
        state.latest = Some((now, Arc::clone(&flows)));
        Ok(flows)
    }

    /// Makes the next count. Where that fails, the latest grows old, and a reader is told why.
    fn begin(&self, count: impl FnOnce() -> bpf::Result<Flows> + Send + 'static) {
        let counts = self.clone();
        tokio::task::spawn_blocking(move || {
            let time = Instant::now();
            let flows = count();
            let mut state = counts.state();
            state.is_begun = false;
            if let Ok(flows) = flows {
                state.latest = Some((time, Arc::new(flows)));
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(flows: u64) -> impl FnOnce() -> bpf::Result<Flows> + Send + 'static {
        let vip = "10.96.0.10:80/tcp".parse().expect("a VIP");
        let backend = "250.0.27.3:80".parse().expect("a backend");
        move || Ok(Flows::from([((vip, backend), flows)]))
    }

    fn number(flows: &Flows) -> u64 {
        flows.values().sum()
    }

    #[tokio::test]
    async fn readers_share_a_count_until_it_is_stale_and_the_next_is_made_beside_them() {
        let (counts, start) = (Counts::default(), Instant::now());
        let at = |age: Duration, flows| number(&counts.get(start + age, counted(flows)).expect("a count"));
        assert_eq!(at(Duration::ZERO, 1), 1);
        assert_eq!(at(FRESH / 2, 2), 1, "fresh");
        assert_eq!(at(FRESH, 3), 1, "the next one is under way");
        while counts.state().is_begun {
            tokio::task::yield_now().await;
        }
        assert_eq!(at(FRESH / 2, 4), 3, "the one that was begun");
        assert_eq!(at(2 * STALE, 5), 5, "what is stale is not given out");
    }
}
