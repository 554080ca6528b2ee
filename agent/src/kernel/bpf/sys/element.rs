//! Single elements of hash maps.

use std::{io, os::fd::BorrowedFd};

use aya_obj::generated::bpf_cmd;
use bytemuck::{Pod, Zeroable};

use super::{ElementAttr, address, address_mut, bpf, raw};

/// Reads the element of a key, if there is one. Both types have the map's sizes. That an LRU map's element was read here
/// does not make it one that was used.
pub(in crate::kernel::bpf) fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    get(bpf_cmd::BPF_MAP_LOOKUP_ELEM, map, key)
}

/// Takes the element of a key out of a hash map, if there is one, and gives what it was. Both types have the map's sizes.
pub(in crate::kernel::bpf) fn take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    get(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, map, key)
}

fn get<K: Pod, V: Pod>(command: bpf_cmd, map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let (key, mut value) = ([*key], [V::zeroed()]);
    let mut element = ElementAttr {
        map_fd: raw(map),
        key: address(&key),
        value: address_mut(&mut value),
        ..Zeroable::zeroed()
    };
    // SAFETY: the key is readable and the value writable for the map's sizes, as callers see to.
    match unsafe { bpf(command, &mut element) } {
        Ok(_) => Ok(Some(value[0])),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the element of a key, unless there is one: then it stays. Both types have the map's sizes.
pub(in crate::kernel::bpf) fn insert_new<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
) -> io::Result<()> {
    const NOEXIST: u64 = 1;
    let (key, value) = ([*key], [*value]);
    let mut element = ElementAttr {
        map_fd: raw(map),
        key: address(&key),
        value: address(&value),
        flags: NOEXIST,
        ..Zeroable::zeroed()
    };
    // SAFETY: key and value are readable for the map's sizes, as callers see to.
    match unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut element) } {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

/// Removes the element of a key, if there is one. The key has the map's size.
pub(in crate::kernel::bpf) fn remove<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let key = [*key];
    let mut element = ElementAttr { map_fd: raw(map), key: address(&key), ..Zeroable::zeroed() };
    // SAFETY: the key is readable for the map's size, as callers see to.
    match unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut element) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}
