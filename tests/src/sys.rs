//! The harness's unsafe code: entering namespaces between fork and exec, two ioctls, and bpf(2).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt},
    },
    path::Path,
    process::Command,
    ptr,
    sync::Arc,
};

use bytemuck::{Pod, Zeroable};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// Namespaces that a command or a thread enters.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    pub(crate) net: Arc<OwnedFd>,
    /// Mount and host name, where the site has its own.
    pub(crate) own: Option<Arc<(OwnedFd, OwnedFd)>>,
}

impl Namespaces {
    /// Moves the calling thread. Async-signal-safe: system calls only.
    fn enter(&self) -> io::Result<()> {
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        if let Some(own) = &self.own {
            setns(own.0.as_fd(), CloneFlags::CLONE_NEWNS)?;
            setns(own.1.as_fd(), CloneFlags::CLONE_NEWUTS)?;
        }
        Ok(())
    }

    /// Moves the calling thread, which must be one that ends afterwards.
    pub(crate) fn enter_thread(&self) -> io::Result<()> {
        // A thread may change its mount namespace only when it shares no working directory with others.
        unshare(CloneFlags::CLONE_FS)?;
        self.enter()
    }

    /// Lets a command run inside.
    pub(crate) fn apply(&self, command: &mut Command) {
        let namespaces = self.clone();
        // SAFETY: the closure makes system calls on descriptors that it owns; it neither allocates nor locks.
        unsafe { command.pre_exec(move || namespaces.enter()) };
    }
}

/// Lets a command run in new namespaces: network, and with `hostname` mount and host name too.
pub(crate) fn in_new_namespaces(command: &mut Command, hostname: Option<&str>) {
    let hostname = hostname.map(|name| CString::new(name).expect("a host name without NUL"));
    let new_namespaces = move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let Some(hostname) = &hostname else { return Ok(()) };
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        // SAFETY: pointer and length describe the C string that the closure owns.
        let done = unsafe { libc::sethostname(hostname.as_ptr(), hostname.as_bytes().len()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only; paths are short constants that nix puts on the stack.
    unsafe { command.pre_exec(new_namespaces) };
}

/// An offload that can be switched by one of ethtool's old commands (`linux/ethtool.h`).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Offload {
    /// Checksums of what is sent.
    TxChecksum = 0x17,
    /// Segmentation of TCP by the device.
    Tso = 0x1f,
    /// Segmentation by software just before the device.
    Gso = 0x24,
    /// Merging of what is received.
    Gro = 0x2c,
}

/// Switches an offload of a device of the calling thread's network namespace.
pub(crate) fn set_offload(device: &str, offload: Offload, on: bool) -> io::Result<()> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value { command: offload as u32, data: u32::from(on) };
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(device.len() < request.ifr_name.len(), "device name {device} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: SIOCETHTOOL reads an ifreq that points to a command and its value; both live through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets IPv4 options that a socket sends with its packets.
pub(crate) fn set_ip_options(socket: &impl AsRawFd, options: &[u8]) -> io::Result<()> {
    let (fd, length) = (socket.as_raw_fd(), options.len() as libc::socklen_t);
    // SAFETY: pointer and length describe the bytes that are borrowed through the call.
    let done =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, options.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets this process have as many descriptors open as its hard limit allows.
pub(crate) fn allow_descriptors() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a limit that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Binds a packet socket to one device and all protocols, for what arrives there.
pub(crate) fn bind_packet_socket(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // linux/if_packet.h; the libc crate lacks it.
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let (yes, size): (libc::c_int, _) = (1, size_of::<libc::c_int>() as libc::socklen_t);
    let (fd, value) = (socket.as_raw_fd(), (&raw const yes).cast());
    // SAFETY: pointer and length describe the integer above.
    if unsafe { libc::setsockopt(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, value, size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: pointer and length describe the address above.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a map is, as `struct bpf_map_info` begins.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct MapShape {
    pub(crate) kind: u32,
    id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) entries: u32,
    pub(crate) flags: u32,
}

/// `union bpf_attr` for an element of a map.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for a path, and the other way round for what an object is.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Pinned {
    path: u64,
    fd: u32,
    flags: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct About {
    fd: u32,
    length: u32,
    info: u64,
}

/// bpf(2) with the head of its `union bpf_attr`.
pub(crate) fn bpf<T: Pod>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    let pointer: *mut T = attr;
    // SAFETY: `pointer` is valid for the size given; addresses in it are of slices and strings that callers hold through
    // the call, with the lengths beside them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// The same for commands that return a descriptor.
pub(crate) fn bpf_fd<T: Pod>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the command returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The program or map that is pinned at a path.
pub(crate) fn bpf_pinned(path: &Path) -> io::Result<OwnedFd> {
    const OBJ_GET: libc::c_long = 7;
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf_fd(OBJ_GET, &mut Pinned { path: path.as_ptr().expose_provenance() as u64, ..Zeroable::zeroed() })
}

/// Pins a program or map.
pub(crate) fn bpf_pin(object: &impl AsRawFd, path: &Path) -> io::Result<()> {
    const OBJ_PIN: libc::c_long = 6;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let path = path.as_ptr().expose_provenance() as u64;
    bpf(OBJ_PIN, &mut Pinned { path, fd: object.as_raw_fd() as u32, flags: 0 }).map(drop)
}

/// What a map is.
pub(crate) fn bpf_map_shape(map: &OwnedFd) -> io::Result<MapShape> {
    const OBJ_GET_INFO: libc::c_long = 15;
    let mut shape = MapShape::zeroed();
    let info = (&raw mut shape).expose_provenance() as u64;
    let length = size_of::<MapShape>() as u32;
    bpf(OBJ_GET_INFO, &mut About { fd: map.as_raw_fd() as u32, length, info })?;
    Ok(shape)
}

/// Some key of a map that is not empty.
pub(crate) fn bpf_first_key(map: &OwnedFd, size: u32) -> io::Result<Option<Vec<u8>>> {
    const NEXT_KEY: libc::c_long = 4;
    let mut key = vec![0_u8; size as usize];
    // The next key is written where a value would be read from; after no key comes the first.
    let value = key.as_mut_ptr().expose_provenance() as u64;
    match bpf(NEXT_KEY, &mut Element { map: map.as_raw_fd() as u32, value, ..Zeroable::zeroed() }) {
        Ok(_) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes an element of a map.
pub(crate) fn bpf_delete(map: &OwnedFd, key: &[u8]) -> io::Result<()> {
    const DELETE: libc::c_long = 3;
    let key = key.as_ptr().expose_provenance() as u64;
    bpf(DELETE, &mut Element { map: map.as_raw_fd() as u32, key, ..Zeroable::zeroed() }).map(drop)
}

/// Sets an element of a map.
pub(crate) fn bpf_update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    const UPDATE: libc::c_long = 2;
    let (key, value) = (key.as_ptr().expose_provenance() as u64, value.as_ptr().expose_provenance() as u64);
    bpf(UPDATE, &mut Element { map: map.as_raw_fd() as u32, key, value, ..Zeroable::zeroed() }).map(drop)
}

/// Makes all values of an array zero that can be mapped into memory.
pub(crate) fn bpf_zero(map: &OwnedFd, shape: MapShape) -> io::Result<()> {
    let length = shape.value_size.next_multiple_of(8) as usize * shape.entries as usize;
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping where the kernel likes; nothing else in this process refers to it.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, access, shared, map.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has `length` bytes and is gone after the second call.
    let done = unsafe {
        ptr::write_bytes(start.cast::<u8>(), 0, length);
        libc::munmap(start, length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
