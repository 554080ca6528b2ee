//! Rules and sets as the kernel's nf_tables tells them (`linux/netfilter/nf_tables.h`): expressions that load what is
//! known of a packet into registers, compare these, and act.
//!
//! What iptables adds to that language (`linux/netfilter/x_tables.h`) is understood as far as it asks for ports.

mod attributes;
mod set;
pub mod xtables;

use control::filter::{Action, Field, Key, Rule, Side, Test, Verdict};

use self::attributes::{value, verdict, words};
pub use self::{
    attributes::{attribute, attributes, name, number},
    set::set,
};

/// The rule in a message's attributes; `None`: it does nothing that matters here.
pub fn rule(message: &[u8]) -> Option<Rule> {
    const EXPRESSIONS: u16 = 4;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    let mut reader = Reader::default();
    for (_, expression) in attributes(attribute(message, EXPRESSIONS)?) {
        let data = attribute(expression, DATA).unwrap_or_default();
        if let Some(action) = reader.read(&name(expression, NAME)?, data) {
            return Some(Rule { tests: reader.tests, action });
        }
    }
    None
}

/// What a register holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Register {
    /// Some bits of a field.
    Field(Field, u32),
    /// A number by chance, of a range that its map covers.
    Chance,
    #[default]
    Unknown,
}

/// Registers of four bytes (`NFT_REG32_COUNT`).
const REGISTERS: usize = 16;

#[derive(Debug, Default)]
struct Reader {
    registers: [Register; REGISTERS],
    tests: Vec<Test>,
}

/// Attribute types that many expressions share.
const FIRST: u16 = 1;
const SECOND: u16 = 2;
const THIRD: u16 = 3;
const FOURTH: u16 = 4;

impl Reader {
    /// Takes the next expression; gives what ends the rule.
    fn read(&mut self, kind: &str, data: &[u8]) -> Option<Action> {
        match kind {
            "payload" => self.payload(data),
            "meta" => self.meta(data),
            "bitwise" => self.bitwise(data),
            "cmp" => self.compare(data),
            "range" => self.range(data),
            "lookup" => return self.lookup(data),
            "immediate" => return self.immediate(data),
            "numgen" => self.set(register(data, FIRST), Register::Chance),
            "hash" => self.set(register(data, SECOND), Register::Chance),
            "nat" => {
                const NFT_NAT_DNAT: u32 = 1;
                return (number(data, FIRST) == Some(NFT_NAT_DNAT)).then_some(Action::Translate);
            }
            "redir" => return Some(Action::Translate),
            "reject" => return Some(Action::Verdict(Verdict::Drop)),
            "queue" => return Some(Action::Verdict(Verdict::Accept)),
            "target" => return xtables::action(&name(data, FIRST)?),
            "match" => self.tests.extend(xtables::extension(data)),
            "ct" => self.connection(data),
            "fib" | "rt" | "socket" | "exthdr" | "osf" | "byteorder" | "xfrm" | "tunnel" => {
                self.registers = Default::default();
            }
            "counter" | "log" | "notrack" | "last" => {}
            "dynset" if !may_end(data) => {}
            "objref" if number(data, FIRST) == Some(COUNTER) => {}
            _ => self.tests.push(Test::Unknown),
        }
        None
    }

    fn set(&mut self, place: Option<usize>, value: Register) {
        if let Some(register) = place.and_then(|place| self.registers.get_mut(place)) {
            *register = value;
        }
    }

    fn get(&self, place: usize) -> Register {
        self.registers.get(place).copied().unwrap_or_default()
    }

    fn payload(&mut self, data: &[u8]) {
        let Some(place) = register(data, FIRST) else { return };
        let get = |attribute| number(data, attribute).unwrap_or(u32::MAX);
        let (base, offset, length) = (get(SECOND), get(THIRD), get(FOURTH).min(4 * REGISTERS as u32));
        for (word, at) in (0..length).step_by(4).enumerate() {
            let bytes = (length - at).min(4);
            self.set(Some(place + word), loaded(base, offset.saturating_add(at), bytes));
        }
    }

