//! `fanlight kv get | put | delete | list | watch`

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use anyhow::Context;
use base64::Engine as _;
use clap::{Args, Subcommand};
use control::cluster::records::MAX_USER_VALUE;
use hyper::Method;
use serde::de::DeserializeOwned;

use super::{failure::Failure, lines, output::Output, runtime};
use crate::serve::{Client, KeyEventRow, KeyRow, KeyWritten, paths};

#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    /// Print the value of a key, its bytes alone
    Get(KvGetArgs),
    /// Set a key
    Put(KvPutArgs),
    /// Delete a key; one that is not there is fine
    Delete(KvKeyArgs),
    /// List keys
    List(KvListArgs),
    /// Show the keys that are there, and then what happens to them
    Watch(KvListArgs),
}

#[derive(Debug, Args)]
pub(super) struct KvGetArgs {
    /// The key
    pub(super) key: String,
}

#[derive(Debug, Args)]
pub(super) struct KvPutArgs {
    /// The key: 1 to 512 bytes without control characters
    pub(super) key: String,
    /// Its value, at most 64 KiB; '-' is standard input
    #[arg(allow_hyphen_values = true)]
    pub(super) value: String,
    /// Only where the key has this version; 0: only where there is no such key
    #[arg(long = "if", value_name = "VERSION")]
    pub(super) version: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct KvKeyArgs {
    /// The key
    pub(super) key: String,
    /// Only where the key has this version
    #[arg(long = "if", value_name = "VERSION")]
    pub(super) version: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct KvListArgs {
    /// What the keys begin with; without it, all
    #[arg(default_value = "")]
    pub(super) prefix: String,
}

pub(super) fn run(command: &KvCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        KvCommand::Get(args) => {
            let row: KeyRow = ask("kv get", Method::GET, &path_of(&args.key, None), None)?;
            output.print(&row, |row, out| out.writer.write_all(&bytes(row)?))?;
        }
        KvCommand::Put(args) => {
            let path = path_of(&args.key, args.version);
            let written: KeyWritten = ask("kv put", Method::PUT, &path, Some(value(args)?))?;
            output.print(&written, |written, out| {
                writeln!(out.writer, "{} has version {}", written.key, written.version)
            })?;
        }
        KvCommand::Delete(args) => {
            let KvKeyArgs { key, version } = args;
            let written: KeyWritten = ask("kv delete", Method::DELETE, &path_of(key, *version), None)?;
            output.print(&written, |written, out| writeln!(out.writer, "{} is not there", written.key))?;
        }
        KvCommand::List(args) => {
            let rows: Vec<KeyRow> = ask("kv list", Method::GET, &path_of_all(args), None)?;
            output.print(rows.as_slice(), print_list)?;
        }
        KvCommand::Watch(args) => {
            let path = format!("{}&watch=true", path_of_all(args));
            return lines::follow("kv watch", &path, output, |_| true, print_event);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path_of(key: &str, version: Option<u64>) -> String {
    let expected = version.map_or(String::new(), |version| format!("?if={version}"));
    format!("{}/{}{expected}", paths::KEYS, runtime::encode(key))
}

fn path_of_all(args: &KvListArgs) -> String {
    format!("{}?prefix={}", paths::KEYS, runtime::encode(&args.prefix))
}

fn ask<T: DeserializeOwned>(
    command: &'static str,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<T, Failure> {
    runtime::block_on(async {
        let body = body.map(|bytes| ("application/octet-stream", bytes));
        let answer = async { Client::connect().await?.call(method, path, body).await };
        answer.await.map_err(|error| anyhow::Error::from(error).context(command))
    })
}

/// What is to be written; `-` is standard input.
fn value(args: &KvPutArgs) -> anyhow::Result<Vec<u8>> {
    if args.value != "-" {
        return Ok(args.value.clone().into_bytes());
    }
    let mut bytes = Vec::new();
    // A byte more than there may be: the agent names the limit.
    let mut input = io::stdin().lock().take(MAX_USER_VALUE as u64 + 1);
    input.read_to_end(&mut bytes).context("kv put: standard input")?;
    Ok(bytes)
}

/// The bytes of a value.
fn bytes(row: &KeyRow) -> io::Result<Vec<u8>> {
    match (&row.value, &row.value64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|error| io::Error::other(error.to_string())),
        (None, None) => Ok(Vec::new()),
    }
}

fn print_list(rows: &[KeyRow], output: &mut Output<'_>) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let size = size(row).to_string();
        [row.key.clone(), size, row.version.to_string(), row.node.clone(), row.time.clone()]
    });
    output.table(["KEY", "BYTES", "VERSION", "NODE", "WRITTEN"], cells)
}

/// Bytes of a value.
fn size(row: &KeyRow) -> usize {
    let size = row.value.as_ref().map_or(0, String::len);
    row.value64.as_ref().map_or(size, |text| {
        let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
        text.len() / 4 * 3 - padding
    })
}

fn print_event(event: &KeyEventRow, output: &mut Output<'_>) -> io::Result<()> {
    match event {
        KeyEventRow::Put(row) => {
            let KeyRow { key, version, node, time, .. } = row;
            let size = size(row);
            writeln!(output.writer, "put     {key}  {size} bytes, version {version} by {node} at {time}")
        }
        KeyEventRow::Delete { key } => writeln!(output.writer, "delete  {key}"),
        KeyEventRow::Ready => writeln!(output.writer, "ready   what follows are changes"),
        KeyEventRow::Resync => writeln!(output.writer, "resync  changes were missed; all keys follow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_part_of_the_path_and_a_version_its_condition() {
        assert_eq!(path_of("a/b c", None), "/v1/kv/a%2Fb%20c");
        assert_eq!(path_of("a", Some(0)), "/v1/kv/a?if=0");
    }

    #[test]
    fn a_value_is_given_back_as_its_bytes() {
        let row = |value: Option<&str>, value64: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let (key, node, time) = Default::default();
            KeyRow { key, value: own(value), value64: own(value64), version: 1, node, time }
        };
        assert_eq!(bytes(&row(Some("x\n"), None)).unwrap(), b"x\n");
        assert_eq!(bytes(&row(None, Some("/wA="))).unwrap(), [255, 0]);
        assert_eq!([row(Some("x\n"), None), row(None, Some("/wA="))].map(|row| size(&row)), [2, 2]);
        assert!(bytes(&row(None, Some("?"))).is_err());
    }
}
