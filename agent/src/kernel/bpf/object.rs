//! The embedded object: its maps and programs, loaded pinned (the node's datapath) or privately (tests, replay).

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapInfo},
    programs::{Program, ProgramFd, ProgramInfo},
};
use dataplane_common::outcome::{Hook, Stage};

use super::{
    error::{Context as _, Error, Result},
    pins::{self, Pins},
    probe, stages, sys,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fanlight.o"));

/// The name of a hook's program in the object.
pub const fn program_name(hook: Hook) -> &'static str {
    match hook {
        Hook::UplinkIngress => "uplink_ingress",
        Hook::EndpointIngress => "endpoint_ingress",
        Hook::BridgeIngress => "bridge_ingress",
        Hook::HostEgress => "host_egress",
        Hook::EndpointEgress => "endpoint_egress",
        Hook::UplinkXdp => "uplink_xdp",
    }
}

/// The program in front of `uplink-ingress` where the kernel runs it instead of the driver.
pub const GENERIC_EARLY: &str = "uplink_xdp_skb";

/// A program in the kernel.
#[derive(Debug)]
pub struct LoadedProgram {
    /// Where it belongs.
    pub hook: Hook,
    /// Its name in the object.
    pub name: &'static str,
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
            let path = if name == stages::MAP { pins.stages(object_hash()) } else { pins.map(name) };
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
pub(super) fn load_program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Program> {
    let missing = || Error::Object { what: format!("program {name}") };
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    let loaded = match program {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => return Err(missing()),
    };
    loaded.map_err(Error::program(name))?;
    Ok(program)
}

/// The programs of all hooks, and of the stages that they call. They are pinned under a name that tells this object from
/// others: the next process takes them over if they run on the present maps, and the kernel need not verify them again.
pub(super) fn programs(ebpf: &mut Ebpf, pins: &Pins) -> Result<Vec<LoadedProgram>> {
    let maps = map_ids(ebpf)?;
    let path = |name: &str| pins.program(name, object_hash());
    let mut kept = Vec::new();
    // The stages first: no packet meets a program that calls one which is not there yet.
    for &stage in Stage::ALL {
        let name = stages::stage_name(stage);
        let path = path(name);
        let program = load_pinned(ebpf, name, &path, &maps)?;
        stages::put(ebpf, stage, &program.0)?;
        kept.push(path);
    }
    let mut programs = Vec::new();
    let hooks = Hook::ALL.iter().map(|&hook| (hook, program_name(hook)));
    for (hook, name) in hooks.chain([(Hook::UplinkXdp, GENERIC_EARLY)]) {
        let path = path(name);
        programs.push(load_pinned(ebpf, name, &path, &maps)?.of(hook, name)?);
        kept.push(path);
    }
    pins.keep_programs(&kept)?;
    Ok(programs)
}

/// Loads the programs of all stages for this process alone.
pub(super) fn load_stages(ebpf: &mut Ebpf) -> Result<()> {
    for &stage in Stage::ALL {
        let name = stages::stage_name(stage);
        let fd = Loaded::of_program(name, load_program(ebpf, name)?)?.0;
        stages::put(ebpf, stage, &fd)?;
    }
    Ok(())
}

/// Tells objects apart, so that a pinned program is known before its own is loaded.
pub(super) fn object_hash() -> u64 {
    static HASH: OnceLock<u64> = OnceLock::new();
    // The same for every process of one binary, and that is all that it has to be.
    *HASH.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        OBJECT.hash(&mut hasher);
        hasher.finish()
    })
}

/// Takes a program over that is pinned already and runs on these maps, or loads it and pins it in place of another.
fn load_pinned(ebpf: &mut Ebpf, name: &str, path: &Path, maps: &[u32]) -> Result<Loaded> {
    if let Some(program) = pinned(path, maps) {
        return Ok(program);
    }
    let program = load_program(ebpf, name)?;
    let loaded = Loaded::of_program(name, program)?;
    pins::remove_pin(path)?;
    program.pin(path).map_err(io::Error::other).during(|| format!("pinning program {name}"))?;
    Ok(loaded)
}

/// A program that is pinned already and runs on these maps.
fn pinned(path: &Path, maps: &[u32]) -> Option<Loaded> {
    let info = ProgramInfo::from_pin(path).ok()?;
    let loaded = Loaded(info.fd().ok()?, info.verified_instruction_count());
    let running = sys::program_info(loaded.0.as_fd()).ok()?.map_ids;
    running.iter().all(|map| maps.contains(map) || is_constant(*map)).then_some(loaded)
}

/// Whether a map holds load-time constants, which each load has of its own.
fn is_constant(map: u32) -> bool {
    MapInfo::from_id(map).is_ok_and(|info| info.name_as_str().is_some_and(|name| name.contains(".rodata")))
}

/// The numbers of all maps of the object.
fn map_ids(ebpf: &Ebpf) -> Result<Vec<u32>> {
    ebpf.maps().map(|(name, map)| map_id(Some(map), name)).collect()
}

/// The kernel's number for one of the object's maps.
pub(super) fn map_id(map: Option<&Map>, name: &str) -> Result<u32> {
    Ok(data(map, name)?.info().map_err(Error::map(name))?.id())
}

/// A handle of a program in the kernel, and how many instructions the verifier walked.
struct Loaded(ProgramFd, Option<u32>);

impl Loaded {
    fn of_program(name: &str, program: &Program) -> Result<Self> {
        let verified_instructions =
            program.info().map_err(Error::program(name))?.verified_instruction_count();
        let fd =
            program.fd().map_err(Error::program(name))?.try_clone().during(|| format!("keeping {name}"))?;
        Ok(Self(fd, verified_instructions))
    }

    fn of(self, hook: Hook, name: &'static str) -> Result<LoadedProgram> {
        let Self(fd, verified_instructions) = self;
        let info = sys::program_info(fd.as_fd()).during(|| format!("asking about program {name}"))?;
        Ok(LoadedProgram { hook, name, id: info.id, verified_instructions, tag: info.tag, fd })
    }
}

/// Another handle of one of the object's maps.
pub(super) fn map_data(ebpf: &Ebpf, name: &str) -> Result<MapData> {
    duplicate(data(ebpf.map(name), name)?, name)
}

/// What is inside one of the object's maps.
pub(super) fn data<'m>(map: Option<&'m Map>, name: &str) -> Result<&'m MapData> {
    match map {
        Some(
            Map::Array(data)
            | Map::ArrayOfMaps(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::ProgramArray(data)
            | Map::RingBuf(data),
        ) => Ok(data),
        _ => Err(Error::Object { what: format!("map {name}") }),
    }
}

/// Another handle of a map.
pub(super) fn duplicate(data: &MapData, name: &str) -> Result<MapData> {
    let fd = data.fd().as_fd().try_clone_to_owned().during(|| format!("keeping map {name}"))?;
    MapData::from_fd(fd).map_err(Error::map(name))
}
