//! The flow tables as maps: made, pinned, put where the programs find them, and replaced without losing their flows.
//!
//! Programs reach the tables through `flow_tables`, so that they need not be loaded again for others. A table that is
//! replaced goes to `former_flow_tables`: programs bring over what their packets belong to, and the agent the rest.

use std::{io, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData, MapError},
};
use aya_obj::generated::bpf_map_type;
use dataplane_common::abi::{FlowKey, FlowRecord, FlowTable, UNCONFIRMED_ENTRIES};

use super::{
    endpoints::is_missing,
    error::{Context as _, Error, Result},
    flows::{FlowSizes, each_entry},
    object,
    pins::{self, Pins},
    sys,
    tables::Tables,
};

/// Maps of the present tables and of former ones, by [`FlowTable`].
pub(super) const PRESENT: &str = "flow_tables";
pub(super) const FORMER: &str = "former_flow_tables";

/// Tables that only this process refers to are as large as the programs' fixtures need.
const PRIVATE: FlowSizes = FlowSizes { flows: 65_536, datagrams: 65_536, unconfirmed: UNCONFIRMED_ENTRIES };

/// The present tables, as the programs find them.
pub(super) struct FlowMaps([MapData; FlowTable::ALL.len()]);

impl FlowMaps {
    /// Tables of this process alone.
    pub(super) fn private(ebpf: &Ebpf) -> Result<Self> {
        let mut present = outer(ebpf, PRESENT)?;
        Self::of(|table| {
            let map = make(table, PRIVATE)?;
            put(&mut present, table, &map)?;
            Ok(map)
        })
    }

    /// The pinned ones, and new ones of these sizes where none are. Those of the layout before are former ones then.
    pub(super) fn pinned(ebpf: &Ebpf, pins: &Pins, sizes: FlowSizes) -> Result<Self> {
        let (mut present, mut former) = (outer(ebpf, PRESENT)?, outer(ebpf, FORMER)?);
        let mut sizes = sizes;
        let is_upgrade = pins.retire_flow_layouts()?;
        mend(pins, &present)?;
        // Before those that replace them: a flow is always found in one or the other.
        for table in FlowTable::ALL {
            if let Some(map) = open(pins, &former_name(table))? {
                put(&mut former, table, &map)?;
                if is_upgrade {
                    sizes.hold(table, entries(&map, table)?);
                }
            }
        }
        Self::of(|table| {
            let map = match open(pins, table.name())? {
                Some(map) => map,
                None => {
                    let map = make(table, sizes)?;
                    let pinned = map.pin(pins.map(table.name())).map_err(io::Error::other);
                    pinned.during(|| format!("pinning map {}", table.name()))?;
                    map
                }
            };
            put(&mut present, table, &map)?;
            Ok(map)
        })
    }

    /// All maps: these, and the others of the object.
    pub(super) fn tables(&self, ebpf: &Ebpf) -> Result<Tables> {
        Tables::new(|name| match FlowTable::ALL.into_iter().position(|table| table.name() == name) {
            Some(found) => object::duplicate(&self.0[found], name),
            None => object::map_data(ebpf, name),
        })
    }

    fn of(mut each: impl FnMut(FlowTable) -> Result<MapData>) -> Result<Self> {
        let [flows, datagrams, unconfirmed] = FlowTable::ALL.map(&mut each);
        Ok(Self([flows?, datagrams?, unconfirmed?]))
    }
}

/// Makes tables of these sizes the pinned ones, and those so far former ones. They are made first: where that fails,
/// nothing has changed.
pub(super) fn replace(pins: &Pins, sizes: FlowSizes) -> Result<()> {
    let made = FlowMaps::of(|table| make(table, sizes))?;
    let renamed = pin_fresh(pins, &made).and_then(|()| {
        FlowTable::ALL.into_iter().try_for_each(|table| {
            pins.rename_map(table.name(), &former_name(table))?;
            pins.rename_map(&fresh_name(table), table.name())
        })
    });
    renamed.inspect_err(|_| take_back(pins))
}

