//! The flow tables' keeper: old entries go, and clients hear of backends that are gone.
//!
//! A thread of its own, because a walk over a million flows takes seconds. Packets need it for nothing: the programs
//! look at no entry that is too old, and reset a connection at its client's next packet.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
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

/// Orders whose clients are told again soon; further ones wait and become one.
const TOLD: usize = 8;

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
#[derive(Debug)]
struct Order {
    gone: Gone,
    local: Local,
}

/// What the thread has to do next: orders that it has not come to are one.
#[derive(Debug, Default)]
struct Orders {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    order: Option<Order>,
    /// The sender of orders has gone.
    is_over: bool,
}

/// Why a wait for orders ended.
#[derive(Debug)]
enum Wake {
    Order(Order),
    Time,
    Over,
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an order to the one that waits; addresses of this host are the latest.
    fn give(&self, order: Order) {
        let mut waiting = self.lock();
        match &mut waiting.order {
            Some(former) => {
                former.gone.extend(order.gone);
                former.local = order.local;
            }
            None => waiting.order = Some(order),
        }
        self.changed.notify_one();
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_one();
    }

    /// Waits until `due`, or for an order where one may be taken.
    fn next(&self, due: Instant, takes: bool) -> Wake {
        let mut waiting = self.lock();
        loop {
            if waiting.is_over {
                return Wake::Over;
            }
            if takes && let Some(order) = waiting.order.take() {
                return Wake::Order(order);
            }
            let rest = due.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Wake::Time;
            }
            let woken = self.changed.wait_timeout(waiting, rest);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread, which ends with this value.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: Arc<Orders>,
    count: Arc<Mutex<Option<FlowCount>>>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(crate) fn start(services: &ServiceMap, faults: &Faults) -> anyhow::Result<Self> {
        let (orders, count) = <(Arc<Orders>, _)>::default();
        let mut work = Work {
            walk: services.walk(),
            ended: services.ended(),
            resetter: None,
            count: Arc::clone(&count),
        };
        let ordered = Arc::clone(&orders);
        let kept = faults.keep_thread("flows", move || work.run(&ordered));
        kept.context("agent: a thread for the flow tables")?;
        Ok(Self { orders, count })
    }

    /// Has local clients told that the flows of these backends are over.
    pub(crate) fn end(&self, gone: Gone, local: Local) {
        if !gone.is_empty() {
            self.orders.give(Order { gone, local });
        }
    }

    /// What the last complete walk found; `None` before the first.
    pub(crate) fn count(&self) -> Option<FlowCount> {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders.end();
    }
}

struct Work {
    walk: FlowWalk,
    ended: Ended,
    resetter: Option<Resetter>,
    count: Arc<Mutex<Option<FlowCount>>>,
}

impl Work {
    fn run(&mut self, orders: &Orders) {
        if let Err(error) = capabilities::drop_unused() {
            tracing::warn!("flows: capabilities are kept: {error}");
        }
        // With the time when they are told again.
        let mut told: Vec<(Instant, Order)> = Vec::new();
        let mut step = Instant::now() + STEP;
        loop {
            let due = told.iter().map(|&(due, _)| due).fold(step, Instant::min);
            match orders.next(due, told.len() < TOLD) {
                Wake::Order(order) => {
                    log(self.tell(&order));
                    told.push((Instant::now() + AGAIN, order));
                }
                Wake::Over => return,
                Wake::Time => {
                    let now = Instant::now();
                    for (_, order) in told.extract_if(.., |&mut (due, _)| due <= now) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn order(gone: impl IntoIterator<Item = u32>, own: u8) -> Order {
        let own = HashSet::from([Ipv4Addr::new(172, 30, 0, own)]);
        Order { gone: gone.into_iter().collect(), local: Local { fans: Vec::new(), own } }
    }

    #[test]
    fn orders_that_nobody_has_come_to_are_one() {
        let orders = Orders::default();
        for number in 0..100_000 {
            orders.give(order([number % 500], (number % 2) as u8));
        }
        let Wake::Order(all) = orders.next(Instant::now(), true) else { panic!("an order waits") };
        assert_eq!(all.gone, (0..500).collect());
        assert_eq!(all.local.own, order([], 1).local.own, "the latest addresses");
        assert!(matches!(orders.next(Instant::now(), true), Wake::Time));
    }

    #[test]
    fn an_order_waits_while_none_may_be_taken_and_wakes_the_thread_otherwise() {
        let orders = Orders::default();
        orders.give(order([1], 1));
        assert!(matches!(orders.next(Instant::now(), false), Wake::Time));
        let far = Instant::now() + Duration::from_secs(60);
        assert!(matches!(orders.next(far, true), Wake::Order(_)));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| orders.next(far, true));
            orders.give(order([2], 1));
            assert!(matches!(waiting.join().unwrap(), Wake::Order(_)));
            let waiting = scope.spawn(|| orders.next(far, true));
            orders.end();
            assert!(matches!(waiting.join().unwrap(), Wake::Over));
        });
    }
}
