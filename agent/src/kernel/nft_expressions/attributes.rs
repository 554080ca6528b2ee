//! Netlink attributes.

use std::rc::Rc;

use control::filter::Verdict;

/// The attributes of a message: types and contents.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_TYPE_MASK`: without the bits for nesting and byte order.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let (head, _) = bytes.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let contents = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE, contents))
    })
}

/// The first attribute of a type.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, contents)| contents)
}

/// A number in an attribute.
pub fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    attribute(bytes, wanted)?.try_into().ok().map(u32::from_be_bytes)
}

/// A name in an attribute.
pub fn name(bytes: &[u8], wanted: u16) -> Option<Rc<str>> {
    let bytes = attribute(bytes, wanted)?;
    let text = bytes.split(|&byte| byte == 0).next()?;
    std::str::from_utf8(text).ok().map(Rc::from)
}

/// What data is (`NFTA_DATA_*`), and what a verdict has (`NFTA_VERDICT_*`).
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const CODE: u16 = 1;
const CHAIN: u16 = 2;

/// The value in an attribute of data.
pub(super) fn value(data: &[u8], kind: u16) -> Option<&[u8]> {
    attribute(attribute(data, kind)?, VALUE)
}

pub(super) fn words(bytes: &[u8]) -> Vec<[u8; 4]> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        word
    };
    bytes.chunks(4).map(word).collect()
}

/// The verdict in data.
pub(super) fn verdict(data: &[u8]) -> Verdict {
    const DROP: i32 = 0;
    const CONTINUE: i32 = -1;
    const BREAK: i32 = -2;
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    const RETURN: i32 = -5;
    let inner = attribute(data, VERDICT).unwrap_or_default();
    let chain = || name(inner, CHAIN).unwrap_or_default();
    match number(inner, CODE).map(u32::cast_signed) {
        Some(JUMP) => Verdict::Jump(chain()),
        Some(GOTO) => Verdict::Goto(chain()),
        Some(RETURN) => Verdict::Return,
        Some(CONTINUE | BREAK) | None => Verdict::Continue,
        Some(DROP) => Verdict::Drop,
        // Accepted, or for a process to decide.
        Some(_) => Verdict::Accept,
    }
}
