//! The flow tables' keeper: old entries go, and clients hear of backends that are gone.
//!
//! A thread of its own, because a walk over a million flows takes seconds. Packets need it for nothing: the programs
//! look at no entry that is too old, and reset a connection at its client's next packet.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use dataplane_common::abi::FanRecord;

use crate::kernel::{
    bpf::{Ended, FlowCount, FlowWalk, Gone, ServiceMap},
    capabilities,
    reset::Resetter,
    tasks::Faults,
};

/// Between two steps of the walk, of which there are at most 64 a walk.
const STEP: Duration = Duration::from_secs(1);
/// When clients are told once more: what a client acknowledges with a delay was not known the first time.
const AGAIN: Duration = Duration::from_millis(500);
/// Resets that are sent at once, and the rest after them: 25,600 a second.
const BURST: usize = 256;
const REST: Duration = Duration::from_millis(10);

/// Whose connections end here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Local {
    /// The slices of the fans.
    pub(crate) fans: Vec<FanRecord>,
    /// Addresses of the host.
    pub(crate) own: HashSet<Ipv4Addr>,
}

impl Local {
    fn has(&self, address: Ipv4Addr) -> bool {
        let in_slice = |fan: &FanRecord| fan.in_use() && address.to_bits() & fan.slice_mask == fan.slice;
        self.own.contains(&address) || self.fans.iter().any(in_slice)
    }
}

/// Clients to be told, and what to forget then.
struct Order {
    gone: Gone,
    local: Local,
    /// When they are told again; `None`: they have not been told.
    due: Option<Instant>,
}

/// The thread, which ends with this value.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: Sender<Order>,
    count: Arc<Mutex<Option<FlowCount>>>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(crate) fn start(services: &ServiceMap, faults: &Faults) -> anyhow::Result<Self> {
        let (orders, ordered) = mpsc::channel();
        let count = Arc::default();
        let mut work = Work {
            walk: services.walk(),
            ended: services.ended(),
            resetter: None,
            count: Arc::clone(&count),
        };
        let kept = faults.keep_thread("flows", move || work.run(&ordered));
        kept.context("agent: a thread for the flow tables")?;
        Ok(Self { orders, count })
    }

    /// Has local clients told that the flows of these backends are over.
    pub(crate) fn end(&self, gone: Gone, local: Local) {
        if !gone.is_empty() && self.orders.send(Order { gone, local, due: None }).is_err() {
            tracing::warn!("flows: nobody is there to reset them; restart the agent");
        }
    }

    /// What the last complete walk found; `None` before the first.
    pub(crate) fn count(&self) -> Option<FlowCount> {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Work {
    walk: FlowWalk,
    ended: Ended,
    resetter: Option<Resetter>,
    count: Arc<Mutex<Option<FlowCount>>>,
}

impl Work {
    fn run(&mut self, orders: &Receiver<Order>) {
        if let Err(error) = capabilities::drop_unused() {
            tracing::warn!("flows: capabilities are kept: {error}");
        }
        let mut told: Vec<Order> = Vec::new();
        let mut step = Instant::now() + STEP;
        loop {
            let due = told.iter().filter_map(|order| order.due).fold(step, Instant::min);
            match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(mut order) => {
                    log(self.tell(&order));
                    order.due = Some(Instant::now() + AGAIN);
                    told.push(order);
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    for order in told.extract_if(.., |order| order.due.is_some_and(|due| due <= now)) {
                        log(self.tell(&order).and_then(|()| self.forget(&order)));
                    }
                    if step <= now {
                        step = now + STEP;
                        log(self.step());
                    }
                }
            }
        }
    }

    /// Resets the connections, a few at once.
    fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        let connections = self.ended.connections(&order.gone, |client| order.local.has(client))?;
        if connections.is_empty() {
            return Ok(());
        }
        let resetter = match &self.resetter {
            Some(resetter) => resetter,
            None => self.resetter.insert(Resetter::open().context("a socket for resets")?),
        };
        tracing::debug!(connections = connections.len(), "reset: their backends are gone");
        let mut outcome = Ok(());
        for (number, connection) in connections.iter().enumerate() {
            if number % BURST == BURST - 1 {
                thread::sleep(REST);
            }
            outcome = outcome.and(resetter.reset(connection));
        }
        outcome.context("resetting connections of backends that are gone")
    }

    fn forget(&self, order: &Order) -> anyhow::Result<()> {
        let forgotten = self.ended.forget(&order.gone, |client| order.local.has(client))?;
        tracing::debug!(forgotten, "entries of backends that are gone");
        Ok(())
    }

    fn step(&mut self) -> anyhow::Result<()> {
        if let Some(count) = self.walk.step()? {
            *self.count.lock().unwrap_or_else(PoisonError::into_inner) = Some(count);
        }
        Ok(())
    }
}

/// Nothing depends on it: what failed is tried at the next turn, or left to the programs.
fn log(outcome: anyhow::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!("flows: {error:#}");
    }
}
