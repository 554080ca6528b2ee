//! Running other programs.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use ebpf_build::Place;

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

/// An executable that cargo made.
#[derive(Debug)]
pub(crate) struct Executable {
    /// Its target's name.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The package's directory.
    pub(crate) package: PathBuf,
    /// Whether it is a test binary.
    pub(crate) tests: bool,
}

/// Builds, and returns the executables that cargo made; `task` is a build with its options.
pub(crate) fn build_executables(task: &mut Command) -> Result<Vec<Executable>> {
    let output = task.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("starting `{}`", shown(task)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(task), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let executable = |message: serde_json::Value| {
        let manifest = Path::new(message["manifest_path"].as_str()?);
        Some(Executable {
            name: message["target"]["name"].as_str()?.to_owned(),
            path: message["executable"].as_str()?.into(),
            package: manifest.parent()?.to_path_buf(),
            tests: message["profile"]["test"].as_bool()?,
        })
    };
    Ok(messages.filter_map(executable).collect())
}

/// Builds a binary and returns where cargo put it.
pub(crate) fn build_executable(task: &mut Command, name: &str) -> Result<PathBuf> {
    let made = build_executables(task)?;
    let named = made.into_iter().find(|made| made.name == name && !made.tests);
    Ok(named.with_context(|| format!("`{}` made no {name}", shown(task)))?.path)
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

/// A command as it is typed.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
