//! Digests of all logs, so that two replicas find what differs between them by a few hundred bytes.

use super::Version;

/// A digest of some logs; zeros where there are none.
pub type Digest = [u8; 16];

/// Leaves of the tree; origins are spread over them by their names.
pub(super) const LEAVES: usize = 256;
/// Branches, and leaves of each.
pub(super) const FAN: usize = 16;

/// The digests of all leaves.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// `None`: to be made anew.
    leaves: Vec<Option<Digest>>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { leaves: vec![Some(Digest::default()); LEAVES] }
    }
}

impl Tree {
    /// A leaf's logs are others now.
    pub(super) fn touch(&mut self, leaf: u8) {
        self.leaves[usize::from(leaf)] = None;
    }

    /// All leaves; `digest` makes one.
    pub(super) fn leaves(&mut self, digest: impl Fn(u8) -> Digest) -> Vec<Digest> {
        let numbered = (0..=u8::MAX).zip(&mut self.leaves);
        numbered.map(|(number, leaf)| *leaf.get_or_insert_with(|| digest(number))).collect()
    }
}

/// The digests of all branches.
pub(super) fn branches(leaves: &[Digest]) -> Vec<Digest> {
    leaves.chunks(FAN).map(|leaves| joined(leaves.as_flattened())).collect()
}

/// The digest of everything.
pub(super) fn root(leaves: &[Digest]) -> Digest {
    joined(branches(leaves).as_flattened())
}

/// The digest of a leaf: names, versions and roots of its logs.
pub(super) fn leaf<'l>(logs: impl Iterator<Item = (&'l str, Version, &'l [u8; 32])>) -> Digest {
    let mut bytes = Vec::new();
    for (name, version, root) in logs {
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&version.epoch.count.to_be_bytes());
        bytes.extend_from_slice(&version.epoch.tag.to_be_bytes());
        bytes.extend_from_slice(&version.seq.to_be_bytes());
        bytes.extend_from_slice(root);
    }
    joined(&bytes)
}

fn joined(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    if bytes.iter().any(|byte| *byte != 0) {
        digest.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    }
    digest
}
