//! What the writer is to do. Orders that wait are one: the newest desired state, and all that it concerns.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use control::desired::{Desired, Dirty};
use tokio::sync::{Notify, oneshot};

/// What could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The service that it is about; `None`: any.
    pub(crate) service: Option<String>,
    /// Why.
    pub(crate) why: String,
}

/// Where the outcome of an order goes: what failed of it.
#[derive(Debug)]
pub(crate) struct Done {
    concerns: Dirty,
    answer: oneshot::Sender<Vec<String>>,
}

impl Done {
    /// Says what failed, as far as it concerns the order.
    pub(super) fn tell(self, faults: &[Fault]) {
        let is_own = |fault: &&Fault| match (&self.concerns, &fault.service) {
            (Dirty::Names(names), Some(service)) => names.contains(service.as_str()),
            _ => true,
        };
        let faults = faults.iter().filter(is_own).map(|fault| fault.why.clone()).collect();
        // The order's giver may have given up.
        drop(self.answer.send(faults));
    }
}

/// The kernel is to hold what is desired.
#[derive(Debug)]
pub(crate) struct Order {
    pub(super) desired: Arc<Desired>,
    pub(super) dirty: Dirty,
    pub(super) done: Vec<Done>,
}

/// The next thing to do.
#[derive(Debug)]
pub(super) enum Next {
    /// An order.
    Order(Order),
    /// Everything of ours goes.
    TakeDown(oneshot::Sender<anyhow::Result<()>>),
    /// The thread ends.
    Stop,
}

/// Orders that wait for the writer.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    waiting: Mutex<Waiting>,
    changed: Notify,
    /// Since when the writer is at one thing.
    busy: Mutex<Option<SystemTime>>,
}

#[derive(Debug, Default)]
struct Waiting {
    order: Option<Order>,
    take_down: Option<oneshot::Sender<anyhow::Result<()>>>,
    is_over: bool,
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders the kernel brought to what is desired; what failed goes to `answer` when that is so.
    pub(crate) fn reconcile(
        &self,
        desired: Arc<Desired>,
        dirty: Dirty,
        answer: oneshot::Sender<Vec<String>>,
    ) {
        let done = Done { concerns: dirty.clone(), answer };
        let mut waiting = self.lock();
        let order = match waiting.order.take() {
            Some(mut former) => {
                former.done.push(done);
                Order { desired, dirty: former.dirty.and(dirty), done: former.done }
            }
            None => Order { desired, dirty, done: vec![done] },
        };
        waiting.order = Some(order);
        drop(waiting);
        self.changed.notify_one();
    }

    /// Orders everything taken down.
    pub(super) fn take_down(&self) -> oneshot::Receiver<anyhow::Result<()>> {
        let (answer, outcome) = oneshot::channel();
        self.lock().take_down = Some(answer);
        self.changed.notify_one();
        outcome
    }

    /// Orders the thread to end.
    pub(super) fn stop(&self) {
        self.lock().is_over = true;
        self.changed.notify_one();
    }

    /// The writer begins something.
    pub(super) fn begin(&self) {
        *self.busy() = Some(SystemTime::now());
    }

    /// It is done.
    pub(super) fn end(&self) {
        *self.busy() = None;
    }

    /// Since when the writer is at one thing.
    pub(super) fn busy_since(&self) -> Option<SystemTime> {
        *self.busy()
    }

    fn busy(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to do. Dropping this loses nothing.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut waiting = self.lock();
        if let Some(answer) = waiting.take_down.take() {
            return Some(Next::TakeDown(answer));
        }
        if waiting.is_over {
            return Some(Next::Stop);
        }
        waiting.order.take().map(Next::Order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Dirty {
        Dirty::Names(names.iter().map(|&name| name.into()).collect())
    }

    fn desired(generation: u64) -> Arc<Desired> {
        let mut desired = Desired::default();
        desired.generation = generation;
        Arc::new(desired)
    }

    fn fault(service: Option<&str>, why: &str) -> Fault {
        Fault { service: service.map(str::to_owned), why: why.to_owned() }
    }

    fn reconcile(orders: &Orders, desired: Arc<Desired>, dirty: Dirty) -> oneshot::Receiver<Vec<String>> {
        let (answer, outcome) = oneshot::channel();
        orders.reconcile(desired, dirty, answer);
        outcome
    }

    #[test]
    fn orders_that_wait_are_one_for_the_newest_state_and_all_that_changed() {
        let orders = Orders::default();
        let mut first = reconcile(&orders, desired(1), names(&["a"]));
        let mut second = reconcile(&orders, desired(2), names(&["b"]));
        let Some(Next::Order(order)) = orders.take() else { panic!("an order waits") };
        assert_eq!((order.desired.generation, order.dirty), (2, names(&["a", "b"])));
        assert!(orders.take().is_none());
        let faults = [fault(Some("b"), "of b"), fault(None, "of the host")];
        order.done.into_iter().for_each(|done| done.tell(&faults));
        assert_eq!(first.try_recv().unwrap(), ["of the host"]);
        assert_eq!(second.try_recv().unwrap(), ["of b", "of the host"]);
    }

    #[test]
    fn everything_takes_in_single_services() {
        let orders = Orders::default();
        drop(reconcile(&orders, desired(1), Dirty::All));
        drop(reconcile(&orders, desired(2), names(&["b"])));
        let Some(Next::Order(order)) = orders.take() else { panic!("an order waits") };
        assert_eq!((order.desired.generation, order.dirty), (2, Dirty::All));
    }

    #[tokio::test]
    async fn an_order_wakes_the_writer_and_the_end_comes_after_what_is_to_be_taken_down() {
        let orders = Arc::new(Orders::default());
        let waiting = tokio::spawn({
            let orders = Arc::clone(&orders);
            async move { orders.next().await }
        });
        tokio::task::yield_now().await;
        drop(reconcile(&orders, desired(1), Dirty::All));
        assert!(matches!(waiting.await.unwrap(), Next::Order(_)));
        drop(orders.take_down());
        orders.stop();
        assert!(matches!(orders.next().await, Next::TakeDown(_)));
        assert!(matches!(orders.next().await, Next::Stop));
    }
}
