//! The session with one peer: its connections, which of two stays, and what is sent on it.

mod opening;
mod sending;
mod timers;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use netgauze_bgp_pkt::{
    BgpMessage,
    notification::{BgpNotificationMessage, CeaseError},
};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    connection::{Connection, Phase},
    message::{self, Arrived},
    rib::{Advertised, RibOut},
    route::{Family, Routes},
    values::{Counts, Local, Peer, State},
};

/// A connection, or one that is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(u64);

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection; [`Session::opened`] or [`Session::closed`] says how that went.
    Connect(Link),
    /// Send bytes; [`Session::written`] says when the system has taken them.
    Send(Link, Vec<u8>),
    /// Close it once everything is sent, or stop opening it. Nothing is to be told of it any more.
    Close(Link),
}

/// How a session is to end for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The agent goes and the datapath stays: peers that agreed to keep the routes find the connection closed; others are
    /// told, as by `Shutdown`.
    Leave,
    /// Everything is withdrawn, and the peer is told why (RFC 9003).
    Shutdown(String),
    /// The peer is no longer in the configuration.
    Removed,
}

/// A session as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// Since when, in the caller's time.
    pub since: Duration,
    pub counts: Counts,
    pub last_error: Option<String>,
    /// Prefixes that are not sent because no next hop of their family is known.
    pub without_hop: Vec<ipnet::IpNet>,
    /// Whether the peer has all that it is to have.
    pub is_sent: bool,
}

/// A speaker's side of one peer.
#[derive(Debug)]
pub struct Session {
    local: Local,
    peer: Peer,
    rng: StdRng,
    links: BTreeMap<Link, Connection>,
    /// The connection that is being opened, and how long that may take.
    connecting: Option<(Link, Duration)>,
    /// When the next one is opened, where none is open.
    dial_at: Duration,
    /// Attempts that failed since a session was established.
    failures: u32,
    /// Whether this node was away (RFC 4724): until the first session is established.
    has_restarted: bool,
    has_carrier: bool,
    stopped: bool,
    /// What the peer is to have; unknown at first, when nothing is sent, no End-of-RIB either.
    wanted: Option<Arc<Routes>>,
    /// The uplink's addresses, next hops of prefixes of the other family than the session's.
    uplink: BTreeMap<Family, IpAddr>,
    rib: RibOut,
    /// Whether the peer waits for the End-of-RIB markers.
    owes_end: bool,
    without_hop: Vec<ipnet::IpNet>,
    counts: Counts,
    last_error: Option<String>,
    shown: State,
    since: Duration,
    actions: Vec<Action>,
    next_link: u64,
}

impl Session {
    /// A session that begins to connect at `now`. `seed` decides its jitter, `has_restarted` whether peers may have routes of
    /// this node's from before.
    pub fn new(local: Local, peer: Peer, seed: u64, has_restarted: bool, now: Duration) -> Self {
        let mut session = Self {
            local,
            peer,
            rng: StdRng::seed_from_u64(seed),
            links: BTreeMap::new(),
            connecting: None,
            dial_at: now,
            failures: 0,
            has_restarted,
            has_carrier: true,
            stopped: false,
            wanted: None,
            uplink: BTreeMap::new(),
            rib: RibOut::default(),
            owes_end: false,
            without_hop: Vec::new(),
            counts: Counts::default(),
            last_error: None,
            shown: State::Idle,
            since: now,
            actions: Vec::new(),
            next_link: 0,
        };
        session.settle(now);
        session
    }

    /// What is to be done since the last call, in its order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// A connection of ours is open; `end` is our end's address.
    pub fn opened(&mut self, link: Link, end: IpAddr, now: Duration) {
        if self.connecting.is_some_and(|(connecting, _)| connecting == link) {
            self.connecting = None;
            self.begin(link, Connection::new(true, end, now), now);
        }
        self.settle(now);
    }

    /// The peer has opened a connection; none when it is not wanted and the caller closes it.
    pub fn accepted(&mut self, end: IpAddr, now: Duration) -> Option<Link> {
        if self.stopped || !self.has_carrier {
            return None;
        }
        // A peer that connects again has given its former attempt up.
        let former: Vec<Link> =
            self.pending().filter(|(_, open)| !open.is_ours).map(|(link, _)| *link).collect();
        for link in former {
            self.drop_link(link);
        }
        let link = self.name_link();
        self.begin(link, Connection::new(false, end, now), now);
        self.settle(now);
        self.links.contains_key(&link).then_some(link)
    }

    /// A connection is closed, or could not be opened.
    pub fn closed(&mut self, link: Link, why: &str, now: Duration) {
        if self.connecting.is_some_and(|(connecting, _)| connecting == link) {
            self.connecting = None;
            self.retry_later(format!("can't connect: {why}"), now);
        } else {
            self.lose(link, why.to_owned(), now);
        }
        self.settle(now);
    }

    /// Bytes have arrived.
    pub fn received(&mut self, link: Link, bytes: &[u8], now: Duration) {
        if let Some(open) = self.links.get_mut(&link) {
            open.input.extend_from_slice(bytes);
        }
        while let Some(open) = self.links.get_mut(&link) {
            match message::take(&mut open.input) {
                Ok(Some(arrived)) => self.take(link, arrived, now),
                Ok(None) => break,
                Err(notification) => self.fail(link, notification, now),
            }
        }
        self.settle(now);
    }

    /// The system has taken so many bytes of those to be sent.
    pub fn written(&mut self, link: Link, bytes: usize, now: Duration) {
        if let Some(open) = self.links.get_mut(&link) {
            open.unsent = open.unsent.saturating_sub(bytes);
            open.progress = now;
        }
        self.settle(now);
    }

