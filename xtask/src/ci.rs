//! `ci`: everything, step by step, with the time that each took.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use ebpf_build::Place;

use crate::{
    build::build_ebpf,
    clock,
    command::{cargo, cargo_program, run},
    guests::KERNELS,
    lab::{self, Built},
    runner::{Outcome, Steps, Test},
    setup::{self, Scope},
    vm,
};

/// Longest run, in minutes.
const BUDGET: &str = ".ci/budget-minutes";

/// Tests that may say that they can't run: a table for each place, this machine's `host` and the guests' kernels.
const IGNORED: &str = "tests/ignored.toml";

/// All steps; `tested`: `cargo xtask test` has just passed and is left out.
pub(crate) fn ci(place: &Place, full: bool, since: Option<u64>, tested: bool) -> Result<()> {
    let before = since.map(elapsed_since).unwrap_or_default();
    let mut steps = Steps::new(before);
    if since.is_some() {
        let name = if tested { "`cargo xtask test`" } else { "build of this command" };
        steps.note(name, before);
    }
    steps.step("setup", || setup::ensure(place, Scope::Ci, true))?;
    steps.step("format", || format(place))?;
    let built = if tested {
        steps.outcome.ignored.extend(lab::ignored(place)?);
        steps.step("build", || Built::make(place))?
    } else {
        lab::build_and_test(place, &[], &mut steps)?
    };
    steps.step("kernel programs", || build_ebpf(place, false))?;
    steps.step("lints", || lints(place))?;
    guests(place, full, &built, &mut steps)?;
    steps.close();
    check_ignored(&steps.outcome.ignored, &listed(&place.root)?)?;
    // More tests take more time: the budget is for the usual ones.
    if full { Ok(()) } else { check_budget(steps.elapsed(), budget(&place.root)?) }
}

fn elapsed_since(start: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(start))
}

/// A guest's work and the name of its step.
type Job<'a> = (String, Box<dyn FnOnce() -> Result<Outcome> + Send + 'a>);

/// Guests at a time. Two side by side, with a processor each, ran into the tests' own time limits.
const AT_ONCE: usize = 1;

