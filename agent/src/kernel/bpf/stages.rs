//! Stages: programs of their own for what few packets need, which the hooks' programs reach through map `stages`.
//!
//! Each version of the programs has an array of its own, so that its programs never go on as another version's. It is
//! pinned: the kernel empties such an array as soon as nobody but programs refers to it.

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::ProgramFd,
};
use dataplane_common::outcome::Stage;

use super::{
    Attachment,
    endpoints::is_missing,
    error::{Error, Result},
    pins::{self, Pins},
    sys,
};

/// The map's name in the object.
pub(super) const MAP: &str = "stages";

/// The name of a stage's program in the object.
pub const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Service => "stage_service",
        Stage::CarriedService => "stage_carried",
        Stage::Begin => "stage_begin",
        Stage::Onward => "stage_onward",
        Stage::Answer => "stage_answer",
        Stage::Route => "stage_route",
        Stage::RemoveOptions => "stage_options",
        Stage::Relay => "stage_relay",
    }
}

/// Puts a stage's program where the others find it.
pub(super) fn put(ebpf: &mut Ebpf, stage: Stage, program: &ProgramFd) -> Result<()> {
    let map = ebpf.map_mut(MAP).ok_or_else(|| Error::Object { what: format!("map {MAP}") })?;
    let mut array = ProgramArray::try_from(map).map_err(Error::map(MAP))?;
    array.set(stage as u32, program, 0).map_err(Error::map(MAP))
}

/// Unpins arrays of other versions that no attached program reaches any more.
pub(super) fn prune(pins: &Pins, own: u64, attached: impl FnOnce() -> Result<Vec<Attachment>>) -> Result<()> {
    let others = pins.other_stages(own)?;
    if others.is_empty() {
        return Ok(());
    }
    let mut reached = Vec::new();
    for attachment in attached()? {
        // A program that is gone meanwhile reaches nothing.
        reached.extend(
            sys::program_info_by_id(attachment.program_id).map(|info| info.map_ids).unwrap_or_default(),
        );
    }
    for path in others {
        let id = match MapData::from_pin(&path).and_then(|map| map.info()) {
            Ok(info) => info.id(),
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(Error::map(MAP)(error)),
        };
        if !reached.contains(&id) {
            pins::remove_pin(&path)?;
        }
    }
    Ok(())
}
