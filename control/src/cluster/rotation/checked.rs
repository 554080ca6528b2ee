//! What members find of a backend by checking it, brought together.

use std::collections::BTreeMap;

use super::service::PlacedBackend;
use crate::cluster::{
    log::Name,
    records::{Parts, checkers},
};

/// Whether a backend is up by what members find; `None`: nobody has found anything yet.
///
/// A backend on a member is up when at least half of the live contributors that check it say so. One that no member has is
/// checked by three live members, and down when two say so; where there are fewer members, when all do. Where nobody who
/// checks it has found anything, what others found last holds: they have just gone, or left it to those.
pub(super) fn judged(parts: &Parts, backend: &PlacedBackend, live: &[&Name]) -> Option<bool> {
    let found = parts.verdicts(backend.socket);
    let of = |found: &BTreeMap<&Name, bool>, names: &[&Name]| -> Vec<bool> {
        names.iter().filter_map(|name| found.get(name).copied()).collect()
    };
    let (votes, needed) = match &backend.node {
        Some(_) => {
            let live = backend.contributors.iter().filter(|name| live.contains(name));
            (of(&found, &live.collect::<Vec<_>>()), None)
        }
        None => {
            let chosen = checkers(backend.socket, live.iter().copied());
            (of(&found, &chosen), Some(chosen.len().clamp(1, 2)))
        }
    };
    let all: Vec<bool> = found.into_values().collect();
    let votes = if votes.is_empty() { all } else { votes };
    let up = votes.iter().filter(|is_up| **is_up).count();
    let down = votes.len() - up;
    match needed {
        _ if votes.is_empty() => None,
        None => Some(2 * up >= votes.len()),
        Some(needed) if down >= needed => Some(false),
        Some(_) if up > 0 => Some(true),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_members_check_an_address_and_the_two_others_stay_when_one_goes() {
        let names: Vec<Name> = (0..20).map(|number| Name::from(format!("h{number}").as_str())).collect();
        let socket = "192.0.2.9:80".parse().unwrap();
        let three = checkers(socket, &names);
        assert_eq!(three.len(), 3);
        let rest: Vec<&Name> = names.iter().filter(|name| *name != three[1]).collect();
        let next = checkers(socket, rest.iter().copied());
        assert_eq!((next[0], next[1]), (three[0], three[2]));
        assert_eq!(checkers(socket, &names[..2]).len(), 2);
    }
}
