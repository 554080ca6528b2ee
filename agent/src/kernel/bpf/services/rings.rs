//! Where rings are: extents of segments, which are made as they are needed and never given back.

use std::{os::fd::AsFd as _, sync::atomic::Ordering};

use aya::maps::{ArrayOfMaps, Map, MapData};
use aya_obj::generated::bpf_map_type;
use dataplane_common::abi::{MAX_RING, RING_UNIT, SEGMENT_SLOTS, SEGMENTS, SLOTS_PER_ELEMENT, ServiceWord};

use super::{
    super::{
        error::{Context as _, Error, Result},
        sys::Mapping,
    },
    bits::Bits,
};

const NAME: &str = "rings";
/// `BPF_F_MMAPABLE`
const MMAPABLE: u32 = 1 << 10;
const UNITS_PER_SEGMENT: u32 = SEGMENT_SLOTS / RING_UNIT;
const ELEMENTS_PER_SEGMENT: u32 = SEGMENT_SLOTS / SLOTS_PER_ELEMENT;
const ELEMENT: usize = size_of::<u64>();
/// Sizes of a ring: the unit and each power of two up to the largest.
const CLASSES: usize = (MAX_RING / RING_UNIT).ilog2() as usize + 1;

/// Place and size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// First slot in units.
    pub(super) unit: u32,
    /// Binary logarithm of its slots.
    pub(super) log2_slots: u32,
}

impl Extent {
    /// That of a service, if it has a ring.
    pub(super) fn of(word: ServiceWord) -> Option<Self> {
        let ServiceWord { ring, log2_slots, flags, .. } = word;
        (log2_slots != 0 && flags & ServiceWord::EMPTY == 0).then_some(Self { unit: ring, log2_slots })
    }

    fn slots(self) -> u32 {
        1 << self.log2_slots
    }

    fn units(self) -> u32 {
        self.slots() / RING_UNIT
    }

    fn is_possible(self) -> bool {
        let sizes = RING_UNIT.ilog2()..=MAX_RING.ilog2();
        sizes.contains(&self.log2_slots) && self.unit.is_multiple_of(self.units())
    }
}

/// The segments.
#[derive(Debug)]
pub(super) struct Rings {
    outer: ArrayOfMaps<MapData>,
    segments: Vec<Mapping>,
    taken: Bits,
    /// By size: no free extent lies before.
    first: [u32; CLASSES],
}

impl Rings {
    /// The segments that there are, all of them free.
    pub(super) fn open(data: MapData) -> Result<Self> {
        let outer = Map::from_map_data(data).and_then(ArrayOfMaps::try_from).map_err(Error::map(NAME))?;
        let mut segments = Vec::new();
        for index in 0..SEGMENTS {
            match outer.get(&index, 0) {
                Ok(segment) => segments.push(map_segment(&segment)?),
                Err(aya::maps::MapError::KeyNotFound) => break,
                Err(error) => return Err(Error::map(NAME)(error)),
            }
        }
        let taken = Bits::none(SEGMENTS * UNITS_PER_SEGMENT);
        Ok(Self { outer, segments, taken, first: [0; CLASSES] })
    }

    /// Bytes that the segments take.
    pub(super) fn memory(&self) -> u64 {
        self.segments.len() as u64 * u64::from(ELEMENTS_PER_SEGMENT) * ELEMENT as u64
    }

    /// Whether an extent is one that can be read, and free so far; then it is taken.
    pub(super) fn claim(&mut self, extent: Extent) -> bool {
        let fits =
            extent.is_possible() && extent.unit + extent.units() <= self.units() && self.is_free(extent);
        if fits {
            self.take(extent);
        }
        fits
    }

