//! A route as each router shows it, brought to one form.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a router knows of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where it leads.
    pub next_hop: String,
    /// Its MED.
    pub med: u64,
    /// Its AS_PATH.
    pub path: Vec<u64>,
    /// Communities of all kinds: `65001:100`, `65001:1:2`, `rt:65001:5`.
    pub communities: BTreeSet<String>,
}

/// Numbers in a text.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

fn joined(numbers: &[u64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(":")
}

pub(super) fn bird(text: &str, prefix: &str) -> Option<Seen> {
    text.lines().find(|line| line.starts_with(prefix))?;
    let mut seen = Seen::default();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        match name {
            "BGP.next_hop" => seen.next_hop = value.split(' ').next().unwrap_or_default().to_owned(),
            "BGP.med" => seen.med = value.parse().ok()?,
            "BGP.as_path" => seen.path = numbers(value),
            "BGP.community" | "BGP.large_community" => {
                seen.communities.extend(value.split(") (").map(|one| joined(&numbers(one))));
            }
            "BGP.ext_community" => {
                seen.communities
                    .extend(value.split(") (").map(|one| format!("rt:{}", joined(&numbers(one)))));
            }
            _ => {}
        }
    }
    Some(seen)
}

pub(super) fn frr(text: &str) -> Option<Seen> {
    let shown: Value = serde_json::from_str(text).ok()?;
    let path = shown["paths"].as_array()?.first()?;
    let words = |kind: &str| {
        let text = path[kind]["string"].as_str().unwrap_or_default();
        let named = |word: &str| match word {
            "graceful-shutdown" => "65535:0".to_owned(),
            word => word.to_lowercase(),
        };
        text.split(' ').filter(|word| !word.is_empty()).map(named).collect::<Vec<_>>()
    };
    let kinds = ["community", "largeCommunity", "extendedCommunity"];
    Some(Seen {
        next_hop: path["nexthops"][0]["ip"].as_str()?.to_owned(),
        med: path["metric"].as_u64().unwrap_or_default(),
        path: numbers(path["aspath"]["string"].as_str()?),
        communities: kinds.into_iter().flat_map(words).collect(),
    })
}

pub(super) fn gobgp(text: &str) -> Option<Seen> {
    let shown: Value = serde_json::from_str(text).ok()?;
    let path = shown.as_object()?.values().next()?.as_array()?.first()?;
    let mut seen = Seen::default();
    for attribute in path["attrs"].as_array()? {
        let list = |key: &str| attribute[key].as_array().cloned().unwrap_or_default();
        match attribute["type"].as_u64()? {
            2 => {
                let parts = list("as_paths");
                let asns = parts.iter().flat_map(|part| part["asns"].as_array().cloned().unwrap_or_default());
                seen.path = asns.filter_map(|asn| asn.as_u64()).collect();
            }
            3 | 14 => seen.next_hop = attribute["nexthop"].as_str()?.to_owned(),
            4 => seen.med = attribute["metric"].as_u64()?,
            8 => {
                let all = list("communities").into_iter().filter_map(|one| one.as_u64());
                seen.communities.extend(all.map(|one| joined(&[one >> 16, one & 0xffff])));
            }
            16 => {
                let all = list("value");
                seen.communities
                    .extend(all.iter().filter_map(|one| Some(format!("rt:{}", one["value"].as_str()?))));
            }
            32 => {
                for one in list("value") {
                    let parts =
                        ["ASN", "LocalData1", "LocalData2"].map(|key| one[key].as_u64().unwrap_or_default());
                    seen.communities.insert(joined(&parts));
                }
            }
            _ => {}
        }
    }
    Some(seen)
}

/// The last word about a prefix among all that was heard.
pub(super) fn exabgp(heard: &str, prefix: &str) -> Option<Seen> {
    let mut last = None;
    for line in heard.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        if event["neighbor"]["state"] == "down" {
            last = None;
        }
        let update = &event["neighbor"]["message"]["update"];
        let is_it = |route: &Value| route["nlri"] == prefix || *route == *prefix;
        let withdrawn = update["withdraw"].as_object();
        let mut withdrawn = withdrawn.into_iter().flat_map(|families| families.values());
        if withdrawn.any(|routes| routes.as_array().into_iter().flatten().any(is_it)) {
            last = None;
        }
        for hops in update["announce"].as_object().into_iter().flat_map(|families| families.values()) {
            for (hop, routes) in hops.as_object().into_iter().flatten() {
                if routes.as_array().into_iter().flatten().any(is_it) {
                    last = Some(attributes(hop, &update["attribute"]));
                }
            }
        }
    }
    last
}

fn attributes(hop: &str, attributes: &Value) -> Seen {
    let lists = ["community", "large-community"].map(|kind| attributes[kind].as_array().cloned());
    let plain = lists.into_iter().flatten().flatten().map(|one| joined(&numbers(&one.to_string())));
    let extended = attributes["extended-community"].as_array().cloned().unwrap_or_default();
    let extended = extended.iter().filter_map(|one| Some(one["string"].as_str()?.replace("target", "rt")));
    Seen {
        next_hop: hop.to_owned(),
        med: attributes["med"].as_u64().unwrap_or_default(),
        path: numbers(&attributes["as-path"].to_string()),
        communities: plain.chain(extended).collect(),
    }
}
