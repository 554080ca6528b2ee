//! Where rings are: extents of segments, which are made as they are needed and never given back.

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{ArrayOfMaps, Map, MapData};
use aya_obj::generated::bpf_map_type;
use dataplane_common::abi::{
    LARGE_RING_SLOTS, MANY_BACKENDS, RING_SLOTS, RING_UNIT, SEGMENT_ELEMENTS, SEGMENTS, ServiceWord,
};

use super::{
    super::{
        error::{Context as _, Error, Result},
        sys::Mapping,
    },
    bits::Bits,
    elements,
};

const NAME: &str = "rings";
/// `BPF_F_MMAPABLE`
const MMAPABLE: u32 = 1 << 10;
const UNITS_PER_SEGMENT: u32 = SEGMENT_ELEMENTS / RING_UNIT;
const ELEMENT: usize = size_of::<u64>();
/// Binary logarithms of the bits that a slot can take.
const WIDTHS: std::ops::RangeInclusive<u32> = 2..=4;
/// Shapes of a ring.
const CLASSES: usize = 6;

/// Slots of a ring, and the bits that each takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Binary logarithm of a slot's bits.
    log2_bits: u32,
    /// As many slots as the largest services need.
    is_large: bool,
}

impl Shape {
    /// Of the ring of so many backends, the last of whose rows lies so far behind the first: the narrowest that names
    /// them.
    pub(super) fn new(backends: usize, reach: u32) -> Self {
        let log2_bits = WIDTHS.into_iter().find(|log2| reach >> (1 << log2) == 0);
        Self { log2_bits: log2_bits.unwrap_or(*WIDTHS.end()), is_large: backends > MANY_BACKENDS as usize }
    }

    fn slots(self) -> u32 {
        if self.is_large { LARGE_RING_SLOTS } else { RING_SLOTS }
    }

    fn slots_per_element(self) -> u32 {
        u64::BITS >> self.log2_bits
    }

    fn elements(self) -> u32 {
        self.slots().div_ceil(self.slots_per_element())
    }

    fn units(self) -> u32 {
        self.elements().div_ceil(RING_UNIT)
    }

    fn class(self) -> usize {
        (self.log2_bits - *WIDTHS.start()) as usize + if self.is_large { CLASSES / 2 } else { 0 }
    }

    fn bits(self) -> u32 {
        1 << self.log2_bits
    }

    /// A ring's elements; `locals` is what its places are named there.
    fn pack(self, ring: &[u16], locals: &[u16]) -> Vec<u64> {
        match self.bits() {
            4 => elements::pack::<16>(ring, locals),
            8 => elements::pack::<8>(ring, locals),
            _ => elements::pack::<4>(ring, locals),
        }
    }

    /// The slots of a ring's elements, and what fills up the last one.
    fn unpack(self, elements: impl Iterator<Item = u64>) -> Vec<u16> {
        match self.bits() {
            4 => elements::unpack::<16>(elements),
            8 => elements::unpack::<8>(elements),
            _ => elements::unpack::<4>(elements),
        }
    }
}

/// Place and shape of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    unit: u32,
    shape: Shape,
}

impl Extent {
    /// That of a service, if it has a ring.
    pub(super) fn of(word: ServiceWord) -> Option<Self> {
        let ServiceWord { ring, log2_bits, flags, .. } = word;
        let shape = Shape { log2_bits, is_large: flags & ServiceWord::LARGE != 0 };
        let has_ring = WIDTHS.contains(&log2_bits) && flags & ServiceWord::EMPTY == 0;
        has_ring.then_some(Self { unit: ring, shape })
    }

    /// What a service's word says of it.
    pub(super) fn word(self, base: u32, flags: u32) -> ServiceWord {
        let large = if self.shape.is_large { ServiceWord::LARGE } else { 0 };
        ServiceWord { base, ring: self.unit, log2_bits: self.shape.log2_bits, flags: flags | large }
    }

    /// Slots of the ring.
    pub(super) fn slots(self) -> usize {
        self.shape.slots() as usize
    }

    fn all_units(self) -> std::ops::Range<u32> {
        self.unit..self.unit + self.shape.units()
    }

    /// Segments are cut into equal extents.
    fn is_possible(self) -> bool {
        let (at, size) = (self.unit % UNITS_PER_SEGMENT, self.shape.units());
        at.is_multiple_of(size) && at + size <= UNITS_PER_SEGMENT
    }

    /// The next place at which one of its shape may lie.
    fn next(self) -> Self {
        let size = self.shape.units();
        let unit = self.unit + size;
        let room = UNITS_PER_SEGMENT - unit % UNITS_PER_SEGMENT;
        Self { unit: if room < size { unit + room } else { unit }, ..self }
    }
}

