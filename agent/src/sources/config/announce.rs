//! `[[announce]]`: what is announced, to whom and how.

use std::{
    collections::BTreeSet, fmt::Display, net::IpAddr, ops::Range, path::PathBuf, str::FromStr, sync::Arc,
};

use control::{
    announce::{Announcement, Fallback, Look, Via, What, When},
    bgp::{Community, NextHop},
    model::quoted,
};

mod extras;
mod group;
mod prefixes;

use super::{
    bgp::BgpConfig,
    problem::Problems,
    section::{Keys, Section},
    tree::Value,
};

pub(super) const ANNOUNCE: Keys = Keys {
    known: &[
        "name",
        "prefixes",
        "services",
        "slices",
        "endpoints",
        "own",
        "group",
        "takeover",
        "hold-back",
        "when",
        "via",
        "table",
        "peers",
        "med",
        "med-step",
        "start",
        "on-disabled",
        "disable-file",
        "next-hop",
        "communities",
        "large-communities",
        "extended-communities",
        "disabled-communities",
        "local-preference",
        "as-path",
        "disabled-as-path",
        "setup",
        "linger",
        "execute",
        "check",
        "on-down",
        "down-as-path",
    ],
    later: &["members", "others"],
};

const MED: u32 = 100;
const DISABLED_MED: u32 = 500;
const LOCAL_PREFERENCE: u32 = 100;
const MAX_ANNOUNCEMENTS: usize = 256;
/// Communities of a kind, and ASNs of a path, at most: attributes and a prefix fit into a message.
const MAX_MARKS: usize = 64;
const MAX_NAME: usize = 63;
/// Tables that the kernel itself routes by: unspec, default, main, local.
const KERNEL_TABLES: [u32; 4] = [0, 253, 254, 255];

/// All announcements that are right.
pub(super) fn announcements(
    root: &Section<'_, '_>,
    bgp: Option<&BgpConfig>,
    problems: &mut Problems<'_>,
) -> Vec<Announcement> {
    let mut found: Vec<Announcement> = Vec::new();
    for section in root.tables("announce", problems) {
        let Some(announcement) = announcement(&section, bgp, problems) else { continue };
        if found.iter().any(|other| other.name == announcement.name) {
            let why = format!("'{}' is another announcement's too; use another", announcement.name);
            problems.add(&section.place("name"), section.key("name"), why);
        } else if let Some((other, prefix)) = prefixes::twice(&found, &announcement) {
            let why = format!("{prefix} is announced by '{other}' too; list it once");
            problems.add(&section.place("prefixes"), section.key("prefixes"), why);
        } else if matches!(announcement.what, What::Own(..)) && root.get("cluster").is_none() {
            let why = "has members that [cluster] makes known, and there is none; add it";
            problems.add(&section.place("group"), section.key("group"), why);
        } else if let Some(other) = group::twice(&found, &announcement) {
            let why = format!("is the group of '{other}' too; a node has one announcement in a group");
            problems.add(&section.place("group"), section.key("group"), why);
        } else if found.len() == MAX_ANNOUNCEMENTS {
            let why = format!("a node has at most {MAX_ANNOUNCEMENTS} announcements; put some together");
            problems.add(&section.span, "announce", why);
            break;
        } else {
            found.push(announcement);
        }
    }
    found
}

fn announcement(
    section: &Section<'_, '_>,
    bgp: Option<&BgpConfig>,
    problems: &mut Problems<'_>,
) -> Option<Announcement> {
    section.check_keys(&ANNOUNCE, problems);
    if section.get("name").is_none() {
        problems.add(&section.span, section.key("name"), "is missing; add one such as \"apex\"");
    }
    let name = section.parsed("name", name, problems);
    let what = what(section, problems);
    let via = via(section, bgp, problems);
    let number = |key, default, problems: &mut Problems<'_>| section.count(key, problems).unwrap_or(default);
    let communities = marks::<Community>(section, "communities", problems);
    let up = Look { as_path: path(section, "as-path", problems).unwrap_or_default(), communities };
    let disabled_communities = section.get("disabled-communities").is_some();
    let disabled_communities = disabled_communities.then(|| marks(section, "disabled-communities", problems));
    let announcement = Announcement {
        peers: peers(section, bgp, problems),
        start: number("start", 0, problems),
        med: number("med", MED, problems),
        med_step: number("med-step", 1, problems),
        on_down: fallback(section, "on-down", problems).unwrap_or(Fallback::Withdraw),
        on_disabled: fallback(section, "on-disabled", problems).unwrap_or(Fallback::Med(DISABLED_MED)),
        disable_file: section.parsed("disable-file", file, problems),
        next_hop: section.parsed("next-hop", next_hop, problems).unwrap_or(NextHop::SelfAddress),
        local_preference: number("local-preference", LOCAL_PREFERENCE, problems),
        up,
        down_as_path: path(section, "down-as-path", problems),
        disabled_as_path: path(section, "disabled-as-path", problems),
        disabled_communities,
        large_communities: marks(section, "large-communities", problems),
        extended_communities: marks(section, "extended-communities", problems),
        loopback: extras::loopback(section, problems),
        check: extras::check(section, problems),
        hooks: extras::hooks(section, problems),
        name: name?,
        what: what?,
        via: via?,
    };
    Some(announcement)
}

