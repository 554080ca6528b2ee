//! The harness's unsafe code: entering namespaces between fork and exec, and two ioctls.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Arc,
};

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

/// Has a socket send its packets with IPv4 options.
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
