//! The matrix: on every kernel all programs load within their ceilings, and the fan works.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use ebpf_build::Place;

use super::{Kernel, VmSpec, ceilings, run};
use crate::{
    command::{self, Executable},
    guests::Tags,
    lab::{AGENT, Built, INTEGRATION},
    runner::{self, Outcome, Steps},
    setup::{self, Scope},
};

/// What `cargo xtask vm` is asked for.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Kernel series, like `6.1`.
    pub(crate) kernels: Vec<String>,
    /// Integration tests whose names contain one of these instead of the tagged ones.
    pub(crate) tests: Vec<String>,
    /// All tests that can run in a guest.
    pub(crate) full: bool,
    /// Take the measured numbers of verified instructions as the new ones.
    pub(crate) bless: bool,
    /// A shell in the guest instead of tests.
    pub(crate) shell: bool,
}

/// `cargo xtask vm`.
pub(crate) fn matrix(place: &Place, install: bool, request: &Request) -> Result<()> {
    setup::ensure(place, Scope::Vm, install)?;
    let mut steps = Steps::new(Duration::ZERO);
    let built = steps.step("build", || Built::make(place))?;
    for series in &request.kernels {
        steps.tests(&format!("Linux {series}"), || run_tests(place, series, &built, request))?;
    }
    if request.bless {
        bless_running(place, built.integration()?)?;
    }
    if !request.shell {
        steps.close();
    }
    Ok(())
}

/// Runs a kernel's tests in a guest.
pub(crate) fn run_tests(place: &Place, series: &str, built: &Built, request: &Request) -> Result<Outcome> {
    let kernel = Kernel::fetch(place, series)?;
    println!("--- Linux {}", kernel.release);
    let mut spec = VmSpec::new(&kernel, &[]);
    let tests = built.integration()?;
    spec.payload = vec![(built.binary(AGENT)?, AGENT.into()), (tests.path.clone(), INTEGRATION.into())];
    prepare(&mut spec, request, &Tags::read(&place.root)?, &runner::tests(tests, &[])?)?;
    let output = run(place, &spec)?;
    let (release, took) = (&kernel.release, output.took.as_secs_f32());
    println!("--- Linux {release}: {took:.0} s, exit status {}", output.status);
    if output.status != 0 && !request.shell {
        bail!("tests failed on {release}");
    }
    if request.bless {
        let counts = output.files.join("verified.json");
        let counts = fs::read(&counts).with_context(|| format!("the guest left no {}", counts.display()))?;
        ceilings::bless(&place.root, series, &counts)?;
    }
    Ok(output.tests)
}

/// Measures on this machine's own kernel, which `cargo xtask test` compares with.
fn bless_running(place: &Place, tests: &Executable) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    let series = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let counts = place.target.join("vm/verified.json");
    let mut verifier = runner::command(tests);
    verifier.arg("verifier::").env("FANLIGHT_VERIFIED", &counts).env("FANLIGHT_BLESS", "1");
    command::run(&mut verifier)?;
    let measured = fs::read(&counts).with_context(|| format!("reading {}", counts.display()))?;
    ceilings::bless(&place.root, &series, &measured)
}

fn prepare(spec: &mut VmSpec<'_>, request: &Request, tags: &Tags, tests: &[String]) -> Result<()> {
    let environment = [
        ("FANLIGHT_BIN", "/payload/fanlight"),
        ("FANLIGHT_GUEST", &spec.kernel.series),
        ("FANLIGHT_VERIFIED", "/out/verified.json"),
        runner::UNSTABLE,
    ];
    spec.environment = environment.map(|(name, value)| (name.into(), value.into())).to_vec();
    if request.bless {
        spec.environment.push(("FANLIGHT_BLESS".into(), "1".into()));
    }
    if request.shell {
        spec.interactive = true;
        spec.command = vec!["/bin/busybox".into(), "sh".into(), "-i".into()];
        return Ok(());
    }
    tags.check(tests)?;
    spec.command = vec![format!("/payload/{INTEGRATION}"), "--test-threads=2".into()];
    spec.command.extend(runner::TIMED.map(String::from));
    if request.tests.is_empty() {
        spec.command.push("--exact".into());
        spec.command.extend(tags.of(&spec.kernel.series, request.full));
    } else {
        spec.command.extend(request.tests.iter().cloned());
    }
    Ok(())
}
