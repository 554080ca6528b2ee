//! The way of packets through a packet filter's chains, all of them at once.

use std::{collections::HashMap, io, rc::Rc};

use super::{Action, Fit, Key, Packets, Rule, Set, Test, Verdict};

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
    /// Rules on the way there ask for certain addresses or devices: it is about these packets, and not about all that are left.
    pub is_named: bool,
    /// The rule takes them from all devices but one.
    pub is_from_elsewhere: bool,
}

impl Dropped {
    fn by_policy(packet: usize, base: Base<'_>) -> Self {
        let chain = base.name.into();
        Self { packet, chain, is_whole: true, address: None, is_named: false, is_from_elsewhere: false }
    }
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
                walk.dropped.push(Dropped::by_policy(packet, base));
            }
        }
    }
    Ok(walk.dropped)
}

/// Follows packets from a hook's chain on. Gives those of which some may be dropped while others pass, and those whose ends a
/// rule names that drops all of them; a chain that lets nothing pass because nobody has thought of them is no filter of them. A
/// rule that asks for what is not known may take them.
///
/// # Errors
/// The table can't be read.
pub fn filtered(packets: &Packets, table: &mut impl Table, base: Base<'_>) -> io::Result<Vec<Dropped>> {
    let mut walk = Walk::new(packets, table, Wanted::Filtered);
    walk.start(base.name)?;
    let Walk { dropped: mut found, saved, ended, .. } = walk;
    found.retain(|found| !found.is_whole || found.is_named || saved[found.packet]);
    if base.drops {
        let left = (0..packets.all().len()).filter(|&packet| saved[packet] && !ended[packet]);
        found.extend(left.map(|packet| Dropped::by_policy(packet, base)));
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Translated,
    Dropped,
    Filtered,
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
    /// Rules that led here ask for certain addresses or devices.
    is_named: bool,
    depth: usize,
}

impl Way {
    fn to(&self, chain: &Rc<str>, by: By) -> Self {
        let via = if by.address { Some(Rc::clone(chain)) } else { self.via.clone() };
        Self { chain: Rc::clone(chain), via, is_named: self.is_named || by.ends, depth: self.depth + 1 }
    }

    fn name(&self, by_address: bool) -> Rc<str> {
        Rc::clone(self.via.as_ref().filter(|_| !by_address).unwrap_or(&self.chain))
    }
}

/// What a rule asks for.
#[derive(Clone, Copy)]
struct By {
    /// Destinations.
    address: bool,
    /// Certain addresses or devices.
    ends: bool,
}

impl By {
    fn of(rule: &Rule) -> Self {
        Self {
            address: rule.tests.iter().any(Test::names_addresses),
            ends: rule.tests.iter().any(Test::names_ends),
        }
    }

    fn and_key(self, key: &Key) -> Self {
        let test = Test::InSet { key: key.clone(), set: "".into(), not: false };
        Self { address: self.address || test.names_addresses(), ends: self.ends || test.names_ends() }
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
    /// Packets of which a rule lets some pass that asks for their addresses or devices.
    saved: Vec<bool>,
    translated: Vec<(usize, Rc<str>)>,
    dropped: Vec<Dropped>,
}

impl<'a, T: Table> Walk<'a, T> {
    fn new(packets: &'a Packets, table: &'a mut T, wanted: Wanted) -> Self {
        let none = || vec![false; packets.all().len()];
        let (ended, doubtful, saved) = (none(), none(), none());
        let (translated, dropped) = (Vec::new(), Vec::new());
        Self { packets, table, wanted, ended, doubtful, saved, translated, dropped }
    }

    fn start(&mut self, chain: &str) -> io::Result<()> {
        let all = (0..self.packets.all().len()).map(|packet| Hit { packet, is_whole: true }).collect();
        self.follow(&Way { chain: chain.into(), via: None, is_named: false, depth: 0 }, all)
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

    /// The packets that a rule certainly takes; for [`filtered`] those that it may take.
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
        if is_certain || self.wanted == Wanted::Filtered {
            let is_whole = hit.is_whole && is_certain && known == Fit::Yes;
            return Ok(Some(Hit { packet: hit.packet, is_whole }));
        }
        if known == Fit::Yes && rule.action.may_save() {
            self.doubtful[hit.packet] = true;
        }
        Ok(None)
    }

    /// Does what a rule does; gives the packets that don't come to the next.
    fn act(&mut self, way: &Way, rule: &Rule, hits: &[Hit]) -> io::Result<Vec<usize>> {
        let by = By::of(rule);
        match &rule.action {
            Action::Translate => {
                let name = way.name(by.address);
                for hit in hits.iter().filter(|_| self.wanted == Wanted::Translated) {
                    self.ended[hit.packet] = true;
                    self.translated.push((hit.packet, Rc::clone(&name)));
                }
                Ok(Vec::new())
            }
            Action::Verdict(Verdict::Drop) => {
                self.drop(way, by, hits, Some(rule));
                Ok(Vec::new())
            }
            Action::Verdict(verdict) => self.send(way, verdict, by, hits),
            Action::Map(key, name) => self.look_up(way, key, name, by, hits),
            Action::Spread(name) => {
                let some: Vec<Hit> = hits.iter().map(|&hit| Hit { is_whole: false, ..hit }).collect();
                for verdict in self.table.set(name)?.verdicts() {
                    // Some packets go each of these ways: what one of them translates is translated.
                    match verdict {
                        Verdict::Jump(chain) | Verdict::Goto(chain) => {
                            self.follow(&way.to(chain, by), hits.to_vec())?;
                        }
                        Verdict::Drop if self.wanted == Wanted::Filtered => self.drop(way, by, &some, None),
                        _ => {}
                    }
                }
                Ok(Vec::new())
            }
        }
    }

    /// Sends packets where a map says.
    fn look_up(&mut self, way: &Way, key: &Key, name: &str, by: By, hits: &[Hit]) -> io::Result<Vec<usize>> {
        let set = self.table.set(name)?;
        // In one order at every look.
        let mut groups: Vec<(&Verdict, Vec<Hit>)> = Vec::new();
        let mut places: HashMap<&Verdict, usize> = HashMap::new();
        for &Hit { packet, is_whole } in hits {
            for (fit, verdict) in self.found(&set, key, packet) {
                let place = *places.entry(verdict).or_insert(groups.len());
                if place == groups.len() {
                    groups.push((verdict, Vec::new()));
                }
                let hits = &mut groups[place].1;
                // Several elements may lead one way.
                if hits.last().is_none_or(|last: &Hit| last.packet != packet) {
                    hits.push(Hit { packet, is_whole: is_whole && fit == Fit::Yes });
                }
            }
        }
        let by = by.and_key(key);
        let mut left = Vec::new();
        for (verdict, hits) in groups {
            if self.has_enough() {
                break;
            }
            left.extend(self.send(way, verdict, by, &hits)?);
        }
        left.sort_unstable();
        Ok(left)
    }

    /// What a map certainly says of packets; for [`filtered`] all that it may say.
    fn found<'s>(&mut self, set: &'s Set, key: &Key, packet: usize) -> Vec<(Fit, &'s Verdict)> {
        let packets = &self.packets.all()[packet];
        if self.wanted == Wanted::Filtered {
            return set.may_fit(key, packets).collect();
        }
        let (fit, verdict) = set.find(key, packets);
        if fit == Fit::Unknown {
            self.doubtful[packet] = true;
        }
        verdict.filter(|_| fit >= Fit::Part).map(|verdict| (fit, verdict)).into_iter().collect()
    }

    fn send(&mut self, way: &Way, verdict: &Verdict, by: By, hits: &[Hit]) -> io::Result<Vec<usize>> {
        let whole = || hits.iter().filter(|hit| hit.is_whole).map(|hit| hit.packet);
        if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
            self.follow(&way.to(chain, by), hits.to_vec())?;
        }
        match verdict {
            Verdict::Continue | Verdict::Jump(_) => Ok(Vec::new()),
            Verdict::Accept => {
                whole().for_each(|packet| self.ended[packet] = true);
                if (way.is_named || by.ends) && !is_dockers(&way.chain) {
                    hits.iter().for_each(|hit| self.saved[hit.packet] = true);
                }
                Ok(Vec::new())
            }
            Verdict::Drop => {
                self.drop(way, by, hits, None);
                Ok(Vec::new())
            }
            Verdict::Return | Verdict::Goto(_) => Ok(whole().collect()),
        }
    }

    fn drop(&mut self, way: &Way, by: By, hits: &[Hit], rule: Option<&Rule>) {
        let mut tests = rule.into_iter().flat_map(|rule| &rule.tests);
        let address = tests.clone().find_map(Test::only_address);
        let is_from_elsewhere = tests.any(Test::is_from_elsewhere);
        let is_named = way.is_named || by.ends;
        for &Hit { packet, is_whole } in hits {
            let is_wanted = match self.wanted {
                Wanted::Translated => false,
                Wanted::Dropped => !self.doubtful[packet],
                Wanted::Filtered => true,
            };
            if is_wanted {
                let chain = Rc::clone(&way.chain);
                self.dropped.push(Dropped { packet, chain, is_whole, address, is_named, is_from_elsewhere });
            }
            self.ended[packet] |= is_whole;
        }
    }
}

/// Whether a chain is one of Docker's, and not the one that it leaves to the operator.
pub(super) fn is_dockers(chain: &str) -> bool {
    chain.starts_with("DOCKER") && chain != "DOCKER-USER"
}

#[cfg(test)]
mod tests;
