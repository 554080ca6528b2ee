//! The way of first packets to VIPs through a packet filter's chains, all VIPs at once.

use std::{collections::HashMap, io, rc::Rc};

use control::observed::filter::{Action, Field, Fit, Key, Rule, Set, Verdict};

use super::Vips;
use crate::kernel::nft_rules::KernelTable;

/// Chains within chains that the kernel follows (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// Translated VIPs after which no more are looked for: a chain and a set for each of 10,000 would take seconds.
pub(super) const ENOUGH: usize = 256;

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

impl Table for KernelTable<'_> {
    fn chain(&mut self, name: &str) -> io::Result<Rc<[Rule]>> {
        KernelTable::chain(self, name)
    }

    fn set(&mut self, name: &str) -> io::Result<Rc<Set>> {
        KernelTable::set(self, name)
    }
}

/// Follows packets to VIPs from a hook's chain on. Gives those that are certainly translated, and the chain to name: the
/// one that the last rule about their address led to, or whose rule it is that translates.
///
/// # Errors
/// The table can't be read.
pub fn walk(vips: &Vips<'_>, table: &mut impl Table, chain: &str) -> io::Result<Vec<(usize, Rc<str>)>> {
    let mut walk = Walk { vips, table, ended: vec![false; vips.len()], found: Vec::new() };
    let all = (0..vips.len()).map(|vip| Hit { vip, is_whole: true }).collect();
    walk.follow(&Way { chain: chain.into(), via: None, depth: 0 }, all)?;
    Ok(walk.found)
}

/// A VIP whose packets came to a chain or rule.
#[derive(Clone, Copy, Debug)]
struct Hit {
    vip: usize,
    /// Those to all of its ports.
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
    vips: &'a Vips<'a>,
    table: &'a mut T,
    /// Packets that pass the rest of the hook's chain by.
    ended: Vec<bool>,
    found: Vec<(usize, Rc<str>)>,
}

impl<T: Table> Walk<'_, T> {
    fn follow(&mut self, way: &Way, mut within: Vec<Hit>) -> io::Result<()> {
        if way.depth > DEPTH {
            return Ok(());
        }
        for rule in self.table.chain(&way.chain)?.iter() {
            if self.found.len() >= ENOUGH {
                break;
            }
            let hits = self.hits(rule, &within)?;
            if hits.is_empty() {
                continue;
            }
            let left = self.act(way, rule, &hits)?;
            if !left.is_empty() {
                within.retain(|hit| left.binary_search(&hit.vip).is_err());
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
        let vips = self.vips;
        for vip in vips.at(address) {
            if let Ok(place) = within.binary_search_by_key(vip, |hit| hit.vip) {
                hits.extend(self.hit(rule, within[place])?);
            }
        }
        Ok(hits)
    }

    fn hit(&mut self, rule: &Rule, hit: Hit) -> io::Result<Option<Hit>> {
        if self.ended[hit.vip] {
            return Ok(None);
        }
        let subject = &self.vips.subjects[hit.vip];
        let mut whole = Fit::Yes;
        for test in &rule.tests {
            whole = whole.min(test.fit(subject, &mut |name| self.table.set(name))?);
            if whole < Fit::Part {
                return Ok(None);
            }
        }
        Ok(Some(Hit { vip: hit.vip, is_whole: hit.is_whole && whole == Fit::Yes }))
    }

    /// Does what a rule does; gives the VIPs whose packets don't come to the next.
    fn act(&mut self, way: &Way, rule: &Rule, hits: &[Hit]) -> io::Result<Vec<usize>> {
        let by_address = rule.tests.iter().any(|test| test.names_addresses());
        match &rule.action {
            Action::Translate => {
                let name = way.name(by_address);
                for hit in hits {
                    self.ended[hit.vip] = true;
                    self.found.push((hit.vip, Rc::clone(&name)));
                }
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
        for &Hit { vip, is_whole } in hits {
            let (fit, verdict) = set.find(key, &self.vips.subjects[vip]);
            let Some(verdict) = verdict.filter(|_| fit >= Fit::Part) else { continue };
            let place = *places.entry(verdict).or_insert(groups.len());
            if place == groups.len() {
                groups.push((verdict, Vec::new()));
            }
            groups[place].1.push(Hit { vip, is_whole: is_whole && fit == Fit::Yes });
        }
        let by_address = by_address || key.contains(&Some(Field::Address));
        let mut left = Vec::new();
        for (verdict, hits) in groups {
            if self.found.len() >= ENOUGH {
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
        let whole = || hits.iter().filter(|hit| hit.is_whole).map(|hit| hit.vip);
        if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
            self.follow(&way.to(chain, by_address), hits.to_vec())?;
        }
        match verdict {
            Verdict::Continue | Verdict::Jump(_) => Ok(Vec::new()),
            Verdict::End => {
                whole().for_each(|vip| self.ended[vip] = true);
                Ok(Vec::new())
            }
            Verdict::Return | Verdict::Goto(_) => Ok(whole().collect()),
        }
    }
}
