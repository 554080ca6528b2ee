//! The only writer to the kernel: a thread that owns the datapath and netlink. It loads programs, runs `nft` and takes the
//! lock that commands take, so that nobody else waits for any of these.
//!
//! What is desired comes in as orders ([`Orders`]); what packets really find goes out as [`Applied`]. Changes in the kernel
//! ([`events`]) and time ([`pace`]) are reasons to work, too. One pass ([`worker`]) observes, plans
//! ([`control::reconcile`]) and applies: fans that the files name come up, those that stand are repaired ([`fans`]), the
//! services are brought to the kernel ([`services`]), ports get their program and the endpoint table its entries
//! ([`endpoints`]). An order about single services compares these alone. What fails is tried again with growing pauses and
//! is a reason to be degraded until it works.

mod applied;
mod beyond;
mod endpoints;
mod events;
mod fans;
mod filters;
mod lock;
mod orders;
mod pace;
mod programs;
mod relevance;
mod room;
mod services;
mod silent;
mod tables;
mod vip_routes;
mod worker;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use control::{desired::Desired, service::Down};
use tokio::sync::{mpsc, oneshot, watch};

use crate::kernel::tasks::Faults;

use self::worker::Worker;
pub(crate) use self::{
    applied::{Applied, Topic},
    orders::Orders,
    programs::Watched,
    tables::Wanted,
};

/// How long the writer may take to end what it is at.
const END: Duration = Duration::from_secs(5);

/// The thread; it ends with the value, after the step under way.
#[derive(Debug)]
pub(crate) struct Writer {
    orders: Arc<Orders>,
    applied: watch::Receiver<Applied>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts it, in the namespaces of this thread. Endpoints that are known to be `absent` are so until they are seen;
    /// `watchers` gets what tells of packets, anew with each datapath; `tables` says
    /// what other speakers find in theirs.
    ///
    /// # Errors
    /// The kernel gives no thread, event queue or socket.
    pub(crate) fn start(
        desired: Arc<Desired>,
        absent: BTreeMap<Ipv4Addr, Down>,
        watchers: mpsc::Sender<Option<Watched>>,
        tables: Wanted,
        faults: Faults,
    ) -> Result<Self> {
        let (output, applied) = watch::channel(Applied::before(desired, absent));
        let orders = <Arc<Orders>>::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the kernel gives no event queue")?;
        let worker = {
            let _entered = runtime.enter();
            Worker::open(Arc::clone(&orders), output, watchers, tables, faults)?
        };
        let thread = thread::Builder::new().name("writer".to_owned());
        let thread =
            thread.spawn(move || runtime.block_on(worker.run())).context("the kernel gives no thread")?;
        Ok(Self { orders, applied, thread: Some(thread) })
    }

    /// What the kernel holds.
    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }

    /// Where it gets its orders.
    pub(crate) fn orders(&self) -> Arc<Orders> {
        Arc::clone(&self.orders)
    }

    /// Since when it is at one thing.
    pub(crate) fn busy_since(&self) -> Option<SystemTime> {
        self.orders.busy_since()
    }

    /// Orders the fans of the files taken down, and the programs.
    pub(crate) fn take_down(&self) -> oneshot::Receiver<Result<()>> {
        self.orders.take_down()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders.stop();
        let end = Instant::now() + END;
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        if !thread.is_finished() {
            tracing::warn!("the kernel is still being written to: that ends with this process");
        }
    }
}
