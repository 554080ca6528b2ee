//! What is announced when: services with local backends, ends of the agent, maintenance, devices without carrier.

use std::{fs, thread, time::Duration};

use fanlight_tests::{
    eventually,
    services::service,
    speaker::{Kind, Manner, Speaker},
};

use super::bgp::{FILE, SIGNED, SOON, is_established, node, speaks};

const FAN: &str = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"eth0\"\n";
const VIP: &str = "10.96.0.1/32";
const SLICE: &str = "250.0.27.0/24";
const PREFIX: &str = "192.0.2.1/32";

fn plain() -> String {
    format!("[[announce]]\nname = \"apex\"\nprefixes = [\"{PREFIX}\"]\n")
}

#[test]
fn a_vip_is_announced_while_a_backend_of_this_node_takes_flows() {
    let fleet = node();
    let host = &fleet[0];
    let backends = ["250.0.27.2:80", "250.0.28.2:80"].map(str::to_owned);
    let announced = "[[announce]]\nname = \"vips\"\nservices = [\"*\"]\n[[announce]]\nname = \"slices\"\nslices = true\nmed = 50\n\
                     [[announce]]\nname = \"endpoints\"\nendpoints = true\n";
    host.write(
        FILE,
        &(speaks("", SIGNED) + FAN + &service("web", "10.96.0.1:80/tcp", &backends) + announced),
    );
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner::USUAL);
    let _agent = host.agent();
    let _container = fleet.endpoint(0, 2);
    router.wait_for(VIP, SOON, |seen| seen.med == 100);
    router.wait_for(SLICE, SOON, |seen| seen.med == 50);
    router.wait_for("250.0.27.2/32", SOON, |seen| seen.med == 100);
    host.run("service drain web 250.0.27.2:80");
    router.wait_gone(VIP, SOON);
    let vips = host.json("announce show vips");
    assert_eq!(
        (&vips["prefixes"][0]["state"], &vips["prefixes"][0]["med"]),
        (&"withdrawn".into(), &().into())
    );
    host.run("service undrain web 250.0.27.2:80");
    router.wait_for(VIP, SOON, |seen| seen.med == 100);
    host.run("endpoint remove c2");
    router.wait_gone("250.0.27.2/32", SOON);
    router.wait_gone(VIP, SOON);
}

#[test]
fn an_agent_that_ends_leaves_its_routes_to_peers_that_keep_them_and_else_withdraws() {
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner::USUAL);
    host.write(FILE, &(speaks("", SIGNED) + &plain()));
    let agent = host.agent();
    eventually("the route is in the kernel", SOON, || router.routes(PREFIX).then_some(()));
    agent.stop();
    thread::sleep(Duration::from_millis(500));
    assert!(router.routes(PREFIX), "SIGTERM leaves the datapath, and with it the routes");

    host.write(FILE, &(speaks("", SIGNED).replace("20s", "0s") + &plain()));
    let agent = host.agent();
    eventually("the session is back", SOON, || is_established(host));
    agent.stop();
    router.wait_gone(PREFIX, SOON);
    let log = router.sh("birdc -s /run/bird.ctl show protocols all fan");
    assert!(log.contains("Received: Administrative shutdown"), "{log}");
}

#[test]
fn maintenance_marks_routes_withdraws_them_and_lasts_over_a_restart() {
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Frr, Manner::USUAL);
    host.write(FILE, &(speaks("drain = \"2s\"", SIGNED) + &plain()));
    let agent = host.agent();
    router.wait_for(PREFIX, SOON, |seen| seen.communities.is_empty());
    host.run("maintenance on");
    router.wait_for(PREFIX, SOON, |seen| seen.communities.contains("65535:0"));
    router.wait_gone(PREFIX, SOON);
    let shown = host.json("announce list");
    assert_eq!((&shown[0]["state"], &shown[0]["prefixes"][0]["med"]), (&"maintenance".into(), &().into()));
    agent.stop();
    let _agent = host.agent();
    assert_eq!(host.json("bgp peers")[0]["state"], "idle");
    host.run("maintenance off");
    router.wait_for(PREFIX, SOON, |seen| seen.communities.is_empty());
}

