//! `test`, `demo` and `bench`: what runs real programs in network namespaces.

use std::path::PathBuf;

use anyhow::{Result, bail};
use ebpf_build::Place;

use crate::{
    command::{Totals, cargo, is_root, run, run_tests, search_path},
    leaks::Snapshot,
    setup::{self, Scope},
};

/// Names the agent's binary for tests, demo and benchmarks.
const AGENT_VARIABLE: &str = "FANLIGHT_BIN";

/// Debug or release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// `cargo xtask test`: unit tests, integration tests, and that they left nothing behind.
pub(crate) fn test(place: &Place, install: bool, filter: &[String]) -> Result<Totals> {
    need_root("the integration tests")?;
    setup::ensure(place, Scope::Lab, install)?;
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

/// Real programs in namespaces, one test after the other: they share the kernel's tables.
fn integration_tests(place: &Place, filter: &[String]) -> Result<Totals> {
    let agent = build_agent(place, Profile::Dev)?;
    let mut tests = cargo(place, "test");
    tests
        .args(["--package", "fanlight-tests", "--test", "integration", "--", "--test-threads=1"])
        .args(filter);
    run_tests(tests.env(AGENT_VARIABLE, agent).env("PATH", search_path()))
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
    let agent = build_agent(place, profile)?;
    let mut lab = cargo(place, "run");
    lab.args(["--quiet", "--package", "fanlight-tests", "--bin", binary]).args(profile.flags());
    run(lab.arg("--").args(arguments).env(AGENT_VARIABLE, agent).env("PATH", search_path()))
}

/// Builds the agent and returns its path.
pub(crate) fn build_agent(place: &Place, profile: Profile) -> Result<PathBuf> {
    run(cargo(place, "build").args(["--package", "fanlight"]).args(profile.flags()))?;
    Ok(place.target.join(profile.directory()).join("fanlight"))
}

fn need_root(what: &str) -> Result<()> {
    if !is_root() {
        bail!("{what} make network namespaces and load kernel programs, which needs root; run this as root");
    }
    Ok(())
}
