//! Running other programs.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use ebpf_build::Place;

/// How many tests ran, from a test runner's closing lines.
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

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// A task of cargo's, on this workspace and target directory, whatever the caller's directory and options.
pub(crate) fn cargo(place: &Place, task: &str) -> Command {
    let mut cargo = Command::new(cargo_program());
    cargo.current_dir(&place.root).arg(task);
    if task != "fmt" {
        cargo.arg("--target-dir").arg(&place.target);
    }
    cargo
}

/// The cargo that runs us.
pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a command with our own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns its standard output without the line end.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting `{}`", shown(command)))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("`{}` failed: {}: {reason}", shown(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs tests, showing their output as it comes, and adds up their closing lines.
pub(crate) fn run_tests(command: &mut Command) -> Result<Totals> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting `{}`", shown(command)))?;
    let totals = child.stdout.take().map(show_tests).unwrap_or_default();
    let status = child.wait().context("waiting for the tests")?;
    if !status.success() {
        bail!("`{}` failed: {status} ({} passed, {} failed)", shown(command), totals.passed, totals.failed);
    }
    Ok(totals)
}

/// Passes a test runner's output on as it comes, and adds up its closing lines.
pub(crate) fn show_tests(output: impl Read) -> Totals {
    let mut totals = Totals::default();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        println!("{line}");
        totals.add(Totals::parse(line).unwrap_or_default());
    }
    totals
}

/// Builds a binary or test and returns where cargo put it; `task` is a build or `test --no-run` with its options.
pub(crate) fn build_executable(task: &mut Command, name: &str) -> Result<PathBuf> {
    let output = task.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("starting `{}`", shown(task)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(task), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut named = messages.filter(|message| message["target"]["name"] == name);
    let path = named.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.with_context(|| format!("`{}` made no {name}", shown(task)))
}

/// The program's path, searched where root's PATH may not look.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(administrators)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// PATH with the administrator's directories, for what we start.
pub(crate) fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    for directory in ["/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    env::join_paths(directories).unwrap_or(path)
}

/// Whether we are root: `/proc/self` belongs to whoever we are.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_runners_closing_line_is_added_up() {
        let line =
            "test result: ok. 212 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 2.10s";
        assert_eq!(Totals::parse(line), Some(Totals { passed: 212, failed: 0, ignored: 3 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Totals::parse(line), Some(Totals { passed: 1, failed: 2, ignored: 0 }));
        assert_eq!(Totals::parse("test a_name ... ok"), None);
    }
}
