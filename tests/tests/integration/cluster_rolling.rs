//! Ten nodes with a service over all of them, under load: their agents restart, their hosts do, the wire is cut in halves.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, Container,
    cluster::{
        DEAD, JOINED, LOOK, TOLD, Weather, are_members, becomes, configure, is_degraded, seed, served,
        started, up,
    },
    command::End,
    eventually,
    fleet::{Fleet, overlay},
    http::Paced,
    nginx::Nginx,
    services::service,
};

const HOSTS: usize = 10;
const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// Last octets of the servers' and of the client's addresses.
const SERVER: u8 = 5;
const CLIENT: u8 = 6;
/// Clients at a time.
const CLIENTS: usize = 3;
/// Until a host that did not answer is asked again: the kernel asks once a second.
const ASKED_AGAIN: Duration = Duration::from_secs(2);
/// How long the wire is cut.
const CUT: Duration = Duration::from_secs(20);

/// Hosts with a fan and a cluster, each with a server.
struct Site<'f> {
    fleet: &'f Fleet,
    agents: Vec<Option<Agent>>,
    servers: Vec<Option<Nginx>>,
    containers: Vec<Container<'f>>,
}

fn fleet() -> Fleet {
    let fleet = Fleet::up(HOSTS);
    fleet.hosts().iter().for_each(|host| configure(host, "prod", &[seed(0)], ""));
    fleet
}

impl<'f> Site<'f> {
    fn new(fleet: &'f Fleet) -> Self {
        let containers: Vec<_> = (0..HOSTS).map(|host| fleet.endpoint(host, SERVER)).collect();
        let mut site = Self { fleet, agents: Vec::new(), servers: Vec::new(), containers };
        site.servers = (0..HOSTS).map(|host| Some(site.serve(host))).collect();
        site.agents = started(fleet).into_iter().map(Some).collect();
        let backends: Vec<String> = (0..HOSTS).map(|host| format!("{}:80", overlay(host, SERVER))).collect();
        let table = service("web", format!("{VIP}/tcp"), &backends);
        fleet[0].fanlight(["service", "apply", "-f", "-"]).input(table).ok();
        site.all_up(HOSTS);
        site
    }

    fn serve(&self, host: usize) -> Nginx {
        Nginx::start(&self.fleet[host], &self.containers[host], &format!("server-{host}"))
    }

    /// Waits until every node serves so many backends.
    #[track_caller]
    fn all_up(&self, number: usize) {
        for host in self.fleet.hosts() {
            let is_so = || (up(&served(host, "web")?) == number).then_some(());
            eventually(&format!("{} serves {number} backends", host.name()), TOLD, is_so);
        }
    }

    /// Waits until a client reaches every server.
    #[track_caller]
    fn all_reached(&self, client: &Container<'_>) {
        for host in 0..HOSTS {
            let server = SocketAddrV4::new(overlay(host, SERVER), 80).into();
            let connects = || TcpStream::connect_timeout(&server, Duration::from_millis(200)).ok();
            let what = format!("{server} is reached");
            eventually(&what, ASKED_AGAIN, || client.inside(|| connects().map(drop)));
        }
    }

    /// Requests from a container of the first host, while something happens.
    #[track_caller]
    fn under_load(&mut self, client: &Container<'_>, happens: impl FnOnce(&mut Self)) -> Vec<Paced> {
        let is_over = AtomicBool::new(false);
        let paced = thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| Paced::run(client, VIP, &is_over))).collect();
            let end = End(&is_over);
            happens(self);
            drop(end);
            clients
                .into_iter()
                .map(|client| client.join().expect("a client does not panic"))
                .collect::<Vec<_>>()
        });
        for Paced { answered, failed, longest } in &paced {
            eprintln!("{answered} answered, {} failed, longest {longest:?}: {failed:?}", failed.len());
        }
        paced
    }
}

/// No request failed, and none waited for a second SYN, which comes after a second (RFC 6298, section 2).
#[track_caller]
fn assert_none_failed(paced: &[Paced]) {
    let is_well = |paced: &Paced| {
        paced.failed.is_empty() && paced.answered > 100 && paced.longest < Duration::from_secs(1)
    };
    assert!(paced.iter().all(is_well), "{paced:?}");
}

#[test]
fn a_rolling_restart_of_all_agents_fails_no_request() {
    let fleet = fleet();
    let mut site = Site::new(&fleet);
    let client = fleet.endpoint(0, CLIENT);
    let paced = site.under_load(&client, |site| {
        for host in 0..HOSTS {
            site.agents[host].take().expect("it runs").stop();
            site.agents[host] = Some(fleet[host].agent());
            site.all_up(HOSTS);
        }
    });
    assert_none_failed(&paced);
}

#[test]
fn a_rolling_reboot_of_hosts_in_maintenance_fails_no_request() {
    let fleet = fleet();
    let mut site = Site::new(&fleet);
    let client = fleet.endpoint(0, CLIENT);
    let paced = site.under_load(&client, |site| {
        // The client's own host stays.
        for host in 1..HOSTS {
            fleet[host].run("maintenance on");
            site.all_up(HOSTS - 1);
            // A SYN that was lost comes again after a second (RFC 6298, section 2).
            thread::sleep(Duration::from_millis(1_500));
            site.agents[host].take().expect("it runs").kill9();
            site.servers[host].take().expect("it runs").kill();
            fleet.switch.ip(&format!("link set p-{}-eth0 down", fleet[host].name()));
            thread::sleep(DEAD);
            fleet.switch.ip(&format!("link set p-{}-eth0 up", fleet[host].name()));
            site.servers[host] = Some(site.serve(host));
            site.agents[host] = Some(fleet[host].agent());
            becomes(&fleet, &[0], host, "maintenance", JOINED);
            fleet[host].run("maintenance off");
            site.all_up(HOSTS);
        }
    });
    assert_none_failed(&paced);
}

#[test]
fn halves_that_cannot_reach_each_other_serve_what_they_last_knew_and_all_is_well_when_they_can() {
    let fleet = fleet();
    let mut site = Site::new(&fleet);
    let client = fleet.endpoint(0, CLIENT);
    let half = (0..HOSTS / 2).collect::<Vec<_>>();
    let start = Instant::now();
    let cut = site.under_load(&client, |site| {
        Weather { groups: vec![half.clone()], ..Weather::default() }.rule(&fleet.switch);
        is_degraded(&fleet[0], "minority: 5 of 10 members can be reached");
        is_degraded(&fleet[9], "minority: 5 of 10 members can be reached");
        // Deaths that were believed on the way there are taken back.
        site.all_up(HOSTS);
        thread::sleep(CUT.saturating_sub(start.elapsed()));
        Weather::default().rule(&fleet.switch);
        are_members(&fleet, &(0..HOSTS).collect::<Vec<_>>(), JOINED + LOOK);
    });
    // Half of the backends can't be reached: connections to them time out.
    assert!(cut.iter().all(|paced| paced.answered > 0), "{cut:?}");
    site.all_up(HOSTS);
    site.all_reached(&client);
    let healed = site.under_load(&client, |_| thread::sleep(Duration::from_secs(3)));
    assert_none_failed(&healed);
}
