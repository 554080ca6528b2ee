//! `test`, `demo` and `bench`: what runs real programs in network namespaces.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use ebpf_build::Place;

use crate::{
    command::{Executable, build_executable, build_executables, cargo, is_root, run, search_path},
    grace,
    leaks::Snapshot,
    runner::{self, Outcome, Steps, Test},
    setup::{self, Scope},
};

/// The agent's binary.
pub(crate) const AGENT: &str = "fanlight";
/// The benchmarks' binary.
pub(crate) const BENCH: &str = "bench";
/// The integration tests' binary.
pub(crate) const INTEGRATION: &str = "integration";

/// Names the agent's binary for tests, demo and benchmarks.
const AGENT_VARIABLE: &str = "FANLIGHT_BIN";
/// Names another, whose flow records have another layout, for the tests of an upgrade.
const LATER_VARIABLE: &str = "FANLIGHT_LATER_BIN";

/// Tests of an upgrade to it.
const UPGRADE: &str = "upgrade::";

/// Tests that measure what is lost under load: one at a time, with the machine for themselves.
const ALONE: &str = "cluster_rolling::";

/// Integration tests at a time. They mostly wait, for neighbours to be found and for times to pass.
const AT_A_TIME: usize = 5;

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

/// Everything that tests and guests run, of one build.
#[derive(Debug)]
pub(crate) struct Built(Vec<Executable>);

impl Built {
    /// Builds all binaries and tests of the workspace.
    pub(crate) fn make(place: &Place) -> Result<Self> {
        build_executables(cargo(place, "build").args(["--workspace", "--all-targets"])).map(Self)
    }

    /// Where a binary is.
    pub(crate) fn binary(&self, name: &str) -> Result<PathBuf> {
        let found = self.0.iter().find(|made| made.name == name && !made.tests);
        Ok(found.with_context(|| format!("cargo made no {name}"))?.path.clone())
    }

    /// The integration tests.
    pub(crate) fn integration(&self) -> Result<&Executable> {
        let found = self.0.iter().find(|made| made.name == INTEGRATION && made.tests);
        found.context("cargo made no integration tests")
    }

    fn unit_tests(&self) -> impl Iterator<Item = &Executable> {
        self.0.iter().filter(|made| made.tests && made.name != INTEGRATION)
    }
}

/// `cargo xtask test`: unit tests, integration tests, and that they left nothing behind.
pub(crate) fn test(place: &Place, install: bool, filter: &[String]) -> Result<()> {
    need_root("the integration tests")?;
    let mut steps = Steps::new(Duration::ZERO);
    steps.step("setup", || setup::ensure(place, Scope::Tests, install))?;
    build_and_test(place, filter, &mut steps)?;
    steps.close();
    if filter.is_empty() { keep_ignored(place, &steps.outcome) } else { Ok(()) }
}

/// Where a whole `test` says which tests could not run, for `ci --tested`.
fn ignored_file(place: &Place) -> PathBuf {
    place.target.join("ignored-tests.json")
}

fn keep_ignored(place: &Place, outcome: &Outcome) -> Result<()> {
    let ignored: Vec<_> = outcome.ignored.iter().map(|(test, reason)| (&test.name, reason)).collect();
    let path = ignored_file(place);
    fs::write(&path, serde_json::to_vec(&ignored)?).with_context(|| format!("writing {}", path.display()))
}

/// What the last whole `test` could not run.
pub(crate) fn ignored(place: &Place) -> Result<Vec<(Test, String)>> {
    let path = ignored_file(place);
    let text =
        fs::read(&path).with_context(|| format!("reading {}: run `cargo xtask test`", path.display()))?;
    let ignored: Vec<(String, String)> =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(ignored.into_iter().map(|(name, reason)| (Test::on_host(name), reason)).collect())
}

/// The steps of `test` from the build on.
pub(crate) fn build_and_test(place: &Place, filter: &[String], steps: &mut Steps) -> Result<Built> {
    need_root("the integration tests")?;
    let mut built = steps.step("build", || Built::make(place))?;
    let chosen = runner::tests(built.integration()?, filter)?;
    if chosen.is_empty() {
        bail!("no integration test has {} in its name", filter.join(" or "));
    }
    let mut later = None;
    if chosen.iter().any(|test| test.starts_with(UPGRADE)) {
        let build = || Ok((build_later(place)?, Built::make(place)?));
        let (path, again) = steps.step("build of an agent with other flow records", build)?;
        (later, built) = (Some(path), again);
    }
    let before = Snapshot::take();
    if filter.is_empty() {
        steps.tests("unit tests", || unit_tests(&built))?;
    }
    let (alone, beside): (Vec<&String>, Vec<&String>) =
        chosen.iter().partition(|test| test.starts_with(ALONE));
    let _short = grace::Short::begin();
    for (step, tests, at_a_time) in [("integration tests", beside, AT_A_TIME), ("tests under load", alone, 1)]
    {
        if !tests.is_empty() {
            let run = || integration_tests(&built, later.as_deref(), &tests, at_a_time);
            steps.tests(step, run)?;
        }
    }
    Snapshot::take().check_since(&before)?;
    Ok(built)
}

/// Everything that needs no privilege.
fn unit_tests(built: &Built) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for binary in built.unit_tests() {
        outcome.add(runner::run(&mut runner::command(binary))?);
    }
    Ok(outcome)
}

/// Real programs in namespaces.
fn integration_tests(
    built: &Built,
    later: Option<&Path>,
    chosen: &[&String],
    at_a_time: usize,
) -> Result<Outcome> {
    let mut tests = runner::command(built.integration()?);
    tests.arg(format!("--test-threads={at_a_time}")).arg("--exact").args(chosen);
    tests.env(AGENT_VARIABLE, built.binary(AGENT)?);
    tests.envs(later.map(|later| (LATER_VARIABLE, later)));
    runner::run(tests.env("PATH", search_path()))
}

/// Builds the agent with another layout of flow records. It stands in the usual one's place until that is built again.
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
    run_lab(place, Profile::Release, BENCH, arguments)
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
