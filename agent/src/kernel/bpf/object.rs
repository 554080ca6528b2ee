//! The embedded object: its maps and programs, loaded pinned (the node's datapath) or privately (tests, replay).

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::{ProgramFd, SchedClassifier},
};
use dataplane_common::outcome::Hook;

use super::{
    error::{Context as _, Error, Result},
    pins::{self, Pins},
    probe, sys,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fanlight.o"));

/// The name of a hook's program in the object.
pub const fn program_name(hook: Hook) -> &'static str {
    match hook {
        Hook::UplinkIngress => "uplink_ingress",
        Hook::EndpointIngress => "endpoint_ingress",
        Hook::BridgeIngress => "bridge_ingress",
        Hook::HostEgress => "host_egress",
    }
}

/// A program in the kernel.
#[derive(Debug)]
pub struct LoadedProgram {
    /// Where it belongs.
    pub hook: Hook,
    /// The kernel's number for it.
    pub id: u32,
    /// How many instructions the verifier walked, where the kernel says so.
    pub verified_instructions: Option<u32>,
    pub(super) tag: [u8; 8],
    pub(super) fd: ProgramFd,
}

/// Creates the object's maps, but for the flow tables: pinned or taken from there, else private.
pub(super) fn create_maps(pins: Option<&Pins>) -> Result<Ebpf> {
    let object = aya_obj::Object::parse(OBJECT).map_err(aya::EbpfError::from)?;
    let mut paths: HashMap<String, PathBuf> = HashMap::new();
    if let Some(pins) = pins {
        for (name, map) in object.maps.iter().filter(|(name, _)| is_shared(name)) {
            let path = pins.map(name);
            compare(&path, name, map)?;
            paths.insert(name.clone(), path);
        }
    }
    let decap_flags = probe::decap_flags()?;
    let mut loader = EbpfLoader::new();
    loader.override_global("DECAP_FLAGS", &decap_flags, true);
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    Ok(loader.load(OBJECT)?)
}

/// Load-time constants (`.rodata`) belong to one load.
fn is_shared(name: &str) -> bool {
    !name.starts_with('.')
}

/// aya takes a pinned map whatever it is: whether it is the one that the programs expect is checked here.
pub(super) fn compare(path: &Path, name: &str, map: &aya_obj::Map) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let info = MapData::from_pin(path).and_then(|data| data.info()).map_err(Error::map(name))?;
    let kind = info.map_type().map_err(Error::map(name))? as u32;
    let properties = [
        ("type", kind, map.map_type()),
        ("key size", info.key_size(), map.key_size()),
        ("value size", info.value_size(), map.value_size()),
        ("capacity", info.max_entries(), map.max_entries()),
        ("flags", info.map_flags(), map.map_flags()),
    ];
    match properties.into_iter().find(|(_, found, expected)| found != expected) {
        Some((property, found, expected)) => {
            Err(Error::OtherMap { path: path.to_owned(), property, found, expected })
        }
        None => Ok(()),
    }
}

/// Loads one program by its name in the object.
pub(super) fn load_program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier> {
    let program = ebpf.program_mut(name).ok_or_else(|| Error::Object { what: format!("program {name}") })?;
    let program: &mut SchedClassifier = program.try_into().map_err(Error::program(name))?;
    program.load().map_err(Error::program(name))?;
    Ok(program)
}

/// The programs of all hooks. They are pinned under a name that tells this object from others: the next process takes
/// them over if they run on the present maps, and the kernel need not verify them again.
pub(super) fn programs(ebpf: &mut Ebpf, pins: &Pins, maps: [u32; 2]) -> Result<Vec<LoadedProgram>> {
    let path = |hook| pins.program(hook, object_hash());
    let load = |&hook: &Hook| match pinned(hook, &path(hook), maps) {
        Some(program) => Ok(program),
        None => load_hook(ebpf, hook, &path(hook)),
    };
    let programs = Hook::ALL.iter().map(load).collect::<Result<_>>()?;
    pins.keep_programs(&Hook::ALL.iter().map(|&hook| path(hook)).collect::<Vec<_>>())?;
    Ok(programs)
}

/// Tells objects apart, so that a pinned program is known before its own is loaded.
fn object_hash() -> u64 {
    // The same for every process of one binary, and that is all that it has to be.
    let mut hasher = DefaultHasher::new();
    OBJECT.hash(&mut hasher);
    hasher.finish()
}

/// A program that is pinned already and runs on these maps. One that cannot be used is replaced.
fn pinned(hook: Hook, path: &Path, maps: [u32; 2]) -> Option<LoadedProgram> {
    let program = SchedClassifier::from_pin(path).ok()?;
    let loaded = loaded(hook, &program).ok()?;
    let running = sys::program_info(loaded.fd.as_fd()).ok()?;
    maps.iter().all(|map| running.map_ids.contains(map)).then_some(loaded)
}

/// Loads the program of a hook, and pins it in place of another.
fn load_hook(ebpf: &mut Ebpf, hook: Hook, path: &Path) -> Result<LoadedProgram> {
    let name = program_name(hook);
    let program = load_program(ebpf, name)?;
    let loaded = loaded(hook, program)?;
    pins::remove_pin(path)?;
    program.pin(path).map_err(io::Error::other).during(|| format!("pinning program {name}"))?;
    Ok(loaded)
}

fn loaded(hook: Hook, program: &SchedClassifier) -> Result<LoadedProgram> {
    let name = program_name(hook);
    let verified_instructions = program.info().map_err(Error::program(name))?.verified_instruction_count();
    let fd = program.fd().map_err(Error::program(name))?.try_clone().during(|| format!("keeping {name}"))?;
    let info = sys::program_info(fd.as_fd()).during(|| format!("asking about program {name}"))?;
    Ok(LoadedProgram { hook, id: info.id, verified_instructions, tag: info.tag, fd })
}

/// Another handle of one of the object's maps.
pub(super) fn map_data(ebpf: &Ebpf, name: &str) -> Result<MapData> {
    match ebpf.map(name) {
        Some(
            Map::Array(data)
            | Map::ArrayOfMaps(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::RingBuf(data),
        ) => duplicate(data, name),
        _ => Err(Error::Object { what: format!("map {name}") }),
    }
}

/// Another handle of a map.
pub(super) fn duplicate(data: &MapData, name: &str) -> Result<MapData> {
    let fd = data.fd().as_fd().try_clone_to_owned().during(|| format!("keeping map {name}"))?;
    MapData::from_fd(fd).map_err(Error::map(name))
}
