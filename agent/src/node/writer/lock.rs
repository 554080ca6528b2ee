//! The lock around changes of fans and endpoints, as the writer takes it: once a pass, and not waited for. While a command
//! holds it, passes are put off and single services are changed.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, anyhow};
use control::model::utc;

use crate::{
    kernel::lock::{Holder, Lock, LockError, holder},
    node::fan,
};

/// How long a command may hold the lock until that is a reason to be degraded.
const SHORT: Duration = Duration::from_secs(2);
/// How long the writer waits for it where an order hangs on it.
const WAIT: Duration = Duration::from_secs(1);
/// Pause between two attempts of such a wait.
const RETRY: Duration = Duration::from_millis(10);

/// Since when a command holds the lock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held(Option<(Instant, SystemTime)>);

impl Held {
    /// The lock, or `None` while another process holds it.
    pub(super) fn attempt(&mut self) -> Result<Option<Lock>, LockError> {
        let lock = attempt()?;
        if lock.is_some() {
            self.0 = None;
        } else {
            self.0.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        }
        Ok(lock)
    }

    /// What there is to say of a command that does not let go.
    pub(super) fn reason(&self) -> Option<String> {
        let (start, since) = self.0?;
        (start.elapsed() >= SHORT).then(|| {
            let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!(
                "lock-held: by {} since {}; let that end, or end it: nothing is repaired until then",
                by(),
                utc(since.as_secs())
            )
        })
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
            return Err(anyhow!("lock-held: by {}; let that end, and try again", by()));
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn attempt() -> Result<Option<Lock>, LockError> {
    Lock::attempt(Path::new(fan::LOCK))
}

fn by() -> String {
    Holder::of(holder(Path::new(fan::LOCK)).as_ref())
}
