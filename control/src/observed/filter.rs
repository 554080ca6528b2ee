//! Rules of a packet filter, as far as they ask for what is known of a first packet to a VIP.

use std::{cell::OnceCell, collections::HashMap, rc::Rc};

/// The first packet of a flow to a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its destination.
    pub address: u32,
    /// TCP or UDP.
    pub protocol: u8,
    /// Its destination's port; 0: any but those `taken`.
    pub port: u16,
    /// Ports that other services of the address have.
    pub taken: Vec<u16>,
}

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The destination.
    Address,
    /// The protocol over IPv4.
    Protocol,
    /// The destination's port.
    Port,
    /// `NFPROTO_IPV4`.
    Family,
}

impl Field {
    /// The field's value in four bytes, as the kernel lays them out.
    pub fn value(self, [a, b, c, d]: [u8; 4]) -> u32 {
        match self {
            Self::Address => u32::from_be_bytes([a, b, c, d]),
            Self::Port => u16::from_be_bytes([a, b]).into(),
            Self::Protocol | Self::Family => a.into(),
        }
    }

    /// All bits of its values.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Address => u32::MAX,
            Self::Port => 0xffff,
            Self::Protocol | Self::Family => 0xff,
        }
    }
}

/// How a packet to a VIP fits what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It doesn't.
    No,
    /// Nobody can tell from here.
    Unknown,
    /// To some of its ports.
    Part,
    /// It does.
    Yes,
}

impl Fit {
    fn inverse(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            other => other,
        }
    }
}

impl Subject {
    fn is_in(&self, field: Field, mask: u32, (first, last): (u32, u32)) -> Fit {
        const NFPROTO_IPV4: u32 = 2;
        let value = match field {
            Field::Address => self.address,
            Field::Protocol => self.protocol.into(),
            Field::Port if self.port == 0 => return self.is_any_in(mask, (first, last)),
            Field::Port => self.port.into(),
            Field::Family => NFPROTO_IPV4,
        };
        if (first..=last).contains(&(value & mask)) { Fit::Yes } else { Fit::No }
    }

    fn is_any_in(&self, mask: u32, (first, last): (u32, u32)) -> Fit {
        let is_taken = |port| self.taken.iter().any(|&taken| u32::from(taken) == port);
        match (first, last) {
            (0, 0xffff..) => Fit::Yes,
            _ if mask != Field::Port.mask() => Fit::Unknown,
            (port, same) if port == same && is_taken(port) => Fit::No,
            _ => Fit::Part,
        }
    }
}

/// What a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// A field in one of some ranges, the ends included.
    In {
        /// The field.
        field: Field,
        /// Its bits that count.
        mask: u32,
        /// The ranges.
        ranges: Vec<(u32, u32)>,
        /// Whether it has to be outside of them.
        not: bool,
    },
    /// Fields together in a set.
    InSet {
        /// What is looked for.
        key: Key,
        /// The set's name.
        set: Rc<str>,
        /// Whether they must not be in it.
        not: bool,
    },
    /// Something that is not known here.
    Unknown,
}

impl Test {
    /// One range of a field.
    pub fn range(field: Field, range: (u32, u32), not: bool) -> Self {
        Self::In { field, mask: field.mask(), ranges: vec![range], not }
    }

    /// How a packet fits; `set` gives sets by name.
    pub fn fit<E>(
        &self,
        subject: &Subject,
        set: &mut impl FnMut(&str) -> Result<Rc<Set>, E>,
    ) -> Result<Fit, E> {
        let (fit, not) = match self {
            Self::In { field, mask, ranges, not } => {
                let fits = ranges.iter().map(|&range| subject.is_in(*field, *mask, range));
                (fits.max().unwrap_or(Fit::No), *not)
            }
            Self::InSet { key, set: name, not } => (set(name)?.find(key, subject).0, *not),
            Self::Unknown => (Fit::Unknown, false),
        };
        Ok(if not { fit.inverse() } else { fit })
    }

