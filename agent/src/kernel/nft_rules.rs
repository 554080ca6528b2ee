//! The rules of others, from nf_tables itself. `nft -j` takes 8 s of processor time for 10,000 services of kube-proxy's,
//! and the kernel as long to list whole tables; single chains cost what they have.

use std::{collections::HashMap, io, rc::Rc};

use control::observed::filter::{Rule, Set};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    netlink::messages::Requests,
    nft_expressions::{self, attribute, name, number},
};

/// `NFNL_SUBSYS_NFTABLES`, and `NFT_MSG_*`.
const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_ELEMENTS: u16 = 13;
/// Bytes of `struct nfgenmsg`.
const FAMILY: usize = 4;

/// A chain that a hook leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    family: u8,
    /// Its table.
    pub table: Rc<str>,
    /// Its name.
    pub name: Rc<str>,
    priority: i32,
}

impl BaseChain {
    /// The family's name.
    pub fn family(&self) -> &'static str {
        if self.family == Ruleset::INET { "inet" } else { "ip" }
    }
}

/// The ruleset of the calling thread's network namespace.
pub struct Ruleset(Requests);

impl Ruleset {
    const IPV4: u8 = 2;
    const INET: u8 = 1;

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
        let mut chains: Vec<_> =
            self.dump(GET_CHAIN, 0, &[])?.iter().filter_map(|message| base_chain(message)).collect();
        chains.sort_by_key(|chain| chain.priority);
        Ok(chains)
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

fn base_chain(message: &[u8]) -> Option<BaseChain> {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const KIND: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const PRIORITY: u16 = 2;
    const NF_INET_LOCAL_OUT: u32 = 3;
    let family = *message.first()?;
    let chain = attributes(message);
    let hook = attribute(chain, HOOK)?;
    let translates = [Ruleset::IPV4, Ruleset::INET].contains(&family)
        && number(hook, HOOK_NUMBER) == Some(NF_INET_LOCAL_OUT)
        && name(chain, KIND)?.as_ref() == "nat";
    let priority = number(hook, PRIORITY)?.cast_signed();
    translates.then_some(BaseChain { family, table: name(chain, TABLE)?, name: name(chain, NAME)?, priority })
}

/// A table whose chains and sets are asked for once each.
pub struct KernelTable<'a> {
    ruleset: &'a Ruleset,
    family: u8,
    name: Rc<str>,
    chains: HashMap<String, Rc<[Rule]>>,
    sets: HashMap<String, Rc<Set>>,
}

impl KernelTable<'_> {
    /// The rules of a chain; none where there is no such chain.
    ///
    /// # Errors
    /// It can't be read.
    pub fn chain(&mut self, name: &str) -> io::Result<Rc<[Rule]>> {
        if let Some(chain) = self.chains.get(name) {
            return Ok(Rc::clone(chain));
        }
        let messages = self.ruleset.dump(GET_RULE, self.family, &[&self.name, name])?;
        let rules: Rc<[Rule]> =
            messages.iter().filter_map(|message| nft_expressions::rule(attributes(message))).collect();
        self.chains.insert(name.to_owned(), Rc::clone(&rules));
        Ok(rules)
    }

    /// A set or map; an empty one where there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn set(&mut self, name: &str) -> io::Result<Rc<Set>> {
        if let Some(set) = self.sets.get(name) {
            return Ok(Rc::clone(set));
        }
        let messages = self.ruleset.dump(GET_ELEMENTS, self.family, &[&self.name, name])?;
        let set = Rc::new(nft_expressions::set(messages.iter().map(|message| attributes(message))));
        self.sets.insert(name.to_owned(), Rc::clone(&set));
        Ok(set)
    }
}
