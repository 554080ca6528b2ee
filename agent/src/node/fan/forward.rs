//! Foreign forward chains that drop what they don't know, and with it the slow path.

use std::fmt;

use serde_json::Value;

use super::{HELPER, error::Fault};
use crate::kernel::{iptables, nft};

/// Chain that Docker leaves to the operator.
const DOCKER_USER: &str = "DOCKER-USER";

/// A foreign chain drops forwarded packets by policy, and nothing in it mentions our devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardBlocked {
    /// The chains, as `ip filter FORWARD`.
    pub chains: Vec<String>,
    /// Our devices: the helper device and the bridges.
    pub devices: Vec<String>,
}

impl fmt::Display for ForwardBlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = format!("{{ {} }}", self.devices.join(", "));
        write!(f, "forward-blocked: {} drops forwarded packets; add", self.chains.join(", "))?;
        for chain in &self.chains {
            let rule = |side| format!("`nft insert rule {chain} {side} {devices} accept`");
            write!(f, " {} {}", rule("iifname"), rule("oifname"))?;
        }
        Ok(())
    }
}

/// Whether a foreign chain drops the slow path's packets. Where Docker's chain for operators is there, accept rules
/// for our devices are added to it, marked, and that counts as not blocked.
pub(super) fn check(bridges: &[String]) -> Result<Option<ForwardBlocked>, Fault> {
    let chains = nft::chains()?;
    let dropping = dropping(&chains);
    if dropping.is_empty() {
        return Ok(None);
    }
    let docker = has_chain(&chains, DOCKER_USER) && iptables::is_installed();
    if docker {
        for rule in rules(bridges) {
            iptables::ensure_first(DOCKER_USER, &rule)?;
        }
    }
    let mut blocked = Vec::new();
    for Chain { family, table, name } in dropping {
        if docker && table == "filter" && name == "FORWARD" {
            continue;
        }
        let text = nft::chain_text(&family, &table, &name)?.unwrap_or_default();
        if !text.contains(HELPER) {
            blocked.push(format!("{family} {table} {name}"));
        }
    }
    let devices = std::iter::once(HELPER.to_owned()).chain(bridges.iter().cloned()).collect();
    Ok((!blocked.is_empty()).then_some(ForwardBlocked { chains: blocked, devices }))
}

/// Removes what [`check`] added to Docker's chain.
pub(super) fn undo(bridges: &[String]) -> Result<(), Fault> {
    if iptables::is_installed() && has_chain(&nft::chains()?, DOCKER_USER) {
        for rule in rules(bridges) {
            iptables::remove(DOCKER_USER, &rule)?;
        }
    }
    Ok(())
}

/// The slow path both ways, and egress with its answers.
fn rules(bridges: &[String]) -> Vec<Vec<String>> {
    let rule = |words: &[&str]| {
        let mark = ["-m", "comment", "--comment", "fanlight", "-j", "ACCEPT"];
        words.iter().chain(&mark).map(ToString::to_string).collect()
    };
    let mut rules = vec![rule(&["-i", HELPER]), rule(&["-o", HELPER])];
    for bridge in bridges {
        rules.push(rule(&["-i", bridge]));
        rules.push(rule(&["-o", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]));
    }
    rules
}

struct Chain {
    family: String,
    table: String,
    name: String,
}

/// Base chains of others that forwarded IPv4 packets meet and that drop what no rule accepts.
fn dropping(chains: &Value) -> Vec<Chain> {
    let text =
        |chain: &Value, key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    each(chains)
        .filter(|chain| text(chain, "hook") == "forward" && text(chain, "policy") == "drop")
        .map(|chain| Chain {
            family: text(chain, "family"),
            table: text(chain, "table"),
            name: text(chain, "name"),
        })
        .filter(|chain| ["ip", "inet"].contains(&chain.family.as_str()) && chain.table != "fanlight")
        .collect()
}

fn has_chain(chains: &Value, name: &str) -> bool {
    each(chains).any(|chain| chain.get("name").and_then(Value::as_str) == Some(name))
}

fn each(chains: &Value) -> impl Iterator<Item = &Value> {
    let objects = chains.get("nftables").and_then(Value::as_array).into_iter().flatten();
    objects.filter_map(|object| object.get("chain"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_foreign_ipv4_forward_chains_with_policy_drop_count() {
        let chain = |family: &str, table: &str, name: &str, hook: &str, policy: &str| json!({ "chain": { "family": family, "table": table, "name": name, "hook": hook, "policy": policy } });
        let chains = json!({ "nftables": [
            { "metainfo": {} },
            chain("ip", "filter", "FORWARD", "forward", "drop"),
            chain("inet", "firewalld", "fwd", "forward", "accept"),
            chain("ip6", "filter", "FORWARD", "forward", "drop"),
            chain("ip", "filter", "INPUT", "input", "drop"),
            chain("ip", "fanlight", "forward", "forward", "drop"),
            { "chain": { "family": "ip", "table": "filter", "name": "DOCKER-USER" } },
        ] });
        let found: Vec<_> = dropping(&chains).into_iter().map(|chain| chain.name).collect();
        assert_eq!(found, ["FORWARD"]);
        assert!(has_chain(&chains, DOCKER_USER));
        assert!(dropping(&Value::Null).is_empty());
    }

    #[test]
    fn the_reason_names_the_rules_to_add() {
        let devices = vec![HELPER.to_owned(), "fan-250-0-28".to_owned()];
        let reason = ForwardBlocked { chains: vec!["ip filter FORWARD".to_owned()], devices }.to_string();
        assert!(reason.starts_with("forward-blocked: "), "{reason}");
        assert!(
            reason.contains("`nft insert rule ip filter FORWARD iifname { fanlight0, fan-250-0-28 } accept`"),
            "{reason}"
        );
    }
}
