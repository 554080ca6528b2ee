//! Which member decides on a user key.

use crate::cluster::log::Name;

/// The member that orders compare-and-set of a key, by rendezvous hashing: when a member goes, only its keys move.
///
/// Nodes that know other members may name another one: the order is linear as long as the members of the key's owner agree.
pub fn owner_of<'m>(key: &str, members: impl IntoIterator<Item = &'m Name>) -> Option<&'m Name> {
    let score = |member: &Name| {
        let mut hash = blake3::Hasher::new();
        hash.update(member.as_bytes()).update(&[0]).update(key.as_bytes());
        *hash.finalize().as_bytes()
    };
    members.into_iter().max_by_key(|member| score(member))
}
