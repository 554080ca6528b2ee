//! Whether others need this host to forward packets, which the first fan switched on.
//!
//! The switch does not tell: whoever finds it on leaves it alone, as Docker does. What forwards packets shows in other
//! ways: devices that lead to containers, virtual machines or tunnels, translation in the packet filter, or the setting
//! in the host's configuration. What was there before the first fan lived without forwarding and is no reason; anything
//! that came since is one, because a host that forwards too much is less trouble than networks that are dead.

use std::{collections::BTreeSet, fs, path::Path};

use control::observed::Link;
use serde_json::Value;

use super::error::Fault;
use crate::kernel::{iptables, nft, sysctl::Key};

/// Devices whose packets a host forwards.
const KINDS: [&str; 8] = ["bridge", "veth", "tun", "wireguard", "openvswitch", "vrf", "ppp", "ipvlan"];
/// Where the administrator's settings stand (sysctl.d(5)).
const SETTINGS: [&str; 2] = ["/etc/sysctl.conf", "/etc/sysctl.d"];
/// Our own table.
const OWN: &str = "fanlight";

/// The switch.
pub(super) fn key() -> Key {
    Key::new("net/ipv4/ip_forward")
}

/// All that forwards packets, or may: a line each. None of it must be ours.
pub(super) fn users<'l>(links: impl IntoIterator<Item = &'l Link>) -> Result<BTreeSet<String>, Fault> {
    let mut users = BTreeSet::new();
    for link in links {
        if let Some(kind) = link.kind.as_deref().filter(|kind| KINDS.contains(kind)) {
            users.insert(format!("{kind} {}", link.name));
        }
    }
    for (family, table, chain) in translators(&nft::chains()?) {
        if nft::chain_text(&family, &table, &chain)?.is_some_and(|text| has_rules(&text)) {
            users.insert(format!("rules of {family} {table} {chain}"));
        }
    }
    if iptables::legacy("nat")?.is_some_and(|text| text.lines().any(|line| line.starts_with("-A "))) {
        users.insert("rules of iptables nat".to_owned());
    }
    users.extend(SETTINGS.iter().flat_map(|path| configured(Path::new(path))));
    Ok(users)
}

/// Others' base chains that translate forwarded IPv4 packets.
fn translators(chains: &Value) -> Vec<(String, String, String)> {
    let objects = chains.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let text =
        |chain: &Value, key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    objects
        .filter_map(|object| object.get("chain"))
        .filter(|chain| text(chain, "type") == "nat")
        .filter(|chain| ["prerouting", "postrouting"].contains(&text(chain, "hook").as_str()))
        .map(|chain| (text(chain, "family"), text(chain, "table"), text(chain, "name")))
        .filter(|(family, table, _)| ["ip", "inet"].contains(&family.as_str()) && table != OWN)
        .collect()
}

/// Every rule has a handle, and so have the heads of table and chain in some versions.
fn has_rules(text: &str) -> bool {
    text.lines().any(|line| line.contains("# handle ") && !line.contains("{ # handle "))
}

/// Files that switch forwarding on at the next boot.
fn configured(path: &Path) -> Vec<String> {
    if let Ok(entries) = fs::read_dir(path) {
        let files = entries.flatten().map(|entry| entry.path());
        let files = files.filter(|file| file.extension().is_some_and(|end| end == "conf") && file.is_file());
        return files.flat_map(|file| configured(&file)).collect();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    if text.lines().any(switches_on) { vec![path.display().to_string()] } else { Vec::new() }
}

fn switches_on(line: &str) -> bool {
    let Some((key, value)) = line.trim().trim_start_matches('-').split_once('=') else { return false };
    let key = key.trim().replace('/', ".");
    ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"].contains(&key.as_str()) && value.trim() == "1"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn chains_that_translate_forwarded_packets_are_others_and_have_rules() {
        let chain = |family: &str, table: &str, kind: &str, hook: &str| json!({ "chain": { "family": family, "table": table, "name": "c", "type": kind, "hook": hook } });
        let chains = json!({ "nftables": [
            { "metainfo": {} },
            chain("ip", "nat", "nat", "postrouting"),
            chain("ip", "nat", "nat", "output"),
            chain("ip", "filter", "filter", "forward"),
            chain("ip6", "nat", "nat", "postrouting"),
            chain("ip", "fanlight", "nat", "postrouting"),
        ] });
        assert_eq!(translators(&chains), [("ip".to_owned(), "nat".to_owned(), "c".to_owned())]);
        let empty = "table ip nat {\n\tchain c { # handle 2\n\t\ttype nat hook postrouting\n\t}\n}\n";
        assert!(!has_rules(empty));
        assert!(has_rules(&empty.replace("\t}\n}", "\t\tmasquerade # handle 3\n\t}\n}")));
    }

    #[test]
    fn a_setting_of_the_host_counts_in_all_its_spellings() {
        for line in
            ["net.ipv4.ip_forward=1", " -net/ipv4/ip_forward = 1 ", "net.ipv4.conf.all.forwarding = 1"]
        {
            assert!(switches_on(line), "{line}");
        }
        for line in ["#net.ipv4.ip_forward=1", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=1", ""]
        {
            assert!(!switches_on(line), "{line}");
        }
    }
}
