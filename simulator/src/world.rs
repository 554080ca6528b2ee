//! Nodes, the wire between them and simulated time.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use control::cluster::{Moment, agenda::Agenda};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    disk::Disk,
    event::{Due, Event},
    host::Host,
    network::Network,
    node::{Action, Node, Start},
    streams::{CONNECT, CONNECTION, End, Kind, Place, SILENCE, Streams, said_bytes},
};

/// Bytes of the IPv4 and UDP headers.
const DATAGRAM_HEADERS: usize = 28;

/// How long a disk takes to write a transaction, at least and at most.
const WRITE: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(10));

/// Datagrams that wait for a node that does not run; more are lost.
const SOCKET: usize = 256;

/// A world. Two of one seed to which the same is done are the same.
pub struct World<N: Node> {
    hosts: Vec<Host<N>>,
    settings: N::Settings,
    pub network: Network,
    now: Duration,
    agenda: Agenda<Due>,
    streams: Streams,
    rng: StdRng,
    events: Vec<(Duration, usize, N::Event)>,
    /// Whether events are kept.
    pub observes: bool,
    trace: u64,
}

/// A host's address.
pub fn address(host: usize) -> SocketAddrV4 {
    let number = u32::try_from(host).unwrap_or(u32::MAX);
    SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 | number), 7481)
}

impl<N: Node> World<N> {
    /// Hosts on which nothing runs yet.
    pub fn new(seed: u64, hosts: usize, settings: N::Settings) -> Self {
        Self {
            hosts: (0..hosts).map(|_| Host::new()).collect(),
            settings,
            network: Network::new(hosts),
            now: Duration::ZERO,
            agenda: Agenda::default(),
            streams: Streams::default(),
            rng: StdRng::seed_from_u64(seed),
            events: Vec::new(),
            observes: true,
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Randomness for what a scenario chooses.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// A hash of everything that happened.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// The node on a host, if it runs.
    pub fn node(&self, host: usize) -> Option<&N> {
        self.hosts.get(host)?.node.as_ref()
    }

    /// Nodes that run.
    pub fn running(&self) -> impl Iterator<Item = (usize, &N)> {
        self.hosts.iter().enumerate().filter_map(|(number, host)| Some((number, host.node.as_ref()?)))
    }

    /// Bytes that a host has sent, as IPv4 packets.
    pub fn sent(&self, host: usize) -> u64 {
        self.hosts.get(host).map_or(0, |host| host.sent)
    }

    /// What was observed since the last call: when, on which host, what.
    pub fn take_events(&mut self) -> Vec<(Duration, usize, N::Event)> {
        std::mem::take(&mut self.events)
    }

    /// Starts a host's node.
    pub fn start(&mut self, number: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let now = self.now;
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.life += 1;
        (host.started, host.paused_until, host.waiting) = (now, now, 0);
        let wall = host.moment(now).wall;
        let start =
            Start { address: address(number), settings: &self.settings, disk: &mut host.disk, wall, seed };
        host.node = Some(N::start(start));
        host.next_tick = Duration::MAX;
        self.after(number);
    }

    /// Ends a host's node at once; what its disk had not written is lost.
    pub fn kill(&mut self, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.node = None;
        host.disk.lose_unwritten();
        let end = End { host: number, life: host.life };
        for stream in self.streams.of(end) {
            self.break_off(stream, end, CONNECT);
        }
    }

    /// A host's disk.
    pub fn disk(&self, number: usize) -> Option<&Disk> {
        self.hosts.get(number).map(|host| &host.disk)
    }

    /// The same, to be damaged while its node is down.
    pub fn disk_mut(&mut self, number: usize) -> Option<&mut Disk> {
        self.hosts.get_mut(number).map(|host| &mut host.disk)
    }

    /// Stops a host for a while; it finds what arrived meanwhile.
    pub fn pause(&mut self, number: usize, time: Duration) {
        let until = self.now + time;
        if let Some(host) = self.hosts.get_mut(number) {
            host.paused_until = until;
        }
    }

    /// Has a host do everything later than it is due.
    pub fn slow(&mut self, number: usize, delay: Duration) {
        if let Some(host) = self.hosts.get_mut(number) {
            host.delay = delay;
        }
    }

    /// Sets a host's wall clock ahead by milliseconds, or behind.
    pub fn skew(&mut self, number: usize, ahead: i64) {
        if let Some(host) = self.hosts.get_mut(number) {
            host.ahead = ahead;
        }
    }

    /// Does something with a node that runs.
    pub fn act<R>(&mut self, number: usize, action: impl FnOnce(&mut N, Moment) -> R) -> Option<R> {
        let now = self.now;
        let host = self.hosts.get_mut(number)?;
        let at = host.moment(now);
        let result = action(host.node.as_mut()?, at);
        self.after(number);
        Some(result)
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, due)) = self.agenda.pop_until(end) {
            self.now = at;
            self.happen(due);
        }
        self.now = end;
    }