fn name(text: &str) -> Result<Arc<str>, String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(valid) {
        return Ok(text.into());
    }
    Err(format!("{} is no name; use 1 to {MAX_NAME} letters, digits, '-', '_' and '.'", quoted(text)))
}

/// Exactly one of the keys that say what is announced.
fn what(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<What> {
    const KEYS: [&str; 5] = ["prefixes", "services", "slices", "endpoints", "own"];
    let given: Vec<_> = KEYS.into_iter().filter(|key| section.get(key).is_some()).collect();
    let Some((&key, others)) = given.split_first() else {
        let why = format!("is missing; add one of {}", KEYS.join(", "));
        problems.add(&section.span, section.key("prefixes"), why);
        return None;
    };
    if let Some(other) = others.first() {
        let why = format!("contradicts {key}: an announcement has one of {}; make two", KEYS.join(", "));
        problems.add(&section.place(other), section.key(other), why);
        return None;
    }
    let when = section.parsed("when", when, problems);
    if key != "services" && section.get("when").is_some() {
        let why = "is about services, and none are announced here; remove it";
        problems.add(&section.place("when"), section.key("when"), why);
    }
    let group = group::group(section, key == "own", problems);
    match key {
        "prefixes" => prefixes::prefixes(section, key, problems).map(What::Prefixes),
        "own" => {
            prefixes::prefixes(section, key, problems).zip(group).map(|(own, group)| What::Own(own, group))
        }
        "services" => {
            services(section, problems).map(|names| What::Services(names, when.unwrap_or_default()))
        }
        key => {
            if !section.switch(key, problems)? {
                let why = "is false, and nothing else is announced here; set it to true";
                problems.add(&section.place(key), section.key(key), why);
                return None;
            }
            Some(if key == "slices" { What::Slices } else { What::Endpoints })
        }
    }
}

fn services(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<Vec<String>> {
    let names = section.strings("services", problems);
    let is_all = names.iter().any(|(name, _)| name == "*");
    if is_all && names.len() > 1 {
        let why = "has \"*\" beside names; keep one of them";
        problems.add(&section.place("services"), section.key("services"), why);
        return None;
    }
    let names: Vec<String> = names.into_iter().map(|(name, _)| name).filter(|name| name != "*").collect();
    (is_all || !names.is_empty()).then_some(names)
}

fn when(text: &str) -> Result<When, String> {
    match text {
        "local" => Ok(When::Local),
        "any" => Ok(When::Any),
        "always" => Ok(When::Always),
        other => Err(format!("{} is unknown; use local, any or always", quoted(other))),
    }
}

fn via(section: &Section<'_, '_>, bgp: Option<&BgpConfig>, problems: &mut Problems<'_>) -> Option<Via> {
    let mut ways = section.strings("via", problems);
    if section.get("via").is_none() {
        ways.push(("bgp".to_owned(), section.span.clone()));
    }
    let mut via = Via { bgp: false, table: None };
    let mut has_table = false;
    for (way, span) in ways {
        match &*way {
            "bgp" if bgp.is_none() => {
                problems.add(&span, section.key("via"), "goes by BGP, and there is no [bgp]; add it");
                return None;
            }
            "bgp" => via.bgp = true,
            "table" => has_table = true,
            "arp" => {
                problems.add(
                    &span,
                    section.key("via"),
                    "arp is not supported by this version; use bgp or table",
                );
                return None;
            }
            other => {
                let why = format!("{} is unknown; use bgp or table", quoted(other));
                problems.add(&span, section.key("via"), why);
                return None;
            }
        }
    }
    let table = section.count("table", problems);
    let refuse = |why: String, problems: &mut Problems<'_>| {
        problems.add(&section.place("table"), section.key("table"), why);
    };
    match (has_table, table) {
        (true, None) if section.get("table").is_none() => {
            refuse("is missing beside via table; add a number such as 110".to_owned(), problems);
        }
        (false, Some(_)) => refuse("is of no use without via table; remove it".to_owned(), problems),
        (true, Some(table)) if KERNEL_TABLES.contains(&table) => {
            refuse(format!("{table} is one that the kernel routes by; use another such as 110"), problems);
        }
        (true, Some(table)) => via.table = Some(table),
        (true, None) | (false, None) => {}
    }
    Some(via)
}

fn peers(
    section: &Section<'_, '_>,
    bgp: Option<&BgpConfig>,
    problems: &mut Problems<'_>,
) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    for (text, span) in section.strings("peers", problems) {
        let known = bgp.map(|bgp| &*bgp.peers).unwrap_or_default();
        match text.parse::<IpAddr>() {
            Ok(address) if known.iter().any(|peer| peer.address == address) => {
                found.insert(address);
            }
            Ok(address) => {
                let why = format!("{address} is no peer; add a [[bgp.peer]] of that address");
                problems.add(&span, section.key("peers"), why);
            }
            Err(_other) => {
                let why =
                    format!("{} is no address of a peer; write one such as 10.20.151.129", quoted(&text));
                problems.add(&span, section.key("peers"), why);
            }
        }
    }
    found
}

