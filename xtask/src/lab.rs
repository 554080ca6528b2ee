//! `test`, `demo` and `bench`: what runs real programs in network namespaces.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use ebpf_build::Place;

use crate::{
    command::{Totals, build_executable, cargo, is_root, run, run_tests, search_path},
    leaks::Snapshot,
    setup::{self, Scope},
};

/// The agent's binary.
pub(crate) const AGENT: &str = "fanlight";

/// Names the agent's binary for tests, demo and benchmarks.
const AGENT_VARIABLE: &str = "FANLIGHT_BIN";
/// Names another, whose flow records have another layout, for the tests of an upgrade.
const LATER_VARIABLE: &str = "FANLIGHT_LATER_BIN";

/// Debug or release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }
}

/// `cargo xtask test`: unit tests, integration tests, and that they left nothing behind.
pub(crate) fn test(place: &Place, install: bool, filter: &[String]) -> Result<Totals> {
    need_root("the integration tests")?;
    setup::ensure(place, Scope::Tests, install)?;
    let before = Snapshot::take();
    let mut totals = Totals::default();
    if filter.is_empty() {
        totals.add(unit_tests(place)?);
    }
    totals.add(integration_tests(place, filter)?);
    Snapshot::take().check_since(&before)?;
    Ok(totals)
}

/// Everything that needs no privilege.
pub(crate) fn unit_tests(place: &Place) -> Result<Totals> {
    run_tests(cargo(place, "test").args(["--workspace", "--lib", "--bins"]))
}

/// Real programs in namespaces. Tests mostly wait, for neighbours to be found and for times to pass: several at once.
fn integration_tests(place: &Place, filter: &[String]) -> Result<Totals> {
    let later = build_later(place)?;
    let agent = build(place, Profile::Dev, AGENT)?;
    let mut tests = cargo(place, "test");
    tests.args(["--workspace", "--test", "integration", "--", "--test-threads=4"]).args(filter);
    tests.env(AGENT_VARIABLE, agent).env(LATER_VARIABLE, later);
    run_tests(tests.env("PATH", search_path()))
}

/// Builds the agent with another layout of flow records, beside which the usual one is built next.
fn build_later(place: &Place) -> Result<PathBuf> {
    let mut build = cargo(place, "build");
    build.args(["--workspace", "--bin", AGENT, "--features", "fanlight/trial-flow-layout"]);
    let built = build_executable(&mut build, AGENT)?;
    let later = built.with_file_name("fanlight-later");
    fs::copy(&built, &later)
        .with_context(|| format!("copying {} to {}", built.display(), later.display()))?;
    Ok(later)
}

/// `cargo xtask demo`.
pub(crate) fn demo(place: &Place, install: bool, arguments: &[String]) -> Result<()> {
    need_root("the demo")?;
    setup::ensure(place, Scope::Lab, install)?;
    run_lab(place, Profile::Dev, "demo", arguments)
}

/// `cargo xtask bench`.
pub(crate) fn bench(place: &Place, install: bool, arguments: &[String]) -> Result<()> {
    need_root("the benchmarks")?;
    setup::ensure(place, Scope::Lab, install)?;
    run_lab(place, Profile::Release, "bench", arguments)
}

fn run_lab(place: &Place, profile: Profile, binary: &str, arguments: &[String]) -> Result<()> {
    let agent = build(place, profile, AGENT)?;
    let lab = build(place, profile, binary)?;
    run(Command::new(lab).args(arguments).env(AGENT_VARIABLE, agent).env("PATH", search_path()))
}

/// Builds a binary of the workspace and returns its path. Always of the whole workspace: a single package has
/// other features of the dependencies, which would all be compiled once more.
pub(crate) fn build(place: &Place, profile: Profile, binary: &str) -> Result<PathBuf> {
    let mut build = cargo(place, "build");
    build.args(["--workspace", "--bin", binary]).args(profile.flags());
    build_executable(&mut build, binary)
}

fn need_root(what: &str) -> Result<()> {
    if !is_root() {
        bail!("{what} make network namespaces and load kernel programs, which needs root; run this as root");
    }
    Ok(())
}
