//! From an open connection to an established session, and which of two connections stays.

use std::time::Duration;

use netgauze_bgp_pkt::{
    BgpMessage,
    notification::{BgpNotificationMessage, CeaseError, FiniteStateMachineError},
    open::BgpOpenMessage,
};
use rand::RngExt as _;

use super::{Action, Link, Session};
use crate::bgp::{
    connection::{Connection, Phase},
    message,
    open::{Agreed, agree, offer},
    rib::RibOut,
    values::times,
};

/// A message that does not belong where it arrives (RFC 6608).
pub(super) fn unexpected(phase: &Phase) -> BgpNotificationMessage {
    let value = Box::default();
    BgpNotificationMessage::FiniteStateMachineError(match phase {
        Phase::OpenSent => FiniteStateMachineError::ReceiveUnexpectedMessageInOpenSentState { value },
        Phase::OpenConfirm(_) => {
            FiniteStateMachineError::ReceiveUnexpectedMessageInOpenConfirmState { value }
        }
        Phase::Established(_) => {
            FiniteStateMachineError::ReceiveUnexpectedMessageInEstablishedState { value }
        }
    })
}

fn collision() -> BgpNotificationMessage {
    BgpNotificationMessage::CeaseError(CeaseError::ConnectionCollisionResolution { value: Box::default() })
}

impl Session {
    pub(super) fn name_link(&mut self) -> Link {
        self.next_link += 1;
        Link(self.next_link)
    }

    /// Connections that are no session yet.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&Link, &Connection)> {
        self.links.iter().filter(|(_, open)| !open.is_established())
    }

    /// The established session.
    pub(super) fn established(&self) -> Option<(Link, &Agreed)> {
        let (link, open) = self.links.iter().find(|(_, open)| open.is_established())?;
        Some((*link, open.agreed()?))
    }

    pub(super) fn begin(&mut self, link: Link, open: Connection, now: Duration) {
        let Ok(bytes) = offer(&self.local, self.has_restarted) else { return };
        self.links.insert(link, open);
        self.send(link, bytes, now);
    }

    pub(super) fn take_open(&mut self, link: Link, theirs: &BgpOpenMessage, now: Duration) {
        let agreed = match agree(&self.local, &self.peer, theirs) {
            Ok(agreed) => agreed,
            Err(notification) => return self.fail(link, notification, now),
        };
        if !self.wins(link, &agreed, now) {
            return self.fail(link, collision(), now);
        }
        let share = self.share();
        let Some(open) = self.links.get_mut(&link) else { return };
        open.phase = Phase::OpenConfirm(agreed);
        open.hear(now);
        open.speak(now, share);
        self.send_message(link, &BgpMessage::KeepAlive, now);
    }

    /// Whether a connection whose OPEN has arrived stays beside the others; those that don't are ended (RFC 4271, section 6.8).
    fn wins(&mut self, link: Link, agreed: &Agreed, now: Duration) -> bool {
        if let Some((standing, with)) = self.established() {
            // A peer that was away connects anew before its end of the old connection is missed (RFC 4724, section 4.2).
            let has_returned = with.graceful_restart && with.router_id == agreed.router_id;
            if has_returned {
                self.actions.push(Action::Close(standing));
                self.lose(standing, "the peer has restarted".to_owned(), now);
            }
            return has_returned;
        }
        let is_ours = |link: &Link| self.links.get(link).is_some_and(|open| open.is_ours);
        let rival = self.pending().find(|(other, open)| **other != link && open.agreed().is_some());
        let Some((&rival, _)) = rival.filter(|(rival, _)| is_ours(rival) != is_ours(&link)) else {
            return true;
        };
        let own = (self.local.router_id.to_bits(), self.local.asn);
        // The connection stays that the speaker of the higher identifier opened, of equal ones that of the higher ASN (RFC 6286).
        let stays = if own > (agreed.router_id, self.peer.asn) { is_ours(&link) } else { !is_ours(&link) };
        if stays {
            self.notify(rival, &collision(), now);
            self.drop_link(rival);
        }
        stays
    }

    pub(super) fn establish(&mut self, link: Link, now: Duration) {
        let others: Vec<Link> = self.links.keys().filter(|other| **other != link).copied().collect();
        for other in others {
            self.notify(other, &collision(), now);
            self.drop_link(other);
        }
        if let Some((connecting, _)) = self.connecting.take() {
            self.actions.push(Action::Close(connecting));
        }
        let Some(open) = self.links.get_mut(&link) else { return };
        let Some(agreed) = open.agreed().cloned() else { return };
        self.owes_end = agreed.graceful_restart;
        open.phase = Phase::Established(agreed);
        open.since = now;
        open.hear(now);
        self.has_restarted = false;
        self.rib = RibOut::default();
        self.resolve();
    }

    /// Ends a connection with what the peer is told.
    pub(super) fn fail(&mut self, link: Link, notification: BgpNotificationMessage, now: Duration) {
        self.notify(link, &notification, now);
        self.actions.push(Action::Close(link));
        self.lose(link, format!("ended the session: {}", message::named(&notification)), now);
    }

    /// A connection that is not missed.
    pub(super) fn drop_link(&mut self, link: Link) {
        if self.links.remove(&link).is_some() {
            self.actions.push(Action::Close(link));
        }
    }

    pub(super) fn drop_all(&mut self, why: &str, now: Duration) {
        let connecting = self.connecting.take().map(|(link, _)| link);
        let links: Vec<Link> = self.links.keys().copied().collect();
        for link in links.into_iter().chain(connecting) {
            self.actions.push(Action::Close(link));
            self.lose(link, why.to_owned(), now);
        }
    }

    /// A connection is gone; the Adj-RIB-Out goes with the session.
    pub(super) fn lose(&mut self, link: Link, why: String, now: Duration) {
        let Some(open) = self.links.remove(&link) else { return };
        if !open.is_established() {
            if self.links.is_empty() && self.connecting.is_none() {
                self.retry_later(why, now);
            }
            return;
        }
        self.rib = RibOut::default();
        self.without_hop.clear();
        self.counts.flaps += 1;
        if now.saturating_sub(open.since) < times::FIRST_WAIT {
            // A peer that ends every session at once is not asked in a circle.
            return self.retry_later(why, now);
        }
        self.last_error = Some(why);
        (self.failures, self.dial_at) = (0, now);
    }

    /// Connects after the next wait.
    pub(super) fn retry_later(&mut self, why: String, now: Duration) {
        self.last_error = Some(why);
        let doubled = times::FIRST_WAIT * (1 << self.failures.min(5));
        let jitter = self.rng.random_range(0.8..1.2);
        self.dial_at = now + doubled.min(times::LONGEST_WAIT).mul_f64(jitter);
        self.failures = self.failures.saturating_add(1);
    }

    /// Opens a connection where there is none and it is time.
    pub(super) fn dial(&mut self, now: Duration) {
        if self.may_dial() && now >= self.dial_at {
            let link = self.name_link();
            self.connecting = Some((link, now + times::CONNECT));
            self.actions.push(Action::Connect(link));
        }
    }

    pub(super) fn may_dial(&self) -> bool {
        self.links.is_empty() && self.connecting.is_none() && self.has_carrier && !self.stopped
    }
}