fn pin_fresh(pins: &Pins, made: &FlowMaps) -> Result<()> {
    FlowTable::ALL.into_iter().zip(&made.0).try_for_each(|(table, map)| {
        let path = pins.map(&fresh_name(table));
        pins::remove_pin(&path)?;
        map.pin(&path).map_err(io::Error::other).during(|| format!("pinning map {}", table.name()))
    })
}

/// Takes back what [`replace`] has done, unless programs look at one of its tables already.
pub(super) fn take_back(pins: &Pins) {
    let taken = FlowTable::ALL.into_iter().try_for_each(|table| {
        if let Some(former) = open(pins, &former_name(table))?
            && is_held(&pinned_outer(pins, PRESENT)?, table, &former)?
        {
            pins.rename_map(&former_name(table), table.name())?;
        }
        pins::remove_pin(&pins.map(&fresh_name(table)))
    });
    if let Err(error) = taken {
        tracing::warn!("flow tables: {error}; it is put right when they are opened next");
    }
}

/// Gives every table its name that lost it because a process ended in [`replace`]: the new one where it was pinned, else
/// the one that programs look at.
fn mend(pins: &Pins, present: &ArrayOfMaps<MapData>) -> Result<()> {
    for table in FlowTable::ALL {
        let (name, fresh) = (table.name(), fresh_name(table));
        if pins.map(name).exists() {
            pins::remove_pin(&pins.map(&fresh))?;
        } else if pins.map(&fresh).exists() {
            pins.rename_map(&fresh, name)?;
        } else if let Some(former) = open(pins, &former_name(table))?
            && is_held(present, table, &former)?
        {
            pins.rename_map(&former_name(table), name)?;
        }
    }
    Ok(())
}

/// Whether there are former tables.
pub(super) fn has_former(pins: &Pins) -> bool {
    FlowTable::ALL.into_iter().any(|table| pins.map(&former_name(table)).exists())
}

/// Brings what is left in the former tables over to the present ones and lets go of them. All programs must use the
/// present ones by now. How many entries there were.
pub(super) fn migrate(pins: &Pins) -> Result<u64> {
    let (mut presents, mut formers) = (pinned_outer(pins, PRESENT)?, pinned_outer(pins, FORMER)?);
    let mut brought = 0;
    let mut pairs = Vec::new();
    for table in FlowTable::ALL {
        let (former, present) = (open(pins, &former_name(table))?, open(pins, table.name())?);
        pairs.extend(former.zip(present).map(|(former, present)| (table, former, present)));
    }
    for (table, former, present) in &pairs {
        // The process that opened them last may have ended before this: an entry that is moved must be found where it goes.
        put(&mut formers, *table, former)?;
        put(&mut presents, *table, present)?;
        brought += bring_table_over(*table, former, present)?;
    }
    // A program run may have entered something meanwhile that had begun when these were the present tables.
    sys::grace_period().during(|| "waiting for program runs".to_owned())?;
    for (table, former, present) in &pairs {
        brought += bring_table_over(*table, former, present)?;
    }
    // Programs look into former tables while there is one of connections: that goes last.
    pairs.iter().rev().try_for_each(|&(table, ..)| let_go(pins, table))?;
    Ok(brought)
}

fn let_go(pins: &Pins, table: FlowTable) -> Result<()> {
    let outer = MapData::from_pin(pins.map(FORMER)).map_err(Error::map(FORMER))?;
    let removed = sys::remove(outer.fd().as_fd(), &(table as u32));
    removed.during(|| format!("letting go of the former table {}", table.name()))?;
    pins::remove_pin(&pins.map(&former_name(table)))
}

