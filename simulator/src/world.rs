//! Nodes, the wire between them and simulated time.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use control::cluster::Moment;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    host::Host,
    network::Network,
    node::{Action, Node, Start},
    queue::{Due, Event, Queue},
};

/// Bytes of the IPv4 and UDP headers.
const DATAGRAM_HEADERS: usize = 28;

/// Bytes of a connection beside what it carries, each way: opening, keys, acknowledgements, closing.
const CONNECTION: usize = 1_500;

/// How long a connection is tried.
const CONNECT: Duration = Duration::from_secs(3);

/// Datagrams that wait for a node that does not run; more are lost.
const SOCKET: usize = 256;

/// A world. Two of one seed to which the same is done are the same.
pub struct World<N: Node> {
    hosts: Vec<Host<N>>,
    settings: N::Settings,
    pub network: Network,
    now: Duration,
    queue: Queue,
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
            queue: Queue::default(),
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

    /// Ends a host's node at once; what its disk had not synced is lost.
    pub fn kill(&mut self, number: usize) {
        if let Some(host) = self.hosts.get_mut(number) {
            host.node = None;
            host.disk.lose_unsynced();
        }
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
        while let Some(due) = self.queue.pop_until(end) {
            self.now = due.at;
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
        let host = self.hosts.get_mut(due.node)?;
        let is_tick = matches!(due.event, Event::Tick { .. });
        let later = if host.paused_until > due.at {
            // What has arrived is read before timers run.
            host.paused_until + Duration::from_micros(u64::from(is_tick))
        } else if host.delay > Duration::ZERO && !due.has_waited {
            due.has_waited = true;
            due.at + host.delay
        } else {
            return Some(due);
        };
        if matches!(due.event, Event::Datagram { .. }) && host.paused_until > due.at {
            host.waiting += 1;
            if host.waiting > SOCKET {
                return None;
            }
        }
        due.at = later;
        self.queue.put(due);
        None
    }

    fn happen(&mut self, due: Due) {
        let Some(host) = self.hosts.get(due.node) else { return };
        let is_there = host.node.is_some() && host.life == due.life;
        if !is_there {
            if let Event::Request { from, from_life, .. } = due.event {
                self.refuse(due.node, from, from_life);
            }
            return;
        }
        let Some(due) = self.put_off(due) else { return };
        self.trace = due.trace(self.trace);
        let now = self.now;
        let Some(host) = self.hosts.get_mut(due.node) else { return };
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
            Event::Request { from, from_life, bytes } => {
                let answer = node.answer(at, &bytes);
                host.sent += answer.as_ref().map_or(0, |bytes| stream_bytes(bytes.len()));
                self.answer(due.node, from, from_life, answer);
            }
            Event::Answer { from, bytes } => node.answered(at, from, bytes.as_deref()),
        }
        self.after(due.node);
    }

    /// Ends a connection that found no listener, or no way.
    fn refuse(&mut self, from: usize, to: usize, life: u32) {
        let answer = Event::Answer { from: address(from), bytes: None };
        self.queue.push(self.now + CONNECT, to, life, answer);
    }

    fn answer(&mut self, from: usize, to: usize, life: u32, bytes: Option<Vec<u8>>) {
        if !self.network.passes(from, to) {
            return self.refuse(from, to, life);
        }
        let way = self.network.stream_way(&mut self.rng, bytes.as_ref().map_or(0, Vec::len));
        self.queue.push(self.now + way, to, life, Event::Answer { from: address(from), bytes });
    }

    /// Carries out what a node asks for, and sees to its next tick.
    fn after(&mut self, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        let Some(node) = &mut host.node else { return };
        let (actions, life) = (node.take_actions(&mut host.disk), host.life);
        let deadline = host.started.saturating_add(node.deadline()).max(self.now);
        if deadline < host.next_tick {
            host.next_tick = deadline;
            host.ticks += 1;
            let tick = Event::Tick { number: host.ticks };
            self.queue.push(deadline, number, life, tick);
        }
        for action in actions {
            match action {
                Action::Send { to, datagram } => self.send(number, host_at(to), datagram),
                Action::Exchange { to, request } => self.exchange(number, host_at(to), life, request),
                Action::Event(event) if self.observes => self.events.push((self.now, number, event)),
                Action::Event(_) => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if let Some(host) = self.hosts.get_mut(from) {
            host.sent += (bytes.len() + DATAGRAM_HEADERS) as u64;
        }
        let Some(life) = self.hosts.get(to).map(|host| host.life) else { return };
        if !self.network.passes(from, to) {
            return;
        }
        let source = SocketAddr::V4(address(from));
        for way in self.network.ways(&mut self.rng) {
            self.queue.push(self.now + way, to, life, Event::Datagram { source, bytes: bytes.clone() });
        }
    }

    fn exchange(&mut self, from: usize, to: usize, from_life: u32, bytes: Vec<u8>) {
        if let Some(host) = self.hosts.get_mut(from) {
            host.sent += stream_bytes(bytes.len());
        }
        let both = self.network.passes(from, to) && self.network.passes(to, from);
        let life = self.hosts.get(to).filter(|host| both && host.node.is_some()).map(|host| host.life);
        let Some(life) = life else { return self.refuse(to, from, from_life) };
        let way = self.network.stream_way(&mut self.rng, bytes.len());
        self.queue.push(self.now + way, to, life, Event::Request { from, from_life, bytes });
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

fn stream_bytes(bytes: usize) -> u64 {
    (bytes + bytes / 1_400 * 40 + CONNECTION) as u64
}
