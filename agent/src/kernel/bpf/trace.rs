//! Ring `trace_events`: the programs' events, written while map `watch` says that there is a reader.

use std::{mem::offset_of, os::fd::AsFd as _, sync::atomic::Ordering, time::Duration};

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use dataplane_common::abi::{SEEN_SHIFT, TraceEvent, TracePace, Watch};

use super::{
    error::{Context as _, Error, Result},
    flows::coarse_now,
    sys::Mapping,
};

const RING: &str = "trace_events";
const PACE: &str = "trace_pace";

type PaceBytes = [u8; size_of::<TracePace>()];

/// Switches the programs' events on and reads them. One at a time. They stop by themselves when nobody asks any more.
pub struct Watcher {
    ring: RingBuf<MapData>,
    watch: Mapping,
    pace: PerCpuArray<MapData, PaceBytes>,
    missed: u64,
}

impl Watcher {
    pub(super) fn new(source: impl Fn(&str) -> Result<MapData>) -> Result<Self> {
        let watch = Mapping::new(source("watch")?.fd().as_fd(), size_of::<Watch>());
        let ring = Map::from_map_data(source(RING)?).and_then(RingBuf::try_from).map_err(Error::map(RING))?;
        let pace = Map::from_map_data(source(PACE)?).and_then(PerCpuArray::try_from);
        let pace = pace.map_err(Error::map(PACE))?;
        let mut watcher =
            Self { ring, watch: watch.during(|| "mapping map watch".to_owned())?, pace, missed: 0 };
        watcher.missed = watcher.total_missed()?;
        Ok(watcher)
    }

    /// Switches events on for this long from now.
    pub fn ask(&self, time: Duration) -> Result<()> {
        let units = (time.as_nanos() >> SEEN_SHIFT) as u32;
        // 0 would mean never.
        let until = coarse_now()?.wrapping_add(units).max(1);
        self.watch.u32(offset_of!(Watch, until)).store(until, Ordering::Release);
        Ok(())
    }

    /// Switches events off, and forgets those that were not read.
    pub fn rest(&mut self) -> Result<()> {
        self.watch.u32(offset_of!(Watch, until)).store(0, Ordering::Release);
        while self.take().is_some() {}
        self.missed = self.total_missed()?;
        Ok(())
    }

    /// The next of what was told.
    pub fn take(&mut self) -> Option<TraceEvent> {
        loop {
            // One of another size is another version's.
            if let Ok(traced) = bytemuck::try_pod_read_unaligned(&self.ring.next()?) {
                return Some(traced);
            }
        }
    }

    /// How many were not told of since this was asked last.
    pub fn missed(&mut self) -> Result<u64> {
        let total = self.total_missed()?;
        Ok(total.saturating_sub(std::mem::replace(&mut self.missed, total)))
    }

    fn total_missed(&self) -> Result<u64> {
        let values = self.pace.get(&0, 0).map_err(Error::map(PACE))?;
        Ok(values.iter().map(|bytes| bytemuck::pod_read_unaligned::<TracePace>(bytes).missed).sum())
    }
}
