//! Definitions that contradict an earlier one, in words.

use std::net::IpAddr;

use super::{Desired, Entry, Inputs, Name, SourceId, Statement};
use crate::service::{Vip, VipSpec};

/// Why a definition is hidden beside those that were taken before it, as a sentence.
pub(super) fn obstacle(
    inputs: &Inputs,
    taken: &Desired,
    (source, name): (SourceId, &Name),
    vip: Vip,
    statement: &Statement,
) -> Option<String> {
    let of = |entry: &Entry| of(inputs, (source, name), entry);
    if let Some(other) = taken.get(name) {
        let there = inputs.place(other.origin, name);
        let remedy = match source {
            SourceId::Applied => format!("or the applied one with 'fanlight service remove {name}'"),
            _ => format!("or in {}", inputs.place(source, name)),
        };
        return Some(format!(
            "service {name}: {there} has it too, and is followed; remove it there, {remedy}"
        ));
    }
    if let Some(other) = taken.at(vip) {
        return Some(format!(
            "service {name}: {vip} is the VIP of service {}{}, which is followed; give one of them another",
            other.defined.name,
            of(other)
        ));
    }
    let (address, what, other) = mistaken(inputs, taken, source, vip, statement)?;
    Some(format!(
        "service {name}: {address} is {what} of service {}{}, which is followed; give one of them another",
        other.defined.name,
        of(other)
    ))
}

/// Why a named VIP has no address.
pub(super) fn homeless(inputs: &Inputs, name: &Name, vip: &VipSpec) -> String {
    let why = match inputs.settings().vip_range {
        None => NO_RANGE.to_owned(),
        Some(range) => format!("no address of vip-range {range} is free; give it a larger one in [datapath]"),
    };
    format!("service {name}: {vip}: {why}")
}

/// Why a named VIP can't be, and what to do.
pub const NO_RANGE: &str = "named VIPs need a range; set vip-range in [datapath], or give the VIP an address";

/// Where a service is defined that is not beside the other.
fn of(inputs: &Inputs, (source, name): (SourceId, &Name), other: &Entry) -> String {
    let there = inputs.place(other.origin, &other.defined.name);
    if there == inputs.place(source, name) { String::new() } else { format!(" of {there}") }
}

/// The address by which packets of a service would be taken for those of a service that was taken before.
fn mistaken<'d>(
    inputs: &Inputs,
    taken: &'d Desired,
    source: SourceId,
    vip: Vip,
    statement: &Statement,
) -> Option<(IpAddr, &'static str, &'d Entry)> {
    let vip = vip.address;
    let earlier = |name: &Name| taken.get(name).map(AsRef::as_ref).filter(|entry| entry.origin <= source);
    let serves = |entry: &&Entry| entry.defined.backends.iter().any(|backend| backend.address == vip);
    let served = inputs.index.with_backend(vip).find_map(|(_, name)| earlier(name).filter(serves));
    if let Some(other) = served {
        return Some((vip, "a backend's address", other));
    }
    statement.backends.iter().find_map(|backend| {
        let is_its = |entry: &&Entry| entry.defined.vip.address == backend.address;
        let mut others = inputs.index.with_vip_address(backend.address);
        let other = others.find_map(|(_, name)| earlier(name).filter(is_its))?;
        Some((backend.address, "the VIP's address", other))
    })
}