    fn meta(&mut self, data: &[u8]) {
        const PROTOCOL: u32 = 1;
        const MARK: u32 = 3;
        const IIF: u32 = 4;
        const OIF: u32 = 5;
        const IIFNAME: u32 = 6;
        const OIFNAME: u32 = 7;
        const NFPROTO: u32 = 15;
        const L4PROTO: u32 = 16;
        let whole = |field: Field| Register::Field(field, field.mask());
        let field = match number(data, SECOND) {
            Some(PROTOCOL) => whole(Field::EtherType),
            Some(MARK) => whole(Field::Mark),
            Some(IIF) => whole(Field::Index(Side::In)),
            Some(OIF) => whole(Field::Index(Side::Out)),
            Some(IIFNAME) => return self.device(register(data, FIRST), Side::In),
            Some(OIFNAME) => return self.device(register(data, FIRST), Side::Out),
            Some(NFPROTO) => Register::Field(Field::Family, Field::Family.mask()),
            Some(L4PROTO) => Register::Field(Field::Protocol, Field::Protocol.mask()),
            _ => Register::Unknown,
        };
        self.set(register(data, FIRST), field);
    }

    /// A device's name takes four words.
    fn device(&mut self, place: Option<usize>, side: Side) {
        let Some(place) = place else { return };
        for word in 0..4 {
            self.set(Some(place + usize::from(word)), Register::Field(Field::Name(side, word), u32::MAX));
        }
    }

    fn connection(&mut self, data: &[u8]) {
        const STATE: u32 = 0;
        const STATUS: u32 = 2;
        let field = match number(data, SECOND) {
            Some(STATE) => Register::Field(Field::State, u32::MAX),
            Some(STATUS) => Register::Field(Field::Status, u32::MAX),
            _ => Register::Unknown,
        };
        self.set(register(data, FIRST), field);
    }

    fn bitwise(&mut self, data: &[u8]) {
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        const OPERATION: u16 = 6;
        let plain = number(data, OPERATION).unwrap_or_default() == 0
            && value(data, XOR).is_some_and(|xor| xor.iter().all(|&byte| byte == 0));
        let mask = value(data, MASK).unwrap_or_default();
        let (Some(from), Some(to)) = (register(data, FIRST), register(data, SECOND)) else { return };
        for (word, mask) in words(mask).into_iter().enumerate() {
            let masked = match self.get(from + word) {
                Register::Field(field, bits) if plain => Register::Field(field, bits & field.value(mask)),
                _ => Register::Unknown,
            };
            self.set(Some(to + word), masked);
        }
    }

    fn compare(&mut self, data: &[u8]) {
        const EQ: u32 = 0;
        const NEQ: u32 = 1;
        const LT: u32 = 2;
        const LTE: u32 = 3;
        const GT: u32 = 4;
        const GTE: u32 = 5;
        let operands = (register(data, FIRST), number(data, SECOND), value(data, THIRD));
        let (Some(place), Some(operation), Some(value)) = operands else {
            return self.tests.push(Test::Unknown);
        };
        if let Register::Field(Field::Name(side, 0), u32::MAX) = self.get(place)
            && [EQ, NEQ].contains(&operation)
        {
            let test = Test::By { side, name: value.to_vec(), not: operation == NEQ };
            return self.tests.push(test);
        }
        let words = words(value);
        let is_single = words.len() == 1;
        for (word, value) in words.into_iter().enumerate() {
            let test = match self.get(place + word) {
                Register::Field(field, mask) if operation == EQ || is_single => {
                    let value = field.value(value);
                    let range = match operation {
                        EQ | NEQ => Some((value, value)),
                        LT => value.checked_sub(1).map(|last| (0, last)),
                        LTE => Some((0, value)),
                        GT => value.checked_add(1).map(|first| (first, u32::MAX)),
                        GTE => Some((value, u32::MAX)),
                        _ => None,
                    };
                    let ranges = range.into_iter().collect();
                    Test::In { field, mask, ranges, not: operation == NEQ }
                }
                _ => Test::Unknown,
            };
            self.tests.push(test);
        }
    }

