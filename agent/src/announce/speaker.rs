//! A session with its connections: carries out what the session wants done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use control::bgp::{Action, Family, Link, Local, Peer, Routes, Session, State, Stop};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle};

use super::{
    links::{News, Place, Wire},
    rows::{PeerRow, RouteRow},
};
use crate::{
    kernel::{
        netlink::Device,
        tcp::{self, Manner},
    },
    sources::config::PeerConfig,
};

/// A peer and the session with it.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) config: PeerConfig,
    number: u64,
    session: Session,
    wires: BTreeMap<Link, Wire>,
    news: mpsc::Sender<News>,
    wanted: Option<Arc<Routes>>,
    /// The device that had our end of the connection.
    device: Option<String>,
    /// What is shown of the past, in the wall's time.
    since: (State, u64),
    /// Since when the session is not established.
    down_since: u64,
    /// Prefixes that no next hop is known for.
    without_hop: BTreeSet<ipnet::IpNet>,
}

/// What is special about connections with a peer.
pub(super) fn manner(config: &PeerConfig) -> Manner {
    let key = config.password.as_ref().map(|password| password.bytes().into());
    Manner { peer: config.address, ttl: config.ttl, key }
}

impl Speaker {
    /// Begins to speak to a peer; `number` is never another session's.
    pub(super) fn new(
        config: PeerConfig,
        local: Local,
        number: u64,
        news: mpsc::Sender<News>,
        (now, wall): (Duration, u64),
    ) -> Self {
        let peer = Peer { address: config.address, asn: config.asn };
        let mut seed = [0; 8];
        if getrandom::fill(&mut seed).is_err() {
            // Jitter needs no secret.
            seed = number.to_ne_bytes();
        }
        let session = Session::new(local, peer, u64::from_ne_bytes(seed), true, now);
        let since = (session.status().state, wall);
        let mut speaker = Self {
            config,
            number,
            session,
            wires: BTreeMap::new(),
            news,
            wanted: None,
            device: None,
            since,
            down_since: wall,
            without_hop: BTreeSet::new(),
        };
        speaker.act(wall);
        speaker
    }

    /// Whether something is about this session.
    pub(super) fn is_at(&self, place: Place) -> bool {
        place.session == self.number
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.session.deadline()
    }

    pub(super) fn is_established(&self) -> bool {
        self.session.status().state == State::Established
    }

    /// Whether all that it was given to send is on its way.
    pub(super) fn is_flushed(&self) -> bool {
        !self.is_established() || !self.session.has_unsent()
    }

    /// Follows what has happened to a connection.
    pub(super) fn hear(&mut self, news: News, (now, wall): (Duration, u64)) {
        match news {
            News::Opened(Place { link, .. }, stream) => self.begin(link, stream, now),
            News::Closed(Place { link, .. }, why) => {
                self.wires.remove(&link).map(Wire::close);
                self.session.closed(link, &why, now);
            }
            News::Accepted(stream, _) => self.accept(stream, now),
            News::Arrived(Place { link, .. }, bytes) => self.session.received(link, &bytes, now),
            News::Written(Place { link, .. }, bytes) => self.session.written(link, bytes, now),
        }
        self.act(wall);
    }

    fn begin(&mut self, link: Link, stream: TcpStream, now: Duration) {
        match stream.local_addr() {
            Ok(end) => {
                let place = self.place(link);
                self.wires.insert(link, Wire::serve(place, &self.news, stream));
                self.session.opened(link, end.ip().to_canonical(), now);
            }
            Err(error) => self.session.closed(link, &error.to_string(), now),
        }
    }

    fn accept(&mut self, stream: TcpStream, now: Duration) {
        let adopted = tcp::adopt(&stream, &manner(&self.config)).and_then(|()| stream.local_addr());
        let end = match adopted {
            Ok(end) => end.ip().to_canonical(),
            Err(error) => return tracing::debug!("bgp {}: {error}", self.config.address),
        };
        if let Some(link) = self.session.accepted(end, now) {
            let place = self.place(link);
            self.wires.insert(link, Wire::serve(place, &self.news, stream));
        }
    }

    pub(super) fn tick(&mut self, (now, wall): (Duration, u64)) {
        if self.session.deadline().is_some_and(|deadline| deadline <= now) {
            self.session.tick(now);
            self.act(wall);
        }
    }

    /// The peer is to have these routes.
    pub(super) fn want(&mut self, routes: &Arc<Routes>, (now, wall): (Duration, u64)) {
        if self.wanted.as_ref() != Some(routes) {
            self.wanted = Some(Arc::clone(routes));
            self.session.want(Arc::clone(routes), now);
            self.act(wall);
        }
    }

