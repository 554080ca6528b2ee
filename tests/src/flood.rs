//! Floods: TCP segments of clients that do not exist.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use dataplane_common::abi::{self, FlowKey, FlowRecord};

use crate::{
    Host,
    packet::{Ipv4, TcpFlag},
    site::Site,
};

/// What a forged client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Forged {
    /// A SYN.
    Syns,
    /// A SYN, and an acknowledgement of an answer that it never saw.
    SynsAndAcks,
}

/// Last octets of the forged addresses: no container has them.
const FORGED: std::ops::Range<u8> = 100..250;
/// Threads that send.
const SENDERS: u64 = 2;

/// A flood in the background, until it is asked how many segments it sent.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    start: Instant,
}

impl Flood {
    /// From a port of a host's bridge: addresses and ports of the sources are random, so that each segment is of a
    /// flow of its own. `slice` is the network of the host's fan.
    #[track_caller]
    pub fn start(
        (host, bridge, slice): (&Host, &str, Ipv4Addr),
        from: &Site,
        to: SocketAddrV4,
        forged: Forged,
        per_second: u32,
    ) -> Self {
        let (own, gateway) = (from.mac("eth0"), host.mac(bridge));
        let mac = own.map(|octet| format!("{octet:02x}")).join(":");
        // Answers end at the attacker's device: what cannot be delivered would be told to the backends, one by one.
        let neighbours = FORGED
            .map(|octet| client(slice, octet))
            .map(|address| format!("neigh replace {address} lladdr {mac} dev {bridge} nud permanent\n"));
        host.command("ip").args(["-batch", "-"]).input(neighbours.collect::<String>()).ok();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = Instant::now();
        for seed in 1..=SENDERS {
            let (socket, stop, sent) = (from.raw("eth0"), stop.clone(), sent.clone());
            let mut random = Random(seed << 32 | 0x7f4a_7c15);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
                    if sent.load(Ordering::Relaxed) >= due {
                        thread::sleep(Duration::from_micros(200));
                        continue;
                    }
                    let (source, number) = (random.client(slice), random.next() as u32);
                    socket.send(&Ipv4::tcp(source, to, (number, 0), TcpFlag::SYN).frame(gateway, own));
                    if forged == Forged::SynsAndAcks {
                        let numbers = (number.wrapping_add(1), random.next() as u32);
                        socket.send(&Ipv4::tcp(source, to, numbers, TcpFlag::ACK).frame(gateway, own));
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { stop, sent, start }
    }

    /// Ends it: how many forged clients there were, and how many a second.
    pub fn stop(self) -> (u64, f64) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sent.load(Ordering::Relaxed);
        (sent, sent as f64 / self.start.elapsed().as_secs_f64())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn client(slice: Ipv4Addr, octet: u8) -> Ipv4Addr {
    let [a, b, c, _] = slice.octets();
    Ipv4Addr::new(a, b, c, octet)
}

/// Marsaglia's xorshift: a flood needs many numbers, not good ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// One of the forged addresses, and any port.
    fn client(&mut self, slice: Ipv4Addr) -> (Ipv4Addr, u16) {
        let number = self.next();
        let octet = FORGED.start + (number >> 16) as u8 % (FORGED.end - FORGED.start);
        (client(slice, octet), number as u16 | 1024)
    }
}

/// Flows of a client in a host's table of confirmed ones, as the kernel has it.
#[track_caller]
pub fn confirmed_flows(host: &Host, client: Ipv4Addr) -> usize {
    let path = host.path(&format!("/sys/fs/bpf/fanlight/v{}/maps/flows-{}", abi::LAYOUT, abi::FLOW_LAYOUT));
    let map = MapData::from_pin(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let map = Map::from_map_data(map).and_then(|map| {
        HashMap::<_, [u8; size_of::<FlowKey>()], [u8; size_of::<FlowRecord>()]>::try_from(map)
    });
    let map = map.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    map.keys().flatten().filter(|key| key[..4] == client.octets()).count()
}
