//! What TCP may do through a VIP besides opening, speaking and closing in turn.

//@ guest: 6.1

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use fanlight_tests::{
    Site, eventually,
    fleet::{Fleet, overlay},
    server::connect_from,
    services::{configure, service},
};

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
const SOON: Duration = Duration::from_secs(10);
/// The client's port.
const PORT: u16 = 40_000;

// As the kernel numbers them (`include/net/tcp_states.h`).
const TIME_WAIT: &str = "06";
const CLOSING: &str = "0B";

/// The state of a site's connection from or to the client's port.
fn state(site: &Site) -> Option<String> {
    let table = site.inside(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("the kernel tells");
    let port = format!(":{PORT:04X}");
    // Columns: number, local address, remote address, state.
    let rows = table.lines().map(|row| row.split_whitespace().skip(1).take(3).collect::<Vec<_>>());
    let mut rows = rows.filter(|row| row[..2].iter().any(|address| address.ends_with(&port)));
    rows.next().map(|row| row[2].to_owned())
}

/// Both are in this state at one moment or another.
#[track_caller]
fn both_reach(sites: [&Site; 2], expected: &str) {
    let mut open = sites.to_vec();
    eventually(&format!("both ends are in state {expected}"), SOON, || {
        open.retain(|site| state(site).as_deref() != Some(expected));
        open.is_empty().then_some(())
    });
}

/// A connection from the client's port through the VIP: its two ends, which have spoken with each other.
fn connected(client: &Site, listener: &TcpListener) -> [TcpStream; 2] {
    let mut ends = [
        client.inside(|| connect_from(PORT, WEB)).expect("the backend answers"),
        listener.accept().expect("the client has connected").0,
    ];
    for from in [0, 1] {
        ends[from].write_all(b"hello").expect("it is sent");
        let mut heard = [0; 5];
        ends[1 - from].read_exact(&mut heard).expect("it arrives");
        assert_eq!(&heard, b"hello");
    }
    ends
}

/// Delays a container's packets by some 300 ms each, the first one too: a FIN is sent long before the other's arrives.
fn hold_back(site: &Site) {
    // Not netem, which some kernels lack; a FIN takes 66 bytes, and what is left of the burst 8.
    site.sh("tc qdisc add dev eth0 root tbf rate 1600bit burst 250 limit 10000");
    site.inside(|| {
        let filler = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        filler.send_to(&[0; 200], SocketAddrV4::new(overlay(0, 1), 9)).expect("it is sent");
    });
}

// On a loaded emulator the two FINs may not cross.
//@ guest
#[test]
fn both_ends_may_close_at_once_and_the_clients_port_opens_another_connection() {
    let fleet = Fleet::up(2);
    let client = fleet.endpoint(0, 5);
    client.sysctl("net.ipv4.tcp_tw_reuse", "1");
    for host in [0, 1] {
        let server = fleet.endpoint(host, 9);
        let address = SocketAddrV4::new(overlay(host, 9), 8080);
        configure(&fleet[0], &[service("web", format!("{WEB}/tcp"), &[address.to_string()])]);
        let _agent = fleet[0].agent();
        let listener = server.bound(|| TcpListener::bind(address));
        let mut ends = connected(&client, &listener);

        let sites = [&*client, &*server];
        sites.iter().for_each(|site| hold_back(site));
        ends.iter().for_each(|end| end.shutdown(Shutdown::Write).expect("a connection"));
        both_reach(sites, CLOSING);
        both_reach(sites, TIME_WAIT);
        for end in &mut ends {
            assert_eq!(end.read(&mut [0]).expect("it was not reset"), 0, "host {host}");
        }

        sites.iter().for_each(|site| drop(site.sh("tc qdisc delete dev eth0 root")));
        // Linux uses a port in TIME_WAIT again when its timestamps, of seconds there, have moved on.
        thread::sleep(Duration::from_millis(1_100));
        let mut ends = connected(&client, &listener);
        // The port is free for the next round: no TIME_WAIT on the client.
        ends[1].shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(ends[0].read(&mut [0]).expect("it was not reset"), 0);
    }
}
