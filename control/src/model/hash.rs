//! A hash that is the same on every version and architecture.

use std::hash::Hasher as _;

use fnv::FnvHasher;

/// FNV-1a with 64 bits: for names, and to find what changed by accident; no defence against intent.
pub fn fnv1a(bytes: impl AsRef<[u8]>) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes.as_ref());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Vectors of draft-eastlake-fnv, section 6.
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }
}
