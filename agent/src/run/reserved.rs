//! Addresses that no named VIP may have: what this host needs itself, and overlays.

use std::collections::BTreeSet;

use control::{desired::Reserved, model::network};

use crate::{kernel::addresses, node::writer::Applied};

/// What is known before the kernel was looked at: a VIP that is elsewhere than before loses its flows.
pub(super) fn at_start() -> Reserved {
    let addresses = addresses::own().unwrap_or_else(|error| {
        tracing::warn!("this host's addresses: {error}; a named VIP may move when they are known");
        BTreeSet::new()
    });
    Reserved { addresses, networks: Vec::new() }
}

/// What a look at the kernel found.
pub(super) fn by(applied: &Applied) -> Reserved {
    let networks = applied.fans.iter().map(|fan| network(fan.overlay, fan.overlay_mask));
    Reserved { addresses: applied.taken.all().collect(), networks: networks.collect() }
}
