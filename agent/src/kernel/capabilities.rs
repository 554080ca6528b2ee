//! Gives up what the agent doesn't need once it runs.

use std::{io, mem::zeroed};

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits a set.
const VERSION_3: u32 = 0x2008_0522;

/// Numbers of `linux/capability.h`: KILL (the DHCP server has its own user), NET_ADMIN, NET_RAW, SYS_PTRACE
/// (namespaces of processes), SYS_ADMIN (entering namespaces), PERFMON, BPF.
const KEPT: [u32; 7] = [5, 12, 13, 19, 21, 38, 39];

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops every capability of this thread, and of threads that it starts, that the agent doesn't use. Programs that it
/// runs as root (`nft`) have root's again.
///
/// # Errors
/// The kernel refuses.
pub fn drop_unused() -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: the type holds integers only.
    let mut words: [Word; 2] = unsafe { zeroed() };
    // SAFETY: version 3 reads a header and writes two words; both live for the call.
    let status = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    for (number, word) in words.iter_mut().enumerate() {
        let kept = KEPT.iter().filter(|&&capability| capability as usize / 32 == number);
        let mask = kept.fold(0, |mask, capability| mask | 1 << (capability % 32));
        word.effective &= mask;
        word.permitted &= mask;
        word.inheritable &= mask;
    }
    // SAFETY: version 3 reads a header and two words; both live for the call.
    let status = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn only_what_the_agent_uses_is_left() {
        // A thread of its own: the other tests keep what they have.
        let left = thread::spawn(|| {
            drop_unused().unwrap();
            fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = left.join().unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let kept = KEPT.iter().fold(0, |mask, capability| mask | 1u64 << capability);
        assert_eq!(u64::from_str_radix(effective.trim(), 16).unwrap() & !kept, 0);
    }
}
