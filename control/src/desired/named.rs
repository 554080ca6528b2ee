//! Addresses of named VIPs: hashed into a range, by age where two names meet.
//!
//! Of all names that stand in the way of each other the oldest has the address that it hashes to, and each later one the
//! next that is free, beyond the last address from the first on (linear probing). Nothing but the names, their order of
//! age and what is taken otherwise decides, so that every node that knows the same has the same. A change places those
//! names anew that stand without a gap around it: which addresses are occupied does not depend on the order in which names
//! came (Knuth, The Art of Computer Programming, volume 3, section 6.4), so that no other can move.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;

use super::{Name, SourceId};
use crate::model::fnv1a;

/// How old a name is: what is less is older. Names of one age are placed by themselves.
pub(super) type Age = (SourceId, u64);

/// Addresses that no VIP may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Single ones, such as this host's.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Whole networks: overlays.
    pub networks: Vec<Ipv4Net>,
}

/// A name that has another address than before, and the former one.
pub(super) type Moved = (Name, Option<Ipv4Addr>);

/// The addresses of a range, counted from its first.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u32,
    count: u32,
}

impl Span {
    /// All of a range but its network's and its broadcast address.
    fn of(range: Ipv4Net) -> Self {
        let whole = 1_u64 << (32 - range.prefix_len());
        let edges = if range.prefix_len() <= 30 { 1 } else { 0 };
        let count = u32::try_from(whole - 2 * edges).unwrap_or(u32::MAX);
        Self { first: range.network().to_bits() + edges as u32, count }
    }

    fn place_of(self, address: Ipv4Addr) -> Option<u32> {
        address.to_bits().checked_sub(self.first).filter(|place| *place < self.count)
    }

    fn address(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first + place)
    }

    fn home(self, name: &str) -> u32 {
        (fnv1a(name) % u64::from(self.count)) as u32
    }

    fn next(self, place: u32) -> u32 {
        if place + 1 == self.count { 0 } else { place + 1 }
    }

    fn previous(self, place: u32) -> u32 {
        place.checked_sub(1).unwrap_or(self.count - 1)
    }
}

/// Names and their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// `None`: no name has an address.
    span: Option<Span>,
    reserved: Reserved,
    ages: HashMap<Name, Age>,
    /// Names by the places that they hash to.
    homes: BTreeMap<u32, BTreeSet<(Age, Name)>>,
    /// Names by their places.
    placed: BTreeMap<u32, Name>,
    places: HashMap<Name, u32>,
    /// Places that are taken otherwise, and how many times.
    blocked: BTreeMap<u32, u32>,
}

/// Places without a gap, in a circle.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    length: u32,
}

impl Named {
    pub(super) fn new(range: Option<Ipv4Net>, reserved: Reserved) -> Self {
        Self { span: range.map(Span::of), reserved, ..Self::default() }
    }

    /// The address of a name, where it has one.
    pub(super) fn address(&self, name: &str) -> Option<Ipv4Addr> {
        Some(self.span?.address(*self.places.get(name)?))
    }

    /// The address that a name hashes to.
    pub(super) fn hashed(&self, name: &str) -> Option<Ipv4Addr> {
        self.span.map(|span| span.address(span.home(name)))
    }

    /// The name that has an address.
    pub(super) fn at(&self, address: Ipv4Addr) -> Option<&Name> {
        self.placed.get(&self.span?.place_of(address)?)
    }

    /// Whether no name more can have an address.
    pub(super) fn is_full(&self) -> bool {
        self.span.is_none_or(|span| (0..span.count).all(|place| self.is_occupied(span, place)))
    }

    /// Places a name by its age; `None`: it is no more. Gives the names that moved by it, this one among them.
    pub(super) fn set(&mut self, name: &Name, age: Option<Age>) -> Vec<Moved> {
        let Some(span) = self.span else { return Vec::new() };
        let former = self.ages.get(name).copied();
        if former == age {
            return Vec::new();
        }
        let home = span.home(name);
        let run = self.run(span, home);
        if let Some(former) = former {
            self.ages.remove(name);
            if let Some(names) = self.homes.get_mut(&home) {
                names.remove(&(former, Arc::clone(name)));
                if names.is_empty() {
                    self.homes.remove(&home);
                }
            }
        }
        if let Some(age) = age {
            self.ages.insert(Arc::clone(name), age);
            self.homes.entry(home).or_default().insert((age, Arc::clone(name)));
        }
        self.place(span, run)
    }

    /// Notes that something else has an address; gives the names that moved by it.
    pub(super) fn block(&mut self, address: Ipv4Addr) -> Vec<Moved> {
        let Some((span, place)) = self.span.and_then(|span| Some((span, span.place_of(address)?))) else {
            return Vec::new();
        };
        let run = self.run(span, place);
        *self.blocked.entry(place).or_default() += 1;
        if self.placed.contains_key(&place) { self.place(span, run) } else { Vec::new() }
    }

