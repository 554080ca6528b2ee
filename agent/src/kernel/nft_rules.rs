//! Rules of packet filters, from nf_tables itself. `nft -j` takes 8 s of processor time for 10,000 services of kube-proxy's,
//! and the kernel as long to list whole tables; single chains cost what they have.

use std::{collections::HashMap, io, rc::Rc};

use control::filter::{Hook, Rule, Set, Table};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    netlink::messages::Requests,
    nft_expressions::{self, attribute, attributes as attributes_of, name, number},
};

/// `NFNL_SUBSYS_NFTABLES`, and `NFT_MSG_*`.
const NFTABLES: u16 = 10 << 8;
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_ELEMENTS: u16 = 13;
const GET_GENERATION: u16 = 16;
/// Bytes of `struct nfgenmsg`.
const FAMILY: usize = 4;

/// A chain that a hook leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    family: u8,
    /// Its table.
    pub table: Rc<str>,
    pub name: Rc<str>,
    priority: i32,
    hook: u32,
    is_nat: bool,
    /// Whether it drops what no rule takes.
    pub drops: bool,
    /// The devices that it is for; `None`: all, or none that is named.
    pub devices: Option<Vec<String>>,
}

impl BaseChain {
    /// The family's name.
    pub fn family(&self) -> &'static str {
        match self.family {
            Ruleset::INET => "inet",
            Ruleset::BRIDGE => "bridge",
            Ruleset::NETDEV => "netdev",
            _ => "ip",
        }
    }

    /// Whether its packets are those that a hook of the filter sees (`NF_INET_*`, `NF_BR_*`, `NF_NETDEV_*`).
    fn is_at(&self, hook: Hook) -> bool {
        match (self.family, self.hook) {
            (Ruleset::IPV4 | Ruleset::INET, 0) => hook == Hook::Prerouting,
            (Ruleset::IPV4 | Ruleset::INET, 1) => hook == Hook::Input,
            (Ruleset::IPV4 | Ruleset::INET, 2) => hook == Hook::Forward,
            (Ruleset::IPV4 | Ruleset::INET, 4) => hook == Hook::Postrouting,
            (Ruleset::BRIDGE, 0 | 1) => hook == Hook::FromPort,
            (Ruleset::BRIDGE, 3 | 4) => hook == Hook::ToPort,
            (Ruleset::NETDEV, 0) | (Ruleset::INET, 5) => hook == Hook::Ingress,
            (Ruleset::NETDEV, 1) => hook == Hook::Egress,
            _ => false,
        }
    }
}

/// The ruleset of the calling thread's network namespace.
pub struct Ruleset(Requests);

impl Ruleset {
    const IPV4: u8 = 2;
    const INET: u8 = 1;
    const NETDEV: u8 = 5;
    const BRIDGE: u8 = 7;

    /// Asks for it.
    ///
    /// # Errors
    /// The kernel has no nf_tables.
    pub fn open() -> io::Result<Self> {
        Requests::open(NETLINK_NETFILTER).map(Self)
    }

    /// The chains that translate packets of this host's processes, in the order in which they meet them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn output_translators(&self) -> io::Result<Vec<BaseChain>> {
        const NF_INET_LOCAL_OUT: u32 = 3;
        let is_ip = |chain: &BaseChain| [Self::IPV4, Self::INET].contains(&chain.family);
        self.chains(|chain| is_ip(chain) && chain.hook == NF_INET_LOCAL_OUT && chain.is_nat)
    }

    /// The chains of a hook that may drop packets, in the order in which packets meet them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn filters(&self, hook: Hook) -> io::Result<Vec<BaseChain>> {
        self.chains(|chain| chain.is_at(hook) && !chain.is_nat)
    }

    fn chains(&self, is_wanted: impl Fn(&BaseChain) -> bool) -> io::Result<Vec<BaseChain>> {
        let mut chains: Vec<_> =
            self.dump(GET_CHAIN, 0, &[])?.iter().filter_map(|message| base_chain(message)).collect();
        chains.retain(is_wanted);
        chains.sort_by_key(|chain| chain.priority);
        Ok(chains)
    }

    /// Whether there is an IPv4 table of a name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn has_table(&self, sought: &str) -> io::Result<bool> {
        const NAME: u16 = 1;
        let tables = self.dump(GET_TABLE, Self::IPV4, &[])?;
        Ok(tables.iter().any(|table| name(attributes(table), NAME).is_some_and(|found| &*found == sought)))
    }

    /// The comments of all rules in an IPv4 table, as `nft` writes them; `None` for a rule without one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn comments(&self, table: &str) -> io::Result<Vec<Option<String>>> {
        let rules = self.dump(GET_RULE, Self::IPV4, &[table])?;
        Ok(rules.iter().map(|rule| comment(attributes(rule))).collect())
    }

    /// A number that changes with every change of the ruleset.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn generation(&self) -> io::Result<u32> {
        const ID: u16 = 1;
        let id = |payload: &[u8]| number(attributes(payload), ID);
        let id = self.0.one(NFTABLES | GET_GENERATION, &request(0, &[]), |answer| Ok(id(answer.payload)))?;
        id.flatten().ok_or_else(|| io::Error::other("the kernel tells no generation of the ruleset"))
    }

    /// The table of a chain.
    pub fn table<'a>(&'a self, chain: &BaseChain) -> KernelTable<'a> {
        let (family, name) = (chain.family, Rc::clone(&chain.table));
        KernelTable { ruleset: self, family, name, chains: HashMap::new(), sets: HashMap::new() }
    }

    /// Messages from their `struct nfgenmsg` on, with these names as attributes 1, 2, ..
    fn dump(&self, kind: u16, family: u8, names: &[&str]) -> io::Result<Vec<Vec<u8>>> {
        let found = self.0.list(NFTABLES | kind, &request(family, names), |found: &mut Vec<_>, message| {
            found.push(message.payload.to_vec());
            Ok(())
        });
        match found {
            // The table, chain or set has gone since.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
            other => other,
        }
    }
}