#[test]
fn a_file_disables_and_a_command_cannot_enable_against_it() {
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner::USUAL);
    let disable = "on-disabled = \"withdraw\"\ndisable-file = \"/run/apex.disable\"\n";
    host.write(FILE, &(speaks("", SIGNED) + &plain() + disable));
    let agent = host.agent();
    router.wait_for(PREFIX, SOON, |_| true);
    host.write("/run/apex.disable", "");
    router.wait_gone(PREFIX, SOON);
    let refused = host.fanlight(["announce", "enable", "apex"]).exits(1);
    assert!(refused.stderr.contains("/run/apex.disable exists; remove the file"), "{refused}");
    host.run("announce disable apex");
    fs::remove_file(host.path("/run/apex.disable")).expect("the file");
    agent.stop();
    let _agent = host.agent();
    assert_eq!(host.json("announce list")[0]["state"], "disabled", "a mark survives a restart");
    host.run("announce enable apex");
    router.wait_for(PREFIX, SOON, |_| true);
    let unknown = host.fanlight(["announce", "show", "other"]).exits(1);
    assert!(unknown.stderr.contains("no announcement 'other'"), "{unknown}");
}

/// A BIRD beside the agent, as docs/announce.md has it.
const BESIDE: &str = "router id 172.30.0.27;
protocol device {}
protocol kernel fanlight4 { kernel table 110; learn; ipv4 { import where krt_source = 250; export none; }; }
protocol kernel fanlight6 { kernel table 110; learn; ipv6 { import where krt_source = 250; export none; }; }
filter announced { if source = RTS_INHERIT then { bgp_med = krt_metric; accept; } reject; }
protocol bgp upstream { local as 65147; neighbor 172.30.0.1 as 65101; connect delay time 1;
  ipv4 { import none; export filter announced; };
  ipv6 { import none; next hop address 2001:db8::27; export filter announced; }; }
";

#[test]
fn a_bird_beside_the_agent_finds_what_is_announced_in_its_table() {
    const SIX: &str = "2001:db8:1::1/128";
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner { is_signed: false, ..Manner::USUAL });
    host.write("/run/bird.conf", BESIDE);
    let words = ["-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid"];
    let _bird = host.command("bird").args(words).spawn();
    let announced = format!(
        "[[announce]]\nname = \"apex\"\nprefixes = [\"{PREFIX}\", \"{SIX}\"]\nvia = \"table\"\ntable = 110\n"
    );
    host.write(FILE, &announced);
    let agent = host.agent();
    router.wait_for(PREFIX, SOON, |seen| seen.med == 100);
    router.wait_for(SIX, SOON, |seen| seen.med == 101);
    host.run("announce disable apex");
    router.wait_for(SIX, SOON, |seen| seen.med == 501);
    let table =
        || [4, 6].map(|family| host.ip(&format!("-{family} route show table 110 proto 250")).lines().count());
    eventually("the former metric is gone", SOON, || (table() == [1, 1]).then_some(()));
    agent.kill9();
    host.ip("route add blackhole 192.0.2.9/32 proto 250 metric 7 table 110");
    let mut agent = host.agent();
    eventually("what nobody announces is gone", SOON, || (table() == [1, 1]).then_some(()));
    host.write(FILE, "");
    agent.reload();
    eventually("the table is empty", SOON, || (table() == [0, 0]).then_some(()));
    router.wait_gone(PREFIX, SOON);
}

