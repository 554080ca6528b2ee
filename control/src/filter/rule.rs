//! Rules of a packet filter, as far as they ask for what may be known of packets.

use std::rc::Rc;

use super::{Field, Fit, Packet, Set, Side};

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
    /// A device whose name begins so; a zero at the end means the whole name.
    By {
        /// Which device.
        side: Side,
        /// The beginning.
        name: Vec<u8>,
        /// Whether it must not begin so.
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

    /// How packets fit; `set` gives sets by name.
    pub(super) fn fit<E>(
        &self,
        packet: &Packet,
        set: &mut impl FnMut(&str) -> Result<Rc<Set>, E>,
    ) -> Result<Fit, E> {
        let (fit, not) = match self {
            Self::In { field, mask, ranges, not } => {
                let fits = ranges.iter().map(|&range| packet.is_in(*field, *mask, range));
                (fits.max().unwrap_or(Fit::No), *not)
            }
            Self::By { side, name, not } => (packet.is_by(*side, name), *not),
            Self::InSet { key, set: name, not } => (set(name)?.find(key, packet).0, *not),
            Self::Unknown => (Fit::Unknown, false),
        };
        Ok(if not { fit.inverse() } else { fit })
    }

    /// The only destination that passes.
    pub(super) fn only_address(&self) -> Option<u32> {
        match self {
            Self::In { field: Field::Address, mask: u32::MAX, ranges, not: false } => match ranges.as_slice()
            {
                [(first, last)] if first == last => Some(*first),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it asks for certain addresses or devices, instead of what all but some have.
    pub(super) fn names_ends(&self) -> bool {
        let is_end = |field: &Field| {
            matches!(field, Field::Source | Field::Address | Field::Index(_) | Field::Name(..))
        };
        match self {
            Self::In { field, mask, not, .. } => is_end(field) && *mask != 0 && !not,
            Self::By { not, .. } => !not,
            Self::InSet { key, not, .. } => key.iter().flatten().any(is_end) && !not,
            Self::Unknown => false,
        }
    }

    /// Whether it asks for any device that packets come in by but one.
    pub(super) fn is_from_elsewhere(&self) -> bool {
        match self {
            Self::By { side: Side::In, not, .. } => *not,
            Self::In { field: Field::Index(Side::In) | Field::Name(Side::In, _), not, .. } => *not,
            _ => false,
        }
    }

    /// Whether it asks for destinations.
    pub(super) fn names_addresses(&self) -> bool {
        match self {
            Self::In { field, not, .. } => *field == Field::Address && !not,
            Self::InSet { key, not, .. } => key.contains(&Some(Field::Address)) && !not,
            Self::By { .. } | Self::Unknown => false,
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
    /// Past the rest of the hook's chain.
    Accept,
    /// Nowhere.
    Drop,
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

impl Action {
    /// Whether packets may get past the chain by it, or not to the next rule.
    pub(super) fn may_save(&self) -> bool {
        *self != Self::Verdict(Verdict::Drop) && *self != Self::Translate
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it asks for, all of it.
    pub tests: Vec<Test>,
    /// What it does then.
    pub action: Action,
}
