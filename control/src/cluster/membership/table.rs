//! What is known of the members.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, RangeBounds},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::cluster::identity::{Identity, NamePlace, NodeName};

/// Sums are kept for this many parts of the members, by their names' hashes.
pub(super) const BUCKETS: usize = 256;

/// Names that were forgotten and are remembered as such.
const FORGOTTEN: usize = 1_024;

/// What a member is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Claim {
    Alive,
    Suspect,
    Dead,
    Left,
}

impl Claim {
    pub(super) fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// What one node says of another: an update of SWIM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Update {
    pub(super) identity: Identity,
    /// The member's own count of refuted suspicions in this life.
    pub(super) incarnation: u16,
    pub(super) claim: Claim,
}

/// One known member, which a table has by its name's hash: 32 bytes, beside the identity that others share.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    /// When the claim became another one, in milliseconds.
    since_ms: u64,
    pub(super) incarnation: u16,
    pub(super) claim: Claim,
    pub(super) maintenance: bool,
}

impl Entry {
    /// When the claim became another one.
    pub(super) fn since(&self) -> Duration {
        Duration::from_millis(self.since_ms)
    }
}

impl Borrow<NamePlace> for Entry {
    fn borrow(&self) -> &NamePlace {
        self.identity.place_ref()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity.place().cmp(&other.identity.place())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How an update stands to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Of a name that is not known.
    New,
    /// Of a later life, or a later word on this one.
    Newer,
    /// It says nothing new.
    Known,
    /// Of a life that is over.
    Older,
    /// Of a name that belongs to another key.
    OtherKey,
    /// Of a life that was forgotten.
    Forgotten,
}

/// All known members by their names' hashes, in an order that is the same on every run.
#[derive(Default)]
pub(super) struct Table {
    entries: BTreeSet<Entry>,
    active: usize,
    sums: Sums,
    /// Generations up to which names were forgotten.
    forgotten: BTreeMap<NamePlace, u64>,
}

struct Sums([u64; BUCKETS]);

impl Default for Sums {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

fn bucket(place: NamePlace) -> usize {
    (place.0 >> 56) as usize
}

/// What an entry adds to its bucket's sum. Suspicion is left out: it passes by itself.
fn weight(entry: &Entry) -> u64 {
    let claim = match entry.claim {
        Claim::Alive | Claim::Suspect => 1,
        Claim::Dead => 2,
        Claim::Left => 3,
    };
    // The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    let mut word = entry.identity.digest() ^ (0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(claim));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Members that are alive or suspect.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    pub(super) fn get(&self, place: NamePlace) -> Option<&Entry> {
        self.entries.get(&place)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    fn range(&self, places: impl RangeBounds<NamePlace>) -> impl Iterator<Item = &Entry> {
        self.entries.range(places)
    }

    /// The next member after a place, in the ring of all names' hashes, that is alive or suspect; none but this one is there.
    pub(super) fn next_active(&self, place: NamePlace) -> Option<&Entry> {
        let after = self.range((Bound::Excluded(place), Bound::Unbounded));
        after.chain(self.range(..place)).find(|entry| entry.claim.is_active())
    }

    pub(super) fn bucket(&self, number: usize) -> impl Iterator<Item = &Entry> {
        let first = NamePlace((number as u64) << 56);
        let last = NamePlace(first.0 | (u64::MAX >> 8));
        self.range(first..=last)
    }

    pub(super) fn sums(&self) -> &[u64; BUCKETS] {
        &self.sums.0
    }

    /// The sum of everything known.
    pub(super) fn sum(&self) -> u64 {
        let turned = self.sums.0.iter().zip(0u32..).map(|(sum, number)| sum.rotate_left(number % 64));
        turned.fold(0, |all, sum| all.wrapping_mul(0x100_0000_01b3) ^ sum)
    }

    /// How an update stands to what is known, by the order of SWIM (Das, Gupta, Motivala 2002, section 4.2).
    pub(super) fn standing(&self, update: &Update) -> Standing {
        let Some(entry) = self.get(update.identity.place()) else {
            let forgotten = self.forgotten.get(&update.identity.place());
            let is_over = forgotten.is_some_and(|generation| update.identity.generation() <= *generation);
            return if is_over { Standing::Forgotten } else { Standing::New };
        };
        let (known, told) = (&entry.identity, &update.identity);
        if known.key() != told.key() || known.name() != told.name() {
            return Standing::OtherKey;
        }
        if known != told {
            let newer = foca::Identity::win_addr_conflict(told, known);
            return if newer { Standing::Newer } else { Standing::Older };
        }
        let later = update.incarnation > entry.incarnation;
        let newer = match (entry.claim, update.claim) {
            (Claim::Alive | Claim::Suspect, Claim::Dead | Claim::Left) | (Claim::Dead, Claim::Left) => true,
            (Claim::Alive, Claim::Suspect) => update.incarnation >= entry.incarnation,
            (Claim::Alive | Claim::Suspect, _) => later,
            (Claim::Dead | Claim::Left, _) => false,
        };
        if newer { Standing::Newer } else { Standing::Known }
    }

    /// Takes an update that is new or newer.
    pub(super) fn put(&mut self, update: &Update, now: Duration) {
        let place = update.identity.place();
        let before = self.take(place);
        let unchanged = before.as_ref().filter(|before| before.claim == update.claim);
        let entry = Entry {
            identity: update.identity.clone(),
            since_ms: unchanged.map_or_else(|| milliseconds(now), |before| before.since_ms),
            incarnation: update.incarnation,
            claim: update.claim,
            maintenance: before.as_ref().is_some_and(|before| before.maintenance),
        };
        self.forgotten.remove(&place);
        self.insert(entry);
    }

    /// Marks a member as in maintenance, or not any more; says whether that is a change.
    pub(super) fn set_maintenance(&mut self, name: &NodeName, on: bool, now: Duration) -> bool {
        let entry = self.entries.get(&NamePlace::of(name)).filter(|entry| entry.maintenance != on).cloned();
        let Some(mut entry) = entry else { return false };
        entry.maintenance = on;
        if entry.claim.is_active() {
            entry.since_ms = milliseconds(now);
        }
        self.entries.replace(entry);
        true
    }

    /// Removes a name with all that is known of it; its life is over for good.
    pub(super) fn forget(&mut self, place: NamePlace) -> Option<Entry> {
        let entry = self.take(place)?;
        if self.forgotten.len() >= FORGOTTEN {
            self.forgotten.pop_first();
        }
        self.forgotten.insert(place, entry.identity.generation());
        Some(entry)
    }

    /// The generation up to which a name was forgotten.
    pub(super) fn forgotten(&self, place: NamePlace) -> Option<u64> {
        self.forgotten.get(&place).copied()
    }

    /// Makes room by dropping the member that is gone for longest, with the key kept for its name.
    pub(super) fn drop_oldest_gone(&mut self) -> Option<Entry> {
        let gone = self.entries.iter().filter(|entry| !entry.claim.is_active());
        let place = gone.min_by_key(|entry| entry.since_ms)?.identity.place();
        self.take(place)
    }

    fn insert(&mut self, entry: Entry) {
        self.active += usize::from(entry.claim.is_active());
        self.sums.0[bucket(entry.identity.place())] ^= weight(&entry);
        self.entries.insert(entry);
    }

    fn take(&mut self, place: NamePlace) -> Option<Entry> {
        let entry = self.entries.take(&place)?;
        self.active -= usize::from(entry.claim.is_active());
        self.sums.0[bucket(place)] ^= weight(&entry);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::identity::PublicKey;

    fn update(node: u8, generation: u64, incarnation: u16, claim: Claim) -> Update {
        let name = NodeName::new(&format!("n{node}")).unwrap();
        let identity =
            Identity::new(name, "10.0.0.1:7481".parse().unwrap(), generation, PublicKey([node; 32]));
        Update { identity, incarnation, claim }
    }

    fn updates() -> impl Strategy<Value = Vec<Update>> {
        let claim =
            prop_oneof![Just(Claim::Alive), Just(Claim::Suspect), Just(Claim::Dead), Just(Claim::Left)];
        let one = (0u8..6, 0u64..3, 0u16..3, claim);
        proptest::collection::vec(
            one.prop_map(|(node, generation, incarnation, claim)| {
                update(node, generation, incarnation, claim)
            }),
            0..60,
        )
    }

    fn taken<'a>(updates: impl IntoIterator<Item = &'a Update>) -> Table {
        let mut table = Table::default();
        for update in updates {
            if matches!(table.standing(update), Standing::New | Standing::Newer) {
                table.put(update, Duration::ZERO);
            }
        }
        table
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
    }

    #[test]
    fn the_time_of_a_state_is_that_of_its_change() {
        let mut table = Table::default();
        let second = Duration::from_secs;
        table.put(&update(1, 1, 0, Claim::Alive), second(1));
        table.put(&update(1, 1, 1, Claim::Alive), second(2));
        assert_eq!(table.entries().next().unwrap().since(), second(1));
        table.put(&update(1, 1, 1, Claim::Dead), second(3));
        assert_eq!((table.entries().next().unwrap().since(), table.active()), (second(3), 0));
    }

    #[test]
    fn a_forgotten_life_stays_forgotten_and_a_later_one_is_new() {
        let mut table = taken(&[update(1, 5, 0, Claim::Dead)]);
        assert!(table.forget(update(1, 5, 0, Claim::Dead).identity.place()).is_some());
        assert_eq!(table.standing(&update(1, 5, 9, Claim::Alive)), Standing::Forgotten);
        assert_eq!(table.standing(&update(1, 6, 0, Claim::Alive)), Standing::New);
        assert_eq!((table.len(), table.sum()), (0, Table::default().sum()));
    }

    proptest! {
        #[test]
        fn updates_end_alike_in_any_order(updates in updates(), order in any::<u64>()) {
            let mut other = updates.clone();
            let turn = (order as usize) % (other.len().max(1));
            other.rotate_left(turn);
            if order % 2 == 0 {
                other.reverse();
            }
            prop_assert_eq!(taken(&updates).sum(), taken(&other).sum());
        }

        #[test]
        fn sums_and_counts_follow_from_the_entries(updates in updates()) {
            let table = taken(&updates);
            let anew = table.entries().cloned().collect::<Vec<_>>();
            let mut other = Table::default();
            anew.iter().for_each(|entry| other.insert(entry.clone()));
            prop_assert_eq!(table.sum(), other.sum());
            prop_assert_eq!(table.active(), anew.iter().filter(|entry| entry.claim.is_active()).count());
            let by_bucket = (0..BUCKETS).map(|number| table.bucket(number).count()).sum::<usize>();
            prop_assert_eq!(by_bucket, table.len());
        }
    }
}
