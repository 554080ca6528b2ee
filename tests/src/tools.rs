//! What tests need of the place where they run. On a developer's machine every program is there, or the test says which
//! package is missing; the guests of the VM matrix have only some of them, and a test that cannot run says so.

use std::{env, fmt::Display, io, path::Path, thread};

/// How a test's line begins that says that it cannot run.
const IGNORED: &str = "fanlight-ignored: ";

/// Whether this is a guest of the VM matrix.
pub fn in_guest() -> bool {
    env::var_os("FANLIGHT_GUEST").is_some()
}

/// Says that the running test cannot run here, and why; the test returns then. `cargo xtask` counts it as ignored,
/// and its `ci` fails on one that `tests/ignored.toml` does not list with this reason.
pub fn ignore(reason: impl Display) {
    let line = ignored_line(thread::current().name().unwrap_or_default(), &reason.to_string());
    // The descriptor itself, in one piece: the test runner keeps what passing tests print.
    let written = nix::unistd::write(io::stderr(), line.as_bytes());
    assert_eq!(written, Ok(line.len()), "{line}");
}

/// The runner names a test's thread after the test.
fn ignored_line(test: &str, reason: &str) -> String {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{IGNORED}{test}: {reason}\n")
}

/// Whether a program, given by name or path, is there.
pub fn has(program: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|directory| Path::new(directory).join(program).exists())
}

/// Whether all these programs are there. In a guest the test is [ignored](ignore) otherwise, elsewhere it fails.
#[track_caller]
pub fn available(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().copied().filter(|program| !has(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(in_guest(), "missing: {missing:?}; `cargo xtask setup` installs them");
    ignore(format_args!("the guest has no {}", missing.join(" and no ")));
    false
}

/// Whether the running kernel can make devices of this kind; the test is [ignored](ignore) otherwise.
#[track_caller]
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
    let made = site.command("ip").args(line.split_whitespace()).run();
    if !made.status.success() {
        // Anything else is a fault of the line above.
        assert!(
            made.stderr.contains("Unknown device type") || made.stderr.contains("not supported"),
            "{made}"
        );
        ignore(format_args!("the kernel has no {kind} device"));
    }
    made.status.success()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_cannot_run_says_so_in_one_line() {
        let line = ignored_line("vip::a_test", "there is\nno  kernel");
        assert_eq!(line, "fanlight-ignored: vip::a_test: there is no kernel\n");
    }
}
