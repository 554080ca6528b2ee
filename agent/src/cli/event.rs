//! `fanlight event send | watch`

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use control::cluster::events::MAX_PAYLOAD;
use hyper::Method;

use super::{failure::Failure, lines, output::Output, runtime};
use crate::serve::{Client, EventRow, MessageRow, paths};

#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// Send a message to all members; most have it within a fraction of a second, none is promised it
    Send(EventSendArgs),
    /// Show the messages that come in from now on
    Watch(EventWatchArgs),
}

#[derive(Debug, Args)]
pub(super) struct EventSendArgs {
    /// What it is about: 1 to 64 bytes without control characters
    pub(super) name: String,
    /// What it says, at most 1,024 bytes; '-' is standard input
    #[arg(default_value = "", allow_hyphen_values = true)]
    pub(super) payload: String,
}

#[derive(Debug, Args)]
pub(super) struct EventWatchArgs {
    /// Only those of this name
    pub(super) name: Option<String>,
}

pub(super) fn run(command: &EventCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        EventCommand::Send(args) => send(args, output),
        EventCommand::Watch(args) => {
            let name = args.name.as_ref().map(|name| format!("?name={}", runtime::encode(name)));
            let path = format!("{}{}", paths::MESSAGES, name.unwrap_or_default());
            lines::follow("event watch", &path, output, |_| true, print)
        }
    }
}

fn send(args: &EventSendArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let path = format!("{}/{}", paths::MESSAGES, runtime::encode(&args.name));
    let payload = payload(args)?;
    let sent: MessageRow = runtime::block_on(async {
        let body = Some(("application/octet-stream", payload));
        let answer = async { Client::connect().await?.call(Method::POST, &path, body).await };
        answer.await.map_err(|error| anyhow::Error::from(error).context("event send"))
    })?;
    output.print(&sent, |_sent, out| writeln!(out.writer, "{} is sent", args.name))?;
    Ok(ExitCode::SUCCESS)
}

/// What it says; `-` is standard input.
fn payload(args: &EventSendArgs) -> anyhow::Result<Vec<u8>> {
    if args.payload != "-" {
        return Ok(args.payload.clone().into_bytes());
    }
    let mut bytes = Vec::new();
    // A byte more than there may be: the agent names the limit.
    let mut input = io::stdin().lock().take(MAX_PAYLOAD as u64 + 1);
    input.read_to_end(&mut bytes).context("event send: standard input")?;
    Ok(bytes)
}

fn print(row: &EventRow, output: &mut Output<'_>) -> io::Result<()> {
    match row {
        EventRow::Message(row) => {
            let payload = match (&row.payload, &row.payload64) {
                (Some(text), _) => text.escape_debug().to_string(),
                (None, text) => format!("base64 {}", text.as_deref().unwrap_or_default()),
            };
            let line = format!("{}  {}  {}  {payload}", row.time, row.node, row.name.escape_debug());
            writeln!(output.writer, "{}", line.trim_end())
        }
        EventRow::Lost { lost } => writeln!(output.writer, "{lost} events not shown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(line: &str) -> String {
        let mut out = Vec::new();
        print(&serde_json::from_str(line).unwrap(), &mut Output::new(&mut out, false)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_message_is_a_line_whatever_is_in_it() {
        let row = |rest: &str| {
            printed(&format!(
                "{{\"name\":\"deploy\",\"node\":\"host-28\",\"time\":\"2026-11-21T06:34:13Z\"{rest}}}"
            ))
        };
        let line = "2026-11-21T06:34:13Z  host-28  deploy";
        assert_eq!(row(r#","payload":"v 2\n""#), format!("{line}  v 2\\n\n"));
        assert_eq!(row(r#","payload":"""#), format!("{line}\n"));
        assert_eq!(row(r#","payload64":"/wA=""#), format!("{line}  base64 /wA=\n"));
        assert_eq!(printed(r#"{"lost":3}"#), "3 events not shown\n");
    }
}