    /// Lets time pass until something holds, looked for every `step`, or the time is over; says when it held, from now on.
    pub fn wait(
        &mut self,
        time: Duration,
        step: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while self.now < start + time {
            if holds(self) {
                return Some(self.now - start);
            }
            self.run(step);
        }
        holds(self).then(|| self.now - start)
    }

    /// Puts off what a host is not there for; gives back what it does now.
    fn put_off(&mut self, mut due: Due) -> Option<Due> {
        let now = self.now;
        let host = self.hosts.get_mut(due.host)?;
        let is_tick = matches!(due.event, Event::Tick { .. });
        let is_paused = host.paused_until > now;
        let later = if is_paused {
            // What has arrived is read before timers run.
            host.paused_until + Duration::from_micros(u64::from(is_tick))
        } else if host.delay > Duration::ZERO && !due.has_waited {
            due.has_waited = true;
            now + host.delay
        } else {
            return Some(due);
        };
        if matches!(due.event, Event::Datagram { .. }) && is_paused {
            host.waiting += 1;
            if host.waiting > SOCKET {
                return None;
            }
        }
        self.agenda.push(later, due);
        None
    }

    fn happen(&mut self, due: Due) {
        let Some(host) = self.hosts.get(due.host) else { return };
        let end = End { host: due.host, life: due.life };
        if host.node.is_none() || host.life != due.life {
            if let Event::Said { stream, .. } = due.event {
                self.break_off(stream, end, CONNECT);
            }
            return;
        }
        let Some(due) = self.put_off(due) else { return };
        self.trace = due.trace(self.now, self.trace);
        let now = self.now;
        let Some(host) = self.hosts.get_mut(due.host) else { return };
        let at = host.moment(now);
        let Some(node) = &mut host.node else { return };
        match due.event {
            Event::Datagram { source, bytes } => {
                host.waiting = host.waiting.saturating_sub(1);
                node.datagram(at, source, &bytes);
            }
            Event::Tick { number } if number == host.ticks => {
                host.next_tick = Duration::MAX;
                node.tick(at);
            }
            Event::Tick { .. } => return,
            Event::Said { stream, bytes } => match self.streams.kind(stream) {
                Some(kind) => node.said(at, Streams::name(stream, end), kind, &bytes),
                None => return,
            },
            Event::Ended { stream } => node.ended(at, Streams::name(stream, end)),
            Event::Written => {
                if let Some(step) = host.disk.finish() {
                    node.stored(at, step);
                }
            }
        }
        self.after(due.host);
    }

