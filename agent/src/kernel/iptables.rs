//! Rules of owners who use `iptables`: single ones in a chain of the IPv4 filter table, and what nf_tables does not know.

use std::{fs, time::Duration};

use super::{
    child::{self, Output},
    nft::NftError,
};

/// How long another user's lock is waited for, in seconds.
const WAIT: &str = "5";
/// How long a change of a rule may take, with that wait.
const LIMIT: Duration = Duration::from_secs(15);
/// How long printing all rules may take.
const PRINT: Duration = Duration::from_secs(30);

/// Whether the program is there.
pub fn is_installed() -> bool {
    child::run("iptables", &["--version"], "", LIMIT).is_ok_and(|output| output.is_success())
}

/// Makes a rule stand in a chain, at its beginning if it has to be added.
///
/// # Errors
/// `iptables` can't be run or refuses.
pub fn ensure_first(chain: &str, rule: &[String]) -> Result<(), NftError> {
    if stands(chain, rule)? {
        return Ok(());
    }
    let output = run("-I", chain, rule)?;
    if output.is_success() { Ok(()) } else { Err(refused(&output)) }
}

/// Removes a rule from a chain; one that does not stand there is fine.
///
/// # Errors
/// `iptables` can't be run or refuses.
pub fn remove(chain: &str, rule: &[String]) -> Result<(), NftError> {
    if !stands(chain, rule)? {
        return Ok(());
    }
    let output = run("-D", chain, rule)?;
    if output.is_success() { Ok(()) } else { Err(refused(&output)) }
}

/// The rules for translation that the kernel has beside nf_tables, as `iptables-save` writes them; `None`: there are none,
/// or nobody here who could tell. A kernel that does not use them yet is not made to.
///
/// # Errors
/// The program can't be run, or refuses.
pub fn legacy_nat() -> Result<Option<String>, NftError> {
    const NAMES: &str = "/proc/thread-self/net/ip_tables_names";
    if !fs::read_to_string(NAMES).unwrap_or_default().lines().any(|name| name == "nat") {
        return Ok(None);
    }
    match child::run("iptables-legacy-save", &["-t", "nat"], "", PRINT) {
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(NftError::Run(error)),
        Ok(output) if output.is_success() => Ok(Some(output.text())),
        Ok(output) => Err(refused(&output)),
    }
}

fn stands(chain: &str, rule: &[String]) -> Result<bool, NftError> {
    run("-C", chain, rule).map(|output| output.is_success())
}

fn run(action: &str, chain: &str, rule: &[String]) -> Result<Output, NftError> {
    let rule = rule.iter().map(String::as_str);
    let arguments: Vec<&str> = ["-w", WAIT, action, chain].into_iter().chain(rule).collect();
    child::run("iptables", &arguments, "", LIMIT).map_err(NftError::Run)
}

fn refused(output: &Output) -> NftError {
    NftError::Refused(output.complaint())
}
