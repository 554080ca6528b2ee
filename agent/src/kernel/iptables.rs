//! iptables: our rules in a chain of the IPv4 filter table, and the tables that nf_tables does not know.

use std::{fmt::Write as _, fs, time::Duration};

use super::{
    child::{self, ChildError, Output},
    nft::NftError,
};

/// How long another user's lock is waited for, in seconds.
const WAIT: &str = "5";
/// How long a change of a rule may take, with that wait.
const LIMIT: Duration = Duration::from_secs(15);
/// How long printing all rules may take.
const PRINT: Duration = Duration::from_secs(30);

/// Marks our rules.
const MARK: &str = "-m comment --comment fanlight -j ACCEPT";

/// One of the two programs that go by the name of iptables: each knows rules of its own in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The one that writes to nf_tables.
    Nft,
    /// The one from before nf_tables.
    Legacy,
}

/// A chain of the filter table.
#[derive(Debug)]
pub struct Chain {
    program: Program,
    name: String,
    /// Its rules, as `iptables -S` writes them, without the chain.
    rules: Vec<String>,
}

impl Program {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// What it is called where both are installed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }

    /// Whether it is there.
    pub fn is_installed(self) -> bool {
        self.run(&["--version"]).is_ok_and(|output| output.is_success())
    }

    /// A chain of the filter table; `None` where there is none, or the program is not installed. A kernel that does not use a
    /// program's rules yet is not made to.
    ///
    /// # Errors
    /// The program can't be run.
    pub fn chain(self, name: &str) -> Result<Option<Chain>, NftError> {
        if self == Self::Legacy && !has_legacy("filter") {
            return Ok(None);
        }
        let output = match self.run(&["-w", WAIT, "-S", name]) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other.map_err(NftError::Run)?,
        };
        let text = output.text();
        let head = format!("-A {name} ");
        let rules = text.lines().filter_map(|line| Some(line.strip_prefix(&head)?.to_owned())).collect();
        Ok(output.is_success().then(|| Chain { program: self, name: name.to_owned(), rules }))
    }

    fn run(self, arguments: &[&str]) -> Result<Output, ChildError> {
        child::run(self.name(), arguments, "", LIMIT)
    }
}

impl Chain {
    /// Whether rules of ours are in it.
    pub fn has_ours(&self) -> bool {
        self.rules.iter().any(|rule| is_ours(rule))
    }

    /// Makes these our only rules in the chain, after all others but a return that takes everything. Says whether
    /// anything was changed.
    ///
    /// # Errors
    /// The program refuses.
    pub fn keep_last(&self, wanted: &[String]) -> Result<bool, NftError> {
        let wanted: Vec<String> = wanted.iter().map(|rule| format!("{rule} {MARK}")).collect();
        let others: Vec<&String> = self.rules.iter().filter(|rule| !is_ours(rule)).collect();
        let end = others.iter().position(|rule| *rule == "-j RETURN").unwrap_or(others.len());
        let (before, after) = others.split_at(end);
        let rules = before.iter().copied().chain(&wanted).chain(after.iter().copied());
        if rules.eq(&self.rules) {
            return Ok(false);
        }
        let mut script = "*filter\n".to_owned();
        for rule in self.rules.iter().filter(|rule| is_ours(rule)) {
            // Writing to a string can't fail.
            let _ = writeln!(script, "-D {} {rule}", self.name);
        }
        for (rule, place) in wanted.iter().zip(end + 1..) {
            let _ = writeln!(script, "-I {} {place} {rule}", self.name);
        }
        self.restore(&format!("{script}COMMIT\n"))?;
        Ok(true)
    }

    /// One transaction.
    fn restore(&self, script: &str) -> Result<(), NftError> {
        let program = format!("{}-restore", self.program.name());
        let output =
            child::run(&program, &["-w", WAIT, "--noflush"], script, LIMIT).map_err(NftError::Run)?;
        if output.is_success() { Ok(()) } else { Err(refused(&output)) }
    }
}

fn is_ours(rule: &str) -> bool {
    rule.ends_with(MARK)
}

/// A table that the kernel has beside nf_tables, as `iptables-save` writes it; `None`: there is none, or
/// the program is not installed. A kernel that does not use it yet is not made to.
///
/// # Errors
/// The program can't be run, or refuses.
pub fn legacy(table: &str) -> Result<Option<String>, NftError> {
    if !has_legacy(table) {
        return Ok(None);
    }
    match child::run("iptables-legacy-save", &["-t", table], "", PRINT) {
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(NftError::Run(error)),
        Ok(output) if output.is_success() => Ok(Some(output.text())),
        Ok(output) => Err(refused(&output)),
    }
}

fn has_legacy(table: &str) -> bool {
    legacy_tables().lines().any(|name| name == table)
}

/// Whether the kernel has tables of the iptables from before nf_tables.
pub fn has_legacy_tables() -> bool {
    !legacy_tables().is_empty()
}

/// Their names, one a line.
fn legacy_tables() -> String {
    fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default()
}

fn refused(output: &Output) -> NftError {
    NftError::Refused(output.complaint())
}