    /// Carries out what a node asks for, and sees to its next tick.
    fn after(&mut self, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        let Some(node) = &mut host.node else { return };
        let (actions, end) = (node.take_actions(&mut host.disk), End { host: number, life: host.life });
        let deadline = host.started.saturating_add(node.deadline()).max(self.now);
        if deadline < host.next_tick {
            host.next_tick = deadline;
            host.ticks += 1;
            let tick = Event::Tick { number: host.ticks };
            self.agenda.push(deadline, Due::new(number, end.life, tick));
        }
        if host.disk.begin() {
            let time = self.rng.random_range(WRITE.0..WRITE.1);
            self.agenda.push(self.now + time, Due::new(number, end.life, Event::Written));
        }
        for action in actions {
            match action {
                Action::Send { to, datagram } => self.send(number, host_at(to), datagram),
                Action::Open { number, to, kind, bytes } => {
                    self.open(end, number, host_at(to), kind, bytes);
                }
                Action::Say { stream, bytes } => self.say(end, Streams::place(end, stream), bytes),
                Action::Event(event) if self.observes => self.events.push((self.now, number, event)),
                Action::Event(_) => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.count(from, (bytes.len() + DATAGRAM_HEADERS) as u64);
        let Some(life) = self.hosts.get(to).map(|host| host.life) else { return };
        if !self.network.passes(from, to) {
            return;
        }
        let source = SocketAddr::V4(address(from));
        for way in self.network.ways(&mut self.rng) {
            let event = Event::Datagram { source, bytes: bytes.clone() };
            self.agenda.push(self.now + way, Due::new(to, life, event));
        }
    }

    fn count(&mut self, host: usize, bytes: u64) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.sent += bytes;
        }
    }

    fn open(&mut self, from: End, number: u64, to: usize, kind: Kind, bytes: Vec<u8>) {
        let Some(life) = self.hosts.get(to).map(|host| host.life) else { return };
        let stream = self.streams.open(from, number, End { host: to, life }, kind);
        self.count(from.host, CONNECTION);
        let is_there = self.hosts.get(to).is_some_and(|host| host.node.is_some());
        if is_there && self.passes_both_ways(from.host, to) {
            self.count(to, CONNECTION);
            return self.say(from, stream, Some(bytes));
        }
        self.streams.close(stream);
        self.end(stream, from, CONNECT);
    }

    fn passes_both_ways(&self, one: usize, other: usize) -> bool {
        self.network.passes(one, other) && self.network.passes(other, one)
    }

    /// Carries what one end of a stream says to the other one; breaks the stream where no way is left.
    fn say(&mut self, from: End, stream: Place, bytes: Option<Vec<u8>>) {
        let Some(to) = self.streams.other(stream, from) else { return };
        if !self.passes_both_ways(from.host, to.host) {
            self.end(stream, from, SILENCE);
            return self.break_off(stream, from, SILENCE);
        }
        let Some(bytes) = bytes else {
            let way = self.network.stream_way(&mut self.rng, 0);
            self.end(stream, from, Duration::ZERO);
            return self.break_off(stream, from, way);
        };
        self.count(from.host, said_bytes(bytes.len()));
        let way = self.network.stream_way(&mut self.rng, bytes.len());
        self.agenda.push(self.now + way, Due::new(to.host, to.life, Event::Said { stream, bytes }));
    }

    /// Closes a stream at one end; the other one hears of it later.
    fn break_off(&mut self, stream: Place, end: End, later: Duration) {
        let Some(other) = self.streams.other(stream, end) else { return };
        self.streams.close(stream);
        self.end(stream, other, later);
    }

    fn end(&mut self, stream: Place, end: End, later: Duration) {
        self.agenda.push(self.now + later, Due::new(end.host, end.life, Event::Ended { stream }));
    }

    /// A host at random that satisfies a condition.
    pub fn choose(&mut self, wanted: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let candidates: Vec<usize> = (0..self.len()).filter(|host| wanted(self, *host)).collect();
        let place =
            if candidates.is_empty() { return None } else { self.rng.random_range(0..candidates.len()) };
        candidates.get(place).copied()
    }
}

fn host_at(address: SocketAddrV4) -> usize {
    (u32::from(*address.ip()) & 0x00ff_ffff) as usize
}
