//! What an announcement does beside announcing: addresses on `lo`, and commands.

use std::{sync::Arc, time::Duration};

use control::{announce::Hooks, model::quoted};

use crate::sources::config::{
    bgp::seconds,
    problem::Problems,
    section::{Keys, Section},
};

const EXECUTE: Keys = Keys { known: &["up", "disabled"], later: &["down"] };
const LINGER: Duration = Duration::from_secs(5);
const MAX_LINGER: u16 = 600;

/// How long addresses stay on `lo`, if they are put there.
pub(super) fn loopback(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<Duration> {
    let word = |text: &str| match text {
        "none" => Ok(false),
        "lo" => Ok(true),
        other => Err(format!("{} is unknown; use none or lo", quoted(other))),
    };
    let is_wanted = section.parsed("setup", word, problems).unwrap_or_default();
    let linger = section.parsed("linger", |text| seconds(text, MAX_LINGER), problems);
    if is_wanted && section.get("prefixes").or_else(|| section.get("own")).is_none() {
        let why = "is for prefixes: what else is announced has its addresses elsewhere; remove it";
        problems.add(&section.place("setup"), section.key("setup"), why);
    }
    if !is_wanted && section.get("linger").is_some() {
        let why = "is of no use without setup = \"lo\"; remove it";
        problems.add(&section.place("linger"), section.key("linger"), why);
    }
    is_wanted.then(|| linger.map_or(LINGER, |linger| Duration::from_secs(linger.into())))
}

/// Commands on a change of the state.
pub(super) fn hooks(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Hooks {
    let Some(section) = section.table("execute", problems) else { return Hooks::default() };
    section.check_keys(&EXECUTE, problems);
    let command = |key, problems: &mut Problems<'_>| {
        let text = |text: &str| match text.contains('\0') {
            true => Err("has a zero byte; write a command".to_owned()),
            false => Ok(Some(Arc::from(text)).filter(|command: &Arc<str>| !command.is_empty())),
        };
        section.parsed(key, text, problems).flatten()
    };
    Hooks { up: command("up", problems), down: None, disabled: command("disabled", problems) }
}
