//! What may hold the agent up: locks, its guards, programs that it runs, files that it reads. It goes on answering, and says
//! what it waits for.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Host, Process, eventually,
    fleet::{Fleet, bridge},
    host::binary,
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(30);
const LOCK: &str = "/run/fanlight/lock";
const GUARD: &str = "/run/fanlight/agent.lock";
const SOCKET: &str = "/run/fanlight/api.sock";

fn configure(host: &Host) {
    host.write("/etc/fanlight/fanlight.toml", "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"eth0\"\n");
}

fn degraded(host: &Host) -> String {
    host.json("status")["degraded"].to_string()
}

/// A program of a user who may do nothing.
fn as_nobody(host: &Host, words: &[&str]) -> fanlight_tests::Cmd {
    host.command("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words)
}

/// Holds the lock of fans in a process that can be stopped and ended; its number is that of the holder.
fn hold(host: &Host) -> Process {
    let process = host.command("flock").args(["--no-fork", LOCK, "sleep", "1000"]).spawn();
    eventually("the lock is held", SOON, || {
        let file = File::open(host.path(LOCK)).ok()?;
        matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)).then_some(())
    });
    process
}

fn answers(host: &Host) -> bool {
    host.command("curl")
        .args(["-sf", "-m", "2", "--unix-socket", SOCKET, "http://fanlight/v1/services"])
        .run()
        .status
        .success()
}

/// Where programs of a test stand, before all others on the agent's PATH.
const PROGRAMS: &str = "/run/programs";

/// A script among the [`PROGRAMS`].
fn script(host: &Host, name: &str, text: &str) -> PathBuf {
    let path = format!("{PROGRAMS}/{name}");
    host.write(&path, &format!("#!/bin/sh\n{text}\n"));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(host.path(&path), mode).expect("a file of ours");
    path.into()
}

/// From now on agents of a host run an `nft` that hangs while a file is there; its path.
fn let_nft_hang(host: &Host) -> PathBuf {
    let file = format!("{PROGRAMS}/hang");
    // It ends with its agent: a test that fails leaves nothing.
    script(
        host,
        "nft",
        &format!(
            "while [ -e {file} ] && kill -0 $PPID; do sleep 0.1; done\nPATH=${{PATH#{PROGRAMS}:}} exec nft \"$@\""
        ),
    );
    let binary = binary();
    let agent = script(host, "fanlight", &format!("PATH={PROGRAMS}:$PATH exec {} \"$@\"", binary.display()));
    host.use_binary(agent);
    host.path(&file)
}

#[test]
fn an_nft_that_hangs_keeps_neither_readers_nor_routes_waiting_is_named_and_does_its_work_when_it_is_well() {
    let fleet = Fleet::bare(1);
    let fans =
        ["250", "251"].map(|first| format!("[[fan]]\noverlay = \"{first}.0.0.0/8\"\nunderlay = \"eth0\"\n"));
    fleet[0].write("/etc/fanlight/fanlight.toml", &fans.concat());
    let hang = let_nft_hang(&fleet[0]);
    let agent = fleet[0].agent();
    let table = || fleet[0].command("nft").args(["list", "table", "ip", "fanlight"]).run().status.success();
    assert!(table());
    assert_eq!(degraded(&fleet[0]), "[]");
    fs::write(&hang, "").expect("a file of ours");
    // One pass notices all of it.
    let lose = "ip route delete 250.0.0.0/8; ip route delete 251.0.0.0/8; nft delete table ip fanlight";
    fleet[0].command("sh").args(["-c", lose]).ok();
    eventually("the routes are back", Duration::from_secs(10), || {
        let routes = fleet[0].ip("route show");
        (routes.contains("250.0.0.0/8 ") && routes.contains("251.0.0.0/8 ")).then_some(())
    });
    assert!(!table());
    let mut is_busy_told = false;
    let killed = "`nft -f -` did not end within 30 s and was killed; see what holds it up";
    eventually("the program is named", Duration::from_secs(60), || {
        assert!(answers(&fleet[0]));
        let reasons = degraded(&fleet[0]);
        is_busy_told |= reasons.contains("writer-busy: ");
        reasons.contains(killed).then_some(())
    });
    assert!(is_busy_told);
    fs::remove_file(&hang).expect("a file of ours");
    eventually("the table is back", SOON, || table().then_some(()));
    eventually("nothing is degraded", SOON, || (degraded(&fleet[0]) == "[]").then_some(()));
    assert!(agent.stop().status.success());
}

#[test]
fn a_file_that_takes_for_ever_to_read_keeps_no_reader_waiting() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0]);
    let mut agent = fleet[0].agent();
    // A pipe without a writer, as a disk that does not answer.
    let file = "/etc/fanlight/fanlight.toml";
    let shell = |script: &str| fleet[0].command("sh").args(["-c", script]).ok();
    shell(&format!("mv {file} {file}.old && mkfifo {file} && kill -HUP {}", agent.pid()));
    for _ in 0..10 {
        assert!(answers(&fleet[0]));
        thread::sleep(Duration::from_millis(100));
    }
    shell(&format!("cat {file}.old >{file}"));
    agent.wait_for("READY=1", SOON);
    assert_eq!(degraded(&fleet[0]), "[]");
    assert!(agent.stop().status.success());
}

