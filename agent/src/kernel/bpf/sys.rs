//! System calls that aya does not offer or keeps private, and all of this module's `unsafe` blocks.
//!
//! aya takes interfaces by name and hides the descriptor of a pinned link, so links are made and replaced here, by
//! interface index.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
    sync::atomic::{AtomicU32, AtomicU64},
    time::Duration,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd};
use bytemuck::{Pod, Zeroable};
use tokio::io::{Interest, unix::AsyncFd};

use super::attr::{
    BatchAttr, ElementAttr, IdAttr, InfoAttr, LinkCreateAttr, LinkUpdateAttr, LoadAttr, MapAttr, ObjAttr,
    QueryAttr, RawLinkInfo, RawProgInfo, TestRunAttr,
};

mod element;

pub(super) use self::element::{insert_new, lookup, remove, take};

/// What the kernel says about a tcx or XDP link.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkInfo {
    pub(super) id: u32,
    pub(super) program_id: u32,
    /// 0 when its device is gone.
    pub(super) ifindex: u32,
}

/// What the kernel says about a program.
#[derive(Clone, Debug)]
pub(super) struct ProgramInfo {
    pub(super) id: u32,
    /// Hash of its instructions.
    pub(super) tag: [u8; 8],
    pub(super) map_ids: Vec<u32>,
    pub(super) name: String,
}

/// One instruction of a program.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Insn {
    pub(super) code: u8,
    /// Source register in the upper, destination register in the lower four bits.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// # Safety
/// `attr` is the head of `bpf_attr` for `command`, and every address in it names memory that the kernel may read or
/// write as `command` says, for the length given beside it.
unsafe fn bpf<T: Pod>(command: bpf_cmd, attr: &mut T) -> io::Result<i32> {
    let pointer: *mut T = attr;
    // SAFETY: `pointer` is valid for `size_of::<T>()` bytes without padding; the rest is the caller's promise. The
    // kernel takes a shorter `bpf_attr` than its own as if it ended in zeros.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_uint, pointer, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// # Safety
/// As [`bpf`], and `command` returns a new descriptor.
unsafe fn bpf_fd<T: Pod>(command: bpf_cmd, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise is the same.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the call succeeded and returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn address<T>(data: &[T]) -> u64 {
    data.as_ptr().addr() as u64
}

fn address_mut<T>(data: &mut [T]) -> u64 {
    data.as_mut_ptr().expose_provenance() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// Pins an object.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr { path: address(path.as_bytes_with_nul()), fd: raw(fd), flags: 0 };
    // SAFETY: `path` is a terminated string that outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr { path: address(path.as_bytes_with_nul()), fd: 0, flags: 0 };
    // SAFETY: `path` is a terminated string that outlives the call.
    unsafe { bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attr) }
}

/// Attaches a program to an interface.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(program),
        ifindex,
        attach_type: attach_type as u32,
        flags,
        ..Zeroable::zeroed()
    };
    // SAFETY: no addresses.
    unsafe { bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

/// Replaces the program of a link, atomically.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link_fd: raw(link), prog_fd: raw(program), flags: 0, old_prog_fd: 0 };
    // SAFETY: no addresses.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

fn info_into<T: Pod>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let bytes = bytemuck::bytes_of_mut(info);
    let mut attr = InfoAttr { fd: raw(fd), len: bytes.len() as u32, info: address_mut(bytes) };
    // SAFETY: `bytes` is writable for `len` bytes; addresses inside it are 0 or set by `program_info`.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// Asks about a tcx or XDP link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::zeroed();
    info_into(link, &mut info)?;
    Ok(LinkInfo { id: info.id, program_id: info.prog_id, ifindex: info.ifindex })
}

/// Asks about a program.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut map_ids = [0u32; 64];
    let mut info = RawProgInfo::zeroed();
    info.map_count = map_ids.len() as u32;
    info.map_ids = address_mut(&mut map_ids);
    info_into(program, &mut info)?;
    let known = map_ids.iter().take(info.map_count as usize).copied().collect();
    let name: Vec<u8> = info.name.iter().copied().take_while(|&byte| byte != 0).collect();
    Ok(ProgramInfo {
        id: info.id,
        tag: info.tag,
        map_ids: known,
        name: String::from_utf8_lossy(&name).into_owned(),
    })
}

/// Asks about a program by its id.
pub(super) fn program_info_by_id(id: u32) -> io::Result<ProgramInfo> {
    let mut attr = IdAttr { id, next_id: 0, open_flags: 0 };
    // SAFETY: no addresses.
    let program = unsafe { bpf_fd(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr) }?;
    program_info(program.as_fd())
}

/// Programs on a tcx hook in the order in which they run: (program id, link id).
pub(super) fn query(ifindex: u32, attach_type: bpf_attach_type) -> io::Result<Vec<(u32, u32)>> {
    // The kernel's own limit (BPF_MPROG_MAX).
    let mut programs = [0u32; 64];
    let mut links = [0u32; 64];
    let mut attr = QueryAttr {
        ifindex,
        attach_type: attach_type as u32,
        prog_ids: address_mut(&mut programs),
        count: programs.len() as u32,
        link_ids: address_mut(&mut links),
        ..Zeroable::zeroed()
    };
    // SAFETY: both arrays are writable for `count` elements.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) }?;
    Ok(programs.into_iter().zip(links).take(attr.count as usize).collect())
}

