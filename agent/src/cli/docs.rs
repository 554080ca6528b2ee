//! The documentation's tables against the code that they describe.

use std::{fs, path::Path};

use clap::{ArgAction, CommandFactory as _};
use dataplane_common::outcome::{Hook, Outcome};

use super::args::Cli;
use crate::serve::paths;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of a page's table whose header begins with a word.
fn rows(page: &str, header: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|line| !line.starts_with(&format!("| {header} |")));
    lines.skip(2).take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
}

#[test]
fn the_page_of_outcomes_says_what_the_programs_count() {
    let page = page("docs/outcomes.md");
    let row = |name: &str, meaning: &str| format!("| `{name}` | {meaning} |");
    let outcomes: Vec<_> =
        Outcome::ALL.iter().map(|outcome| row(outcome.name(), outcome.meaning())).collect();
    assert_eq!(rows(&page, "outcome"), outcomes);
    let hooks: Vec<_> = Hook::ALL.iter().map(|hook| row(hook.name(), hook.meaning())).collect();
    assert_eq!(rows(&page, "hook"), hooks);
}

/// Commands that do something themselves, with their words.
fn leaves(command: &clap::Command, words: &str) -> Vec<(String, clap::Command)> {
    if !command.has_subcommands() {
        return vec![(words.to_owned(), command.clone())];
    }
    let below = command.get_subcommands();
    below.flat_map(|command| leaves(command, &format!("{words} {}", command.get_name()))).collect()
}

/// What a row must name of an argument.
fn shown(argument: &clap::Arg) -> String {
    match argument.get_long() {
        Some(long) => format!("--{long}"),
        None => {
            let names = argument.get_value_names().unwrap_or_default();
            names.iter().flat_map(|name| name.split(' ')).next().unwrap_or_default().to_owned()
        }
    }
}

#[test]
fn the_page_of_commands_has_every_command_with_its_operands_and_options() {
    let rows = rows(&page("docs/commands.md"), "command");
    let mut command = Cli::command();
    command.build();
    let leaves = leaves(&command, "fanlight");
    for (words, command) in &leaves {
        let starts = [format!("| `{words} "), format!("| `{words}`")];
        let row = rows.iter().find(|row| starts.iter().any(|start| row.starts_with(start)));
        let row = row.unwrap_or_else(|| panic!("docs/commands.md has no row of '{words}'"));
        let described = command.get_arguments().filter(|argument| {
            !argument.is_global_set()
                && !matches!(argument.get_action(), ArgAction::Help | ArgAction::Version)
        });
        for name in described.map(shown) {
            assert!(row.contains(&name), "the row of '{words}' does not name {name}");
        }
    }
    assert_eq!(rows.len(), leaves.len(), "docs/commands.md has rows of commands that are no more");
}

#[test]
fn the_page_of_the_api_has_every_path() {
    let page = page("docs/api.md");
    let all = [
        paths::SERVICES,
        paths::SERVICE,
        paths::DRAINED,
        paths::BACKENDS,
        paths::OWN_BACKENDS,
        paths::OWN_BACKEND,
        paths::NODES,
        paths::NODE,
        paths::MAINTENANCE,
        paths::ANNOUNCEMENTS,
        paths::ANNOUNCEMENT,
        paths::ANNOUNCE_DISABLED,
        paths::BGP_PEERS,
        paths::BGP_ROUTES,
        paths::KEYS,
        paths::KEY,
        paths::MESSAGES,
        paths::MESSAGE,
        paths::METRICS,
        paths::HEALTH,
        paths::EVENTS,
    ];
    for path in all {
        let path = path.replace("{name}", "NAME").replace("{backend}", "BACKEND").replace("{key}", "KEY");
        assert!(page.contains(&path), "docs/api.md does not name {path}");
    }
}