/// The segments.
#[derive(Debug)]
pub(super) struct Rings {
    outer: ArrayOfMaps<MapData>,
    segments: Vec<Mapping>,
    taken: Bits,
    /// By shape: no free extent lies before.
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
        self.segments.len() as u64 * u64::from(SEGMENT_ELEMENTS) * ELEMENT as u64
    }

    /// Whether an extent is one that can be read, and free so far; then it is taken.
    pub(super) fn claim(&mut self, extent: Extent) -> bool {
        let fits = extent.is_possible() && extent.all_units().end <= self.units() && self.is_free(extent);
        if fits {
            self.take(extent);
        }
        fits
    }

    /// A free extent of a shape; a segment is made for it where there is none.
    pub(super) fn allocate(&mut self, shape: Shape) -> Result<Extent> {
        let extent = self.first_free(shape);
        if extent.unit >= self.units() {
            self.add_segment()?;
        }
        self.first[shape.class()] = extent.next().unit;
        self.take(extent);
        Ok(extent)
    }

    /// Whether there is a free extent of a shape.
    pub(super) fn has_room(&mut self, shape: Shape) -> bool {
        self.first_free(shape).unit < self.units()
    }

    /// The first free extent of a shape, which may lie behind the last segment; it is found at once the next time.
    fn first_free(&mut self, shape: Shape) -> Extent {
        let mut extent = Extent { unit: self.first[shape.class()], shape };
        while extent.unit < self.units() && !self.is_free(extent) {
            extent = extent.next();
        }
        self.first[shape.class()] = extent.unit;
        extent
    }

    /// Gives an extent back that no program reads any more.
    pub(super) fn release(&mut self, extent: Extent) {
        extent.all_units().for_each(|unit| self.taken.remove(unit));
        // An extent of another shape over it may begin anywhere in its segment.
        let segment = extent.unit - extent.unit % UNITS_PER_SEGMENT;
        let own = extent.shape.class();
        for (class, first) in self.first.iter_mut().enumerate() {
            *first = (*first).min(if class == own { extent.unit } else { segment });
        }
    }

    /// Writes a ring into an extent that no program reads; `locals` is what the ring's places are named there.
    pub(super) fn write(&self, extent: Extent, ring: &[u16], locals: &[u16]) {
        for (word, element) in extent.shape.pack(ring, locals).into_iter().zip(self.elements(extent)) {
            element.store(word, Ordering::Relaxed);
        }
    }

    /// Whether this is what stands in a claimed extent.
    pub(super) fn holds(&self, extent: Extent, ring: &[u16], locals: &[u16]) -> bool {
        let words = extent.shape.pack(ring, locals).into_iter();
        locals.iter().all(|&local| u32::from(local) >> extent.shape.bits() == 0)
            && words.zip(self.elements(extent)).all(|(word, element)| element.load(Ordering::Relaxed) == word)
    }

    /// The slots of a claimed extent.
    pub(super) fn read(&self, extent: Extent) -> Vec<u16> {
        let elements = self.elements(extent).map(|element| element.load(Ordering::Relaxed));
        let mut slots = extent.shape.unpack(elements);
        slots.truncate(extent.slots());
        slots
    }

    /// What the slots of a claimed extent name, each once.
    pub(super) fn named(&self, extent: Extent) -> Vec<u16> {
        let mut is_named = vec![false; 1 << extent.shape.bits()];
        self.read(extent).into_iter().for_each(|local| is_named[usize::from(local)] = true);
        let named = is_named.into_iter().zip(0..=u16::MAX).filter(|&(is_named, _)| is_named);
        named.map(|(_, local)| local).collect()
    }

    fn elements(&self, extent: Extent) -> impl Iterator<Item = &AtomicU64> {
        let segment = &self.segments[(extent.unit / UNITS_PER_SEGMENT) as usize];
        let start = (extent.unit % UNITS_PER_SEGMENT) as usize * RING_UNIT as usize * ELEMENT;
        let offsets = (start..).step_by(ELEMENT).take(extent.shape.elements() as usize);
        offsets.map(|offset| segment.u64(offset))
    }

    /// Units that there are.
    fn units(&self) -> u32 {
        self.segments.len() as u32 * UNITS_PER_SEGMENT
    }

    fn is_free(&self, extent: Extent) -> bool {
        extent.all_units().all(|unit| !self.taken.contains(unit))
    }

    fn take(&mut self, extent: Extent) {
        extent.all_units().for_each(|unit| self.taken.insert(unit));
    }

    fn add_segment(&mut self) -> Result<()> {
        let index = self.segments.len() as u32;
        if index == SEGMENTS {
            let bytes = u64::from(SEGMENTS) * u64::from(SEGMENT_ELEMENTS) * ELEMENT as u64;
            return Err(Error::Full { what: "rings", most: bytes });
        }
        let kind = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        let (key, value) = (size_of::<u32>() as u32, ELEMENT as u32);
        let shape = aya_obj::Map::new_from_params(kind, key, value, SEGMENT_ELEMENTS, MMAPABLE);
        let segment = MapData::create(shape, "ring_segment", None).map_err(Error::map(NAME))?;
        let mapping = map_segment(&segment)?;
        self.outer.set(index, &segment, 0).map_err(Error::map(NAME))?;
        self.segments.push(mapping);
        Ok(())
    }
}

fn map_segment(segment: &MapData) -> Result<Mapping> {
    Mapping::new(segment.fd().as_fd(), SEGMENT_ELEMENTS as usize * ELEMENT)
        .during(|| "mapping a segment of rings".to_owned())
}
