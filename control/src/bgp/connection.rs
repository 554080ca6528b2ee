//! One TCP connection to a peer: what has arrived, how far its opening has come, and its timers.

use std::{net::IpAddr, time::Duration};

use super::{open::Agreed, values::times};

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    OpenSent,
    OpenConfirm(Agreed),
    Established(Agreed),
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Connection {
    /// Whether we opened it.
    pub(super) is_ours: bool,
    /// Our end's address.
    pub(super) end: IpAddr,
    pub(super) phase: Phase,
    /// What has arrived of a message that is not whole; never more than that and what arrived last.
    pub(super) input: Vec<u8>,
    /// When the peer must have been heard.
    pub(super) hold_until: Option<Duration>,
    /// When the peer is to hear of us.
    pub(super) keepalive_at: Option<Duration>,
    /// Bytes that the system has not taken.
    pub(super) unsent: usize,
    /// When it took the last ones.
    pub(super) progress: Duration,
    /// When the session was established.
    pub(super) since: Duration,
}

impl Connection {
    /// A connection that has just been opened, on which OPEN is sent.
    pub(super) fn new(is_ours: bool, end: IpAddr, now: Duration) -> Self {
        Self {
            is_ours,
            end,
            phase: Phase::OpenSent,
            input: Vec::new(),
            hold_until: Some(now + times::OPEN),
            keepalive_at: None,
            unsent: 0,
            progress: now,
            since: now,
        }
    }

    /// What was agreed on, once there is an OPEN of the peer's.
    pub(super) fn agreed(&self) -> Option<&Agreed> {
        match &self.phase {
            Phase::OpenSent => None,
            Phase::OpenConfirm(agreed) | Phase::Established(agreed) => Some(agreed),
        }
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established(_))
    }

    fn hold(&self) -> Option<Duration> {
        let seconds = self.agreed().map(|agreed| agreed.hold_time).filter(|seconds| *seconds > 0)?;
        Some(Duration::from_secs(seconds.into()))
    }

    /// The peer was heard: the hold timer begins anew.
    pub(super) fn hear(&mut self, now: Duration) {
        self.hold_until = match (self.hold(), &self.phase) {
            (Some(hold), _) => Some(now + hold),
            // Without a hold time only the opening has an end.
            (None, Phase::Established(_)) => None,
            (None, Phase::OpenSent | Phase::OpenConfirm(_)) => Some(now + times::OPEN),
        };
    }

    /// The peer is sent something: the next KEEPALIVE is due after a third of the hold time, up to a quarter less
    /// (RFC 4271, section 10); `share` is 0.75 to 1.
    pub(super) fn speak(&mut self, now: Duration, share: f64) {
        self.keepalive_at = self.hold().map(|hold| now + (hold / 3).mul_f64(share));
    }

    /// When the peer has left too much unread for too long (RFC 9687).
    pub(super) fn stuck_at(&self) -> Option<Duration> {
        (self.unsent > 0).then(|| self.progress + times::SEND_HOLD)
    }

    /// The next of its timers.
    pub(super) fn deadline(&self) -> Option<Duration> {
        [self.hold_until, self.keepalive_at, self.stuck_at()].into_iter().flatten().min()
    }
}
