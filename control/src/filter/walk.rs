//! The way of packets through a packet filter's chains, all of them at once.

use std::{collections::HashMap, io, rc::Rc};

use super::{Action, Field, Fit, Key, Packets, Rule, Set, Verdict};

/// Chains within chains that the kernel follows (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// Kinds of packets after which no more are looked for: a chain and a set for each of 10,000 would take seconds.
pub const ENOUGH: usize = 256;

/// A table, whose chains and sets are read as they are come to.
pub trait Table {
    /// The rules of a chain; none where there is no such chain.
    ///
    /// # Errors
    /// It can't be read.
    fn chain(&mut self, name: &str) -> io::Result<Rc<[Rule]>>;

    /// A set or map; an empty one where there is none.
    ///
    /// # Errors
    /// It can't be read.
    fn set(&mut self, name: &str) -> io::Result<Rc<Set>>;
}

/// The chain that a hook leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base<'a> {
    pub name: &'a str,
    /// Whether it drops what no rule takes.
    pub drops: bool,
}

/// Packets that a rule or a policy drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Their number.
    pub packet: usize,
    /// The chain.
    pub chain: Rc<str>,
    /// Whether all of them are.
    pub is_whole: bool,
    /// The only destination that the rule names.
    pub address: Option<u32>,
}

/// Follows packets from a hook's chain on. Gives those whose destination certainly becomes another, and the chain to
/// name: the one that the last rule about their address led to, or whose rule it is that translates.
///
/// # Errors
/// The table can't be read.
pub fn translated(
    packets: &Packets,
    table: &mut impl Table,
    chain: &str,
) -> io::Result<Vec<(usize, Rc<str>)>> {
    let mut walk = Walk::new(packets, table, Wanted::Translated);
    walk.start(chain)?;
    Ok(walk.translated)
}

/// Follows packets from a hook's chain on. Gives those that are certainly dropped.
///
/// # Errors
/// The table can't be read.
pub fn dropped(packets: &Packets, table: &mut impl Table, base: Base<'_>) -> io::Result<Vec<Dropped>> {
    let mut walk = Walk::new(packets, table, Wanted::Dropped);
    walk.start(base.name)?;
    if base.drops {
        for packet in 0..packets.all().len() {
            if !walk.ended[packet] && !walk.doubtful[packet] {
                let chain = base.name.into();
                walk.dropped.push(Dropped { packet, chain, is_whole: true, address: None });
            }
        }
    }
    Ok(walk.dropped)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Translated,
    Dropped,
}

/// Packets that came to a chain or rule.
#[derive(Clone, Copy, Debug)]
struct Hit {
    packet: usize,
    /// All of that kind.
    is_whole: bool,
}

/// Where packets are.
struct Way {
    chain: Rc<str>,
    /// The chain that a rule about their address led to.
    via: Option<Rc<str>>,
    depth: usize,
}

impl Way {
    fn to(&self, chain: &Rc<str>, by_address: bool) -> Self {
        let via = if by_address { Some(Rc::clone(chain)) } else { self.via.clone() };
        Self { chain: Rc::clone(chain), via, depth: self.depth + 1 }
    }

    fn name(&self, by_address: bool) -> Rc<str> {
        Rc::clone(self.via.as_ref().filter(|_| !by_address).unwrap_or(&self.chain))
    }
}

struct Walk<'a, T> {
    packets: &'a Packets,
    table: &'a mut T,
    wanted: Wanted,
    /// Packets that pass the rest of the hook's chain by.
    ended: Vec<bool>,
    /// Packets that a rule may have let pass which asks for what is not known.
    doubtful: Vec<bool>,
    translated: Vec<(usize, Rc<str>)>,
    dropped: Vec<Dropped>,
}

impl<'a, T: Table> Walk<'a, T> {
    fn new(packets: &'a Packets, table: &'a mut T, wanted: Wanted) -> Self {
        let none = || vec![false; packets.all().len()];
        let (ended, doubtful) = (none(), none());
        Self { packets, table, wanted, ended, doubtful, translated: Vec::new(), dropped: Vec::new() }
    }

    fn start(&mut self, chain: &str) -> io::Result<()> {
        let all = (0..self.packets.all().len()).map(|packet| Hit { packet, is_whole: true }).collect();
        self.follow(&Way { chain: chain.into(), via: None, depth: 0 }, all)
    }

    fn has_enough(&self) -> bool {
        self.translated.len().max(self.dropped.len()) >= ENOUGH
    }

    fn follow(&mut self, way: &Way, mut within: Vec<Hit>) -> io::Result<()> {
        if way.depth > DEPTH {
            return Ok(());
        }
        for rule in self.table.chain(&way.chain)?.iter() {
            if self.has_enough() {
                break;
            }
            let hits = self.hits(rule, &within)?;
            if hits.is_empty() {
                continue;
            }
            let left = self.act(way, rule, &hits)?;
            if !left.is_empty() {
                within.retain(|hit| left.binary_search(&hit.packet).is_err());
            }
        }
        Ok(())
    }

