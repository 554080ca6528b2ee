//! Rules of owners who use `iptables`: single ones in a chain of the IPv4 filter table, and what nf_tables does not know.

use std::{
    fs, io,
    process::{Command, Output},
};

use super::nft::NftError;

/// Whether the program is there.
pub fn is_installed() -> bool {
    Command::new("iptables").arg("--version").output().is_ok_and(|output| output.status.success())
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
    if output.status.success() { Ok(()) } else { Err(refused(&output)) }
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
    if output.status.success() { Ok(()) } else { Err(refused(&output)) }
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
    match Command::new("iptables-legacy-save").args(["-t", "nat"]).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(NftError::Run(error)),
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(output) => Err(refused(&output)),
    }
}

fn stands(chain: &str, rule: &[String]) -> Result<bool, NftError> {
    run("-C", chain, rule).map(|output| output.status.success())
}

fn run(action: &str, chain: &str, rule: &[String]) -> Result<Output, NftError> {
    // Another user of iptables may hold its lock.
    Command::new("iptables").args(["-w", "5", action, chain]).args(rule).output().map_err(NftError::Run)
}

fn refused(output: &Output) -> NftError {
    let complaint = String::from_utf8_lossy(&output.stderr);
    NftError::Refused(complaint.lines().next().unwrap_or("no reason given").trim().to_owned())
}