/// Tests and instruction clock in guests.
fn guests(place: &Place, full: bool, built: &Built, steps: &mut Steps) -> Result<()> {
    for series in KERNELS {
        vm::Kernel::fetch(place, series)?;
    }
    let request = vm::Request { full, ..vm::Request::default() };
    let tests = |series: &'static str| -> Job<'_> {
        let request = &request;
        (format!("  tests on {series}"), Box::new(move || vm::run_tests(place, series, built, request)))
    };
    let clock: Job<'_> =
        ("  instruction clock".into(), Box::new(|| clock::check(place, built).map(|()| Outcome::default())));
    let mut jobs: VecDeque<Job<'_>> = KERNELS.into_iter().map(tests).collect();
    jobs.push_back(clock);

    let start = Instant::now();
    println!("\n=== guests");
    let done = side_by_side(jobs, AT_ONCE);
    steps.note("guests", start.elapsed());
    let mut failed = Vec::new();
    for (name, took, outcome) in done {
        steps.note(&name, took);
        match outcome {
            Ok(outcome) => steps.outcome.add(outcome),
            Err(error) => failed.push(format!("{}: {error:#}", name.trim())),
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// Does jobs in their order, so many at once; with the time that each took.
fn side_by_side(jobs: VecDeque<Job<'_>>, workers: usize) -> Vec<(String, Duration, Result<Outcome>)> {
    let (jobs, done) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((name, job)) = job else { return };
            let start = Instant::now();
            let outcome = job();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((name, start.elapsed(), outcome));
        }
    };
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Reasons by place and test.
type Listed = BTreeMap<String, BTreeMap<String, String>>;

fn listed(root: &Path) -> Result<Listed> {
    let text = fs::read_to_string(root.join(IGNORED)).with_context(|| format!("reading {IGNORED}"))?;
    toml::from_str(&text).with_context(|| format!("reading {IGNORED}"))
}

/// Fails when a test did not run that is not listed, or that gave another reason than the listed one.
fn check_ignored(ignored: &[(Test, String)], listed: &Listed) -> Result<()> {
    let expected = |test: &Test| listed.get(&test.place)?.get(&test.name);
    let surprises = ignored.iter().filter(|(test, reason)| expected(test) != Some(reason));
    let surprises: Vec<_> =
        surprises.map(|(test, reason)| format!("{} on {}: {reason}", test.name, test.place)).collect();
    if !surprises.is_empty() {
        bail!("tests that did not run and are not in {IGNORED}: {}", surprises.join("; "));
    }
    Ok(())
}

fn budget(root: &Path) -> Result<Duration> {
    let text = fs::read_to_string(root.join(BUDGET)).with_context(|| format!("reading {BUDGET}"))?;
    let minutes: u64 = text.trim().parse().with_context(|| format!("{BUDGET} holds no number"))?;
    Ok(Duration::from_secs(60 * minutes))
}

fn check_budget(took: Duration, budget: Duration) -> Result<()> {
    let minutes = |time: Duration| time.as_secs_f32() / 60.0;
    if took > budget {
        bail!(
            "everything passed, but took {:.1} minutes: more than the {:.0} of {BUDGET}",
            minutes(took),
            minutes(budget)
        );
    }
    Ok(())
}

fn format(place: &Place) -> Result<()> {
    run(cargo(place, "fmt").args(["--all", "--check"]))?;
    run(programs(place, "fmt").arg("--check"))
}

fn lints(place: &Place) -> Result<()> {
    run(cargo(place, "clippy").args(["--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    // For this machine's own target: lints need no BPF code, and the pinned compiler has no clippy.
    let mut clippy = programs(place, "clippy");
    clippy.args(["--quiet", "--target-dir"]).arg(place.target.join("ebpf-lints"));
    // aya-ebpf uses an unstable feature.
    run(clippy.env("RUSTC_BOOTSTRAP", "1").args(["--", "-D", "warnings"]))
}

/// A task of cargo's on the kernel programs.
fn programs(place: &Place, task: &str) -> Command {
    let mut cargo = Command::new(cargo_program());
    cargo.current_dir(place.root.join("dataplane-ebpf")).arg(task);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(place: &str, reason: &str) -> Vec<(Test, String)> {
        vec![(Test { place: place.into(), name: "engines::docker".into() }, reason.into())]
    }

    #[test]
    fn only_a_listed_test_may_not_run_and_only_for_the_listed_reason() {
        let listed: Listed =
            toml::from_str("[\"6.1\"]\n\"engines::docker\" = \"the guest has no docker\"\n").unwrap();
        assert!(check_ignored(&ignored("6.1", "the guest has no docker"), &listed).is_ok());
        assert!(check_ignored(&ignored("6.1", "too slow"), &listed).is_err());
        let error = check_ignored(&ignored("host", "the guest has no docker"), &listed).unwrap_err();
        assert!(error.to_string().contains("engines::docker on host"), "{error}");
    }

    #[test]
    fn a_run_above_the_budget_fails() {
        let budget = Duration::from_secs(2400);
        assert!(check_budget(Duration::from_secs(2399), budget).is_ok());
        let error = check_budget(Duration::from_secs(2460), budget).unwrap_err().to_string();
        assert!(error.contains("took 41.0 minutes: more than the 40 of .ci/budget-minutes"), "{error}");
    }

    #[test]
    fn the_checked_in_files_are_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace around the package");
        listed(root).unwrap();
        assert!(budget(root).unwrap() >= Duration::from_secs(60));
    }

    #[test]
    fn jobs_side_by_side_are_all_done() {
        let job = |number: usize| -> Job<'_> { (number.to_string(), Box::new(|| Ok(Outcome::default()))) };
        let done = side_by_side((0..5).map(job).collect(), 2);
        assert_eq!(done.len(), 5);
    }
}
