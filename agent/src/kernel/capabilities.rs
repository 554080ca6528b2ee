//! Capabilities: what this process lacks, and what the agent gives up once it runs.

use std::io;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What changing and reading a datapath needs.
const NEEDED: [Capability; 4] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN, Capability::CAP_PERFMON, Capability::CAP_BPF];

/// What the agent keeps: beside these KILL (the DHCP server has its own user), NET_RAW, NET_BIND_SERVICE (port 179), and
/// SYS_PTRACE (namespaces of processes).
const KEPT: [Capability; 8] = [
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_KILL,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
];

/// The needed capabilities that this thread lacks.
///
/// # Errors
/// The kernel refuses to tell.
pub fn missing() -> io::Result<Vec<Capability>> {
    let held = caps::read(None, CapSet::Effective).map_err(failed)?;
    Ok(NEEDED.into_iter().filter(|needed| !held.contains(needed)).collect())
}

/// Drops every capability of this thread, and of threads that it starts, that the agent doesn't use. Programs that it
/// runs as root (`nft`) have root's again.
///
/// # Errors
/// The kernel refuses.
pub fn drop_unused() -> io::Result<()> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    // None may be effective or inheritable that is not permitted; the kernel lowers the ambient set along.
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        let held = caps::read(None, set).map_err(failed)?;
        caps::set(None, set, &held.intersection(&kept).copied().collect()).map_err(failed)?;
    }
    Ok(())
}

fn failed(error: CapsError) -> io::Error {
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// A set of a thread as the kernel shows it.
    fn shown(set: &str) -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let digits = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        u64::from_str_radix(digits.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn only_what_the_agent_uses_is_left_and_only_of_the_thread_that_gives_up() {
        let before = shown("CapEff");
        // A thread of its own: the other tests keep what they have.
        let left = thread::spawn(|| {
            drop_unused().unwrap();
            ["CapEff", "CapPrm", "CapInh", "CapAmb"].map(shown)
        });
        let kept = KEPT.iter().fold(0, |mask, capability| mask | 1_u64 << capability.index());
        let left = left.join().unwrap();
        assert_eq!(left.map(|set| set & !kept), [0; 4]);
        assert_eq!(left[0], before & kept);
        assert_eq!(shown("CapEff"), before);
    }

    #[test]
    fn ambient_capabilities_go_with_those_that_are_not_kept() {
        let ambient = thread::spawn(|| {
            for capability in [Capability::CAP_CHOWN, Capability::CAP_NET_ADMIN] {
                if caps::has_cap(None, CapSet::Permitted, capability).unwrap() {
                    caps::raise(None, CapSet::Inheritable, capability).unwrap();
                    caps::raise(None, CapSet::Ambient, capability).unwrap();
                }
            }
            drop_unused().unwrap();
            shown("CapAmb")
        });
        let chown = 1_u64 << Capability::CAP_CHOWN.index();
        assert_eq!(ambient.join().unwrap() & chown, 0);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let missing = thread::spawn(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
            missing().unwrap()
        });
        assert!(missing.join().unwrap().contains(&Capability::CAP_SYS_ADMIN));
        assert_eq!(Capability::CAP_SYS_ADMIN.to_string(), "CAP_SYS_ADMIN");
    }
}