#[test]
fn addresses_are_on_lo_while_they_are_announced_and_commands_hear_of_changes() {
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner::USUAL);
    let told = |state: &str| format!("echo $STATE $FANLIGHT_ANNOUNCEMENT {state} >> /run/told");
    let further = format!(
        "setup = \"lo\"\nlinger = \"1s\"\non-disabled = \"withdraw\"\nexecute = {{ up = \"{}\", disabled = \"{}\" }}\n",
        told("a"),
        told("b")
    );
    let plain = plain().replace("\"]", "\", \"192.0.2.2/32\", \"2001:db8:1::1/128\"]");
    host.ip("address add 192.0.2.2/32 dev lo");
    host.write(FILE, &(speaks("", SIGNED) + &plain + &further));
    let lo = || host.ip("address show dev lo");
    let agent = host.agent();
    router.wait_for(PREFIX, SOON, |_| true);
    router.wait_for("2001:db8:1::1/128", SOON, |_| true);
    assert!(lo().contains("inet 192.0.2.1/32") && lo().contains("inet6 2001:db8:1::1/128"), "{}", lo());
    agent.kill9();
    let agent = host.agent();
    eventually("the session is back", SOON, || is_established(host));
    host.run("announce disable apex");
    router.wait_gone(PREFIX, SOON);
    assert!(lo().contains("inet 192.0.2.1/32"), "it lingers");
    let is_gone = || (!lo().contains("192.0.2.1/32") && !lo().contains("2001:db8:1::1")).then_some(());
    eventually("ours are gone", SOON, is_gone);
    assert!(lo().contains("192.0.2.2/32"), "what was there before stays");
    let heard = || fs::read_to_string(host.path("/run/told")).unwrap_or_default();
    let both = "UP apex a\nDISABLED apex b\n";
    eventually("both commands have run, and none again after the restart", SOON, || {
        (heard() == both).then_some(())
    });
    agent.stop();
    let _agent = host.agent();
    host.run("announce enable apex");
    router.wait_for(PREFIX, SOON, |_| true);
    eventually("it is told", SOON, || (heard() == format!("{both}UP apex a\n")).then_some(()));
}

#[test]
fn a_check_decides_what_is_announced_and_a_restart_does_not_ask_anew() {
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner::USUAL);
    let check = "on-down = 900\ndown-as-path = [65200]\ncheck = { kind = \"command\", command = \"test -e /run/$FANLIGHT_ANNOUNCEMENT\", \
                 interval = \"100ms\", rise = 2, fall = 2 }\n";
    host.write(FILE, &(speaks("", SIGNED) + &plain() + check));
    let agent = host.agent();
    router.wait_for(PREFIX, SOON, |seen| seen.med == 900 && seen.path == [65_147, 65_200]);
    let is_told =
        || host.json("status")["degraded"].to_string().contains("announce-down: 'apex'").then_some(());
    eventually("status says that it is down", SOON, is_told);
    host.write("/run/apex", "");
    router.wait_for(PREFIX, SOON, |seen| seen.med == 100 && seen.path == [65_147]);
    let shown = host.json("announce show apex");
    assert_eq!((&shown["state"], &shown["check"]["state"]), (&"up".into(), &"up".into()), "{shown}");
    agent.stop();
    let log = || router.sh("birdc -s /run/bird.ctl show route all");
    let _agent = host.agent();
    eventually("the session is back", SOON, || is_established(host));
    assert!(!log().contains("BGP.med: 900"), "{}", log());
    fs::remove_file(host.path("/run/apex")).expect("the file");
    router.wait_for(PREFIX, SOON, |seen| seen.med == 900);
    host.run("announce disable apex");
    router.wait_for(PREFIX, SOON, |seen| seen.med == 500);
}

#[test]
fn a_device_that_loses_its_carrier_ends_its_session_at_once() {
    let fleet = node();
    let host = &fleet[0];
    let router = Speaker::start(&fleet.switch, Kind::Bird, Manner::USUAL);
    host.write(FILE, &(speaks("hold-time = \"180s\"", SIGNED) + &plain()));
    let _agent = host.agent();
    router.wait_for(PREFIX, SOON, |_| true);
    let port = format!("p-{}-eth0", host.name());
    let port = port.get(..15).unwrap_or(&port);
    fleet.switch.ip(&format!("link set {port} down"));
    let lost =
        || (host.json("bgp peers")[0]["last-error"] == "the uplink has lost its carrier").then_some(());
    eventually("the session is over", Duration::from_secs(2), lost);
    fleet.switch.ip(&format!("link set {port} up"));
    eventually("the session is back", SOON, || is_established(host));
}
