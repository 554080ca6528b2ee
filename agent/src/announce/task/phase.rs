//! From speaking to silence: routes are announced as about to go before they are withdrawn.

use std::time::Duration;

use control::bgp::Stop;
use tokio::time::timeout;

use super::{Ending, Task};
use crate::{announce::speaker::Speaker, sources::config::PeerConfig};

/// How long last words may take.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How this node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Speaking,
    /// Routes are marked with GRACEFUL_SHUTDOWN until then.
    Draining(Duration),
    /// There are no sessions.
    Silent,
}

impl Phase {
    pub(super) fn until(self) -> Option<Duration> {
        match self {
            Self::Draining(until) => Some(until),
            Self::Speaking | Self::Silent => None,
        }
    }
}

impl Task<'_> {
    /// Begins to go: what is announced is marked first, where anybody hears that.
    pub(super) fn drain(&mut self) {
        let now = self.now();
        let drain = self.inbox.setup.bgp.as_ref().map(|bgp| bgp.drain).unwrap_or_default();
        let is_heard = self.speakers.values().any(Speaker::is_established);
        if self.phase == Phase::Speaking {
            self.phase = Phase::Draining(now.0 + if is_heard { drain } else { Duration::ZERO });
            self.bring_routes();
        }
    }

    /// Goes on where time has passed.
    pub(super) fn go_on(&mut self, (now, _): (Duration, u64)) {
        if self.phase.until().is_some_and(|until| until <= now) {
            self.fall_silent();
        }
    }

    /// Withdraws everything, and ends the sessions with the reason.
    fn fall_silent(&mut self) {
        self.phase = Phase::Silent;
        let why = if self.stopping.is_some() { "the agent ends" } else { "maintenance" };
        self.stop_all(&Stop::Shutdown(why.to_owned()));
        self.speak();
        self.decide();
    }

    /// Speaks again.
    pub(super) fn return_from_silence(&mut self) {
        if self.phase != Phase::Speaking {
            self.phase = Phase::Speaking;
            self.speak();
            self.decide();
        }
    }

    pub(super) fn stop_all(&mut self, stop: &Stop) {
        let now = self.now();
        for speaker in std::mem::take(&mut self.speakers).into_values() {
            self.ending.extend(speaker.stop(stop, now));
        }
    }

    /// Ends sessions of peers that are no more, or are to be spoken to in another way.
    pub(super) fn end_sessions(&mut self, is_over: impl Fn(&Speaker) -> bool, peers: &[PeerConfig]) {
        let now = self.now();
        let over: Vec<_> =
            self.speakers.iter().filter(|(_, speaker)| is_over(speaker)).map(|(peer, _)| *peer).collect();
        for peer in over {
            let Some(speaker) = self.speakers.remove(&peer) else { continue };
            // One that stays finds the routes again in the next session.
            let stays = peers.iter().any(|other| other.address == peer);
            let stop = if stays { Stop::Leave } else { Stop::Removed };
            self.ending.extend(speaker.stop(&stop, now));
        }
    }

    /// The agent ends.
    pub(super) fn stop(&mut self, ending: Ending) {
        match ending {
            Ending::Leave => {
                self.phase = Phase::Silent;
                self.stop_all(&Stop::Leave);
            }
            Ending::Detach => self.drain(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stopping.is_some() && self.phase == Phase::Silent
    }

    /// Waits for the last words.
    pub(super) async fn end(mut self) {
        let words = futures_util::future::join_all(std::mem::take(&mut self.ending));
        drop(timeout(LAST_WORDS, words).await);
        if let Some((ending, done)) = self.stopping.take() {
            if ending == Ending::Detach {
                // Nothing is left that somebody could find by it.
                self.inbox.tables.send_replace(Some(std::sync::Arc::default()));
            }
            let _gone = done.send(());
        }
    }
}