    /// The packets that a rule certainly takes.
    fn hits(&mut self, rule: &Rule, within: &[Hit]) -> io::Result<Vec<Hit>> {
        let mut hits = Vec::new();
        let only = rule.tests.iter().find_map(|test| test.only_address());
        let Some(address) = only else {
            for &hit in within {
                hits.extend(self.hit(rule, hit)?);
            }
            return Ok(hits);
        };
        let packets = self.packets;
        for packet in packets.at(address) {
            if let Ok(place) = within.binary_search_by_key(&packet, |hit| hit.packet) {
                hits.extend(self.hit(rule, within[place])?);
            }
        }
        hits.sort_unstable_by_key(|hit| hit.packet);
        Ok(hits)
    }

    fn hit(&mut self, rule: &Rule, hit: Hit) -> io::Result<Option<Hit>> {
        if self.ended[hit.packet] {
            return Ok(None);
        }
        let packet = &self.packets.all()[hit.packet];
        let (mut known, mut is_certain) = (Fit::Yes, true);
        for test in &rule.tests {
            match test.fit(packet, &mut |name| self.table.set(name))? {
                Fit::No => return Ok(None),
                Fit::Unknown => is_certain = false,
                fit => known = known.min(fit),
            }
        }
        if is_certain {
            return Ok(Some(Hit { packet: hit.packet, is_whole: hit.is_whole && known == Fit::Yes }));
        }
        if known == Fit::Yes && rule.action.may_save() {
            self.doubtful[hit.packet] = true;
        }
        Ok(None)
    }

    /// Does what a rule does; gives the packets that don't come to the next.
    fn act(&mut self, way: &Way, rule: &Rule, hits: &[Hit]) -> io::Result<Vec<usize>> {
        let by_address = rule.tests.iter().any(|test| test.names_addresses());
        match &rule.action {
            Action::Translate => {
                let name = way.name(by_address);
                for hit in hits.iter().filter(|_| self.wanted == Wanted::Translated) {
                    self.ended[hit.packet] = true;
                    self.translated.push((hit.packet, Rc::clone(&name)));
                }
                Ok(Vec::new())
            }
            Action::Verdict(Verdict::Drop) => {
                let address = rule.tests.iter().find_map(|test| test.only_address());
                self.drop(way, hits, address);
                Ok(Vec::new())
            }
            Action::Verdict(verdict) => self.send(way, verdict, by_address, hits),
            Action::Map(key, name) => self.look_up(way, key, name, by_address, hits),
            Action::Spread(name) => {
                for verdict in self.table.set(name)?.verdicts() {
                    // Some packets go each of these ways: what one of them translates is translated.
                    if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
                        self.follow(&way.to(chain, by_address), hits.to_vec())?;
                    }
                }
                Ok(Vec::new())
            }
        }
    }

    /// Sends packets where a map says.
    fn look_up(
        &mut self,
        way: &Way,
        key: &Key,
        name: &str,
        by_address: bool,
        hits: &[Hit],
    ) -> io::Result<Vec<usize>> {
        let set = self.table.set(name)?;
        // In one order at every look.
        let mut groups: Vec<(&Verdict, Vec<Hit>)> = Vec::new();
        let mut places: HashMap<&Verdict, usize> = HashMap::new();
        for &Hit { packet, is_whole } in hits {
            let (fit, verdict) = set.find(key, &self.packets.all()[packet]);
            if fit == Fit::Unknown {
                self.doubtful[packet] = true;
            }
            let Some(verdict) = verdict.filter(|_| fit >= Fit::Part) else { continue };
            let place = *places.entry(verdict).or_insert(groups.len());
            if place == groups.len() {
                groups.push((verdict, Vec::new()));
            }
            groups[place].1.push(Hit { packet, is_whole: is_whole && fit == Fit::Yes });
        }
        let by_address = by_address || key.contains(&Some(Field::Address));
        let mut left = Vec::new();
        for (verdict, hits) in groups {
            if self.has_enough() {
                break;
            }
            left.extend(self.send(way, verdict, by_address, &hits)?);
        }
        left.sort_unstable();
        Ok(left)
    }

    fn send(
        &mut self,
        way: &Way,
        verdict: &Verdict,
        by_address: bool,
        hits: &[Hit],
    ) -> io::Result<Vec<usize>> {
        let whole = || hits.iter().filter(|hit| hit.is_whole).map(|hit| hit.packet);
        if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
            self.follow(&way.to(chain, by_address), hits.to_vec())?;
        }
        match verdict {
            Verdict::Continue | Verdict::Jump(_) => Ok(Vec::new()),
            Verdict::Accept => {
                whole().for_each(|packet| self.ended[packet] = true);
                Ok(Vec::new())
            }
            Verdict::Drop => {
                self.drop(way, hits, None);
                Ok(Vec::new())
            }
            Verdict::Return | Verdict::Goto(_) => Ok(whole().collect()),
        }
    }

    fn drop(&mut self, way: &Way, hits: &[Hit], address: Option<u32>) {
        for &Hit { packet, is_whole } in hits {
            if self.wanted == Wanted::Dropped && !self.doubtful[packet] {
                self.dropped.push(Dropped { packet, chain: Rc::clone(&way.chain), is_whole, address });
            }
            self.ended[packet] |= is_whole;
        }
    }
}

#[cfg(test)]
mod tests;
