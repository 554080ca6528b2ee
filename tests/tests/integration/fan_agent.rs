//! The agent and the files: what they ask for comes up and goes, what was made by hand stays.

use std::{fmt::Write as _, fs::File, thread, time::Duration};

use fanlight_tests::{
    Host, eventually,
    fleet::{Fleet, bridge, overlay},
    load::assert_reaches,
    tools::in_guest,
};
use nix::sys::signal::Signal;

// Long enough for an emulated kernel to verify every program anew.
const SOON: Duration = Duration::from_secs(30);

/// Writes `fanlight.toml` with these fans, each as overlay and further lines.
fn configure(host: &Host, fans: &[(&str, &str)]) {
    let mut text = String::new();
    for (overlay, more) in fans {
        writeln!(text, "[[fan]]\noverlay = \"{overlay}\"\nunderlay = \"eth0\"\n{more}")
            .expect("a string grows");
    }
    host.write("/etc/fanlight/fanlight.toml", &text);
}

/// Overlays of the fans that are up.
fn overlays(host: &Host) -> Vec<String> {
    let shown = host.json("fan show");
    let rows = shown.as_array().expect("a list").iter();
    rows.map(|row| row["overlay"].as_str().expect("a text").to_owned()).collect()
}

fn degraded(host: &Host) -> String {
    host.json("status")["degraded"].to_string()
}

#[test]
fn fans_of_both_files_come_up_and_leave_with_them() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[("250.0.0.0/8", "")]);
    fleet[0].write("/etc/fanlight/fans", "251.0.0.0/8 eth0\n252.0.0.0/8 eth0 off\n");
    let mut agent = fleet[0].agent();
    assert_eq!(overlays(&fleet[0]), ["250.0.0.0/8", "251.0.0.0/8"]);
    assert_eq!(degraded(&fleet[0]), "[]");
    configure(&fleet[0], &[]);
    agent.reload();
    assert_eq!(overlays(&fleet[0]), ["251.0.0.0/8"]);
    fleet[0].write("/etc/fanlight/fans", "");
    agent.reload();
    assert_eq!(overlays(&fleet[0]), [""; 0]);
    assert!(!fleet[0].has_device("fanlight0"));
    assert!(agent.stop().status.success());
}

//@ guest: 6.1
#[test]
fn a_fan_brought_up_by_hand_is_kept_in_repair_and_never_removed() {
    let fleet = Fleet::up(1);
    configure(&fleet[0], &[("250.0.0.0/8", ""), ("251.0.0.0/8", "")]);
    let mut agent = fleet[0].agent();
    assert_eq!(overlays(&fleet[0]), ["250.0.0.0/8", "251.0.0.0/8"]);
    configure(&fleet[0], &[]);
    agent.reload();
    assert_eq!(overlays(&fleet[0]), ["250.0.0.0/8"]);
    fleet[0].ip("route delete 250.0.0.0/8");
    eventually("the route is back", SOON, || {
        fleet[0].ip("route show 250.0.0.0/8").contains("fanlight0").then_some(())
    });
    assert!(agent.stop().status.success());
    assert_eq!(overlays(&fleet[0]), ["250.0.0.0/8"]);
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported_until_it_is_put_right() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[("250.0.0.0/8", "")]);
    let mut agent = fleet[0].agent();
    configure(&fleet[0], &[("250.0.0.0/8", "egress = \"maybe\"")]);
    agent.reload();
    assert_eq!(overlays(&fleet[0]), ["250.0.0.0/8"]);
    assert!(degraded(&fleet[0]).contains("config-invalid: /etc/fanlight/fanlight.toml:"));
    assert_eq!(fleet[0].fanlight(["status"]).run().code(), 1);
    configure(&fleet[0], &[("250.0.0.0/8", "")]);
    agent.reload();
    assert_eq!(degraded(&fleet[0]), "[]");
}

#[test]
fn other_values_in_the_file_replace_its_fan_but_not_one_brought_up_by_hand() {
    let fleet = Fleet::bare(1);
    fleet[0].run("fan up 251.0.0.0/8 eth0");
    configure(&fleet[0], &[("250.0.0.0/8", "")]);
    let mut agent = fleet[0].agent();
    let changed = "egress = \"drop\"";
    configure(&fleet[0], &[("250.0.0.0/8", changed), ("251.0.0.0/8", changed)]);
    agent.reload();
    let rules = fleet[0].sh("nft list table ip fanlight");
    assert!(rules.contains("ip saddr 250.0.27.0/24"), "{rules}");
    let (masqueraded, dropped) =
        (rules.matches(" masquerade comment").count(), rules.matches(" drop ").count());
    assert_eq!((masqueraded, dropped), (1, 1), "{rules}");
    let reasons = degraded(&fleet[0]);
    assert!(reasons.contains("251.0.0.0/8") && reasons.contains("egress"), "{reasons}");
    assert!(!reasons.contains("250.0.0.0/8"), "{reasons}");
}

