//! Sets and maps.

use std::{cell::OnceCell, collections::HashMap};

use super::{Field, Fit, Key, Packet, Verdict};

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
    fn fit(&self, key: &Key, packet: &Packet) -> Fit {
        let words = self.first.iter().zip(&self.last).enumerate();
        let fits = words.map(|(place, (first, last))| match key.get(place).copied().flatten() {
            Some(field) => packet.is_in(field, field.mask(), (field.value(*first), field.value(*last))),
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
    pub(super) fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.elements.iter().map(|element| &element.verdict)
    }

    /// What the elements say that may fit, and how they do.
    pub(super) fn may_fit(&self, key: &Key, packet: &Packet) -> impl Iterator<Item = (Fit, &Verdict)> {
        let fits = self.elements.iter().map(|element| (element.fit(key, packet), &element.verdict));
        fits.filter(|(fit, _)| *fit > Fit::No)
    }

    /// The element that fits best.
    pub(super) fn find(&self, key: &Key, packet: &Packet) -> (Fit, Option<&Verdict>) {
        let all = 0..self.elements.len();
        let place = key.iter().position(|field| *field == Some(Field::Address));
        let (first, last) = packet.destination;
        let Some(place) = place.filter(|_| first == last) else { return self.best(all, key, packet) };
        let (indexed, index) = self.index.get_or_init(|| (place, self.index(place)));
        if *indexed != place {
            return self.best(all, key, packet);
        }
        let of_address = index.by_address.get(&first).into_iter().flatten();
        self.best(of_address.chain(&index.others).copied(), key, packet)
    }

    fn best(
        &self,
        numbers: impl Iterator<Item = usize>,
        key: &Key,
        packet: &Packet,
    ) -> (Fit, Option<&Verdict>) {
        numbers.filter_map(|number| self.elements.get(number)).fold((Fit::No, None), |best, element| {
            let fit = element.fit(key, packet);
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