    /// The only address that passes.
    pub fn only_address(&self) -> Option<u32> {
        match self {
            Self::In { field: Field::Address, mask: u32::MAX, ranges, not: false } => match ranges.as_slice()
            {
                [(first, last)] if first == last => Some(*first),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it asks for addresses.
    pub fn names_addresses(&self) -> bool {
        match self {
            Self::In { field, not, .. } => *field == Field::Address && !not,
            Self::InSet { key, not, .. } => key.contains(&Some(Field::Address)) && !not,
            Self::Unknown => false,
        }
    }
}

/// What is looked up in a set, in words of four bytes; `None`: what is not known. A set takes as many as its keys have.
pub type Key = Vec<Option<Field>>;

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// On to the next rule.
    Continue,
    /// Past the rest of the hook's chain: accepted or dropped.
    End,
    /// Back to the chain that led here.
    Return,
    /// To another chain, and back from its end.
    Jump(Rc<str>),
    /// To another chain, and from its end to where this one was reached from.
    Goto(Rc<str>),
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gives the packet another destination.
    Translate,
    /// Sends it somewhere.
    Verdict(Verdict),
    /// Sends it where a map says.
    Map(Key, Rc<str>),
    /// Sends packets everywhere that a map names, by chance.
    Spread(Rc<str>),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it asks for, all of it.
    pub tests: Vec<Test>,
    /// What it does then.
    pub action: Action,
}

/// An element of a set or map, in words of four bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The first key.
    pub first: Vec<[u8; 4]>,
    /// The last.
    pub last: Vec<[u8; 4]>,
    /// What the map says.
    pub verdict: Verdict,
}

impl Element {
    fn fit(&self, key: &Key, subject: &Subject) -> Fit {
        let words = self.first.iter().zip(&self.last).enumerate();
        let fits = words.map(|(place, (first, last))| match key.get(place).copied().flatten() {
            Some(field) => subject.is_in(field, field.mask(), (field.value(*first), field.value(*last))),
            None => Fit::Unknown,
        });
        fits.min().unwrap_or(Fit::No)
    }
}

/// Elements that have one address, by it, and the others.
#[derive(Debug, Default)]
struct Index {
    by_address: HashMap<u32, Vec<usize>>,
    others: Vec<usize>,
}

/// A set or map.
#[derive(Debug, Default)]
pub struct Set {
    elements: Vec<Element>,
    index: OnceCell<(usize, Index)>,
}

impl Set {
    /// One of these elements.
    pub fn new(elements: Vec<Element>) -> Self {
        Self { elements, index: OnceCell::new() }
    }

    /// Where a map of chances leads.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.elements.iter().map(|element| &element.verdict)
    }

    /// The element that fits best.
    pub fn find(&self, key: &Key, subject: &Subject) -> (Fit, Option<&Verdict>) {
        let all = 0..self.elements.len();
        let Some(place) = key.iter().position(|field| *field == Some(Field::Address)) else {
            return self.best(all, key, subject);
        };
        let (indexed, index) = self.index.get_or_init(|| (place, self.index(place)));
        if *indexed != place {
            return self.best(all, key, subject);
        }
        let of_address = index.by_address.get(&subject.address).into_iter().flatten();
        self.best(of_address.chain(&index.others).copied(), key, subject)
    }

    fn best(
        &self,
        numbers: impl Iterator<Item = usize>,
        key: &Key,
        subject: &Subject,
    ) -> (Fit, Option<&Verdict>) {
        numbers.filter_map(|number| self.elements.get(number)).fold((Fit::No, None), |best, element| {
            let fit = element.fit(key, subject);
            if fit > best.0 { (fit, Some(&element.verdict)) } else { best }
        })
    }

    fn index(&self, place: usize) -> Index {
        let mut index = Index::default();
        for (number, element) in self.elements.iter().enumerate() {
            match (element.first.get(place), element.last.get(place)) {
                (Some(first), Some(last)) if first == last => {
                    index.by_address.entry(Field::Address.value(*first)).or_default().push(number);
                }
                _ => index.others.push(number),
            }
        }
        index
    }
}