#[test]
fn a_fan_that_left_the_files_goes_as_soon_as_nobody_uses_it() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[("250.0.0.0/8", "")]);
    let mut agent = fleet[0].agent();
    let container = fleet.endpoint(0, 2);
    configure(&fleet[0], &[]);
    agent.reload();
    assert_reaches(&container, overlay(0, 1));
    assert!(degraded(&fleet[0]).contains("in use by endpoint"), "{}", degraded(&fleet[0]));
    let name = fleet[0].json("endpoint list")[0]["name"].as_str().expect("a name").to_owned();
    fleet[0].run(&format!("endpoint remove {name}"));
    eventually("the fan is down", Duration::from_secs(10), || overlays(&fleet[0]).is_empty().then_some(()));
    eventually("nothing is degraded", SOON, || (degraded(&fleet[0]) == "[]").then_some(()));
}

#[test]
fn a_bad_line_of_the_file_of_fans_is_reported_and_the_others_come_up() {
    let fleet = Fleet::bare(1);
    fleet[0].write("/etc/fanlight/fans", "250.0.0.0/8 nowhere/16\n251.0.0.0/8 eth0\n300 eth0\n");
    let _agent = fleet[0].agent();
    assert_eq!(overlays(&fleet[0]), ["251.0.0.0/8"]);
    let reasons = degraded(&fleet[0]);
    assert!(reasons.contains("nowhere") && reasons.contains("/etc/fanlight/fans:3"), "{reasons}");
}

//@ guest
#[test]
fn a_fan_taken_down_and_brought_up_anew_under_the_agent_is_served() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let remote = fleet.endpoint(1, 2);
    fleet[0].run("fan down 250.0.0.0/8 eth0");
    fleet[0].run("fan up 250.0.0.0/8 eth0");
    let port = fleet.port(0, 5);
    assert_reaches(&port, overlay(1, 2));
    eventually("packets for the port take the short way", SOON, || {
        let before = fleet[0].counters();
        assert_reaches(&remote, overlay(0, 5));
        (fleet[0].counters().since(&before).of("uplink-ingress", "decapsulated") > 0).then_some(())
    });
}

//@ guest: 6.1
#[test]
fn with_detach_nothing_is_left_behind() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0], &[("250.0.0.0/8", "")]);
    let before = fleet[0].ip("-o link show");
    let process = fleet[0].fanlight(["agent", "--detach"]).spawn();
    eventually("the fan is up", Duration::from_secs(20), || (!overlays(&fleet[0]).is_empty()).then_some(()));
    process.signal(Signal::SIGTERM);
    // The bridge is there before the programs, which take an emulated kernel ten seconds.
    let output = process.finish(Duration::from_secs(60));
    assert!(output.status.success(), "{output}");
    assert!(!fleet[0].has_device(&bridge(0)));
    assert_eq!(fleet[0].ip("-o link show"), before);
    assert!(!fleet[0].path("/sys/fs/bpf/fanlight").exists());
}

#[test]
fn an_agent_waits_for_a_lock_held_for_a_moment_and_refuses_to_run_beside_another_one() {
    let fleet = Fleet::bare(1);
    let path = "/run/fanlight/agent.lock";
    fleet[0].write(path, "");
    let held = File::open(fleet[0].path(path)).expect("a file that was just written");
    held.lock().expect("nobody holds it yet");
    let holder = thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        drop(held);
    });
    let _agent = fleet[0].agent();
    holder.join().expect("sleeping does not panic");
    let refused = fleet[0].fanlight(["agent"]).exits(1);
    assert!(refused.stderr.contains("another one is running"), "{refused}");
}

#[test]
fn an_idle_agent_takes_next_to_no_time_and_writes_nothing() {
    let fleet = Fleet::up(1);
    fleet[0].run("fan up 251.0.0.0/8 eth0");
    let _containers = [fleet.endpoint(0, 2), fleet.endpoint(0, 3)];
    let agent = fleet[0].agent();
    thread::sleep(Duration::from_secs(1));
    let (time, rules) = (processor_time(agent.pid()), handles(&fleet[0]));
    thread::sleep(Duration::from_secs(10));
    let took = processor_time(agent.pid()) - time;
    assert!(took <= idle_limit(), "{took:?} in 10 s");
    assert_eq!(handles(&fleet[0]), rules);
}

/// The table with the numbers that the kernel gave its rules: others after it was written again.
fn handles(host: &Host) -> String {
    host.sh("nft -a list table ip fanlight")
}

/// Emulation takes some ten times as long for the same work.
fn idle_limit() -> Duration {
    Duration::from_millis(if in_guest() { 1000 } else { 100 })
}

/// What a process has used, from `/proc/PID/stat` (proc(5): fields 14 and 15, hundredths of a second).
fn processor_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the agent runs");
    let after_name = text.rsplit(')').next().expect("a name in parentheses");
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
