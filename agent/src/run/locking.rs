//! The lock around changes of fans and endpoints, as the main loop takes it: once a look, and never waited for there.
//! While a command holds it, looks are put off and requests are answered.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, anyhow};

use super::{agent::Agent, report::Topic};
use crate::{
    inspect::status::{seconds, utc},
    kernel::lock::{Holder, Lock, LockError, holder},
    node::fan,
};

/// How long a command may hold the lock until that is a reason to be degraded.
const SHORT: Duration = Duration::from_secs(2);
/// How long the agent waits for it where a request or its own end hangs on it.
const WAIT: Duration = Duration::from_secs(1);
/// Pause between two attempts of such a wait.
const RETRY: Duration = Duration::from_millis(10);

/// Since when looks are put off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    start: Instant,
    since: SystemTime,
}

impl Held {
    fn now() -> Self {
        Self { start: Instant::now(), since: SystemTime::now() }
    }

    fn is_long(&self) -> bool {
        self.start.elapsed() >= SHORT
    }
}

impl Agent {
    /// The lock, or `None` while another process holds it: that is reported when it lasts.
    pub(super) fn take_lock(&mut self) -> Result<Option<Lock>, LockError> {
        let lock = attempt()?;
        if lock.is_some() {
            self.held = None;
            self.report.set(Topic::Lock, Vec::new());
            return Ok(lock);
        }
        let held = *self.held.get_or_insert_with(Held::now);
        if held.is_long() {
            let by = Holder::of(holder(Path::new(fan::LOCK)).as_ref());
            let since = utc(seconds(held.since));
            let reason = format!(
                "lock-held: by {by} since {since}; let that end, or end it: nothing is repaired until then"
            );
            self.report.set(Topic::Lock, vec![reason]);
        }
        Ok(None)
    }

    /// Whether looks are put off for longer than a command takes.
    pub(super) fn is_held_up(&self) -> bool {
        self.held.is_some_and(|held| held.is_long())
    }
}

/// The lock for what can't be put off.
pub(super) async fn lock_soon() -> Result<Lock> {
    let end = Instant::now() + WAIT;
    loop {
        if let Some(lock) = attempt()? {
            return Ok(lock);
        }
        if Instant::now() >= end {
            let by = Holder::of(holder(Path::new(fan::LOCK)).as_ref());
            return Err(anyhow!("lock-held: by {by}; let that end, and try again"));
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn attempt() -> Result<Option<Lock>, LockError> {
    Lock::attempt(Path::new(fan::LOCK))
}
