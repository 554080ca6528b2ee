//! Programs that tests call. On a developer's machine they are there, or the test says which package is missing;
//! the guests of the VM matrix have only some of them, and tests that need others are skipped there.

use std::{env, path::Path};

/// Whether this is a guest of the VM matrix.
pub fn in_guest() -> bool {
    env::var_os("FANLIGHT_GUEST").is_some()
}

/// Whether a program is in the path.
pub fn has(program: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|directory| Path::new(directory).join(program).exists())
}

/// Whether all these programs are there. In a guest a missing one skips the test, elsewhere it is an error.
#[track_caller]
pub fn available(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !has(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(in_guest(), "missing: {missing:?}; `cargo xtask setup` installs them");
    println!("skipped: the guest has no {missing:?}");
    false
}

/// Whether the running kernel can make devices of this kind.
pub fn kernel_has_device(kind: &str) -> bool {
    let site = crate::site::Site::bare("probe");
    let options = match kind {
        "ipip" => "local 192.0.2.1 remote 192.0.2.2",
        "vlan" => "id 2",
        _ => "",
    };
    site.ip("link add probe0 type veth peer name probe1");
    let below = if kind == "vlan" { "link probe0" } else { "" };
    let line = format!("link add {below} name probe2 type {kind} {options}");
    site.command("ip").args(line.split_whitespace()).run().status.success()
}
