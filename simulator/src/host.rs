//! One simulated host.

use std::time::Duration;

use control::cluster::Moment;

use crate::disk::Disk;

/// The wall clock at the beginning of every world: 2026-11-21, in milliseconds since 1970.
const BEGINNING: u64 = 1_795_242_852_000;

/// A host with what runs on it.
pub(crate) struct Host<N> {
    pub(crate) node: Option<N>,
    pub(crate) disk: Disk,
    /// Counts starts: what was meant for an earlier process is lost.
    pub(crate) life: u32,
    pub(crate) started: Duration,
    /// Milliseconds that its wall clock is ahead.
    pub(crate) ahead: i64,
    /// How much later than due it does everything.
    pub(crate) delay: Duration,
    pub(crate) paused_until: Duration,
    /// Datagrams that wait for its return.
    pub(crate) waiting: usize,
    pub(crate) next_tick: Duration,
    pub(crate) ticks: u64,
    pub(crate) sent: u64,
}

impl<N> Host<N> {
    /// A host on which nothing runs yet.
    pub(crate) fn new() -> Self {
        Self {
            node: None,
            disk: Disk::default(),
            life: 0,
            started: Duration::ZERO,
            ahead: 0,
            delay: Duration::ZERO,
            paused_until: Duration::ZERO,
            waiting: 0,
            next_tick: Duration::MAX,
            ticks: 0,
            sent: 0,
        }
    }

    /// Its clocks.
    pub(crate) fn moment(&self, now: Duration) -> Moment {
        let wall = BEGINNING + u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Moment { now: now - self.started, wall: wall.saturating_add_signed(self.ahead) }
    }
}
