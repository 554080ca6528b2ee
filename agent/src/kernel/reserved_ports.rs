//! `net.ipv4.ip_local_reserved_ports`: local ports that the kernel gives to no socket of its own accord.

use super::sysctl::{Key, SysctlError};

/// The setting.
pub fn key() -> Key {
    Key::new("net/ipv4/ip_local_reserved_ports")
}

/// Ports that the kernel gives to sockets of its own accord, first and last (`net.ipv4.ip_local_port_range`).
///
/// # Errors
/// The setting can't be read.
pub fn local() -> Result<(u16, u16), SysctlError> {
    let key = Key::new("net/ipv4/ip_local_port_range");
    let text = key.read()?;
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => Err(key.failed(std::io::Error::other(format!("'{text}' is no range")))),
    }
}

/// A list of the kernel's with one more range, as the kernel writes it.
pub fn with(list: &str, first: u16, last: u16) -> String {
    let mut ports = Ports::read(list);
    ports.set(first, last, true);
    ports.to_string()
}

/// A list of the kernel's without what a change of ours from `former` to `ours` added.
pub fn without(list: &str, former: &str, ours: &str) -> String {
    let (mut ports, former, ours) = (Ports::read(list), Ports::read(former), Ports::read(ours));
    for (place, has) in ports.0.iter_mut().enumerate() {
        *has &= former.0[place] || !ours.0[place];
    }
    ports.to_string()
}

/// One place a port.
struct Ports(Vec<bool>);

impl Ports {
    fn read(list: &str) -> Self {
        let mut ports = Self(vec![false; usize::from(u16::MAX) + 1]);
        for (first, last) in list.split(',').filter_map(range) {
            ports.set(first, last, true);
        }
        ports
    }

    fn set(&mut self, first: u16, last: u16, value: bool) {
        if let Some(places) = self.0.get_mut(usize::from(first)..=usize::from(last)) {
            places.fill(value);
        }
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut port = 0;
        let mut separator = "";
        for run in self.0.chunk_by(|a, b| a == b) {
            let (first, last) = (port, port + run.len() - 1);
            port += run.len();
            if run[0] {
                write!(f, "{separator}{first}")?;
                separator = ",";
                if last > first {
                    write!(f, "-{last}")?;
                }
            }
        }
        Ok(())
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_joins_those_that_others_have_reserved() {
        let with = |list| with(list, 61_000, 65_535);
        assert_eq!(with(""), "61000-65535");
        assert_eq!(with("8080,9148-9150"), "8080,9148-9150,61000-65535");
        assert_eq!(with("60000-60999"), "60000-65535");
        assert_eq!(with("62000,64000-64001"), "61000-65535");
        assert_eq!(with("80,1024-65535"), "80,1024-65535");
    }

    #[test]
    fn what_is_freed_is_ours_alone() {
        assert_eq!(without("8080,61000-65535", "8080", "8080,61000-65535"), "8080");
        // Ports of others inside our range, before us.
        assert_eq!(without("61000-65535", "62000-62001", "61000-65535"), "62000-62001");
        // Ports that were added or taken away beside us since.
        assert_eq!(without("9000,61000-65535", "8080", "8080,61000-65535"), "9000");
        assert_eq!(without("", "8080", "8080,61000-65535"), "");
    }

    #[test]
    fn the_range_of_this_host_is_one() {
        let (first, last) = local().unwrap();
        assert!(0 < first && first <= last);
    }
}