    /// Follows the devices: next hops of the other family, and carriers.
    pub(super) fn follow(
        &mut self,
        devices: &BTreeMap<String, Device>,
        uplinks: &[String],
        (now, wall): (Duration, u64),
    ) {
        let holder = |end: IpAddr| devices.iter().find(|(_, device)| device.addresses.contains(&end));
        if let Some((name, _)) = self.session.end().and_then(holder) {
            self.device = Some(name.clone());
        }
        let own = self.device.iter().chain(uplinks);
        let mut hops = BTreeMap::new();
        for address in own.filter_map(|name| devices.get(name)).flat_map(|device| &device.addresses) {
            if is_next_hop(*address) {
                hops.entry(Family::of_address(*address)).or_insert(*address);
            }
        }
        self.session.set_uplink(hops, now);
        let device = self.device.as_ref().and_then(|name| devices.get(name));
        self.session.set_carrier(device.is_none_or(|device| device.has_carrier), now);
        self.act(wall);
    }

    /// Ends the session for good; gives what ends when all is sent.
    pub(super) fn stop(mut self, stop: &Stop, (now, wall): (Duration, u64)) -> Vec<JoinHandle<()>> {
        self.session.stop(stop, now);
        let ending = self.act(wall);
        let left = std::mem::take(&mut self.wires).into_values().filter_map(Wire::close);
        ending.into_iter().chain(left).collect()
    }

    /// Carries out what the session wants done; gives connections that end.
    fn act(&mut self, wall: u64) -> Vec<JoinHandle<()>> {
        let mut ending = Vec::new();
        for action in self.session.take_actions() {
            match action {
                Action::Connect(link) => {
                    let to = SocketAddr::new(self.config.address, self.config.port);
                    let (source, manner) = (self.config.source, manner(&self.config));
                    let connecting = async move { tcp::connect(to, source, &manner).await };
                    let wire = Wire::open(self.place(link), self.news.clone(), connecting);
                    self.wires.insert(link, wire);
                }
                Action::Send(link, bytes) => {
                    if let Some(wire) = self.wires.get(&link) {
                        wire.send(bytes);
                    }
                }
                Action::Close(link) => ending.extend(self.wires.remove(&link).and_then(Wire::close)),
            }
        }
        self.note(wall);
        ending
    }

    /// Notes and logs what is new of the session.
    fn note(&mut self, wall: u64) {
        let status = self.session.status();
        self.without_hop = status.without_hop.into_iter().collect();
        let (former, _) = self.since;
        if status.state == former {
            return;
        }
        self.since = (status.state, wall);
        let peer = self.config.address;
        if former == State::Established {
            self.down_since = wall;
        }
        if status.state == State::Established {
            tracing::info!("bgp {peer}: established");
        } else if former == State::Established {
            tracing::warn!("bgp {peer}: lost: {}", status.last_error.unwrap_or_default());
        }
    }

    fn place(&self, link: Link) -> Place {
        Place { peer: self.config.address, session: self.number, link }
    }

    /// Why the peer does not have what it is to have; times are of the wall.
    pub(super) fn reasons(&self, wall: u64) -> Vec<String> {
        /// How long a session may take to come back before that is told.
        const LONG: u64 = 5;
        let peer = self.config.address;
        let status = self.session.status();
        let mut reasons = Vec::new();
        let unheard = wall.saturating_sub(self.down_since);
        if status.state != State::Established && unheard >= LONG {
            let why = status.last_error.unwrap_or_else(|| "no answer".to_owned());
            reasons.push(format!("bgp-down: {peer}: {why}; see 'fanlight bgp peers'"));
        }
        if let Some(prefix) = self.without_hop.first() {
            let more = self.without_hop.len() - 1;
            let others = if more == 0 { String::new() } else { format!(" and {more} more") };
            reasons.push(format!(
                "no-next-hop: {prefix}{others} for {peer}: the uplink has no address of that family; give it one, or set \
                 next-hop"
            ));
        }
        reasons
    }

    pub(super) fn row(&self) -> PeerRow {
        let status = self.session.status();
        PeerRow {
            address: self.config.address.to_string(),
            asn: self.config.asn,
            state: status.state.to_string(),
            since: self.since.1,
            sent: status.counts.sent,
            withdrawn: status.counts.withdrawn,
            received: status.counts.received,
            last_error: status.last_error,
            routes: self.session.advertised().len() as u64,
            flaps: status.counts.flaps,
        }
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = RouteRow> {
        self.session.advertised().iter().map(|(prefix, route)| RouteRow {
            peer: self.config.address.to_string(),
            prefix: prefix.to_string(),
            next_hop: route.next_hop.to_string(),
            med: route.med,
            communities: route.communities.iter().map(ToString::to_string).collect(),
            large_communities: route.large_communities.iter().map(ToString::to_string).collect(),
            extended_communities: route.extended_communities.iter().map(ToString::to_string).collect(),
            as_path: route.as_path.clone(),
            local_preference: route.local_preference,
        })
    }
}

/// Whether others can send to it.
fn is_next_hop(address: IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    !(address.is_loopback() || address.is_unspecified() || is_link_local)
}
