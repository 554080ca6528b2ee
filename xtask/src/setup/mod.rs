//! `setup`: what the other commands need, and getting it.

mod install;
mod need;

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use ebpf_build::Place;

use self::need::Need;

/// What something is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Building, and the programs that tests, demo and benchmarks start.
    Lab,
    /// What a lab needs, and what hosts have beside Fanlight.
    Tests,
    /// What a lab needs, and the emulator.
    Vm,
    /// All of it, and the formatter and lints.
    Ci,
}

/// `cargo xtask setup`.
pub(crate) fn setup(place: &Place, install: bool) -> Result<()> {
    ensure(place, Scope::Ci, install)?;
    println!("Everything that build, tests, demo, benchmarks, VM matrix and ci need is here.");
    Ok(())
}

/// Checks what `scope` needs, says what is missing and installs it, if `install`. Silent when nothing is missing.
pub(crate) fn ensure(place: &Place, scope: Scope, install: bool) -> Result<()> {
    let missing = need::missing(place, scope);
    if missing.is_empty() {
        return Ok(());
    }
    print_table(&missing);
    if !install {
        bail!("{} missing (above); run `cargo xtask setup` to install", things(missing.len()));
    }
    install::install(place, &missing)?;
    let left = need::missing(place, scope);
    if !left.is_empty() {
        print_table(&left);
        bail!("{} still missing after the installation (above)", things(left.len()));
    }
    Ok(())
}

fn things(count: usize) -> String {
    if count == 1 { "one thing is".into() } else { format!("{count} things are") }
}

fn print_table(missing: &[Need]) {
    let rows: BTreeSet<[String; 3]> = missing.iter().map(Need::row).collect();
    let header = ["missing", "needed for", "from"].map(String::from);
    let all = || std::iter::once(&header).chain(&rows);
    let width = |column: usize| all().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [what, purpose, source] in all() {
        println!("  {what:first$}  {purpose:second$}  {source}");
    }
}
