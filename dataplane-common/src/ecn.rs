//! Traffic class across the tunnel: ECN as RFC 6040 (normal mode), DSCP as RFC 2983 (uniform model).

/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0;
/// ECN-capable, codepoint 1.
pub const ECT_1: u8 = 1;
/// ECN-capable, codepoint 0.
pub const ECT_0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;

const ECN: u8 = 0b11;

/// The outer TOS byte for an inner one: both fields are copied (RFC 6040, section 4.1; RFC 2983, section 3.1).
#[inline(always)]
pub const fn encapsulate(inner: u8) -> u8 {
    inner
}

/// The inner TOS byte after decapsulation: RFC 6040, figure 4, and the outer DSCP.
/// `None` where the packet must be dropped: not ECN-capable inside, congestion marked outside.
#[inline(always)]
pub const fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (CE, _) | (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Some((outer & !ECN) | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: inner; columns: outer Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn decapsulation_follows_figure_4_of_rfc_6040() {
        const OUTER: [u8; 4] = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in OUTER.into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), expected, "inner {inner:02b} outer {outer:02b}");
            }
        }
    }

    #[test]
    fn the_outer_dscp_is_copied_in_and_the_inner_one_out() {
        assert_eq!(encapsulate(0xb8), 0xb8);
        assert_eq!(decapsulate(0x00, 0xb8), Some(0xb8));
        assert_eq!(decapsulate(0xb8 | ECT_0, 0x20 | CE), Some(0x20 | CE));
    }
}