    /// The peer is to have these routes from now on.
    pub fn want(&mut self, routes: Arc<Routes>, now: Duration) {
        self.wanted = Some(routes);
        self.resolve();
        self.settle(now);
    }

    /// The uplink has these addresses now.
    pub fn set_uplink(&mut self, addresses: BTreeMap<Family, IpAddr>, now: Duration) {
        if addresses != self.uplink {
            self.uplink = addresses;
            self.resolve();
        }
        self.settle(now);
    }

    /// Whether the device towards the peer carries anything: without it the session is over at once.
    pub fn set_carrier(&mut self, has_carrier: bool, now: Duration) {
        if has_carrier != self.has_carrier {
            self.has_carrier = has_carrier;
            self.dial_at = now;
            if !has_carrier {
                self.drop_all("the uplink has lost its carrier", now);
            }
        }
        self.settle(now);
    }

    /// Ends the session for good; what is to be done for it is among the actions.
    pub fn stop(&mut self, stop: &Stop, now: Duration) {
        self.stopped = true;
        let established = self.established().map(|(link, agreed)| (link, agreed.graceful_restart));
        match (stop, established) {
            (Stop::Leave, Some((_, true))) | (_, None) => {}
            (Stop::Leave, Some((link, false))) => self.shut_down(link, "", now),
            (Stop::Shutdown(text), Some((link, _))) => self.shut_down(link, text, now),
            (Stop::Removed, Some((link, _))) => {
                let error = CeaseError::PeerDeConfigured { value: Box::default() };
                self.notify(link, &BgpNotificationMessage::CeaseError(error), now);
            }
        }
        self.drop_all("stopped", now);
        self.settle(now);
    }

    /// What the peer has.
    pub fn advertised(&self) -> &Advertised {
        self.rib.sent()
    }

    pub fn status(&self) -> Status {
        Status {
            state: self.shown,
            since: self.since,
            counts: self.counts,
            last_error: self.last_error.clone(),
            without_hop: self.without_hop.clone(),
            is_sent: self.shown == State::Established && self.rib.is_sent() && !self.owes_end,
        }
    }

    /// Our end of the connection that has come farthest.
    pub fn end(&self) -> Option<IpAddr> {
        let open = self.links.values().max_by_key(|open| open.is_established())?;
        Some(open.end)
    }

    /// Whether bytes wait for the system to take them.
    pub fn has_unsent(&self) -> bool {
        self.links.values().any(|open| open.unsent > 0)
    }

    /// Whether the peer keeps routes while this node is away.
    pub fn has_graceful_restart(&self) -> bool {
        self.established().is_some_and(|(_, agreed)| agreed.graceful_restart)
    }

    /// Bytes that have arrived and are no whole message.
    #[cfg(test)]
    pub(super) fn links_input(&self) -> usize {
        self.links.values().map(|open| open.input.len()).sum()
    }

    fn shut_down(&mut self, link: Link, text: &str, now: Duration) {
        self.wanted = Some(Arc::default());
        self.resolve();
        self.flush(now);
        self.notify(link, &message::shutdown(text), now);
    }

    /// Brings what follows from a change about: what is due is sent, and a connection opened.
    fn settle(&mut self, now: Duration) {
        self.flush(now);
        self.dial(now);
        let state = self.state();
        if state != self.shown {
            (self.shown, self.since) = (state, now);
        }
    }

    fn state(&self) -> State {
        let of = |open: &Connection| match open.phase {
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(_) => State::Established,
        };
        let waiting =
            if self.local.listens && !self.stopped && self.has_carrier { State::Active } else { State::Idle };
        let connecting = if self.connecting.is_some() { State::Connect } else { waiting };
        self.links.values().map(of).max().unwrap_or(connecting)
    }

    fn send(&mut self, link: Link, bytes: Vec<u8>, now: Duration) {
        if let Some(open) = self.links.get_mut(&link) {
            if open.unsent == 0 {
                open.progress = now;
            }
            open.unsent += bytes.len();
            self.actions.push(Action::Send(link, bytes));
        }
    }

    fn send_message(&mut self, link: Link, message: &BgpMessage, now: Duration) {
        // All that this speaker makes up itself is short.
        if let Ok(bytes) = message::encode(message) {
            self.send(link, bytes, now);
        }
    }

    fn notify(&mut self, link: Link, notification: &BgpNotificationMessage, now: Duration) {
        self.send_message(link, &BgpMessage::Notification(notification.clone()), now);
    }

    fn take(&mut self, link: Link, arrived: Arrived, now: Duration) {
        let Some(open) = self.links.get_mut(&link) else { return };
        match (&open.phase, arrived) {
            (_, Arrived::Notification(why)) => {
                self.actions.push(Action::Close(link));
                self.lose(link, why, now);
            }
            (Phase::OpenSent, Arrived::Open(theirs)) => self.take_open(link, &theirs, now),
            (Phase::OpenConfirm(_), Arrived::KeepAlive) => self.establish(link, now),
            (Phase::Established(_), Arrived::KeepAlive) => open.hear(now),
            (Phase::Established(_), Arrived::Update(announced)) => {
                open.hear(now);
                self.counts.received += announced;
            }
            (Phase::Established(_), Arrived::RouteRefresh(asked)) => {
                open.hear(now);
                self.refresh(&asked);
            }
            (_, Arrived::Open(_) | Arrived::KeepAlive | Arrived::Update(_) | Arrived::RouteRefresh(_)) => {
                let unexpected = opening::unexpected(&open.phase);
                self.fail(link, unexpected, now);
            }
        }
    }
}