    fn range(&mut self, data: &[u8]) {
        const NEQ: u32 = 1;
        let ends = (value(data, THIRD).map(words), value(data, FOURTH).map(words));
        let register = register(data, FIRST).map_or(Register::Unknown, |place| self.get(place));
        self.tests.push(match (register, ends) {
            (Register::Field(field, mask), (Some(first), Some(last)))
                if first.len() == 1 && last.len() == 1 =>
            {
                let range = (field.value(first[0]), field.value(last[0]));
                Test::In { field, mask, ranges: vec![range], not: number(data, SECOND) == Some(NEQ) }
            }
            _ => Test::Unknown,
        });
    }

    fn lookup(&mut self, data: &[u8]) -> Option<Action> {
        const FLAGS: u16 = 5;
        const INVERTED: u32 = 1;
        let (Some(set), Some(place)) = (name(data, FIRST), register(data, SECOND)) else {
            self.tests.push(Test::Unknown);
            return None;
        };
        let target = number(data, THIRD);
        let is_chance = self.get(place) == Register::Chance;
        if target == Some(VERDICT) {
            return Some(if is_chance { Action::Spread(set) } else { Action::Map(self.key(place), set) });
        }
        if !is_chance {
            let not = number(data, FLAGS).is_some_and(|flags| flags & INVERTED != 0);
            self.tests.push(Test::InSet { key: self.key(place), set, not });
        }
        self.set(register(data, THIRD), Register::Unknown);
        None
    }

    /// Whole fields from a register on.
    fn key(&self, place: usize) -> Key {
        let known = |register: &Register| match register {
            Register::Field(field, mask) => Some(*field).filter(|field| field.mask() == *mask),
            _ => None,
        };
        self.registers.get(place..).unwrap_or_default().iter().map(known).collect()
    }

    fn immediate(&mut self, data: &[u8]) -> Option<Action> {
        if number(data, FIRST) != Some(VERDICT) {
            self.set(register(data, FIRST), Register::Unknown);
            return None;
        }
        Some(Action::Verdict(verdict(attribute(data, SECOND)?))).filter(|action| {
            // What goes on may do more.
            *action != Action::Verdict(Verdict::Continue)
        })
    }
}

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFT_OBJECT_COUNTER`.
const COUNTER: u32 = 1;

/// The register in an attribute, counted in words: the kernel names the first of four by a number of its own.
fn register(data: &[u8], attribute: u16) -> Option<usize> {
    /// `NFT_REG_4`, `NFT_REG32_00`.
    const LAST_OF_FOUR: u32 = 4;
    const FIRST_WORD: u32 = 8;
    match number(data, attribute)? {
        VERDICT => None,
        four @ ..=LAST_OF_FOUR => Some((four as usize - 1) * 4),
        word => word.checked_sub(FIRST_WORD).map(|word| word as usize),
    }
}

/// Whether what a packet adds to a set has limits of its own: `NFTA_DYNSET_EXPR`, `..EXPRESSIONS`.
fn may_end(data: &[u8]) -> bool {
    attributes(data).any(|(kind, _)| [7, 10].contains(&kind))
}

/// What bytes of a packet are.
fn loaded(base: u32, offset: u32, length: u32) -> Register {
    const LINK: u32 = 0;
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    match (base, offset, length) {
        (LINK, 12, 2) => Register::Field(Field::EtherType, Field::EtherType.mask()),
        (NETWORK, 12, 1..=4) => Register::Field(Field::Source, u32::MAX << (32 - 8 * length)),
        (NETWORK, 16, 1..=4) => Register::Field(Field::Address, u32::MAX << (32 - 8 * length)),
        (NETWORK, 9, 1) => Register::Field(Field::Protocol, Field::Protocol.mask()),
        (TRANSPORT, 2, 2) => Register::Field(Field::Port, Field::Port.mask()),
        _ => Register::Unknown,
    }
}

#[cfg(test)]
mod tests;
