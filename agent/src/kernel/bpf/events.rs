//! Ring `events`: what the programs tell the agent at once.

use std::os::fd::AsRawFd as _;

use aya::maps::{Map, MapData, RingBuf};
use dataplane_common::abi::Event;
use tokio::io::unix::AsyncFd;

use super::{
    error::{Context as _, Error, Result},
    sys,
};

/// Reads events, waiting without a thread.
pub struct EventReader {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EventReader").field(&self.ring.get_ref().as_raw_fd()).finish()
    }
}

impl EventReader {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(data: MapData) -> Result<Self> {
        let ring = Map::from_map_data(data).and_then(RingBuf::try_from).map_err(Error::map("events"))?;
        let ring = sys::readable(ring).during(|| "waiting for events of the kernel programs".to_owned())?;
        Ok(Self { ring })
    }

    /// The next event. Cancelling it loses none.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            let mut guard = self
                .ring
                .readable_mut()
                .await
                .during(|| "waiting for events of the kernel programs".to_owned())?;
            while let Some(item) = guard.get_inner_mut().next() {
                // An event of another size is another version's.
                if let Ok(event) = bytemuck::try_pod_read_unaligned(&item) {
                    return Ok(event);
                }
            }
            guard.clear_ready();
        }
    }
}
