//! The command line: words → arguments ([`args`]) → validated operands → one call into the library → a printer.

mod agent;
mod announce;
mod args;
mod backend;
mod check;
mod check_config;
mod endpoint;
mod event;
mod explain;
mod failure;
mod fan;
mod flow;
mod generate;
mod import;
mod kv;
mod lines;
mod maintenance;
mod monitor;
mod node;
mod output;
mod reload;
mod replay;
mod runtime;
mod service;
mod status;
mod usage;

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, error::ErrorKind};

use self::{
    args::{Cli, Command},
    failure::Failure,
    output::Output,
};

/// The name under which the binary is `fanlight fan`.
const FANCTL: &str = "fanctl";

/// Runs one command line; errors go to standard error, one line each.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words = as_fanlight(words.into_iter().collect());
    let outcome = match parse(&words) {
        Ok(Parsed::Run(cli)) => run(cli),
        Ok(Parsed::Text(text)) => print(&text),
        Err(usage) => Err(Failure::Usage(usage)),
    };
    outcome.unwrap_or_else(|failure| failure.report(&mut io::stderr().lock()))
}

/// A command line that was understood.
enum Parsed {
    Run(Cli),
    /// Help or the version.
    Text(String),
}

/// Words → arguments, or the one line that says what is wrong with them.
fn parse(words: &[OsString]) -> Result<Parsed, String> {
    let command = Cli::command();
    match command.clone().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(Parsed::Run(cli)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Parsed::Text(error.render().to_string()))
        }
        Err(error) => Err(usage::one_line(&error, &command, words)),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let mut stdout = io::stdout().lock();
    let mut output = Output::standard(&mut stdout, cli.json);
    match cli.command {
        Command::Agent(args) => agent::run(args),
        Command::Fan(command) => fan::run(&command, &mut output),
        Command::Up(args) => fan::up(&args, &mut output),
        Command::Down(args) => fan::down(&args, &mut output),
        Command::Endpoint(command) => endpoint::run(&command, &mut output),
        Command::Service(command) => service::run(&command, &mut output),
        Command::Backend(command) => backend::run(&command, &mut output),
        Command::Check(args) => check::run(&args, &mut output),
        Command::Node(command) => node::run(&command, &mut output),
        Command::Maintenance(command) => maintenance::run(&command, &mut output),
        Command::Announce(command) => announce::run(&command, &mut output),
        Command::Bgp(command) => announce::run_bgp(&command, &mut output),
        Command::Kv(command) => kv::run(&command, &mut output),
        Command::Event(command) => event::run(&command, &mut output),
        Command::Flow(command) => flow::run(&command, &mut output),
        Command::Reload => reload::run(&mut output),
        Command::Status => status::run(&mut output),
        Command::Explain(args) => explain::run(&args, &mut output),
        Command::Monitor(args) => monitor::run(&args, &mut output),
        Command::Replay(args) => replay::run(&args, &mut output),
        Command::CheckConfig(args) => check_config::run(&args, &mut output),
        Command::Completions(args) => generate::completions(&args, &mut output),
        Command::Manual => generate::manual(&mut output),
    }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(anyhow::Error::from)?;
    Ok(ExitCode::SUCCESS)
}

/// `fanctl WORDS` is `fanlight fan WORDS`.
fn as_fanlight(mut words: Vec<OsString>) -> Vec<OsString> {
    let fanctl = words.first().and_then(|path| Path::new(path).file_name()) == Some(OsStr::new(FANCTL));
    if fanctl {
        words.insert(1, OsString::from("fan"));
    }
    words
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
