//! What a peer announces, counted: nothing of it is kept, and so nothing of it needs to be understood. An attribute that is
//! unknown or wrong in itself never ends a session (RFC 7606); lengths that do not fit do.

use netgauze_bgp_pkt::notification::UpdateMessageError;

const EXTENDED_LENGTH: u8 = 0x10;
const MP_REACH: u8 = 14;

/// Counts the prefixes that the body of an UPDATE announces.
///
/// # Errors
/// Its parts do not fit together.
pub(super) fn count(body: &[u8]) -> Result<u64, UpdateMessageError> {
    let malformed = || UpdateMessageError::MalformedAttributeList { value: Box::default() };
    let invalid = || UpdateMessageError::InvalidNetworkField { value: Box::default() };
    let (withdrawn, rest) = long(body).ok_or_else(malformed)?;
    prefixes(withdrawn, 32).ok_or_else(invalid)?;
    let (mut attributes, nlri) = long(rest).ok_or_else(malformed)?;
    let mut announced = prefixes(nlri, 32).ok_or_else(invalid)?;
    while !attributes.is_empty() {
        let (kind, value, further) = attribute(attributes).ok_or_else(malformed)?;
        attributes = further;
        if kind == MP_REACH {
            announced += reached(value).unwrap_or(0);
        }
    }
    Ok(announced)
}

/// What a length of two bytes is followed by, and the rest.
fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// The type and value of the first attribute, and the others.
fn attribute(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[flags, kind], rest) = bytes.split_first_chunk::<2>()?;
    let (value, further) = if flags & EXTENDED_LENGTH == 0 { short(rest)? } else { long(rest)? };
    Some((kind, value, further))
}

/// How many prefixes there are; none when one is longer than its family's addresses or not whole.
fn prefixes(mut bytes: &[u8], longest: u8) -> Option<u64> {
    let mut found = 0;
    while let Some((length, rest)) = bytes.split_first() {
        bytes = rest.get(usize::from(*length).div_ceil(8)..).filter(|_| *length <= longest)?;
        found += 1;
    }
    Some(found)
}

/// Prefixes of an MP_REACH_NLRI (RFC 4760) of unicast.
fn reached(value: &[u8]) -> Option<u64> {
    let (&[_, family, unicast], rest) = value.split_first_chunk::<3>()?;
    let (_next_hop, rest) = short(rest)?;
    let longest = match family {
        1 => 32,
        2 => 128,
        _ => return None,
    };
    (unicast == 1).then(|| prefixes(rest.get(1..)?, longest)).flatten()
}
