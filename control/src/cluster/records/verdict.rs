//! What a node has found of backends by checking them.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{record::Record, value::Verdict, view::View};
use crate::cluster::log::Name;

/// The records that make a node's verdicts these: by service and address, whether the backend is up. Where `is_whole`, others
/// go; else only those that are named are looked at, and `None` goes.
pub fn verdicts(
    view: &View,
    own: &Name,
    found: &BTreeMap<(Name, SocketAddr), Option<bool>>,
    is_whole: bool,
) -> Vec<Record> {
    let mut records = Vec::new();
    for ((name, socket), is_up) in found {
        let parts = view.service(name);
        let former = parts.and_then(|parts| parts.verdicts_of(own).find(|(other, _)| other == socket));
        let is_so = match (former, is_up) {
            (None, is_up) => is_up.is_none(),
            (Some((_, former)), is_up) => former.is_some() && former == *is_up,
        };
        if !is_so {
            records.push(Record::Verdict(name.clone(), *socket, is_up.map(|is_up| Verdict { is_up })));
        }
    }
    if is_whole {
        for name in view.names() {
            let own = view.service(name).into_iter().flat_map(|parts| parts.verdicts_of(own));
            let gone = own.filter(|(socket, _)| !found.contains_key(&(name.clone(), *socket)));
            records.extend(gone.map(|(socket, _)| Record::Verdict(name.clone(), socket, None)));
        }
    }
    records
}
