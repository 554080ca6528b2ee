//! What happens in a cluster, as it is followed: changes of keys, and messages to all members.

use std::{fs, time::Duration};

use fanlight_tests::{Host, Process, eventually, host::binary};
use serde_json::{Value, json};

use super::cluster::{LOOK, TOLD, cluster, started};

/// All members have a message.
const HEARD: Duration = Duration::from_secs(1);

/// A command that goes on, its lines in a file.
struct Follower<'h> {
    host: &'h Host,
    path: String,
    _process: Process,
}

impl<'h> Follower<'h> {
    fn start(host: &'h Host, command: &str) -> Self {
        let path = format!("/run/{}", command.replace([' ', '/'], "-"));
        let line = format!("exec {} {command} --json > {path}", binary().display());
        let process = host.command("sh").args(["-c", &line]).spawn_heard();
        Self { host, path, _process: process }
    }

    /// The lines so far that are whole.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.host.path(&self.path)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits until there are so many.
    #[track_caller]
    fn wait_for(&self, count: usize, limit: Duration) -> Vec<Value> {
        eventually(&format!("{count} lines of {}", self.path), limit, || {
            Some(self.lines()).filter(|lines| lines.len() >= count)
        })
    }
}

#[test]
fn what_happens_to_keys_is_followed_from_any_member_after_all_that_is_there() {
    let fleet = cluster(2);
    let _agents = started(&fleet);
    fleet[0].run("kv put app/colour green");
    fleet[0].run("kv put other 1");
    eventually("the other one has them", TOLD, || {
        (fleet[1].json("kv list").as_array().map(Vec::len) == Some(2)).then_some(())
    });
    let watch = Follower::start(&fleet[1], "kv watch app/");
    let told = watch.wait_for(2, TOLD);
    let of = |row: &Value, keys: [&str; 4]| keys.map(|key| row[key].clone());
    assert_eq!(of(&told[0], ["event", "key", "value", "node"]), ["put", "app/colour", "green", "host-27"]);
    assert_eq!(told[1], json!({"event": "ready"}));
    fleet[0].run("kv put other 2");
    let written = fleet[0].json("kv put app/size 3");
    let told = watch.wait_for(3, HEARD + LOOK);
    assert_eq!((&told[2]["key"], &told[2]["version"]), (&"app/size".into(), &written["version"]));
    fleet[0].run("kv delete app/colour");
    let told = watch.wait_for(4, HEARD + LOOK);
    assert_eq!(told[3], json!({"event": "delete", "key": "app/colour"}));
}

#[test]
fn a_message_is_heard_once_by_all_who_listen_for_its_name() {
    let fleet = cluster(3);
    let _agents = started(&fleet);
    let watches: Vec<_> =
        fleet.hosts().iter().map(|host| Follower::start(host, "event watch deploy")).collect();
    eventually("all listen", TOLD, || {
        fleet[0].run("event send deploy first");
        watches.iter().all(|watch| !watch.lines().is_empty()).then_some(())
    });
    fleet[1].run("event send other x");
    fleet[1].run("event send deploy v2");
    let is_second = |row: &Value| row["payload"] == "v2";
    for watch in &watches {
        eventually("it is heard", HEARD + LOOK, || watch.lines().iter().any(is_second).then_some(()));
    }
    // What is told again comes within a second.
    std::thread::sleep(HEARD);
    for watch in &watches {
        let lines = watch.lines();
        assert!(lines.iter().all(|row| row["name"] == "deploy"), "{lines:?}");
        let second: Vec<_> = lines.into_iter().filter(is_second).collect();
        assert!(matches!(&second[..], [row] if row["node"] == "host-28"), "{second:?}");
    }
    let large = fleet[1].fanlight(["event", "send", "deploy", "-"]).input("v".repeat(1_025)).exits(1);
    assert!(large.stderr.contains("at most 1024 bytes; this one has 1025"), "{large}");
}

#[test]
fn members_and_keys_are_read_by_tcp_and_not_written() {
    let fleet = cluster(1);
    let config = "/etc/fanlight/fanlight.toml";
    let text = fs::read_to_string(fleet[0].path(config)).expect("the configuration");
    fleet[0].write(config, &format!("{text}[api]\nlisten = \"127.0.0.1:7480\"\n"));
    let _agent = fleet[0].agent();
    eventually("it is written", TOLD, || {
        fleet[0].fanlight(["kv", "put", "key", "value"]).run().status.success().then_some(())
    });
    let curl = |words: &[&str], path: &str| {
        let url = format!("http://127.0.0.1:7480{path}");
        let all = ["-sS", "--max-time", "5", "-w", "\n%{http_code}"];
        let answer = fleet[0].command("curl").args(all).args(words).arg(&url).ok();
        let (body, status) = answer.rsplit_once('\n').expect("the status on a line of its own");
        (status.to_owned(), body.to_owned())
    };
    let (status, nodes) = curl(&[], "/v1/nodes");
    assert_eq!((&*status, nodes.contains("host-27")), ("200", true), "{nodes}");
    let (status, key) = curl(&[], "/v1/kv/key");
    assert_eq!((&*status, key.contains("\"value\":\"value\"")), ("200", true), "{key}");
    for (method, path) in [
        ("PUT", "/v1/kv/key"),
        ("DELETE", "/v1/kv/key"),
        ("POST", "/v1/messages/a"),
        ("DELETE", "/v1/nodes/host-27"),
    ] {
        let (status, _) = curl(&["-X", method], path);
        assert!(["404", "405"].contains(&&*status), "{status} to {method} {path}");
    }
    let (_, metrics) = curl(&[], "/metrics");
    for line in ["fanlight_members{state=\"alive\"} 1", "fanlight_records{kind=\"written\"} 2"] {
        assert!(metrics.lines().any(|own| own == line), "{line}:\n{metrics}");
    }
}
