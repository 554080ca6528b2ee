//! The matrix: on every kernel all programs load within their ceilings, and the fan works.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use ebpf_build::Place;

use super::{Kernel, VmSpec, ceilings, run};
use crate::{
    command::{self, Totals, build_executable, cargo},
    lab::{AGENT, Profile, build},
    setup::{self, Scope},
};

/// Names of integration tests that run in a guest, by how they start: what depends on the kernel, since each takes
/// some ten seconds under emulation.
const FILTERS: [&str; 34] = [
    "verifier::",
    "fan_agent::a_fan_brought_up_by_hand",
    "fan_agent::a_fan_taken_down",
    "fan_agent::with_detach",
    "fan_ecn::",
    "fan_large::",
    "fan_mtu::",
    "fan_ports::",
    "fan_reach::",
    "fan_repair::an_uplink",
    "fan_restart::an_",
    "fan_restart::killing_the_agent",
    "fan_ttl::",
    "fan_verify::",
    "fan_vlan::",
    "fan_wire::",
    "explain::the_backend_that_is_foretold",
    "monitor::nothing_is_told",
    "service_cli::an_applied_service",
    "shadowed::a_filter_of",
    "shadowed::a_program_of",
    "shadowed::a_service_of_ip_vs",
    "shadowed::a_vip_in_a_map",
    "vip::",
    "vip_beyond::",
    "vip_gone::a_local_backend",
    "vip_gone::datagrams_of_a_flow",
    "vip_gone::idle_connections",
    "vip_load::a_flood_of_syns",
    "vip_load::no_connection_fails_while_the_agent_is_killed",
    "vip_load::no_connection_fails_while_the_flow_table",
    "vip_path::",
    "vip_servers::",
    "vip_tcp::",
];

/// The integration tests' binary.
const TESTS: &str = "integration";

/// What `cargo xtask vm` is asked for.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Kernel series, like `6.1`.
    pub(crate) kernels: Vec<String>,
    /// Integration tests instead of the usual.
    pub(crate) tests: Vec<String>,
    /// Take the measured numbers of verified instructions as the new ones.
    pub(crate) bless: bool,
    /// A shell in the guest instead of tests.
    pub(crate) shell: bool,
}

/// `cargo xtask vm`.
pub(crate) fn matrix(place: &Place, install: bool, request: &Request) -> Result<Totals> {
    setup::ensure(place, Scope::Vm, install)?;
    let payload = payload(place)?;
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    for series in &request.kernels {
        let kernel = Kernel::fetch(place, series)?;
        println!("\n--- Linux {}", kernel.release);
        let mut spec = VmSpec::new(&kernel, &[]);
        spec.payload.clone_from(&payload);
        prepare(&mut spec, request);
        let output = run(place, &spec)?;
        println!(
            "--- Linux {}: {:.0} s, exit status {}",
            kernel.release,
            output.took.as_secs_f32(),
            output.status
        );
        totals.add(output.totals);
        if output.status != 0 && !request.shell {
            failed.push(kernel.release.clone());
        } else if request.bless {
            let counts = output.files.join("verified.json");
            let counts =
                fs::read(&counts).with_context(|| format!("the guest left no {}", counts.display()))?;
            ceilings::bless(&place.root, series, &counts)?;
        }
    }
    if !failed.is_empty() {
        bail!("tests failed on {}", failed.join(" and "));
    }
    if request.bless {
        bless_running(place, &payload)?;
    }
    Ok(totals)
}

/// Measures on this machine's own kernel, which `cargo xtask test` compares with.
fn bless_running(place: &Place, payload: &[(PathBuf, String)]) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    let series = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let counts = place.target.join("vm/verified.json");
    let (tests, _) =
        payload.iter().find(|(_, name)| name == TESTS).context("no integration tests were built")?;
    let mut verifier = Command::new(tests);
    verifier.arg(FILTERS[0]).env("FANLIGHT_VERIFIED", &counts).env("FANLIGHT_BLESS", "1");
    command::run(&mut verifier)?;
    let measured = fs::read(&counts).with_context(|| format!("reading {}", counts.display()))?;
    ceilings::bless(&place.root, &series, &measured)
}

fn prepare(spec: &mut VmSpec<'_>, request: &Request) {
    let environment = [
        ("FANLIGHT_BIN", "/payload/fanlight"),
        ("FANLIGHT_GUEST", &spec.kernel.series),
        ("FANLIGHT_VERIFIED", "/out/verified.json"),
    ];
    spec.environment = environment.map(|(name, value)| (name.into(), value.into())).to_vec();
    if request.bless {
        spec.environment.push(("FANLIGHT_BLESS".into(), "1".into()));
    }
    if request.shell {
        spec.interactive = true;
        spec.command = vec!["/bin/busybox".into(), "sh".into(), "-i".into()];
        return;
    }
    spec.command = vec![format!("/payload/{TESTS}"), "--test-threads=2".into()];
    if request.tests.is_empty() {
        spec.command.extend(FILTERS.map(String::from));
    } else {
        spec.command.extend(request.tests.iter().cloned());
    }
}

/// The agent and the integration tests, optimised: the guest takes two thirds of the time.
fn payload(place: &Place) -> Result<Vec<(PathBuf, String)>> {
    let agent = build(place, Profile::Release, AGENT)?;
    let mut tests = cargo(place, "test");
    tests.args(["--no-run", "--release", "--workspace", "--test", TESTS]);
    let tests = build_executable(&mut tests, TESTS)?;
    Ok(vec![(agent, AGENT.into()), (tests, TESTS.into())])
}
