//! The agent's API on its socket, and `fanlight service`.

use std::os::unix::fs::PermissionsExt as _;

use fanlight_tests::{Host, fleet::Fleet};

const SOCKET: &str = "/run/fanlight/api.sock";

/// Asks the API as any program may; status and body.
fn curl(host: &Host, path: &str) -> (String, String) {
    let url = format!("http://fanlight{path}");
    let words = ["-sS", "--max-time", "5", "--unix-socket", SOCKET, "-w", "\n%{http_code}", &url];
    let output = host.command("curl").args(words).ok();
    let (body, status) = output.rsplit_once('\n').expect("the status on a line of its own");
    (status.to_owned(), body.to_owned())
}

#[test]
fn the_socket_is_roots_alone_and_outlives_a_killed_agent_as_a_file_only() {
    let fleet = Fleet::bare(1);
    let agent = fleet[0].agent();
    let mode = fleet[0].path(SOCKET).metadata().expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(curl(&fleet[0], "/v1/services"), ("200".to_owned(), "[]".to_owned()));
    let (status, body) = curl(&fleet[0], "/v1/nothing");
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("404", r#"{"errors":[{"message":"/v1/nothing: no such path"}]}"#)
    );

    let second = fleet[0].fanlight(["agent"]).exits(1);
    assert!(second.stderr.contains("another one is running"), "{second}");
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");

    agent.kill9();
    assert!(fleet[0].path(SOCKET).exists());
    let agent = fleet[0].agent();
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");
    agent.stop();
    assert!(!fleet[0].path(SOCKET).exists());
}

#[test]
fn a_socket_elsewhere_is_reached_from_the_usual_place() {
    let fleet = Fleet::bare(1);
    let fan = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"eth0\"\n";
    let file = |more: &str| fleet[0].write("/etc/fanlight/fanlight.toml", &format!("{fan}{more}"));
    file("[api]\nsocket = \"/run/elsewhere/api.sock\"\n");
    let mut agent = fleet[0].agent();
    assert!(fleet[0].path("/run/elsewhere/api.sock").exists());
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");
    file("");
    agent.reload();
    assert!(!fleet[0].path("/run/elsewhere/api.sock").exists());
    assert_eq!(curl(&fleet[0], "/v1/services").0, "200");
}
