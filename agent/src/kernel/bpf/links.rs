//! Programs on tcx hooks (kernel 6.6 and later) and XDP programs: one pinned link per hook and interface.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya_obj::generated::bpf_attach_type::{self, BPF_TCX_EGRESS, BPF_TCX_INGRESS, BPF_XDP};
use control::observed::XdpMode;
use dataplane_common::outcome::Hook;

use super::{
    Attached, Attachment, ForeignProgram, Wanted,
    error::{Context as _, Result},
    pins::{self, Pins},
    sys, xdp,
};

/// Flags of `linux/bpf.h` and `linux/if_link.h` for a new link.
pub(super) type Flags = u32;

/// `BPF_F_BEFORE` with nothing named: before all others of a tcx hook.
pub(super) const BEFORE: Flags = 1 << 3;

/// `XDP_FLAGS_*`.
pub(super) const fn xdp_flags(mode: XdpMode) -> Flags {
    match mode {
        XdpMode::Generic => 1 << 1,
        XdpMode::Native => 1 << 2,
        XdpMode::Offloaded => 1 << 3,
    }
}

const fn attach_type(hook: Hook) -> bpf_attach_type {
    match hook {
        Hook::HostEgress | Hook::EndpointEgress => BPF_TCX_EGRESS,
        Hook::UplinkXdp => BPF_XDP,
        _ => BPF_TCX_INGRESS,
    }
}

/// Attaches a program, or replaces the one of the link that is there.
pub(super) fn attach(
    pins: &Pins,
    wanted: &Wanted<'_>,
    ifindex: u32,
    (name, flags): (&str, Flags),
) -> Result<Attached> {
    let hook = wanted.program.hook;
    let path = pins.link(hook, ifindex);
    if let Some(link) = open(&path)? {
        if let Some(attached) = reuse(&link, wanted, ifindex, name)? {
            return Ok(attached);
        }
        pins::remove_pin(&path)?;
    }
    let what = || format!("attaching {} to {name}", hook.name());
    let (program, attach_type) = (wanted.program.fd.as_fd(), attach_type(hook));
    let link = sys::link_create(program, ifindex, attach_type, flags).during(what)?;
    // Without a pin the link would end with this process.
    sys::pin(link.as_fd(), &path).during(|| format!("pinning the link of {} on {name}", hook.name()))?;
    Ok(Attached::New)
}

/// Makes a pinned link run the wanted program; `None` when the link no longer leads to this interface.
fn reuse(link: &OwnedFd, wanted: &Wanted<'_>, ifindex: u32, name: &str) -> Result<Option<Attached>> {
    let hook = wanted.program.hook;
    let what = || format!("asking about {} on {name}", hook.name());
    let info = sys::link_info(link.as_fd()).during(what)?;
    if !leads_to(&info, hook, ifindex)? {
        return Ok(None);
    }
    if sys::program_info_by_id(info.program_id).is_ok_and(|running| wanted.is(&running)) {
        return Ok(Some(Attached::Unchanged));
    }
    match sys::link_update(link.as_fd(), wanted.program.fd.as_fd()) {
        Ok(()) => Ok(Some(Attached::Replaced)),
        // The device went between question and update.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(None),
        other => other.during(|| format!("replacing {} on {name}", hook.name())).map(|()| None),
    }
}

/// Whether a link is on this interface of this namespace: the index may have been another device's, and a device
/// that moved to another namespace took its link along.
fn leads_to(info: &sys::LinkInfo, hook: Hook, ifindex: u32) -> Result<bool> {
    if info.ifindex != ifindex {
        return Ok(false);
    }
    if hook == Hook::UplinkXdp {
        let what = || format!("asking for the XDP programs of interface {ifindex}");
        let programs = xdp::programs(ifindex).during(what)?;
        return Ok(programs.iter().any(|program| program.id == info.program_id));
    }
    Ok(query(hook, ifindex)?.iter().any(|&(_, link)| link == info.id))
}

/// Programs on a hook in the order in which they run; none on an interface that is gone.
fn query(hook: Hook, ifindex: u32) -> Result<Vec<(u32, u32)>> {
    match sys::query(ifindex, attach_type(hook)) {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        other => other.during(|| format!("asking for the programs of interface {ifindex}")),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

fn open(path: &Path) -> Result<Option<OwnedFd>> {
    match sys::open_pin(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).during(|| format!("opening {}", path.display())),
    }
}

/// Takes our program off an interface.
pub(super) fn detach(pins: &Pins, hook: Hook, ifindex: u32) -> Result<()> {
    // The link ends with its last reference, the pin.
    pins::remove_pin(&pins.link(hook, ifindex))
}

/// Where our programs run.
pub(super) fn attachments(pins: &Pins) -> Result<Vec<Attachment>> {
    let mut found = Vec::new();
    for (hook, ifindex, path) in pins.all_links()? {
        let Some(link) = open(&path)? else { continue };
        let info = sys::link_info(link.as_fd()).during(|| format!("asking about {}", path.display()))?;
        if leads_to(&info, hook, ifindex)? {
            found.push(Attachment { hook, ifindex, program_id: info.program_id });
        }
    }
    Ok(found)
}

/// Unpins links whose device is gone.
pub(super) fn prune(pins: &Pins) -> Result<()> {
    for (hook, ifindex, path) in pins.all_links()? {
        let Some(link) = open(&path)? else { continue };
        let info = sys::link_info(link.as_fd()).during(|| format!("asking about {}", path.display()))?;
        if !leads_to(&info, hook, ifindex)? {
            pins::remove_pin(&path)?;
        }
    }
    Ok(())
}

/// Programs that run before ours.
pub(super) fn before(ours: Attachment) -> Result<Vec<ForeignProgram>> {
    let all = query(ours.hook, ours.ifindex)?;
    let position = all.iter().position(|&(id, _)| id == ours.program_id).unwrap_or_default();
    Ok(all.iter().take(position).map(|&(id, _)| ForeignProgram::by_id(id)).collect())
}
