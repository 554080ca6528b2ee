//! What happens by time alone.

use std::time::Duration;

use netgauze_bgp_pkt::{
    BgpMessage,
    notification::{BgpNotificationMessage, HoldTimerExpiredError},
};
use rand::RngExt as _;

use super::{Action, Link, Session};

impl Session {
    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let links = self.links.values().filter_map(|open| open.deadline());
        let connecting = self.connecting.map(|(_, until)| until);
        let dial = self.may_dial().then_some(self.dial_at);
        links.chain(connecting).chain(dial).min()
    }

    /// Lets time pass. What has arrived is to be given before.
    pub fn tick(&mut self, now: Duration) {
        if let Some((link, until)) = self.connecting
            && now >= until
        {
            self.connecting = None;
            self.actions.push(Action::Close(link));
            self.retry_later("can't connect: no answer".to_owned(), now);
        }
        let links: Vec<Link> = self.links.keys().copied().collect();
        for link in links {
            self.tick_link(link, now);
        }
        self.settle(now);
    }

    fn tick_link(&mut self, link: Link, now: Duration) {
        let Some(open) = self.links.get(&link) else { return };
        let is_due = |at: Option<Duration>| at.is_some_and(|at| now >= at);
        if is_due(open.stuck_at()) {
            // What would be sent would wait as well.
            self.actions.push(Action::Close(link));
            return self.lose(link, "the peer does not read: send hold timer expired".to_owned(), now);
        }
        if is_due(open.hold_until) {
            let expired = HoldTimerExpiredError::Unspecific { sub_code: 0, value: Box::default() };
            return self.fail(link, BgpNotificationMessage::HoldTimerExpiredError(expired), now);
        }
        if is_due(open.keepalive_at) {
            let share = self.share();
            if let Some(open) = self.links.get_mut(&link) {
                open.speak(now, share);
            }
            self.send_message(link, &BgpMessage::KeepAlive, now);
        }
    }

    /// The part of its time that a timer of keepalives takes (RFC 4271, section 10).
    pub(super) fn share(&mut self) -> f64 {
        self.rng.random_range(0.75..1.0)
    }
}
