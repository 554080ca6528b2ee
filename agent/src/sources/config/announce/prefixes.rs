//! Prefixes that an announcement lists.

use std::net::IpAddr;

use control::{
    announce::{Announcement, What},
    model::quoted,
};
use ipnet::IpNet;

use super::super::{problem::Problems, section::Section};

/// Prefixes of one announcement at most.
const MAX_PREFIXES: usize = 4096;

/// A prefix that two announcements list.
pub(super) fn twice<'a>(others: &'a [Announcement], own: &Announcement) -> Option<(&'a str, IpNet)> {
    fn listed(announcement: &Announcement) -> &[IpNet] {
        match &announcement.what {
            What::Prefixes(listed) | What::Own(listed, _) => listed,
            What::Services(..) | What::Slices | What::Endpoints => &[],
        }
    }
    others.iter().find_map(|other| {
        let found = listed(own).iter().find(|prefix| listed(other).contains(prefix));
        found.map(|prefix| (&*other.name, *prefix))
    })
}

pub(super) fn prefixes(
    section: &Section<'_, '_>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> Option<Vec<IpNet>> {
    let mut found = Vec::new();
    for (text, span) in section.strings(key, problems) {
        let why = match prefix(&text) {
            Ok(prefix) if found.contains(&prefix) => format!("{prefix} is listed twice; list it once"),
            Ok(prefix) => {
                found.push(prefix);
                continue;
            }
            Err(why) => why,
        };
        problems.add(&span, section.key(key), why);
    }
    if found.len() > MAX_PREFIXES {
        let why = format!("has more than {MAX_PREFIXES} prefixes; announce a shorter one");
        problems.add(&section.place(key), section.key(key), why);
    }
    (!found.is_empty()).then_some(found)
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix = text.parse::<IpNet>().map_err(|_other| {
        format!("{} is no network; write one such as 91.238.131.166/32 or 2001:db8::1/128", quoted(text))
    })?;
    if prefix.trunc() != prefix {
        return Err(format!("{prefix} has host bits set; use {}", prefix.trunc()));
    }
    let (first, last) = (prefix.network(), prefix.broadcast());
    let is_odd = |address: IpAddr| address.is_multicast() || address.is_loopback();
    if is_odd(first) || is_odd(last) || first == IpAddr::from([255; 4]) {
        return Err(format!("{prefix} is no network of hosts; announce another"));
    }
    Ok(prefix)
}
