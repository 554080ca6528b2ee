//! nftables by the `nft` program, which applies a script as one transaction.

use std::time::Duration;

use serde_json::Value;

use super::child::{self, ChildError};

/// How long `nft` may take: listing the chains of 10,000 services of kube-proxy takes it 8 s.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a ruleset could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not installed.
    #[error("`nft` is not installed; install the package nftables")]
    Missing,
    /// It could not be run to its end.
    #[error(transparent)]
    Run(ChildError),
    /// It refused.
    #[error("nftables: {0}")]
    Refused(String),
    /// Its answer is no JSON.
    #[error("nftables: the answer of `nft -j` can't be read: {0}")]
    Answer(#[source] serde_json::Error),
}

/// Whether `nft` is installed and allowed to work.
///
/// # Errors
/// It isn't.
pub fn check() -> Result<(), NftError> {
    run(&["--version"], "").map(drop)
}

/// Applies a script: all of it or nothing.
///
/// # Errors
/// `nft` is missing or refuses the script.
pub fn apply(script: &str) -> Result<(), NftError> {
    run(&["-f", "-"], script).map(drop)
}

/// All chains, without rules.
///
/// # Errors
/// `nft` is missing or refuses, or its answer is unreadable.
pub fn chains() -> Result<Value, NftError> {
    parse(&run(&["-j", "list", "chains"], "")?)
}

/// One chain with its rules, as `nft` prints them with their handles; `None` when there is no such chain.
///
/// # Errors
/// `nft` is missing.
pub fn chain_text(family: &str, table: &str, chain: &str) -> Result<Option<String>, NftError> {
    match run(&["-a", "list", "chain", family, table, chain], "") {
        Ok(text) => Ok(Some(text)),
        Err(NftError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Result<Value, NftError> {
    // An empty ruleset is an empty answer in some versions.
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(NftError::Answer)
}

fn run(arguments: &[&str], input: &str) -> Result<String, NftError> {
    let output = child::run("nft", arguments, input, LIMIT).map_err(|error| match error {
        missing if missing.is_missing() => NftError::Missing,
        other => NftError::Run(other),
    })?;
    if output.is_success() { Ok(output.text()) } else { Err(NftError::Refused(output.complaint())) }
}
