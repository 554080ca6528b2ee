//! Programs and tables of a host, kept for the next one: verifying the programs takes longer than most tests.
//!
//! A kit is pinned on a new host before its fan comes up; `fan up` takes over what is pinned, as it does after a
//! restart. When the host goes, everything in the tables is removed: the next test finds them as they were made. What
//! else a host is made of belongs to one test alone.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::Path,
    sync::{Mutex, PoisonError},
};

use aya::maps::{Map, MapData, RingBuf};

use crate::{host::Host, lab, sys};

/// Where the host's programs and tables are pinned.
const PINS: &str = "/sys/fs/bpf/fanlight";

/// Kits that no host has.
static SPARE: Mutex<Vec<Kit>> = Mutex::new(Vec::new());

/// A host's programs and tables, and their places below [`PINS`].
pub(crate) struct Kit(Vec<(String, OwnedFd)>);

impl Kit {
    /// Pins a spare kit on a host that has none.
    pub(crate) fn lend(host: &Host) -> Option<Self> {
        let kit = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        kit.pin(&host.path(PINS)).unwrap_or_else(|error| panic!("{}: pinning a kit: {error}", host.name()));
        Some(kit)
    }

    /// The programs and tables that a host has made. Tables of flows are of a size that each agent chooses: they are
    /// found through another table, and do not belong to a kit.
    pub(crate) fn of(host: &Host) -> Self {
        let root = host.path(PINS);
        let mut kit = Vec::new();
        for layout in names(&root) {
            for place in ["maps", "programs"].map(|kind| format!("{layout}/{kind}")) {
                for name in names(&root.join(&place)) {
                    if !["flows-", "datagrams-", "unconfirmed-"].iter().any(|table| name.starts_with(table)) {
                        let place = format!("{place}/{name}");
                        let object = sys::bpf_pinned(&root.join(&place));
                        kit.push((place, object.unwrap_or_else(|error| panic!("{name}: {error}"))));
                    }
                }
            }
        }
        Self(kit)
    }

    /// Takes a kit back from a host that ends. Its devices are down from here on: while the kernel takes a namespace
    /// apart, timers of its sockets may still send.
    pub(crate) fn give_back(self, host: &Host) {
        if lab::kept() || has_processes(host) {
            return;
        }
        let down = ["link", "set", "group", "default", "down"];
        if !host.command("ip").args(down).run().status.success() {
            return;
        }
        if let Err(error) = self.wipe() {
            panic!("{}: emptying the tables for the next host: {error}", host.name());
        }
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }

    fn pin(&self, root: &Path) -> io::Result<()> {
        for (place, object) in &self.0 {
            let path = root.join(place);
            let directory = path.parent().unwrap_or(root);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            sys::bpf_pin(object, &path)?;
        }
        Ok(())
    }

    fn wipe(&self) -> io::Result<()> {
        let maps = self.0.iter().filter(|(place, _)| place.contains("/maps/"));
        for (place, map) in maps {
            wipe(map).map_err(|error| io::Error::other(format!("{place}: {error}")))?;
        }
        Ok(())
    }
}

/// None where there is no such directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether a process besides the holder is left in the host's network namespace: an agent goes on writing.
fn has_processes(host: &Host) -> bool {
    let own = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let holder = host.holder().to_string();
    let namespace = own(&holder);
    let processes = names(Path::new("/proc"));
    let mut others = processes.iter().filter(|name| name.parse::<u32>().is_ok() && **name != holder);
    others.any(|process| own(process) == namespace)
}

/// Brings a map to the state in which the kernel makes it.
fn wipe(map: &OwnedFd) -> io::Result<()> {
    // linux/bpf.h, `enum bpf_map_type`.
    const HASH: u32 = 1;
    const ARRAY: u32 = 2;
    const PROGRAM_ARRAY: u32 = 3;
    const PER_CPU_ARRAY: u32 = 6;
    const LRU_HASH: u32 = 9;
    const ARRAY_OF_MAPS: u32 = 12;
    const RING: u32 = 27;
    const MAPPABLE: u32 = 1 << 10;

    let shape = sys::bpf_map_shape(map)?;
    let indexes = || (0..shape.entries).map(u32::to_ne_bytes);
    match shape.kind {
        HASH | LRU_HASH => {
            while let Some(key) = sys::bpf_first_key(map, shape.key_size)? {
                absent_is_fine(sys::bpf_delete(map, &key))?;
            }
        }
        ARRAY if shape.flags & MAPPABLE != 0 => sys::bpf_zero(map, shape)?,
        ARRAY => {
            let zero = vec![0; shape.value_size as usize];
            indexes().try_for_each(|index| sys::bpf_update(map, &index, &zero))?;
        }
        PER_CPU_ARRAY => {
            let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            let zero = vec![0; shape.value_size.next_multiple_of(8) as usize * processors];
            indexes().try_for_each(|index| sys::bpf_update(map, &index, &zero))?;
        }
        ARRAY_OF_MAPS => {
            indexes().try_for_each(|index| absent_is_fine(sys::bpf_delete(map, &index)))?;
        }
        // The programs of stages, which belong to those of the hooks.
        PROGRAM_ARRAY => {}
        RING => drain(map)?,
        other => return Err(io::Error::other(format!("a map of kind {other}, number {}", map.as_raw_fd()))),
    }
    Ok(())
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn drain(map: &OwnedFd) -> io::Result<()> {
    let map = MapData::from_fd(map.try_clone()?).map_err(io::Error::other)?;
    let mut ring = RingBuf::try_from(Map::RingBuf(map)).map_err(io::Error::other)?;
    while ring.next().is_some() {}
    Ok(())
}