    /// Notes that something else has an address no more; gives the names that moved by it.
    pub(super) fn unblock(&mut self, address: Ipv4Addr) -> Vec<Moved> {
        let Some((span, place)) = self.span.and_then(|span| Some((span, span.place_of(address)?))) else {
            return Vec::new();
        };
        let run = self.run(span, place);
        match self.blocked.get_mut(&place) {
            Some(1) => {
                self.blocked.remove(&place);
                self.place(span, run)
            }
            Some(times) => {
                *times -= 1;
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// The occupied places around one, and the free one behind them, which one name more takes.
    fn run(&self, span: Span, place: u32) -> Run {
        let mut run = Run { first: place, length: 1 };
        while run.length < span.count && self.is_occupied(span, span.previous(run.first)) {
            run = Run { first: span.previous(run.first), length: run.length + 1 };
        }
        let mut last = place;
        while run.length < span.count && self.is_occupied(span, last) {
            last = span.next(last);
            run.length += 1;
        }
        run
    }

    fn is_occupied(&self, span: Span, place: u32) -> bool {
        self.placed.contains_key(&place) || self.is_blocked(span, place)
    }

    fn is_blocked(&self, span: Span, place: u32) -> bool {
        let address = span.address(place);
        self.blocked.contains_key(&place)
            || self.reserved.addresses.contains(&address)
            || self.reserved.networks.iter().any(|network| network.contains(&address))
    }

    /// Places all names anew that hash into a run.
    fn place(&mut self, span: Span, run: Run) -> Vec<Moved> {
        let end = u64::from(run.first) + u64::from(run.length);
        let (before, around) = match end.checked_sub(u64::from(span.count)) {
            None => (run.first..end as u32, 0..0),
            Some(around) => (run.first..span.count, 0..around as u32),
        };
        let mut names: Vec<(Age, Name, u32)> = Vec::new();
        let mut former: BTreeMap<Name, u32> = BTreeMap::new();
        for part in [before, around].into_iter().filter(|part| !part.is_empty()) {
            let homes = self.homes.range(part.clone());
            names.extend(
                homes.flat_map(|(home, all)| all.iter().map(|(age, name)| (*age, Arc::clone(name), *home))),
            );
            former.extend(self.placed.range(part).map(|(place, name)| (Arc::clone(name), *place)));
        }
        for (name, place) in &former {
            self.placed.remove(place);
            self.places.remove(name);
        }
        names.sort_unstable();
        for (_, name, home) in &names {
            if let Some(place) = self.free(span, *home) {
                self.placed.insert(place, Arc::clone(name));
                self.places.insert(Arc::clone(name), place);
            }
        }
        let seen: BTreeSet<Name> =
            names.into_iter().map(|(_, name, _)| name).chain(former.keys().cloned()).collect();
        let moved = seen.into_iter().filter(|name| former.get(name) != self.places.get(name));
        moved.map(|name| (Arc::clone(&name), former.get(&name).map(|place| span.address(*place)))).collect()
    }

    /// The first free place from one on; `None` when there is none.
    fn free(&self, span: Span, home: u32) -> Option<u32> {
        let mut place = home;
        for _ in 0..span.count {
            if !self.is_occupied(span, place) {
                return Some(place);
            }
            place = span.next(place);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Option<Ipv4Net> {
        text.parse().ok()
    }

    fn named(text: &str) -> Named {
        Named::new(range(text), Reserved::default())
    }

    fn name(number: u32) -> Name {
        format!("n{number}").into()
    }

    /// Two names that hash to one address of a range.
    fn met(named: &Named) -> (Name, Name) {
        let hashed = |number: u32| named.hashed(&name(number)).unwrap();
        let (first, second) =
            (0..).flat_map(|b| (0..b).map(move |a| (a, b))).find(|(a, b)| hashed(*a) == hashed(*b)).unwrap();
        (name(first), name(second))
    }

    const APPLIED: SourceId = SourceId::Applied;

    #[test]
    fn a_name_has_the_address_that_it_hashes_to() {
        let mut named = named("11.0.0.0/8");
        named.set(&"web".into(), Some((APPLIED, 1)));
        // FNV-1a of "web", modulo 2^24 - 2.
        let expected = 0x0b00_0001 + (fnv1a("web") % 0x00ff_fffe) as u32;
        assert_eq!(named.address("web"), Some(Ipv4Addr::from_bits(expected)));
        assert_eq!(named.address("db"), None);
        assert_eq!(Named::default().set(&"web".into(), Some((APPLIED, 1))), []);
    }

    #[test]
    fn of_two_that_meet_the_older_one_keeps_its_address_whoever_came_first() {
        let (older, later) = met(&named("11.0.0.0/16"));
        for turned in [false, true] {
            let mut named = named("11.0.0.0/16");
            let mut both = [(&older, 1), (&later, 2)];
            if turned {
                both.reverse();
            }
            both.into_iter().for_each(|(name, age)| drop(named.set(name, Some((APPLIED, age)))));
            let hashed = named.hashed(&older).unwrap();
            assert_eq!(named.address(&older), Some(hashed));
            assert_eq!(named.address(&later), Some(Ipv4Addr::from_bits(hashed.to_bits() + 1)));
            assert_eq!(named.set(&older, None).len(), 2, "the later one moves, too");
            assert_eq!(named.address(&later), Some(hashed));
        }
    }

    #[test]
    fn edges_reserved_addresses_and_what_else_has_one_are_left_alone() {
        let reserved = Reserved {
            addresses: BTreeSet::from([[11, 0, 0, 1].into()]),
            networks: vec!["11.0.0.4/30".parse().unwrap()],
        };
        let mut named = Named::new(range("11.0.0.0/28"), reserved);
        named.block([11, 0, 0, 2].into());
        (0..20).for_each(|number| drop(named.set(&name(number), Some((APPLIED, number.into())))));
        assert!(named.is_full());
        let taken: BTreeSet<u8> =
            (0..20).filter_map(|number| Some(named.address(&name(number))?.octets()[3])).collect();
        assert_eq!(taken, BTreeSet::from([3, 8, 9, 10, 11, 12, 13, 14]));
        let without = (0..20).find(|number| named.address(&name(*number)).is_none()).unwrap();
        named.unblock([11, 0, 0, 2].into());
        assert!(named.address(&name(without)).is_some(), "the oldest that had none");
        assert_eq!(
            Named::new(range("11.0.0.7/32"), Reserved::default()).hashed("x"),
            Some([11, 0, 0, 7].into())
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, Option<u64>),
        Block(u8),
        Unblock(u8),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..24_u32, prop::option::weighted(0.7, 0..9_u64)).prop_map(|(name, age)| Step::Set(name, age)),
            1 => (0..16_u8).prop_map(Step::Block),
            1 => (0..16_u8).prop_map(Step::Unblock),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_way_the_addresses_are_those_of_the_names_placed_by_age(
            steps in prop::collection::vec(any_step(), 0..40),
            len in 26..=29_u8,
        ) {
            let span = Span::of(Ipv4Net::new([11, 0, 0, 0].into(), len).unwrap());
            let mut named = named(&format!("11.0.0.0/{len}"));
            let mut ages: BTreeMap<u32, u64> = BTreeMap::new();
            let mut blocked: Vec<u8> = Vec::new();
            for step in steps {
                let before: Vec<_> = (0..24).map(|number| named.address(&name(number))).collect();
                let moved = match step {
                    Step::Set(number, age) => {
                        match age {
                            Some(age) => ages.insert(number, age),
                            None => ages.remove(&number),
                        };
                        named.set(&name(number), age.map(|age| (APPLIED, age)))
                    }
                    Step::Block(last) => {
                        blocked.push(last);
                        named.block([11, 0, 0, last].into())
                    }
                    Step::Unblock(last) => match blocked.iter().position(|own| *own == last) {
                        Some(at) => {
                            blocked.remove(at);
                            named.unblock([11, 0, 0, last].into())
                        }
                        None => Vec::new(),
                    },
                };
                let mut order: Vec<_> = ages.iter().map(|(&number, &age)| (age, name(number))).collect();
                order.sort_unstable();
                let mut taken: BTreeSet<u32> =
                    blocked.iter().filter_map(|&last| span.place_of([11, 0, 0, last].into())).collect();
                let mut expected: HashMap<Name, Ipv4Addr> = HashMap::new();
                for (_, name) in order {
                    let places = (0..span.count).map(|step| (span.home(&name) + step) % span.count);
                    if let Some(place) = places.into_iter().find(|place| !taken.contains(place)) {
                        taken.insert(place);
                        expected.insert(name, span.address(place));
                    }
                }
                for (number, before) in (0..24).zip(before) {
                    let (name, now) = (name(number), named.address(&name(number)));
                    prop_assert_eq!(now, expected.get(&name).copied());
                    let told = moved.iter().find(|(moved, _)| *moved == name);
                    prop_assert_eq!(told.map(|(_, former)| *former), (now != before).then_some(before));
                    prop_assert_eq!(now.and_then(|now| named.at(now)), now.map(|_| &name));
                }
            }
        }
    }
}
