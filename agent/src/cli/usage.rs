//! clap's errors in one line: `COMMAND: what is wrong; what to do`.

use std::ffi::OsString;

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use control::model::quoted;

use crate::sources::config::suggest;

/// What is wrong with `words`, in one line without the program's name.
pub(super) fn one_line(error: &Error, root: &Command, words: &[OsString]) -> String {
    let (path, command) = named_command(root, words);
    let what = describe(error, command, &path);
    if path.is_empty() { what } else { format!("{}: {what}", path.join(" ")) }
}

fn describe(error: &Error, command: &Command, path: &[&str]) -> String {
    let text = |kind| context(error, kind).unwrap_or_default();
    let help = || format!("see '{} --help'", [&["fanlight"], path].concat().join(" "));
    let suggestion = |kind| context(error, kind).map_or_else(help, |near| format!("did you mean '{near}'?"));
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand);
            let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            let remedy = suggest(&word, &names).unwrap_or_else(|| subcommands(command));
            format!("no command {}; {remedy}", quoted(&word))
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("which command is missing; {}", subcommands(command))
        }
        ErrorKind::UnknownArgument => {
            let word = text(ContextKind::InvalidArg);
            let what = if word.starts_with('-') { "no option" } else { "nothing to be done with" };
            format!("{what} {}; {}", quoted(&word), suggestion(ContextKind::SuggestedArg))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = text(ContextKind::InvalidArg).replace(['<', '>'], "");
            let verb = if missing.contains(" and ") { "are" } else { "is" };
            format!("{missing} {verb} missing; {}", help())
        }
        ErrorKind::ArgumentConflict => {
            let (first, second) = (text(ContextKind::PriorArg), text(ContextKind::InvalidArg));
            let (first, second) = (argument_name(&first), argument_name(&second));
            if first == second || first.is_empty() {
                format!("'{second}' is given twice; give it once")
            } else {
                format!("'{second}' and '{first}' exclude each other; leave one out")
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => invalid_value(error, &help()),
        _ => {
            let first = error.render().to_string();
            let first = first.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("{first}; {}", help())
        }
    }
}

/// A value that is missing, not one of a list, or refused by its parser.
fn invalid_value(error: &Error, help: &str) -> String {
    let text = |kind| context(error, kind).unwrap_or_default();
    let (argument, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    let name = argument_name(&argument);
    let remedy = match context(error, ContextKind::ValidValue) {
        Some(valid) => format!("use {valid}"),
        None => help.to_owned(),
    };
    if value.is_empty() {
        return format!("{name} needs a value; {remedy}");
    }
    let why = std::error::Error::source(error).map_or_else(|| "unknown".to_owned(), ToString::to_string);
    format!("{name} {}: {why}; {remedy}", quoted(&value))
}

/// `--in <FILE>` → `--in`, `[WORDS]...` → `WORDS`
fn argument_name(argument: &str) -> String {
    match argument.split_once(' ') {
        Some((option, _)) if option.starts_with('-') => option.to_owned(),
        _ => argument.trim_end_matches("...").replace(['<', '>', '[', ']'], ""),
    }
}

/// The command that the words name, and the words of its name.
fn named_command<'a>(root: &'a Command, words: &[OsString]) -> (Vec<&'a str>, &'a Command) {
    let (mut path, mut command) = (Vec::new(), root);
    let plain = words.iter().skip(1).filter_map(|word| word.to_str()).filter(|word| !word.starts_with('-'));
    for word in plain {
        let Some(below) = command.find_subcommand(word) else { break };
        path.push(below.get_name());
        command = below;
    }
    (path, command)
}

fn subcommands(command: &Command) -> String {
    let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
    format!("use {}", listed(&names, "or"))
}

/// `a, b or c`
fn listed<S: AsRef<str>>(words: &[S], last_by: &str) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {last_by} {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn context(error: &Error, kind: ContextKind) -> Option<String> {
    let text = match error.get(kind)? {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) if kind == ContextKind::InvalidArg => listed(texts, "and"),
        ContextValue::Strings(texts) => listed(texts, "or"),
        ContextValue::StyledStr(text) => text.to_string(),
        ContextValue::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}
