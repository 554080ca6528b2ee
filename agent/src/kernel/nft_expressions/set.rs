//! Sets and maps.

use control::filter::{Element, Set, Verdict};

use super::attributes::{attribute, attributes, number, value, verdict, words};

/// The elements in messages about a set.
pub fn set<'a>(messages: impl Iterator<Item = &'a [u8]>) -> Set {
    const ELEMENTS: u16 = 3;
    let lists = messages.filter_map(|message| attribute(message, ELEMENTS));
    let raw: Vec<Raw> = lists.flat_map(attributes).filter_map(|(_, element)| Raw::read(element)).collect();
    let has_ends = raw.iter().any(|element| element.is_end);
    Set::new(if has_ends { intervals(raw) } else { raw.into_iter().map(Raw::element).collect() })
}

/// An element as the kernel has it; of sets of intervals, one of their ends.
struct Raw {
    key: Vec<[u8; 4]>,
    last: Option<Vec<[u8; 4]>>,
    verdict: Verdict,
    /// The first key that is not in the interval any more.
    is_end: bool,
}

impl Raw {
    fn read(element: &[u8]) -> Option<Self> {
        const KEY: u16 = 1;
        const DATA: u16 = 2;
        const FLAGS: u16 = 3;
        const KEY_END: u16 = 10;
        const INTERVAL_END: u32 = 1;
        Some(Self {
            key: words(value(element, KEY)?),
            last: value(element, KEY_END).map(words),
            verdict: attribute(element, DATA).map_or(Verdict::Continue, verdict),
            is_end: number(element, FLAGS).is_some_and(|flags| flags & INTERVAL_END != 0),
        })
    }

    fn element(self) -> Element {
        let last = self.last.unwrap_or_else(|| self.key.clone());
        Element { first: self.key, last, verdict: self.verdict }
    }
}

/// Puts ends together: an interval reaches up to the next end or start.
fn intervals(mut raw: Vec<Raw>) -> Vec<Element> {
    raw.sort_by(|one, other| (&one.key, one.is_end).cmp(&(&other.key, other.is_end)));
    let last = |number: usize, start: &Raw| -> Option<Vec<[u8; 4]>> {
        let Some(next) = raw.iter().skip(number + 1).find(|next| next.key != start.key) else {
            return Some(vec![[0xff; 4]; start.key.len()]);
        };
        before(&next.key)
    };
    let starts = raw.iter().enumerate().filter(|(_, element)| !element.is_end);
    let elements = starts.filter_map(|(number, start)| {
        Some(Element { first: start.key.clone(), last: last(number, start)?, verdict: start.verdict.clone() })
    });
    elements.collect()
}

/// The key before another. Of several words (names of devices), an interval is of all that begin alike, so that each word
/// is one by itself.
fn before(key: &[[u8; 4]]) -> Option<Vec<[u8; 4]>> {
    let mut key = key.to_vec();
    for word in key.iter_mut().rev() {
        let (less, is_borrowed) = u32::from_be_bytes(*word).overflowing_sub(1);
        *word = less.to_be_bytes();
        if !is_borrowed {
            return Some(key);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_alike_are_an_interval_of_each_word() {
        let after = [*b"fan.", [0; 4], [0; 4], [0; 4]];
        assert_eq!(before(&after), Some(vec![*b"fan-", [0xff; 4], [0xff; 4], [0xff; 4]]));
        let after = [*b"eth0", [0, 0, 0, 1]];
        assert_eq!(before(&after), Some(vec![*b"eth0", [0; 4]]));
        assert_eq!(before(&[[0; 4], [0; 4]]), None);
    }
}
