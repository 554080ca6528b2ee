//! `net.ipv4.ip_local_reserved_ports`: local ports that the kernel gives to no socket of its own accord.

use super::sysctl::Key;

/// The setting.
pub fn key() -> Key {
    Key::new("net/ipv4/ip_local_reserved_ports")
}

/// A list of the kernel's with one more range, as the kernel writes it; `None` where it holds the range already.
pub fn with(list: &str, first: u16, last: u16) -> Option<String> {
    let mut ranges: Vec<(u16, u16)> = list.split(',').filter_map(range).collect();
    if ranges.iter().any(|&(from, to)| from <= first && last <= to) {
        return None;
    }
    ranges.push((first, last));
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if u32::from(from) <= u32::from(*end) + 1 => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    let written =
        merged.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    Some(written.collect::<Vec<_>>().join(","))
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
        assert_eq!(with("").unwrap(), "61000-65535");
        assert_eq!(with("8080,9148-9150").unwrap(), "8080,9148-9150,61000-65535");
        assert_eq!(with("60000-60999").unwrap(), "60000-65535");
        assert_eq!(with("62000,64000-64001").unwrap(), "61000-65535");
        assert_eq!(with("80,1024-65535"), None);
    }
}
