//! What this process may do.

use std::{fs, io};

/// Capabilities that changing and reading a datapath needs, with their numbers (`linux/capability.h`).
const NEEDED: [(&str, u32); 4] =
    [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// The needed capabilities that this process lacks.
///
/// # Errors
/// `/proc` isn't mounted.
pub fn missing() -> io::Result<Vec<&'static str>> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    effective(&status)
        .map(missing_of)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/thread-self/status has no CapEff"))
}

fn effective(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn missing_of(effective: u64) -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, number)| effective & (1 << number) == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let status = |bits| format!("Name:\tfanlight\nCapInh:\t0000000000000000\nCapEff:\t{bits}\n");
        let missing = |bits| effective(&status(bits)).map(missing_of);
        assert_eq!(missing("000001ffffffffff"), Some(vec![]));
        assert_eq!(missing("0000000000000000").map(|names| names.len()), Some(4));
        assert_eq!(missing("000000c000001000"), Some(vec!["CAP_SYS_ADMIN"]));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
