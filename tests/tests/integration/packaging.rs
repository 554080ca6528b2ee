//! The units of `packaging/`, as systemd reads them.

use std::{fs, path::Path};

use fanlight_tests::{Cmd, Output, host, tools};

const UNITS: [&str; 2] = ["fanlight.service", "fanlight-fans.service"];

/// Units of container engines on this machine, which need their bridge at boot.
const ENGINES: [&str; 3] = ["docker.service", "podman-restart.service", "lxc.service"];

/// Checks units of ours, with the binary under test in the place of the installed one and `more` settings in each,
/// beside those of engines.
fn verify(units: &[&str], more: &str, engines: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    let copies = units.iter().map(|name| {
        let text = fs::read_to_string(packaging.join(name)).expect("it is in the repository");
        let binary = host::binary().display().to_string();
        let copy = directory.path().join(name);
        fs::write(&copy, text.replace("/usr/bin/fanlight", &binary) + more).expect("a copy");
        copy
    });
    Cmd::new("systemd-analyze", "packaging").args(["verify", "--man=no"]).args(copies).args(engines).run()
}

fn available() -> bool {
    tools::available(&["systemd-analyze", "dockerd", "podman", "lxc-start"])
}

#[test]
fn systemd_takes_the_units_beside_those_of_container_engines_without_a_word() {
    if available() {
        let verified = verify(&UNITS, "", &ENGINES);
        assert!(verified.status.success(), "{verified}");
        assert_eq!(verified.stdout + &verified.stderr, "");
    }
}

#[test]
fn container_engines_start_after_fans_and_agent() {
    if !available() {
        return;
    }
    for (unit, engine) in UNITS.iter().flat_map(|unit| ENGINES.map(|engine| (*unit, engine))) {
        // systemd finds that the opposite order contradicts the unit's own.
        let verified = verify(&[unit], &format!("[Unit]\nAfter={engine}\n"), &[engine]);
        assert!(
            verified.stderr.contains("ordering cycle"),
            "{unit} is not ordered before {engine}: {verified}"
        );
    }
}
