//! Communities of the three kinds: what routes are marked with for the routers of others.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::Serialize;

/// `ASN:VALUE`, 16 bits each (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Routes that are about to go (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
}

/// `ASN:VALUE:VALUE`, 32 bits each (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity(pub u32, pub u32, pub u32);

/// `rt:ASN:VALUE` or `soo:ASN:VALUE`, the ASN of 16 or 32 bits or an IPv4 address, the value with what is left of 48 bits
/// (RFC 4360, 5668); any other as `0x` and 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// A text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}; write one such as {example}")]
pub struct CommunityError {
    text: String,
    kind: &'static str,
    example: &'static str,
}

/// Characters of a wrong text that a message shows.
const SHOWN: usize = 40;
const ROUTE_TARGET: u8 = 2;
const SITE_OF_ORIGIN: u8 = 3;
const TWO_OCTETS: u8 = 0;
const ADDRESS: u8 = 1;
const FOUR_OCTETS: u8 = 2;

impl CommunityError {
    fn new(text: &str, kind: &'static str, example: &'static str) -> Self {
        Self { text: text.chars().take(SHOWN).collect(), kind, example }
    }
}

/// A number in digits alone.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').and_then(|(asn, value)| Some((number(asn)?, number(value)?)));
        let of = |(asn, value): (u16, u16)| Self(u32::from(asn) << 16 | u32::from(value));
        parts.map(of).ok_or_else(|| CommunityError::new(text, "community", "65001:100"))
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':').map(number);
        let mut next = || parts.next().flatten();
        let large = (|| Some(Self(next()?, next()?, next()?)))();
        let large = large.filter(|_| text.matches(':').count() == 2);
        large.ok_or_else(|| CommunityError::new(text, "large community", "65001:1:2"))
    }
}

impl FromStr for ExtendedCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        extended(text).ok_or_else(|| {
            CommunityError::new(text, "extended community", "rt:65001:5, soo:65001:5 or 0x0002fde900000005")
        })
    }
}

fn extended(text: &str) -> Option<ExtendedCommunity> {
    if let Some(digits) = text.strip_prefix("0x") {
        let is_whole = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let value = u64::from_str_radix(digits, 16).ok().filter(|_| is_whole)?;
        return Some(ExtendedCommunity(value.to_be_bytes()));
    }
    let (kind, rest) = text.split_once(':')?;
    let kind = match kind {
        "rt" => ROUTE_TARGET,
        "soo" => SITE_OF_ORIGIN,
        _ => return None,
    };
    let (administrator, value) = rest.split_once(':')?;
    let mut bytes = [0; 8];
    bytes[1] = kind;
    if let Some(asn) = number::<u16>(administrator) {
        bytes[0] = TWO_OCTETS;
        bytes[2..4].copy_from_slice(&asn.to_be_bytes());
        bytes[4..].copy_from_slice(&number::<u32>(value)?.to_be_bytes());
        return Some(ExtendedCommunity(bytes));
    }
    let (layout, of) = match (number::<u32>(administrator), administrator.parse::<Ipv4Addr>()) {
        (Some(asn), _) => (FOUR_OCTETS, asn.to_be_bytes()),
        (None, Ok(address)) => (ADDRESS, address.octets()),
        (None, Err(_neither)) => return None,
    };
    bytes[0] = layout;
    bytes[2..6].copy_from_slice(&of);
    bytes[6..].copy_from_slice(&number::<u16>(value)?.to_be_bytes());
    Some(ExtendedCommunity(bytes))
}

impl fmt::Display for Community {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.0, self.1, self.2)
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [layout, kind, a, b, c, d, e, f] = self.0;
        let kind = match kind {
            ROUTE_TARGET => "rt",
            SITE_OF_ORIGIN => "soo",
            _ => return write!(formatter, "0x{:016x}", u64::from_be_bytes(self.0)),
        };
        let (four, two) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
        match layout {
            TWO_OCTETS => {
                let (asn, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
                write!(formatter, "{kind}:{asn}:{value}")
            }
            ADDRESS => write!(formatter, "{kind}:{}:{two}", Ipv4Addr::from(four)),
            // Below 65,536 this text is the other layout's.
            FOUR_OCTETS if four > u32::from(u16::MAX) => write!(formatter, "{kind}:{four}:{two}"),
            _ => write!(formatter, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
as_text!(Community, LargeCommunity, ExtendedCommunity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_of_all_kinds_are_read_as_they_are_written() {
        for text in ["65001:100", "0:0", "65535:65535"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("65535:0".parse(), Ok(Community::GRACEFUL_SHUTDOWN));
        for text in ["65001:1:2", "4294967295:0:4294967295"] {
            assert_eq!(text.parse::<LargeCommunity>().unwrap().to_string(), text);
        }
        for text in
            ["rt:65001:5", "rt:4200000001:7", "soo:192.0.2.1:9", "0x4002fde900000005", "rt:1:4294967295"]
        {
            assert_eq!(text.parse::<ExtendedCommunity>().unwrap().to_string(), text);
        }
        assert_eq!(
            "rt:65001:5".parse(),
            Ok(ExtendedCommunity([0, 2, 0xfd, 0xe9, 0, 0, 0, 5])),
            "RFC 4360, section 3.1"
        );
    }

    #[test]
    fn what_is_no_community_is_refused_with_an_example() {
        for text in ["65001", "65536:1", "1:65536", "+1:2", "1:2:3", "a:b", ""] {
            assert!(
                text.parse::<Community>().unwrap_err().to_string().ends_with("such as 65001:100"),
                "{text}"
            );
        }
        for text in ["1:2", "1:2:3:4", "1:2:4294967296", "1::2"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
        }
        for text in ["rt:1", "xx:1:2", "rt:70000:70000", "rt:300.1.1.1:2", "0x12", "0x+002fde900000005"] {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
    }
}
