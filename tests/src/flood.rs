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

/// A flood in the background, until it is asked how many segments it sent.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    start: Instant,
}

impl Flood {
    /// From a port of a host's bridge: addresses and ports of the sources are random, so that each segment is of a
    /// flow of its own. `sources` is the network of a fan's slice.
    #[track_caller]
    pub fn start(
        from: &Site,
        gateway: [u8; 6],
        to: SocketAddrV4,
        sources: Ipv4Addr,
        forged: Forged,
        per_second: u32,
    ) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let (socket, own, start) = (from.raw("eth0"), from.mac("eth0"), Instant::now());
        thread::spawn(move || {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            while !stopped.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
                if count.load(Ordering::Relaxed) >= due {
                    thread::sleep(Duration::from_micros(200));
                    continue;
                }
                let source = random.client(sources);
                let number = random.next() as u32;
                socket.send(&Ipv4::tcp(source, to, (number, 0), TcpFlag::SYN).frame(gateway, own));
                if forged == Forged::SynsAndAcks {
                    let numbers = (number.wrapping_add(1), random.next() as u32);
                    socket.send(&Ipv4::tcp(source, to, numbers, TcpFlag::ACK).frame(gateway, own));
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
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

/// Marsaglia's xorshift: a flood needs many numbers, not good ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// One of the slice's addresses that no container has, and any port.
    fn client(&mut self, slice: Ipv4Addr) -> (Ipv4Addr, u16) {
        let [a, b, c, _] = slice.octets();
        let number = self.next();
        (Ipv4Addr::new(a, b, c, 128 + (number >> 16) as u8 % 100), number as u16 | 1024)
    }
}

/// Flows of a client in a host's table of confirmed ones, as the kernel has it.
#[track_caller]
pub fn confirmed_flows(host: &Host, client: Ipv4Addr) -> usize {
    let path = host.path(&format!("/sys/fs/bpf/fanlight/v{}/maps/flows", abi::LAYOUT));
    let map = MapData::from_pin(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let map = Map::from_map_data(map).and_then(|map| {
        HashMap::<_, [u8; size_of::<FlowKey>()], [u8; size_of::<FlowRecord>()]>::try_from(map)
    });
    let map = map.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    map.keys().flatten().filter(|key| key[..4] == client.octets()).count()
}
