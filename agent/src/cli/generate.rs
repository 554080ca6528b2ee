//! `fanlight completions` and `fanlight manual`: both made from the command line's own definition.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::{
    args::{Cli, CompletionsArgs},
    failure::Failure,
    output::Output,
};

/// What follows the commands in the manual page.
const MANUAL_TAIL: &str = include_str!("manual_tail.roff");

pub(super) fn completions(args: &CompletionsArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fanlight", &mut script);
    output.writer.write_all(&script).context("writing completions")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn manual(output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    write_manual(output.writer).context("writing the manual page")?;
    Ok(ExitCode::SUCCESS)
}

fn write_manual(writer: &mut dyn Write) -> io::Result<()> {
    let mut command = Cli::command();
    command.build();
    let man = Man::new(command.clone()).title("FANLIGHT").section("8").manual("Fanlight").date("");
    man.render_title(writer)?;
    man.render_name_section(writer)?;
    man.render_synopsis_section(writer)?;
    man.render_description_section(writer)?;
    man.render_options_section(writer)?;
    writeln!(writer, ".SH COMMANDS")?;
    for subcommand in command.get_subcommands() {
        write_command(subcommand, writer)?;
    }
    writer.write_all(MANUAL_TAIL.as_bytes())
}

/// One command with its synopsis and options, or those below it.
fn write_command(command: &clap::Command, writer: &mut dyn Write) -> io::Result<()> {
    if command.has_subcommands() {
        return command.get_subcommands().try_for_each(|below| write_command(below, writer));
    }
    let mut command = command.clone();
    let usage = command.render_usage().to_string();
    writeln!(writer, ".SS \"{}\"", escape(usage.trim_start_matches("Usage: ")))?;
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        writeln!(writer, "{}.", escape(&about.to_string()))?;
    }
    for argument in
        command.get_arguments().filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
    {
        let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string);
        writeln!(
            writer,
            ".TP\n.B \"{}\"\n{}.",
            escape(&argument.to_string()),
            escape(&help.unwrap_or_default())
        )?;
    }
    Ok(())
}

/// Text as roff takes it literally.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-").replace('"', "\\(dq");
    text.split('\n')
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}