/// Programs that decide for a control group's processes, also those of groups around it.
pub(super) fn query_group(group: BorrowedFd<'_>, attach_type: bpf_attach_type) -> io::Result<Vec<u32>> {
    const EFFECTIVE: u32 = 1;
    let mut programs = [0u32; 64];
    let mut attr = QueryAttr {
        ifindex: raw(group),
        attach_type: attach_type as u32,
        query_flags: EFFECTIVE,
        prog_ids: address_mut(&mut programs),
        count: programs.len() as u32,
        ..Zeroable::zeroed()
    };
    // SAFETY: the array is writable for `count` elements.
    match unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) } {
        // The first of more.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => attr.count = programs.len() as u32,
        other => other.map(drop)?,
    }
    Ok(programs.into_iter().take(attr.count as usize).collect())
}

/// Loads a classifier made of a few instructions.
pub(super) fn load_classifier(insns: &[Insn]) -> io::Result<OwnedFd> {
    const SCHED_CLS: u32 = 3;
    let license = c"GPL".to_bytes_with_nul();
    let mut attr = LoadAttr {
        prog_type: SCHED_CLS,
        insn_count: insns.len() as u32,
        insns: address(insns),
        license: address(license),
    };
    // SAFETY: `insns` holds `insn_count` instructions, `license` is terminated; both outlive the call.
    unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
}

/// Makes a table for tail calls with one program in it.
pub(super) fn program_array(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PROG_ARRAY: u32 = 3;
    let mut create = MapAttr { kind: PROG_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    // SAFETY: no addresses.
    let map = unsafe { bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut create) }?;
    let (key, value) = ([0u32], [raw(program)]);
    let mut element = ElementAttr {
        map_fd: raw(map.as_fd()),
        key: address(&key),
        value: address(&value),
        ..Zeroable::zeroed()
    };
    // SAFETY: key and value are readable for the 4 bytes that the map was made with.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut element) }?;
    Ok(map)
}

/// Reads the next elements of a hash map into `keys` and `values`, which have one capacity. Gives their number, and
/// where to go on (`at` of the next call); `None` at the end.
pub(super) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    at: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    let start = [at.unwrap_or_default()];
    let mut next = [0u32];
    let capacity = keys.len().min(values.len());
    let mut attr = BatchAttr {
        in_batch: if at.is_some() { address(&start) } else { 0 },
        out_batch: address_mut(&mut next),
        keys: address_mut(keys),
        values: address_mut(values),
        count: capacity as u32,
        map_fd: raw(map),
        ..Zeroable::zeroed()
    };
    // SAFETY: keys and values are writable for `count` elements of the map's sizes, as callers see to; the positions
    // of hash maps have four bytes.
    let outcome = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
    let count = capacity.min(attr.count as usize);
    match outcome {
        Ok(_) => Ok((count, Some(next[0]))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
        Err(error) => Err(error),
    }
}

/// What a test run gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct TestRun {
    pub(super) result: i32,
    /// How much of the output buffer was written.
    pub(super) length: usize,
    pub(super) duration: Duration,
}

/// Runs a program once on a frame; `context` is that of its kind (`struct __sk_buff`), or empty.
pub(super) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: &[u32],
    output: &mut [u8],
) -> io::Result<TestRun> {
    let mut attr = TestRunAttr {
        prog_fd: raw(program),
        size_in: frame.len() as u32,
        size_out: output.len() as u32,
        data_in: address(frame),
        data_out: if output.is_empty() { 0 } else { address_mut(output) },
        context_size_in: size_of_val(context) as u32,
        context_in: if context.is_empty() { 0 } else { address(context) },
        ..Zeroable::zeroed()
    };
    // SAFETY: inputs are readable and the output writable for the sizes given.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok(TestRun {
        result: attr.retval as i32,
        length: attr.size_out as usize,
        duration: Duration::from_nanos(attr.duration.into()),
    })
}

/// Bytes of kernel memory that a map takes.
pub(super) fn map_memory(map: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let memlock = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    memlock.ok_or_else(|| io::Error::other("no memlock line in fdinfo"))
}

/// Lets tokio wait until a descriptor can be read. Panics outside a tokio runtime.
pub(super) fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: callers pass ring buffers, which own one descriptor for as long as they live and always return it.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Waits until every program run that was under way has ended.
pub(super) fn grace_period() -> io::Result<()> {
    // The kernel implements this command as synchronize_rcu(), and programs run inside an RCU read section.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: no addresses.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A shared mapping of the value of an mmapable array, seen as 4- and 8-byte words.
#[derive(Debug)]
pub(super) struct Mapping {
    base: ptr::NonNull<u8>,
    len: usize,
}

// SAFETY: all access is by atomic words; the mapping lives as long as the value.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes.
    pub(super) fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else refers to it.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = ptr::NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { base, len })
    }

    fn word<T>(&self, offset: usize) -> *mut T {
        assert!(offset.is_multiple_of(align_of::<T>()) && offset + size_of::<T>() <= self.len);
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    /// The 4 bytes at an offset.
    pub(super) fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: valid and aligned for as long as the mapping; everybody else uses atomic or kernel access.
        unsafe { AtomicU32::from_ptr(self.word(offset)) }
    }

    /// The 8 bytes at an offset.
    pub(super) fn u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `u32`.
        unsafe { AtomicU64::from_ptr(self.word(offset)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
