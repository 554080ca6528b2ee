//! Announcements to real routers: BIRD, FRR, GoBGP and ExaBGP.

use std::{
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Host, eventually,
    fleet::Fleet,
    speaker::{ASN, Kind, Manner, NODE_ASN, PASSWORD, Seen, Speaker},
};

pub(super) const SOON: Duration = Duration::from_secs(15);
pub(super) const FILE: &str = "/etc/fanlight/fanlight.toml";
const ONE: &str = "91.238.131.166/32";
const TWO: &str = "91.238.131.167/32";
const SIX: &str = "2001:db8:1::1/128";

/// A host with addresses of both families, and the file of its peers' password.
pub(super) fn node() -> Fleet {
    let fleet = Fleet::bare(1);
    fleet[0].ip("address add 2001:db8::27/64 dev eth0 nodad");
    fleet[0].write("/etc/fanlight/bgp.key", &format!("{PASSWORD}\n"));
    fleet[0].sh("chmod 600 /etc/fanlight/bgp.key");
    fleet
}

/// `[bgp]` with a peer, and further keys of either.
pub(super) fn speaks(bgp: &str, peer: &str) -> String {
    format!(
        "[node]\nuplink = \"eth0\"\n[bgp]\nasn = {NODE_ASN}\ngraceful-restart = \"20s\"\n{bgp}\n\
         [[bgp.peer]]\naddress = \"172.30.0.1\"\nasn = {ASN}\n{peer}\n"
    )
}

pub(super) const SIGNED: &str = "password-file = \"/etc/fanlight/bgp.key\"";

fn apex() -> String {
    format!(
        "[[announce]]\nname = \"apex\"\nprefixes = [\"{ONE}\", \"{TWO}\", \"{SIX}\"]\n\
         communities = [\"65001:100\"]\nlarge-communities = [\"65001:1:2\"]\nextended-communities = [\"rt:65001:5\"]\n\
         as-path = [65100]\ndisabled-communities = [\"65001:999\"]\n"
    )
}

fn expected(next_hop: &str, med: u64, community: &str) -> Seen {
    Seen {
        next_hop: next_hop.to_owned(),
        med,
        path: vec![NODE_ASN.into(), 65_100],
        communities: [community, "65001:1:2", "rt:65001:5"].map(str::to_owned).into(),
    }
}

fn is(expected: Seen) -> impl Fn(&Seen) -> bool {
    move |seen| *seen == expected
}

pub(super) fn is_established(host: &Host) -> Option<()> {
    (host.json("bgp peers")[0]["state"] == "established").then_some(())
}

/// Announces with everything that a route may have, disables, kills the agent, and withdraws. `has` looks where the route
/// must stay while the agent is away.
fn speaks_with(kind: Kind, has: Option<fn(&Speaker) -> bool>) {
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, kind, Manner::USUAL);
    host.write(FILE, &(speaks("", SIGNED) + &apex()));
    let agent = host.agent();
    router.wait_for(ONE, SOON, is(expected("172.30.0.27", 100, "65001:100")));
    router.wait_for(TWO, SOON, is(expected("172.30.0.27", 101, "65001:100")));
    router.wait_for(SIX, SOON, is(expected("2001:db8::27", 102, "65001:100")));
    assert_eq!(host.json("bgp routes --peer 172.30.0.1").as_array().map(Vec::len), Some(3));

    assert_eq!(host.run("announce disable apex"), "announcement apex is disabled");
    router.wait_for(TWO, SOON, is(expected("172.30.0.27", 501, "65001:999")));
    host.run("announce enable apex");
    router.wait_for(TWO, SOON, is(expected("172.30.0.27", 101, "65001:100")));

    agent.kill9();
    if let Some(has) = has {
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            assert!(has(&router), "{kind:?} has lost the route of an agent that was killed");
            thread::sleep(Duration::from_millis(50));
        }
    }
    let mut agent = host.agent();
    eventually("the session is back", SOON, || is_established(host));
    assert!(has.is_none_or(|has| has(&router)), "{kind:?} has lost the route at the return");
    router.wait_for(ONE, SOON, is(expected("172.30.0.27", 100, "65001:100")));

    host.write(FILE, &speaks("", SIGNED));
    agent.reload();
    for prefix in [ONE, TWO, SIX] {
        router.wait_gone(prefix, SOON);
    }
}

#[test]
fn bird_hears_all_of_a_route_and_keeps_it_while_the_agent_is_away() {
    speaks_with(Kind::Bird, Some(|router| router.routes(ONE) && router.routes(SIX)));
}

#[test]
fn frr_hears_all_of_a_route_and_keeps_it_while_the_agent_is_away() {
    speaks_with(Kind::Frr, Some(|router| router.routes(ONE) && router.routes(SIX)));
}

#[test]
fn gobgp_hears_all_of_a_route_and_keeps_it_while_the_agent_is_away() {
    speaks_with(Kind::Gobgp, Some(|router| router.seen(ONE).is_some()));
}

#[test]
fn exabgp_hears_all_of_a_route() {
    speaks_with(Kind::Exabgp, None);
}

#[test]
fn a_peer_that_connects_by_ipv6_within_a_hop_is_answered() {
    let fleet = node();
    let host = &fleet[0];
    let manner = Manner { node: "2001:db8::27", bird: "ttl security on;", is_signed: false, ..Manner::USUAL };
    host.write(
        FILE,
        &(speaks(
            "listen = [\"172.30.0.27:179\", \"[2001:db8::27]:179\"]\n\
             [[bgp.peer]]\naddress = \"2001:db8::1\"\nasn = 65101\nport = 9\nttl-security = true",
            "port = 9",
        ) + &apex()),
    );
    let _agent = host.agent();
    let router = Speaker::start(&fleet.switch, Kind::Bird, manner);
    router.wait_for(ONE, SOON, is(expected("172.30.0.27", 100, "65001:100")));
    router.wait_for(SIX, SOON, is(expected("2001:db8::27", 102, "65001:100")));
    // The other one is refused again and again.
    eventually("the peers are so", SOON, || {
        let peers = host.json("bgp peers");
        let is_refused = peers[1]["last-error"].as_str().is_some_and(|why| why.contains("refused"));
        (peers[0]["state"] == "established" && peers[1]["state"] == "active" && is_refused).then_some(())
    });
}

#[test]
fn a_wrong_password_is_a_reason_to_be_degraded_until_it_is_right() {
    let fleet = node();
    let host = &fleet[0];
    let _router = Speaker::start(&fleet.switch, Kind::Bird, Manner::USUAL);
    host.write("/etc/fanlight/bgp.key", "wrong");
    host.write(FILE, &(speaks("", SIGNED) + &apex()));
    let mut agent = host.agent();
    let down =
        || host.json("status")["degraded"].to_string().contains("bgp-down: 172.30.0.1: ").then_some(());
    eventually("status says that the session is down", SOON, down);
    host.write("/etc/fanlight/bgp.key", PASSWORD);
    agent.reload();
    eventually("the session is established", SOON, || is_established(host));
    let is_right = || host.json("status")["degraded"].as_array().is_some_and(Vec::is_empty).then_some(());
    eventually("nothing is wrong", SOON, is_right);
}