#[test]
fn no_other_user_can_take_a_lock() {
    let fleet = Fleet::bare(1);
    // As an earlier version left them.
    for path in [LOCK, GUARD] {
        fleet[0].write(path, "");
        fs::set_permissions(fleet[0].path(path), fs::Permissions::from_mode(0o644)).expect("a file of ours");
    }
    configure(&fleet[0]);
    let agent = fleet[0].agent();
    let mode = |path| fs::metadata(fleet[0].path(path)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!([LOCK, GUARD, "/run/fanlight"].map(mode), [0o600, 0o600, 0o700]);
    for path in [LOCK, GUARD] {
        let refused = as_nobody(&fleet[0], &["flock", "--nonblock", path, "true"]).run();
        assert!(refused.stderr.contains("Permission denied"), "{refused}");
    }
    assert!(agent.stop().status.success());
}

#[test]
fn a_command_that_waits_in_vain_names_the_holder() {
    let fleet = Fleet::bare(1);
    fleet[0].write(LOCK, "");
    let holder = hold(&fleet[0]);
    holder.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let refused =
        fleet[0].fanlight(["fan", "up", "250.0.0.0/8", "eth0"]).limit(Duration::from_secs(60)).exits(1);
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    let by = format!("held by process {} (sleep 1000) for 30 s", holder.pid());
    assert!(refused.stderr.contains(&by), "{refused}");
}

#[test]
fn while_a_stopped_command_holds_the_lock_the_agent_answers_reports_and_goes_on_afterwards() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0]);
    let mut agent = fleet[0].agent();
    let holder = hold(&fleet[0]);
    holder.signal(Signal::SIGSTOP);
    fleet[0].ip("route delete 250.0.0.0/8");
    let reason = format!("lock-held: by process {} (sleep 1000) since ", holder.pid());
    eventually("the holder is reported", Duration::from_secs(10), || {
        assert!(answers(&fleet[0]));
        degraded(&fleet[0]).contains(&reason).then_some(())
    });
    // Nor does a reload wait for it.
    let start = Instant::now();
    agent.reload();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(answers(&fleet[0]));
    drop(holder);
    eventually("the route is back", Duration::from_secs(10), || {
        fleet[0].ip("route show 250.0.0.0/8").contains("fanlight0").then_some(())
    });
    eventually("nothing is degraded", SOON, || (degraded(&fleet[0]) == "[]").then_some(()));
    assert!(agent.stop().status.success());
}

#[test]
fn an_agent_that_finds_the_lock_held_starts_answers_and_brings_its_fans_up_later() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0]);
    fleet[0].write(LOCK, "");
    let holder = hold(&fleet[0]);
    let agent = fleet[0].agent();
    assert!(answers(&fleet[0]) && !fleet[0].has_device(&bridge(0)));
    drop(holder);
    eventually("the fan is up", SOON, || fleet[0].has_device(&bridge(0)).then_some(()));
    assert!(agent.stop().status.success());
}

#[test]
fn a_deleted_lock_admits_no_second_agent() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0]);
    let agent = fleet[0].agent();
    fs::remove_file(fleet[0].path(GUARD)).expect("the agent's lock");
    let refused = fleet[0].fanlight(["agent"]).limit(SOON).exits(1);
    let expected = format!("another one is running: process {} (fanlight agent); stop it first", agent.pid());
    assert!(refused.stderr.contains(&expected), "{refused}");
    assert_eq!(fleet[0].json("status")["agent"]["pid"], agent.pid());
    eventually("the lock is made again", SOON, || {
        let file = File::open(fleet[0].path(GUARD)).ok()?;
        matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)).then_some(())
    });
    fleet[0].fanlight(["agent"]).limit(SOON).exits(1);
    assert!(agent.stop().status.success());
}

#[test]
fn a_name_that_another_user_took_keeps_no_agent_from_starting_and_is_reported() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0]);
    let script = "use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack('S', AF_UNIX).\"\\0fanlight/agent\") \
                  or die; listen(S, 5); sleep 1000";
    let squatter = as_nobody(&fleet[0], &["perl", "-e", script]).spawn();
    eventually("the name is taken", SOON, || {
        fleet[0].sh("cat /proc/net/unix").contains("@fanlight/agent").then_some(())
    });
    let agent = fleet[0].agent();
    let reason = format!("agent-name: process {} (perl ", squatter.pid());
    assert!(degraded(&fleet[0]).contains(&reason), "{}", degraded(&fleet[0]));
    let refused = fleet[0].fanlight(["agent"]).limit(SOON).exits(1);
    assert!(refused.stderr.contains("another one is running"), "{refused}");
    drop(squatter);
    eventually("nothing is degraded", SOON, || (degraded(&fleet[0]) == "[]").then_some(()));
    assert!(agent.stop().status.success());
}

#[test]
fn a_deleted_socket_is_bound_again() {
    let fleet = Fleet::bare(1);
    configure(&fleet[0]);
    let agent = fleet[0].agent();
    fs::remove_file(fleet[0].path(SOCKET)).expect("the agent's socket");
    assert!(!answers(&fleet[0]));
    eventually("the agent answers", SOON, || answers(&fleet[0]).then_some(()));
    // All of it, as somebody who cleans up may do.
    fs::remove_dir_all(fleet[0].path("/run/fanlight")).expect("the agent's folder");
    eventually("the agent answers", SOON, || answers(&fleet[0]).then_some(()));
    fleet[0].fanlight(["agent"]).limit(SOON).exits(1);
    assert!(agent.stop().status.success());
}
