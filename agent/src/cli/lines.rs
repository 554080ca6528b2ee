//! Answers that go on until the agent stops: a JSON line for each thing that happens.

use std::{io, process::ExitCode};

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;

use super::{failure::Failure, output::Output, runtime};
use crate::serve::Client;

/// Writes what is told at a path, as it is or as `people` like to read it, where it is wanted.
pub(super) fn follow<T: DeserializeOwned>(
    command: &'static str,
    path: &str,
    output: &mut Output<'_>,
    is_wanted: impl Fn(&T) -> bool,
    people: impl Fn(&T, &mut Output<'_>) -> io::Result<()>,
) -> Result<ExitCode, Failure> {
    runtime::block_on(async {
        let client = Client::connect().await.context(command)?;
        let mut lines = client.lines(path).await.context(command)?;
        while let Some(line) = lines.next().await.context(command)? {
            let told: T =
                serde_json::from_str(&line).with_context(|| format!("{command}: a line can't be read"))?;
            if is_wanted(&told) {
                let written =
                    if output.is_json() { writeln!(output.writer, "{line}") } else { people(&told, output) };
                written.and_then(|()| output.writer.flush()).context("writing the result")?;
            }
        }
        Err(anyhow!("{command}: the agent has stopped; start it again with 'fanlight agent'"))
    })
}
