//! Ports of flows: two flows never share one towards a backend, and what is over gives its port up.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, Site,
    crowd::CrowdServer,
    eventually,
    fleet::{Fleet, OUTSIDE, bridge, overlay},
    flood::{Flood, Forged},
    server::{Greeted, Named, connect_from},
    services::{configure, service},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const PATIENCE: Duration = Duration::from_secs(5);

fn serve(fleet: &Fleet, datapath: &str, tables: &[String]) -> Agent {
    configure(&fleet[0], &[&[format!("[datapath]\n{datapath}\n")], tables].concat());
    fleet[0].agent()
}

/// Sends a word and reads it back.
fn echo(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"word")?;
    stream.read_exact(&mut [0; 4])
}

//@ guest
#[test]
fn pools_straight_to_a_backend_and_through_its_vip_share_the_clients_ports() {
    const POOL: u16 = 150;
    let fleet = Fleet::up(2);
    let sites = [fleet.endpoint(0, 9), fleet.endpoint(1, 9)];
    let backends = [0, 1].map(|host| SocketAddrV4::new(overlay(host, 9), 8080));
    let _servers = [0, 1].map(|host| CrowdServer::start(&sites[host], backends[host]));
    let client = fleet.endpoint(0, 5);
    let mut first = 20_000;
    for backend in backends {
        let _agent = serve(&fleet, "", &[service("web", format!("{WEB}/tcp"), &[backend.to_string()])]);
        for client in [&*client, &*fleet[0]] {
            for order in [[backend, WEB], [WEB, backend]] {
                let what = format!("{} to {}, then to {}", client.name(), order[0], order[1]);
                client.inside(|| {
                    let mut pools = Vec::new();
                    for to in order {
                        let pool = (first..first + POOL).map(|port| {
                            let stream = connect_from(port, to);
                            (port, to, stream.unwrap_or_else(|error| panic!("{what}: {port}: {error}")))
                        });
                        pools.extend(pool);
                    }
                    for _ in 0..2 {
                        for (port, to, stream) in &pools {
                            echo(stream).unwrap_or_else(|error| panic!("{what}: {port} to {to}: {error}"));
                        }
                    }
                });
                first += POOL;
            }
        }
    }
}

/// Calls a service from new sockets, no faster than so many a second; tells what failed.
fn calls(
    from: &Site,
    count: u32,
    per_second: u32,
    call: impl Fn() -> io::Result<()> + Sync,
) -> Vec<(u32, ErrorKind)> {
    from.inside(|| {
        let start = Instant::now();
        let calls = (0..count).filter_map(|number| {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(per_second));
            thread::sleep(due.saturating_sub(start.elapsed()));
            call().err().map(|error| (number, error.kind()))
        });
        let failed = calls.collect();
        println!("{count} calls of {} within {:?}", from.name(), start.elapsed());
        failed
    })
}

/// A query and its answer, from a new socket.
fn query() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(WEB)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who")?;
    socket.recv(&mut [0; 64]).map(drop)
}

/// A short connection.
fn visit() -> io::Result<()> {
    echo(&TcpStream::connect_timeout(&WEB.into(), PATIENCE)?)
}

//@ guest
#[test]
fn thousands_of_queries_and_short_connections_find_a_port_towards_a_server_beyond_the_fan() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(VIP);
    let server = SocketAddrV4::new(OUTSIDE, 8080);
    let _names = Named::start(&outside, "outside", OUTSIDE, 8081);
    let _echoes = CrowdServer::start(&outside, server);
    let tables = [
        service("dns", format!("{WEB}/udp"), &[format!("{OUTSIDE}:8081")]),
        service("web", format!("{WEB}/tcp"), &[server.to_string()]),
    ];
    let _agent = serve(&fleet, "", &tables);
    let client = fleet.endpoint(0, 5);
    for (site, queries) in [(&*client, 6_000), (&*fleet[0], 3_000)] {
        assert_eq!(calls(site, queries, 2_000, query), [], "queries of {}", site.name());
    }
    for site in [&*client, &*fleet[0]] {
        assert_eq!(calls(site, 3_000, 1_000, visit), [], "connections of {}", site.name());
    }
    assert_eq!(fleet[0].counters().total("refused-collision"), 0);

    let attacker = fleet[0].container("attacker");
    attacker.plug(&bridge(0));
    let flood = Flood::start((&fleet[0], &bridge(0), overlay(0, 0)), &attacker, WEB, Forged::Syns, 2_000);
    assert_eq!(calls(&client, 3_000, 1_000, query), [], "queries beside forged clients");
    let failed = calls(&client, 1_500, 500, visit);
    println!("{:?} forged clients; failed beside them: {failed:?}", flood.stop());
    assert_eq!(failed, [], "connections beside forged clients");
    assert_eq!(fleet[0].counters().total("refused-collision"), 0);
    assert_eq!(fleet[0].json("status")["degraded"].to_string(), "[]");
}

//@ guest
#[test]
fn status_names_the_range_of_ports_that_is_used_up_and_the_remedy() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(VIP);
    let server = Named::start(&outside, "outside", OUTSIDE, 8080);
    let _agent = serve(
        &fleet,
        "nat-ports = \"62000-62001\"",
        &[service("web", format!("{WEB}/tcp"), &[server.backend()])],
    );
    let client = fleet.endpoint(0, 5);
    let _held = [(); 2].map(|()| Greeted::connect(&client, WEB).expect("a free port"));
    assert_eq!(fleet[0].json("status")["degraded"].to_string(), "[]");
    let refused = Greeted::connect(&client, WEB).err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
    let told = eventually("status tells of it", Duration::from_secs(15), || {
        let told = fleet[0].json("status")["degraded"].to_string();
        told.contains("nat-ports: ").then_some(told)
    });
    assert!(told.contains("62000-62001") && told.contains("datapath.nat-ports"), "{told}");
}