    /// A free extent for so many slots.
    pub(super) fn allocate(&mut self, slots: u32) -> Result<Extent> {
        let log2_slots = slots.ilog2();
        let class = (log2_slots - RING_UNIT.ilog2()) as usize;
        loop {
            let size = slots / RING_UNIT;
            let mut candidates = (self.first[class]..self.units()).step_by(size as usize);
            let free = candidates.find(|&unit| self.is_free(Extent { unit, log2_slots }));
            if let Some(unit) = free {
                let extent = Extent { unit, log2_slots };
                self.first[class] = unit + size;
                self.take(extent);
                return Ok(extent);
            }
            self.first[class] = self.units();
            self.add_segment()?;
        }
    }

    /// Gives an extent back that no program reads any more.
    pub(super) fn release(&mut self, extent: Extent) {
        (extent.unit..extent.unit + extent.units()).for_each(|unit| self.taken.remove(unit));
        for (class, first) in self.first.iter_mut().enumerate() {
            *first = (*first).min(extent.unit >> class << class);
        }
    }

    /// Writes a ring into an extent that no program reads.
    pub(super) fn write(&self, extent: Extent, mut local: impl FnMut(usize) -> u16) {
        let (segment, start) = self.place(extent);
        for element in 0..(extent.slots() / SLOTS_PER_ELEMENT) as usize {
            let slots =
                (0..SLOTS_PER_ELEMENT as usize).map(|slot| element * SLOTS_PER_ELEMENT as usize + slot);
            let word = slots
                .zip([0, 16, 32, 48])
                .fold(0, |word, (slot, shift)| word | u64::from(local(slot)) << shift);
            segment.u64(start + element * ELEMENT).store(word, Ordering::Relaxed);
        }
    }

    /// The slots of a claimed extent.
    pub(super) fn read(&self, extent: Extent) -> impl Iterator<Item = u16> + '_ {
        let (segment, start) = self.place(extent);
        (0..(extent.slots() / SLOTS_PER_ELEMENT) as usize).flat_map(move |element| {
            let word = segment.u64(start + element * ELEMENT).load(Ordering::Relaxed);
            [0, 16, 32, 48].map(|shift| (word >> shift) as u16)
        })
    }

    fn place(&self, extent: Extent) -> (&Mapping, usize) {
        let unit = (extent.unit % UNITS_PER_SEGMENT) as usize;
        let start = unit * (RING_UNIT / SLOTS_PER_ELEMENT) as usize * ELEMENT;
        (&self.segments[(extent.unit / UNITS_PER_SEGMENT) as usize], start)
    }

    /// Units that there are.
    fn units(&self) -> u32 {
        self.segments.len() as u32 * UNITS_PER_SEGMENT
    }

    fn is_free(&self, extent: Extent) -> bool {
        (extent.unit..extent.unit + extent.units()).all(|unit| !self.taken.contains(unit))
    }

    fn take(&mut self, extent: Extent) {
        (extent.unit..extent.unit + extent.units()).for_each(|unit| self.taken.insert(unit));
    }

    fn add_segment(&mut self) -> Result<()> {
        let index = self.segments.len() as u32;
        if index == SEGMENTS {
            return Err(Error::Full { what: "rings", most: u64::from(SEGMENTS) * u64::from(SEGMENT_SLOTS) });
        }
        let kind = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        let (key, value) = (size_of::<u32>() as u32, ELEMENT as u32);
        let shape = aya_obj::Map::new_from_params(kind, key, value, ELEMENTS_PER_SEGMENT, MMAPABLE);
        let segment = MapData::create(shape, "ring_segment", None).map_err(Error::map(NAME))?;
        let mapping = map_segment(&segment)?;
        self.outer.set(index, &segment, 0).map_err(Error::map(NAME))?;
        self.segments.push(mapping);
        Ok(())
    }
}

fn map_segment(segment: &MapData) -> Result<Mapping> {
    Mapping::new(segment.fd().as_fd(), ELEMENTS_PER_SEGMENT as usize * ELEMENT)
        .during(|| "mapping a segment of rings".to_owned())
}
