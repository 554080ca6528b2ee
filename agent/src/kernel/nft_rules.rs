//! The rules of others, from nf_tables itself. `nft -j` takes 8 s of processor time for 10,000 services of kube-proxy's,
//! and the kernel as long to list whole tables; single chains cost what they have.

use std::{collections::HashMap, io, rc::Rc};

use control::observed::filter::{Rule, Set};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::nft_expressions::{self, attribute, name, number};

/// `NFNL_SUBSYS_NFTABLES`, and `NFT_MSG_*`.
const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_ELEMENTS: u16 = 13;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bytes of `struct nlmsghdr` and of `struct nfgenmsg`.
const HEADER: usize = 16;
const FAMILY: usize = 4;
/// Bytes that the kernel fills at once at most, and some.
const BUFFER: usize = 1 << 16;

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
pub struct Ruleset(Socket);

impl Ruleset {
    const IPV4: u8 = 2;
    const INET: u8 = 1;

    /// Asks for it.
    ///
    /// # Errors
    /// The kernel has no nf_tables.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
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
        self.0.send(&request(kind, family, names), 0)?;
        let mut found = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.0.recv(&mut buffer, 0)?;
            if gather(&buffer, &mut found)? {
                return Ok(found);
            }
        }
    }
}

fn request(kind: u16, family: u8, names: &[&str]) -> Vec<u8> {
    let mut request = vec![0; HEADER + FAMILY];
    for (name, number) in names.iter().zip(1u16..) {
        let length = 4 + name.len() as u16 + 1;
        request.extend(length.to_ne_bytes());
        request.extend(number.to_ne_bytes());
        request.extend(name.as_bytes());
        request.push(0);
        request.resize(request.len().next_multiple_of(4), 0);
    }
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&(NFTABLES | kind).to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request[HEADER] = family;
    request
}

/// Takes the messages of one datagram; whether the answer ends in it.
fn gather(mut datagram: &[u8], found: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some(&[a, b, c, d, e, f, ..]) = datagram.get(..HEADER) {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(message) = datagram.get(HEADER..length) else {
            return Err(io::Error::other("malformed netlink answer"));
        };
        match u16::from_ne_bytes([e, f]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return match -code {
                    // The table, chain or set has gone since.
                    0 | libc::ENOENT => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code)),
                };
            }
            _ => found.push(message.to_vec()),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
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
