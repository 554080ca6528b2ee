//! Checks as text: `check = { kind = "http", .. }` of services and announcements.

use std::{path::Path, time::Duration};

use control::{
    health::{Check, Checking, Http, OnDown, Probe, Tls},
    model::quoted,
};

use super::{
    duration,
    problem::Problems,
    section::{Keys, Section},
    tree::Value,
};

/// All keys of a check; each kind has its own.
pub(super) const CHECK: Keys = Keys {
    known: &[
        "kind",
        "interval",
        "fast-interval",
        "timeout",
        "rise",
        "fall",
        "port",
        "path",
        "host",
        "method",
        "expect",
        "ca",
        "insecure",
        "command",
    ],
    later: &[],
};

const HTTP: &[&str] = &["path", "host", "method", "expect"];
const HTTPS: &[&str] = &["ca", "insecure"];
const COMMAND: &[&str] = &["command"];
const CONNECTING: &[&str] = &["port"];

/// Times between checks, and of one.
const LEAST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_secs(86_400);
/// Longest time of one check.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Most results in a row that count.
const RESULTS: u32 = 1_000;
/// Longest text of a request, and of a command altogether.
const TEXT: usize = 4_096;

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Backends, which have ports, unless the VIP has none.
    Backends {
        /// Whether they have ports of their own.
        has_ports: bool,
    },
}

/// How a service's backends are checked: its keys `check` and `on-down`.
pub(super) fn checking(service: &Section<'_, '_>, of: Of, problems: &mut Problems<'_>) -> Option<Checking> {
    let on_down = service.parsed("on-down", parse_on_down, problems);
    if service.get("check").is_none() {
        if service.get("on-down").is_some() {
            let why = "is about backends that a check takes out; add a check, or remove it";
            problems.add(&service.place("on-down"), service.key("on-down"), why);
        }
        return None;
    }
    let check = check(&service.table("check", problems)?, of, problems)?;
    Some(Checking { check: check.into(), on_down: on_down.unwrap_or_default() })
}

/// A check that is right.
pub(super) fn check(section: &Section<'_, '_>, of: Of, problems: &mut Problems<'_>) -> Option<Check> {
    section.check_keys(&CHECK, problems);
    if section.get("kind").is_none() {
        problems.add(&section.span, section.key("kind"), "is missing; use tcp, http, https or command");
    }
    let kind = section.parsed("kind", parse_kind, problems)?;
    refuse_others(section, kind, problems);
    let probe = match kind {
        "tcp" => Some(Probe::Tcp),
        "command" => command(section, problems).map(Probe::Command),
        _ => http(section, kind == "https", problems).map(Probe::Http),
    };
    let length = |key, most, problems: &mut Problems<'_>| {
        section.parsed(key, |text| duration::within(text, LEAST, most), problems)
    };
    let interval = length("interval", MOST, problems).unwrap_or(Check::INTERVAL);
    let fast = length("fast-interval", MOST, problems);
    if fast.is_some_and(|fast| fast > interval) {
        let why = format!("is longer than interval, {}; use a shorter one", duration::shown(interval));
        problems.add(&section.place("fast-interval"), section.key("fast-interval"), why);
    }
    let timeout = length("timeout", TIMEOUT, problems).unwrap_or(Check::TIMEOUT);
    let (rise, fall) = (results(section, "rise", problems), results(section, "fall", problems));
    let port = port(section, problems);
    if port.is_none() && kind != "command" && of == (Of::Backends { has_ports: false }) {
        let why = "is missing; the backends have port 0, so name the one to connect to";
        problems.add(&section.span, section.key("port"), why);
    }
    Some(Check {
        probe: probe?,
        interval,
        fast_interval: fast.unwrap_or_else(|| interval.min(Check::FAST_INTERVAL)),
        timeout,
        rise: rise.unwrap_or(Check::RISE),
        fall: fall.unwrap_or(Check::FALL),
        port,
    })
}

/// Keys of other kinds than this one.
fn refuse_others(section: &Section<'_, '_>, kind: &str, problems: &mut Problems<'_>) {
    let groups: [(&[&str], &[&str], &str); 4] = [
        (HTTP, &["http", "https"], "http and https"),
        (HTTPS, &["https"], "https"),
        (COMMAND, &["command"], "command"),
        (CONNECTING, &["tcp", "http", "https"], "tcp, http and https"),
    ];
    for (keys, _, names) in groups.into_iter().filter(|(_, kinds, _)| !kinds.contains(&kind)) {
        for key in keys.iter().filter(|key| section.get(key).is_some()) {
            let why = format!("is a key of {names}, and not of {kind}; remove it");
            problems.add(&section.place(key), section.key(key), why);
        }
    }
}

