//! The name of a fan's bridge.

use ipnet::Ipv4Net;

use super::fnv1a;

/// Longest name of an interface: `IFNAMSIZ` less the final zero.
const LONGEST_NAME: usize = 15;

/// Names of the helper device's ends.
pub const HELPER: [&str; 2] = ["fanlight0", "fanlight1"];

/// MAC addresses of an inlet's ends: high ones, for a bridge takes on the lowest of its ports' unless it was given one.
pub const INLET_MACS: [[u8; 6]; 2] =
    [[0xfe, 0xfa, 0x66, 0x61, 0x6e, 0x02], [0xfe, 0xfa, 0x66, 0x61, 0x6e, 0x03]];

/// Names of the ends of the device pair by which super-packets come into a fan's bridge; the first is its port.
pub fn inlet_names(bridge: &str) -> [String; 2] {
    let hash = fnv1a(bridge) >> 32;
    [0, 1].map(|end| format!("fani{end}-{hash:08x}"))
}

/// `fan-` and the slice's base without trailing zero parts; where that is too long, `fan-` and 11 hexadecimal
/// digits of a hash of the slice. Either way one slice has one name, and the two forms can't meet: the second
/// has no further dash and always eleven digits.
pub fn bridge_name(slice: Ipv4Net) -> String {
    let octets = slice.network().octets();
    let used = octets.iter().rposition(|&octet| octet != 0).map_or(1, |last| last + 1);
    let parts: Vec<String> = octets.iter().take(used).map(u8::to_string).collect();
    let plain = format!("fan-{}", parts.join("-"));
    if plain.len() <= LONGEST_NAME { plain } else { format!("fan-{:011x}", fnv1a(slice.to_string()) >> 20) }
}

/// Whether the kernel takes `name` for an interface and it isn't the helper's; else why not.
pub(crate) fn check_bridge_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err("names of interfaces have 1 to 15 characters");
    }
    if name == "." || name == ".." || name.contains(['/', ':']) || name.contains(|c: char| c.is_whitespace())
    {
        return Err("names of interfaces hold no blanks, slashes or colons");
    }
    if HELPER.contains(&name) {
        return Err("that is the helper device's; choose another");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name_of(slice: &str) -> String {
        bridge_name(slice.parse().unwrap())
    }

    #[test]
    fn a_bridge_is_named_after_the_slice_without_trailing_zero_parts() {
        assert_eq!(name_of("250.0.28.0/24"), "fan-250-0-28");
        assert_eq!(name_of("240.129.0.0/17"), "fan-240-129");
        assert_eq!(name_of("99.224.80.0/20"), "fan-99-224-80");
        assert_eq!(name_of("252.0.0.0/14"), "fan-252");
    }

    #[test]
    fn a_name_over_fifteen_characters_becomes_eleven_digits_of_a_hash() {
        let name = name_of("33.240.16.32/28");
        assert_eq!(name, "fan-8f633954596");
        assert_eq!(name.len(), LONGEST_NAME);
        assert!(name.bytes().skip(4).all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_eq!(name, name_of("33.240.16.32/28"));
    }

    #[test]
    fn different_slices_of_a_node_have_different_names() {
        let names: BTreeSet<_> = (0u32..=0xffff)
            .map(|host| bridge_name(Ipv4Net::new_assert((0x21f0_0000 | (host << 4)).into(), 28)))
            .collect();
        assert_eq!(names.len(), 0x1_0000);
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused_with_the_reason() {
        for name in ["", "sixteen-letters-", "a b", "a/b", "..", "fanlight0"] {
            assert!(check_bridge_name(name).is_err(), "{name}");
        }
        assert!(check_bridge_name("br-lan.12").is_ok());
    }
}
