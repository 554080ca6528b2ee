//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are of native-endian 16-bit words: the one's-complement sum is the same in either byte order as long as
//! words are read and the result is stored alike (RFC 1071, section 2B).

use network_types::ip::Ipv4Hdr;

use crate::wire::Ipv4Words;

/// Adds the words of `bytes` to `sum`. An odd last byte is padded with zero.
#[inline(always)]
pub fn add<const N: usize>(bytes: &[u8; N], mut sum: u32) -> u32 {
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        if let &[a, b] = word {
            sum += u32::from(u16::from_ne_bytes([a, b]));
        }
    }
    if let &[last] = words.remainder() {
        sum += u32::from(u16::from_ne_bytes([last, 0]));
    }
    sum
}

/// Folds a sum to 16 bits. Enough for the sum of up to 65,536 words.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field, as its two bytes stand on the wire, for data whose field was zero.
#[inline(always)]
pub fn finish(sum: u32) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// The checksum field of an IPv4 header without options, whatever stands in it.
#[inline(always)]
pub fn of_header(header: &Ipv4Hdr) -> [u8; 2] {
    let mut sum = add(&[header.vihl, header.tos], 0);
    sum = add(&header.tot_len, sum);
    sum = add(&header.id, sum);
    sum = add(&header.frags, sum);
    sum = add(&[header.ttl, header.proto], sum);
    sum = add(&header.src_addr, sum);
    finish(add(&header.dst_addr, sum))
}

/// Whether an IPv4 header, its checksum field included, is intact. Words of 32 bits sum to the same in half the steps
/// (RFC 1071, section 2C).
#[inline(always)]
pub fn intact(words: &Ipv4Words) -> bool {
    let sum: u64 = words.0.iter().map(|&word| u64::from(word)).sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    // At most 0x1ffff: one of the two multiples of 0xffff that are not zero.
    sum == 0xffff || sum == 0x1fffe
}

/// The field of an IPv4 header after its TTL became one less: RFC 1141 with the carry of RFC 1624.
///
/// Adding one to the upper byte of the sum's complement subtracts it from the sum; in either byte order alike.
#[inline(always)]
pub fn one_hop_less(check: [u8; 2]) -> [u8; 2] {
    let sum = u32::from(u16::from_ne_bytes(check)) + u32::from(0x0100u16.to_be());
    (sum as u16).wrapping_add((sum >= 0xffff) as u16).to_ne_bytes()
}

/// The sum of a few 32-bit words in as many bits.
#[inline(always)]
fn fold_words(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    // At most a few above 32 bits.
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// The field of an IPv4 header without options, of which it is still zero.
#[inline(always)]
pub fn of_words(words: &Ipv4Words) -> u16 {
    !fold(fold_words(words.0.iter().map(|&word| u64::from(word)).sum()))
}

/// By how much the sum changes of what holds 32-bit words at even offsets, as on the wire, that change from the first of each
/// pair to the second (RFC 1624).
#[inline(always)]
pub fn difference<const N: usize>(changes: [(u32, u32); N]) -> u32 {
    fold_words(changes.iter().map(|&(old, new)| u64::from(!old) + u64::from(new)).sum())
}

/// The field after the sum changed by a [`difference`].
#[inline(always)]
pub fn change(check: u16, difference: u32) -> u16 {
    !fold(fold_words(u64::from(!check) + u64::from(difference)))
}

/// The field after one 32-bit word at an even offset, as on the wire, changed from `old` to `new`.
#[inline(always)]
pub fn update_word(check: [u8; 2], old: u32, new: u32) -> [u8; 2] {
    change(u16::from_ne_bytes(check), difference([(old, new)])).to_ne_bytes()
}

/// The field after one 16-bit word changed from `old` to `new`: RFC 1624, equation 3.
#[inline(always)]
pub fn update(check: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = u32::from(!u16::from_ne_bytes(check))
        + u32::from(!u16::from_ne_bytes(old))
        + u32::from(u16::from_ne_bytes(new));
    finish(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    #[test]
    fn the_example_of_rfc_1071_sums_as_published() {
        let sum = add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0);
        assert_eq!(fold(sum).to_ne_bytes(), [0xdd, 0xf2]);
    }

    fn words(header: &[u8; 20]) -> Ipv4Words {
        let mut words =
            header.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
        Ipv4Words(std::array::from_fn(|_| words.next().expect("five words")))
    }

    proptest! {
        #[test]
        fn a_hop_less_is_an_update_of_the_ttl(mut header: [u8; 20], ttl in 1u8..) {
            (header[0], header[8]) = (0x45, ttl);
            header[10..12].copy_from_slice(&[0, 0]);
            let check = finish(add(&header, 0));
            header[8] = ttl - 1;
            prop_assert_eq!(one_hop_less(check), finish(add(&header, 0)));
        }

        #[test]
        fn data_with_its_checksum_is_intact_and_one_flipped_bit_is_noticed(mut header: [u8; 20], bit in 0usize..160) {
            header[10] = 0;
            header[11] = 0;
            let check = finish(add(&header, 0));
            header[10..12].copy_from_slice(&check);
            prop_assert!(intact(&words(&header)));
            header[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!intact(&words(&header)));
        }

        #[test]
        fn one_difference_of_both_addresses_changes_the_field_as_a_sum_from_scratch(mut header: [u8; 20], new: [u32; 2]) {
            header[0] = 0x45;
            header[10..12].copy_from_slice(&[0, 0]);
            let check = of_words(&words(&header));
            prop_assert_eq!(check.to_ne_bytes(), finish(add(&header, 0)));
            let Ipv4Words([.., src, dst]) = words(&header);
            header[12..16].copy_from_slice(&new[0].to_ne_bytes());
            header[16..].copy_from_slice(&new[1].to_ne_bytes());
            let changed = change(check, difference([(src, new[0]), (dst, new[1])]));
            prop_assert_eq!(changed, of_words(&words(&header)));
        }

        #[test]
        fn an_update_equals_a_sum_from_scratch(mut header: [u8; 20], at in 0usize..10, new: [u8; 2]) {
            prop_assume!(at != 5);
            header[0] = 0x45; // as in every IPv4 header: the sum is never all zeros
            header[10..12].copy_from_slice(&[0, 0]);
            let check = finish(add(&header, 0));
            let old = [header[2 * at], header[2 * at + 1]];
            header[2 * at..2 * at + 2].copy_from_slice(&new);
            prop_assume!(header[0] != 0);
            prop_assert_eq!(update(check, old, new), finish(add(&header, 0)));
        }
    }
}
