//! What an announcement does beside announcing: addresses on `lo`, and commands.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use control::{
    announce::{Checking, Hooks},
    health::{Http, Probe},
    model::quoted,
};

use crate::sources::config::{
    bgp::seconds,
    health,
    problem::Problems,
    section::{Keys, Section},
};

const EXECUTE: Keys = Keys { known: &["up", "down", "disabled"], later: &[] };
/// What only a check makes of an announcement.
const OF_CHECK: [&str; 2] = ["on-down", "down-as-path"];
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

/// How what the announcement stands for is checked: by a server on this host, unless said otherwise.
pub(super) fn check(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<Checking> {
    if section.get("check").is_none() {
        for key in OF_CHECK.into_iter().filter(|key| section.get(key).is_some()) {
            let why = "is about a check that fails; add a check, or remove it";
            problems.add(&section.place(key), section.key(key), why);
        }
        return None;
    }
    let section = section.table("check", problems)?;
    let host = |text: &str| {
        text.parse::<IpAddr>()
            .map_err(|_other| format!("{} is no address; write one such as 127.0.0.1", quoted(text)))
    };
    let address = section.parsed("address", host, problems);
    let check = health::check(&section, health::Of::Announcement, problems)?;
    let usual = match &check.probe {
        Probe::Http(Http { tls: Some(_), .. }) => Some(443),
        Probe::Http(_) => Some(80),
        Probe::Command(_) => Some(0),
        Probe::Tcp => None,
    };
    let Some(port) = check.port.or(usual) else {
        problems.add(&section.span, section.key("port"), "is missing; name the one to connect to");
        return None;
    };
    let target = SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
    Some(Checking { check: Arc::new(check), target })
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
    let down = command("down", problems);
    Hooks { up: command("up", problems), down, disabled: command("disabled", problems) }
}