fn http(section: &Section<'_, '_>, is_https: bool, problems: &mut Problems<'_>) -> Option<Http> {
    let path = section.parsed("path", parse_path, problems);
    let host = section.parsed("host", parse_host, problems);
    let method = section.parsed("method", parse_method, problems);
    let expect = section.parsed("expect", str::parse, problems);
    let ca = section.parsed("ca", parse_ca, problems);
    let insecure = section.switch("insecure", problems).unwrap_or(false);
    if insecure && ca.is_some() {
        let why = "says that any certificate passes, and ca which; remove one of them";
        problems.add(&section.place("insecure"), section.key("insecure"), why);
    }
    Some(Http {
        tls: is_https.then_some(Tls { ca, insecure }),
        path: path.unwrap_or_else(|| "/".to_owned()),
        host,
        method: method.unwrap_or_else(|| "GET".to_owned()),
        expect: expect.unwrap_or_default(),
    })
}

/// A program with its arguments; one string is for the shell.
fn command(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<Vec<String>> {
    let place = section.place("command");
    let Some((value, _)) = section.get("command") else {
        let why = "is missing; add a list such as [\"/usr/bin/check\", \"-q\"], or a string for /bin/sh -c";
        problems.add(&place, section.key("command"), why);
        return None;
    };
    let is_line = matches!(value, Value::String(_));
    let words: Vec<String> = section.strings("command", problems).into_iter().map(|(word, _)| word).collect();
    let first = words.first()?;
    let why = match () {
        () if words.iter().any(|word| word.contains('\0')) => "has a NUL byte; remove it",
        () if words.iter().map(String::len).sum::<usize>() > TEXT => {
            "is longer than 4,096 bytes; put it into a file"
        }
        () if first.trim().is_empty() => "names no program; put one first",
        () if is_line => return Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), first.clone()]),
        () => return Some(words),
    };
    problems.add(&place, section.key("command"), why);
    None
}

fn results(section: &Section<'_, '_>, key: &'static str, problems: &mut Problems<'_>) -> Option<u32> {
    let count = section.count(key, problems)?;
    if (1..=RESULTS).contains(&count) {
        return Some(count);
    }
    let why = format!("{count} is out of range; use 1 to {RESULTS}");
    problems.add(&section.place(key), section.key(key), why);
    None
}

fn port(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<u16> {
    let count = section.count("port", problems)?;
    let port = u16::try_from(count).ok().filter(|port| *port > 0);
    if port.is_none() {
        problems.add(
            &section.place("port"),
            section.key("port"),
            format!("{count} is no port; use 1 to 65535"),
        );
    }
    port
}

fn parse_kind(text: &str) -> Result<&'static str, String> {
    let kinds = ["tcp", "http", "https", "command"];
    let kind = kinds.into_iter().find(|kind| *kind == text);
    kind.ok_or_else(|| format!("{} is unknown; use tcp, http, https or command", quoted(text)))
}

fn parse_on_down(text: &str) -> Result<OnDown, String> {
    match text {
        "keep" => Ok(OnDown::Keep),
        "reset" => Ok(OnDown::Reset),
        other => Err(format!("{} is unknown; use keep or reset", quoted(other))),
    }
}

/// Printable ASCII without spaces: what a request's line and its fields may hold.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parse_path(text: &str) -> Result<String, String> {
    let valid = is_plain(text) && text.starts_with('/') && text.parse::<hyper::Uri>().is_ok();
    valid.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "{} is no path of a request; begin with '/', and write what else is special as %XX",
            quoted(text)
        )
    })
}

fn parse_host(text: &str) -> Result<String, String> {
    let valid = is_plain(text) && text.parse::<hyper::http::uri::Authority>().is_ok() && !text.contains('@');
    valid.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "{} is no host; write a name such as \"www.example.org\", with :PORT where it has one",
            quoted(text)
        )
    })
}

fn parse_method(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    // CONNECT asks for a tunnel, and has no path.
    let valid = valid && text != "CONNECT";
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{} is no method here; use one such as GET", quoted(text)))
}

fn parse_ca(text: &str) -> Result<String, String> {
    let valid = Path::new(text).is_absolute() && !text.contains('\0');
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{} is no file's whole path; begin with '/'", quoted(text)))
}

#[cfg(test)]
mod tests;
