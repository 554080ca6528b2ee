//! Fragments: the first alone has ports, the others follow it by what they have in common (RFC 791, section 3.2).

use super::{Flows, Refusal, Translation, Tuple};
use crate::{abi::FragmentKey, codegen::cold_path, wire::Ipv4};

/// What the fragments of a packet have in common.
#[inline(always)]
pub(super) fn key(ip: &Ipv4) -> FragmentKey {
    FragmentKey {
        src: ip.src.to_be(),
        dst: ip.dst.to_be(),
        id: ip.id.to_ne_bytes(),
        protocol: ip.proto,
        pad: 0,
    }
}

/// A fragment to a VIP that is not its packet's first.
#[inline(always)]
pub(super) fn later_to_vip<T: Flows>(ip: &Ipv4, tables: &T) -> Translation {
    cold_path();
    let addresses = tables.fragment(&key(ip));
    if addresses.is_kept() {
        Translation::refused(Refusal::FragmentEarly)
    } else {
        Translation::rewritten(addresses)
    }
}

/// Remembers what the first fragment of a packet became.
#[inline(always)]
pub(super) fn remember<T: Flows>(ip: &Ipv4, first: &Tuple, tables: &T) {
    if !first.is_kept() {
        tables.remember_fragment(&key(ip), &Tuple::addresses(first.src, first.dst));
    }
}