fn bring_table_over(table: FlowTable, former: &MapData, present: &MapData) -> Result<u64> {
    let what = || format!("bringing flows over to map {}", table.name());
    let (former, present) = (former.fd().as_fd(), present.fd().as_fd());
    let mut brought = 0;
    each_entry(former, |key, record| {
        // Entered before it is removed: its packets always find it.
        if record.is_known() {
            let mut record = *record;
            record.migrate();
            sys::insert_new(present, key, &record)?;
            brought += 1;
        }
        sys::remove(former, key)
    })
    .during(what)?;
    Ok(brought)
}

fn entries(map: &MapData, table: FlowTable) -> Result<u32> {
    map.info().map(|info| info.max_entries()).map_err(Error::map(table.name()))
}

/// The name of a table that another has replaced.
pub(super) fn former_name(table: FlowTable) -> String {
    format!("former_{}", table.name())
}

/// The name of a table that is to replace another.
pub(super) fn fresh_name(table: FlowTable) -> String {
    format!("fresh_{}", table.name())
}

/// A pinned map, if there is one; of another shape than a flow table's it is refused.
fn open(pins: &Pins, name: &str) -> Result<Option<MapData>> {
    let path = pins.map(name);
    let map = match MapData::from_pin(&path) {
        Err(error) if is_missing(&error) => return Ok(None),
        other => other.map_err(Error::map(name))?,
    };
    let wanted = shape(map.info().map_err(Error::map(name))?.max_entries());
    object::compare(&path, name, &wanted)?;
    Ok(Some(map))
}

fn outer(ebpf: &Ebpf, name: &str) -> Result<ArrayOfMaps<MapData>> {
    let data = object::map_data(ebpf, name)?;
    Map::from_map_data(data).and_then(ArrayOfMaps::try_from).map_err(Error::map(name))
}

fn pinned_outer(pins: &Pins, name: &str) -> Result<ArrayOfMaps<MapData>> {
    let data = MapData::from_pin(pins.map(name)).map_err(Error::map(name))?;
    Map::from_map_data(data).and_then(ArrayOfMaps::try_from).map_err(Error::map(name))
}

/// Whether the programs find a table.
fn is_held(outer: &ArrayOfMaps<MapData>, table: FlowTable, map: &MapData) -> Result<bool> {
    let id = |map: &MapData| map.info().map(|info| info.id()).map_err(Error::map(table.name()));
    match outer.get(&(table as u32), 0) {
        Ok(held) => Ok(id(&held)? == id(map)?),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(Error::map(table.name())(error)),
    }
}

/// Shows the programs a table that they do not find yet.
fn put(outer: &mut ArrayOfMaps<MapData>, table: FlowTable, map: &MapData) -> Result<()> {
    if is_held(outer, table, map)? {
        return Ok(());
    }
    outer.set(table as u32, map, 0).map_err(Error::map(table.name()))
}

fn make(table: FlowTable, sizes: FlowSizes) -> Result<MapData> {
    MapData::create(shape(sizes.of(table)), table.name(), None).map_err(Error::map(table.name()))
}

fn shape(entries: u32) -> aya_obj::Map {
    let kind = bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32;
    let (key, value) = (size_of::<FlowKey>() as u32, size_of::<FlowRecord>() as u32);
    aya_obj::Map::new_from_params(kind, key, value, entries, 0)
}

/// The file name of a map of flows: it holds the layout's number.
pub(super) fn file_name(name: &str, layout: u32) -> String {
    format!("{name}-{layout}")
}

/// Whether a map belongs to one layout of flows.
pub(super) fn has_layout(name: &str) -> bool {
    [PRESENT, FORMER].contains(&name)
        || FlowTable::ALL.into_iter().any(|table| table.name() == name || fresh_name(table) == name)
}

/// The layout that a file's name says it is of.
pub(super) fn layout_of(file: &str) -> Option<u32> {
    let (name, layout) = file.rsplit_once('-')?;
    if name == PRESENT { layout.parse().ok() } else { None }
}
