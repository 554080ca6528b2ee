//! Running test binaries: what they count, how long each test took, and which could not run.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::command::{Executable, capture, shown};

/// How a test says at run time that it can't run: this, its name, and the reason.
const IGNORED: &str = "fanlight-ignored: ";

/// This machine, as a place where tests run.
const HOST: &str = "host";

/// How many of the slowest tests are shown.
const SLOWEST: usize = 20;

/// How many tests ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
}

impl Totals {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
    fn parse(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        let count = |what: &str| {
            let part = counts.split(['.', ';']).map(str::trim).find(|part| part.ends_with(what))?;
            part.split_whitespace().next()?.parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }
}

/// A test, and where it ran: `host`, or a guest's kernel series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    pub(crate) place: String,
    pub(crate) name: String,
}

impl Test {
    /// A test on this machine.
    pub(crate) fn on_host(name: String) -> Self {
        Self { place: HOST.to_owned(), name }
    }
}

/// What test binaries came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) totals: Totals,
    /// Tests that did not run, with the reason that each gave.
    pub(crate) ignored: Vec<(Test, String)>,
    took: Vec<(Duration, Test)>,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.totals.passed += other.totals.passed;
        self.totals.failed += other.totals.failed;
        self.totals.ignored += other.totals.ignored;
        self.ignored.extend(other.ignored);
        self.took.extend(other.took);
    }

    /// Takes in a line of a test binary's output.
    fn read(&mut self, place: &str, line: &str) {
        let test = |name: &str| Test { place: place.to_owned(), name: name.to_owned() };
        if let Some(totals) = Totals::parse(line) {
            self.add(Self { totals, ..Self::default() });
        } else if let Some((name, reason)) = said_ignored(line) {
            // Its own test runner counts it as passed.
            self.ignored.push((test(name), reason.to_owned()));
        } else if let Some((name, reason)) = marked_ignored(line) {
            self.ignored.push((test(name), reason.to_owned()));
        } else if let Some((name, took)) = took(line) {
            self.took.push((took, test(name)));
        }
    }

    /// The counts, once all output has been read.
    fn close(&mut self) {
        let said = self.ignored.len().saturating_sub(self.totals.ignored);
        self.totals.passed = self.totals.passed.saturating_sub(said);
        self.totals.ignored += said;
    }

    /// The slowest tests and the ignored ones, for people, and a closing line as a test runner has it.
    pub(crate) fn show(&self, took: Duration) {
        let mut slowest: Vec<_> = self.took.iter().collect();
        slowest.sort_by(|one, other| other.cmp(one));
        println!("\n=== the {} slowest tests", slowest.len().min(SLOWEST));
        for (took, test) in slowest.into_iter().take(SLOWEST) {
            println!("{:7.1} s  {:5} {}", took.as_secs_f32(), test.place, test.name);
        }
        if !self.ignored.is_empty() {
            println!("\n=== ignored");
            self.ignored
                .iter()
                .for_each(|(test, reason)| println!("{:5} {}: {reason}", test.place, test.name));
        }
        let Totals { passed, failed, ignored } = self.totals;
        println!(
            "\ntest result: ok. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out; \
             finished in {:.2}s",
            took.as_secs_f32()
        );
    }
}

/// `fanlight-ignored: vip::a_test: there is no such program`; behind what a runner had begun to write.
fn said_ignored(line: &str) -> Option<(&str, &str)> {
    let (_, said) = line.split_once(IGNORED)?;
    said.trim_end().split_once(": ")
}

/// `test vip::a_test ... ignored, a reason`.
fn marked_ignored(line: &str) -> Option<(&str, &str)> {
    let (name, after) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    Some((name, after.strip_prefix(", ").unwrap_or("no reason given")))
}

/// `test vip::a_test ... ok <1.234s>`.
fn took(line: &str) -> Option<(&str, Duration)> {
    let (name, after) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = after.split_once('<')?.1.strip_suffix("s>")?;
    Some((name, Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?))
}

/// A test binary as a command, in the directory in which cargo starts it.
pub(crate) fn command(binary: &Executable) -> Command {
    let mut command = Command::new(&binary.path);
    command.current_dir(&binary.package).env("CARGO_MANIFEST_DIR", &binary.package);
    command
}