/// A MED, or `"withdraw"`.
fn fallback(section: &Section<'_, '_>, key: &str, problems: &mut Problems<'_>) -> Option<Fallback> {
    let word = |text: &str| match text {
        "withdraw" => Ok(Fallback::Withdraw),
        other => Err(format!("{} is unknown; use \"withdraw\", or a MED without quotes", quoted(other))),
    };
    match section.get(key)? {
        (Value::String(_), _) => section.parsed(key, word, problems),
        _ => section.count(key, problems).map(Fallback::Med),
    }
}

fn next_hop(text: &str) -> Result<NextHop, String> {
    if text == "self" {
        return Ok(NextHop::SelfAddress);
    }
    let address = text.parse::<IpAddr>().ok();
    let usable = address.filter(|address| !address.is_unspecified() && !address.is_multicast());
    usable.map(NextHop::Address).ok_or_else(|| format!("{} is no address; use self or one", quoted(text)))
}

fn file(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    let word = quoted(text);
    Err(format!("{word} is no path of a file from the root on; write one such as /etc/fanlight/apex.disable"))
}

/// A list of communities of a kind.
fn marks<T>(section: &Section<'_, '_>, key: &str, problems: &mut Problems<'_>) -> BTreeSet<T>
where
    T: FromStr<Err: Display> + Ord,
{
    let mut found = BTreeSet::new();
    if matches!(section.get(key), Some((Value::Array(items), _)) if items.is_empty()) {
        return found;
    }
    for (text, span) in section.strings(key, problems) {
        match text.parse() {
            Ok(mark) => drop(found.insert(mark)),
            Err(error) => problems.add(&span, section.key(key), T::Err::to_string(&error)),
        }
    }
    limit(found.len(), section, key, problems);
    found
}

fn limit(count: usize, section: &Section<'_, '_>, key: &str, problems: &mut Problems<'_>) {
    if count > MAX_MARKS {
        let why = format!("has more than {MAX_MARKS}; use fewer");
        problems.add(&section.place(key), section.key(key), why);
    }
}

/// A list of ASNs.
fn path(section: &Section<'_, '_>, key: &str, problems: &mut Problems<'_>) -> Option<Arc<[u32]>> {
    section.get(key)?;
    let numbers: Vec<(u32, Range<usize>)> = section.counts(key, problems);
    limit(numbers.len(), section, key, problems);
    if let Some((_, span)) = numbers.iter().find(|(asn, _)| *asn == 0) {
        problems.add(span, section.key(key), "0 is no number of an AS; leave it out");
    }
    Some(numbers.into_iter().map(|(asn, _)| asn).collect())
}