/// A `struct nfgenmsg` and names.
fn request(family: u8, names: &[&str]) -> Vec<u8> {
    let mut request = vec![family, 0, 0, 0];
    for (name, number) in names.iter().zip(1u16..) {
        let length = 4 + name.len() as u16 + 1;
        request.extend(length.to_ne_bytes());
        request.extend(number.to_ne_bytes());
        request.extend(name.as_bytes());
        request.push(0);
        request.resize(request.len().next_multiple_of(4), 0);
    }
    request
}

/// The attributes of a message.
fn attributes(message: &[u8]) -> &[u8] {
    message.get(FAMILY..).unwrap_or_default()
}

/// A rule's comment: the element of this type in its user data, whose type and length take a byte each.
fn comment(rule: &[u8]) -> Option<String> {
    const USER_DATA: u16 = 7;
    const COMMENT: u8 = 0;
    let mut rest = attribute(rule, USER_DATA)?;
    while let [kind, length, following @ ..] = rest {
        let (value, after) = following.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = after;
    }
    None
}

fn base_chain(message: &[u8]) -> Option<BaseChain> {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const KIND: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const PRIORITY: u16 = 2;
    const NF_DROP: u32 = 0;
    let family = *message.first()?;
    let chain = attributes(message);
    let hook = attribute(chain, HOOK)?;
    let families = [Ruleset::IPV4, Ruleset::INET, Ruleset::BRIDGE, Ruleset::NETDEV];
    families.contains(&family).then_some(())?;
    Some(BaseChain {
        family,
        table: name(chain, TABLE)?,
        name: name(chain, NAME)?,
        priority: number(hook, PRIORITY)?.cast_signed(),
        hook: number(hook, HOOK_NUMBER)?,
        is_nat: &*name(chain, KIND)? == "nat",
        drops: number(chain, POLICY) == Some(NF_DROP),
        devices: devices(hook),
    })
}

/// The devices of a hook: `NFTA_HOOK_DEV`, or those of `NFTA_HOOK_DEVS`.
fn devices(hook: &[u8]) -> Option<Vec<String>> {
    const DEVICE: u16 = 3;
    const DEVICES: u16 = 4;
    let text = |value: &[u8]| String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned();
    let one = attribute(hook, DEVICE).map(text);
    let several = attribute(hook, DEVICES).map(attributes_of);
    let all: Vec<String> =
        one.into_iter().chain(several.into_iter().flatten().map(|(_, value)| text(value))).collect();
    (!all.is_empty()).then_some(all)
}

/// A table whose chains and sets are asked for once each.
pub struct KernelTable<'a> {
    ruleset: &'a Ruleset,
    family: u8,
    name: Rc<str>,
    chains: HashMap<String, Rc<[Rule]>>,
    sets: HashMap<String, Rc<Set>>,
}

impl Table for KernelTable<'_> {
    fn chain(&mut self, name: &str) -> io::Result<Rc<[Rule]>> {
        if let Some(chain) = self.chains.get(name) {
            return Ok(Rc::clone(chain));
        }
        let messages = self.ruleset.dump(GET_RULE, self.family, &[&self.name, name])?;
        let rules: Rc<[Rule]> =
            messages.iter().filter_map(|message| nft_expressions::rule(attributes(message))).collect();
        self.chains.insert(name.to_owned(), Rc::clone(&rules));
        Ok(rules)
    }

    fn set(&mut self, name: &str) -> io::Result<Rc<Set>> {
        if let Some(set) = self.sets.get(name) {
            return Ok(Rc::clone(set));
        }
        let messages = self.ruleset.dump(GET_ELEMENTS, self.family, &[&self.name, name])?;
        let set = Rc::new(nft_expressions::set(messages.iter().map(|message| attributes(message))));
        self.sets.insert(name.to_owned(), Rc::clone(&set));
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute of a rule with this user data.
    fn rule(data: &[u8]) -> Vec<u8> {
        let mut rule = (4 + data.len() as u16).to_ne_bytes().to_vec();
        rule.extend(7u16.to_ne_bytes());
        rule.extend(data);
        rule.resize(rule.len().next_multiple_of(4), 0);
        rule
    }

    #[test]
    fn a_comment_is_found_behind_other_user_data() {
        assert_eq!(comment(&rule(b"\x00\x03ab\0")).as_deref(), Some("ab"));
        assert_eq!(comment(&rule(b"\x01\x02xy\x00\x03ab\0")).as_deref(), Some("ab"));
        assert_eq!(comment(&rule(b"\x01\x02xy")), None);
        assert_eq!(comment(&rule(b"\x00\x09ab")), None, "longer than what is there");
        assert_eq!(comment(&[]), None);
    }
}