/// Names of a test binary's tests, of all or of those whose names contain one of `filter`.
pub(crate) fn tests(binary: &Executable, filter: &[String]) -> Result<Vec<String>> {
    let listed = capture(command(binary).args(["--list", "--format", "terse"]).args(filter))?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Makes a test binary print each test's time. libtest's option is unstable; this allows it on stable Rust.
pub(crate) const TIMED: [&str; 3] = ["-Z", "unstable-options", "--report-time"];
pub(crate) const UNSTABLE: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// Runs a test binary on this machine, with its output on ours.
pub(crate) fn run(command: &mut Command) -> Result<Outcome> {
    command.args(TIMED).env(UNSTABLE.0, UNSTABLE.1).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting `{}`", shown(command)))?;
    let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Pipe);
    let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Pipe);
    let outcome = follow([stdout, stderr].into_iter().flatten(), HOST, |line| println!("{line}"));
    let status = child.wait().context("waiting for the tests")?;
    if !status.success() {
        let Totals { passed, failed, .. } = outcome.totals;
        bail!("`{}` failed: {status} ({passed} passed, {failed} failed)", shown(command));
    }
    Ok(outcome)
}

/// What a test binary writes to.
pub(crate) type Pipe = Box<dyn Read + Send>;

/// Reads what a test binary writes, until it ends.
pub(crate) fn follow(
    output: impl IntoIterator<Item = Pipe>,
    place: &str,
    show: impl Fn(&str) + Sync,
) -> Outcome {
    let outcome = Mutex::new(Outcome::default());
    let read = |pipe: Pipe| {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            outcome.lock().unwrap_or_else(PoisonError::into_inner).read(place, line);
            // A closing line like this is shown once, at the end of all.
            show(&line.replacen("test result: ", "result: ", 1));
        }
    };
    thread::scope(|scope| {
        for pipe in output {
            scope.spawn(|| read(pipe));
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.close();
    outcome
}

/// Steps of a command, with the time that each took.
pub(crate) struct Steps {
    start: Instant,
    took: Vec<(String, Duration)>,
    pub(crate) outcome: Outcome,
}

impl Steps {
    /// Starts the clock; `before`: what had gone by already.
    pub(crate) fn new(before: Duration) -> Self {
        let start = Instant::now().checked_sub(before).unwrap_or_else(Instant::now);
        Self { start, took: Vec::new(), outcome: Outcome::default() }
    }

    /// Runs a step.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n=== {name}");
        let start = Instant::now();
        let done = work().with_context(|| format!("step `{name}` failed"));
        self.note(name, start.elapsed());
        done
    }

    /// Runs a step that tests.
    pub(crate) fn tests(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) -> Result<()> {
        let outcome = self.step(name, work)?;
        self.outcome.add(outcome);
        Ok(())
    }

    /// Enters a step that was timed elsewhere.
    pub(crate) fn note(&mut self, name: &str, took: Duration) {
        self.took.push((name.to_owned(), took));
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Shows the steps' times, and what the tests came to.
    pub(crate) fn close(&self) {
        println!("\n=== time");
        for (name, took) in &self.took {
            println!("{:7.1} s  {name}", took.as_secs_f32());
        }
        println!("{:7.1} s  together", self.elapsed().as_secs_f32());
        self.outcome.show(self.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(output: &str) -> Outcome {
        let mut outcome = Outcome::default();
        output.lines().for_each(|line| outcome.read("6.1", line));
        outcome.close();
        outcome
    }

    #[test]
    fn a_test_runners_closing_line_is_added_up() {
        let line =
            "test result: ok. 212 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 2.10s";
        assert_eq!(Totals::parse(line), Some(Totals { passed: 212, failed: 0, ignored: 3 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Totals::parse(line), Some(Totals { passed: 1, failed: 2, ignored: 0 }));
        assert_eq!(Totals::parse("test a_name ... ok"), None);
    }

    #[test]
    fn a_test_that_could_not_run_is_no_passed_one() {
        let outcome = outcome(
            "test vip::a ... ok <1.500s>\n\
             fanlight-ignored: engines::b: there is no docker: none at all\n\
             test engines::b ... ok <0.001s>\n\
             test vip::c ... ignored, takes a day\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.10s\n",
        );
        assert_eq!(outcome.totals, Totals { passed: 1, failed: 0, ignored: 2 });
        let ignored: Vec<_> =
            outcome.ignored.iter().map(|(test, reason)| (test.name.as_str(), reason.as_str())).collect();
        assert_eq!(ignored, [("engines::b", "there is no docker: none at all"), ("vip::c", "takes a day")]);
    }

    #[test]
    fn the_time_of_each_test_is_read() {
        assert_eq!(took("test vip::a ... ok <1.500s>"), Some(("vip::a", Duration::from_millis(1500))));
        assert_eq!(took("test vip::a ... FAILED <0.100s>"), Some(("vip::a", Duration::from_millis(100))));
        assert_eq!(took("test vip::a ... ok"), None);
    }

    #[test]
    fn a_test_with_one_thread_says_in_its_own_line_that_it_can_not_run() {
        let line = "test engines::b ... fanlight-ignored: engines::b: no docker";
        assert_eq!(said_ignored(line), Some(("engines::b", "no docker")));
    }
}
