//! Which member decides on a user key, and which check an address that no member has.

use std::{cmp::Reverse, net::SocketAddr};

use crate::cluster::log::Name;

/// How many members check an address that no member has.
const CHECKERS: usize = 3;

/// The member that orders compare-and-set of a key, by rendezvous hashing: when a member goes, only its keys move.
///
/// Nodes that know other members may name another one: the order is linear as long as the members of the key's owner agree.
pub fn owner_of<'m>(key: &str, members: impl IntoIterator<Item = &'m Name>) -> Option<&'m Name> {
    members.into_iter().max_by_key(|member| score(member, key))
}

/// The members that check an address which no member has, of those that are alive: by rendezvous hashing, so that when one goes
/// another takes its place, and the others stay.
pub fn checkers<'m>(address: SocketAddr, members: impl IntoIterator<Item = &'m Name>) -> Vec<&'m Name> {
    let key = address.to_string();
    let mut members: Vec<&Name> = members.into_iter().collect();
    members.sort_by_cached_key(|member| Reverse(score(member, &key)));
    members.truncate(CHECKERS);
    members
}

fn score(member: &Name, key: &str) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(member.as_bytes()).update(&[0]).update(key.as_bytes());
    *hash.finalize().as_bytes()
}
