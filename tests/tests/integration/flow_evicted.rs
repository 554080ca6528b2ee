//! More connections than there is room for: what the kernel evicts goes as a whole.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::Duration,
};

use fanlight::kernel::bpf::Datapath;
use fanlight_tests::{
    Host, Site,
    crowd::CrowdServer,
    fleet::{Fleet, OUTSIDE, overlay},
    flows::age,
    services::{configure, random},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than a flow is known that is not confirmed.
const QUIET: Duration = Duration::from_secs(31);

/// How connections fared: how many were answered, and how many were reset.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fared {
    answered: usize,
    reset: usize,
}

fn connect(client: &Site) -> TcpStream {
    let mut stream = client
        .inside(|| TcpStream::connect_timeout(&WEB.into(), PATIENCE))
        .unwrap_or_else(|error| panic!("{}: {error}", client.name()));
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time");
    exchange(&mut stream).unwrap_or_else(|error| panic!("{}, a new connection: {error}", client.name()));
    stream
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [7; 64];
    stream.write_all(&bytes)?;
    stream.read_exact(&mut bytes)
}

/// Has every connection speak once.
fn all_speak(connections: &mut Vec<TcpStream>, when: &str) -> Fared {
    let mut fared = Fared::default();
    let mut number = 0;
    connections.retain_mut(|stream| {
        number += 1;
        match exchange(stream) {
            Ok(()) => {
                fared.answered += 1;
                true
            }
            Err(error) if is_reset(&error) => {
                fared.reset += 1;
                false
            }
            Err(error) => panic!("{when}: connection {number}, {:?}: {error}", stream.local_addr()),
        }
    });
    fared
}

fn is_reset(error: &io::Error) -> bool {
    [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof].contains(&error.kind())
}

fn capacity(host: &Host) -> usize {
    host.inside(|| {
        let datapath = Datapath::open_existing().expect("it is asked").expect("it is pinned");
        datapath.services().flow_capacity().expect("the table's size") as usize
    })
}

#[test]
fn of_more_connections_than_there_is_room_for_each_is_answered_or_reset() {
    let fleet = Fleet::up(2);
    let containers = [fleet.endpoint(1, 8), fleet.endpoint(1, 9)];
    let beyond = fleet.outside(VIP);
    let client = fleet.endpoint(0, 5);
    let in_fan = [overlay(1, 8), overlay(1, 9)].map(|address| SocketAddrV4::new(address, 8080));
    let outside = [8080, 8081].map(|port| SocketAddrV4::new(OUTSIDE, port));
    for (sites, addresses) in [([&*containers[0], &*containers[1]], in_fan), ([&beyond, &beyond], outside)] {
        let _servers = [0, 1].map(|server| CrowdServer::start(sites[server], addresses[server]));
        let backends = addresses.map(|address| address.to_string());
        let flows = "[datapath]\nflows = 2048\n".to_owned();
        configure(&fleet[0], &[flows, random("web", format!("{WEB}/tcp"), &backends)]);
        let _agent = fleet[0].agent();
        let room = capacity(&fleet[0]);
        let mut connections: Vec<_> = (0..room + room / 2).map(|_| connect(&client)).collect();
        let what = format!("{}, {} connections in room for {room}", addresses[0], connections.len());
        let fared = all_speak(&mut connections, &what);
        eprintln!("{what}: {fared:?}");
        for turn in 0..2 {
            age(&fleet[0], QUIET);
            let fared = all_speak(&mut connections, &format!("{what}, turn {turn}"));
            eprintln!("{what}, turn {turn}: {fared:?}");
            assert!(fared.answered > 0, "{what}");
        }
        drop(connections);
    }
}
