//! Fan arithmetic: an overlay address computes the underlay host that owns it.
//!
//! With overlay `O/p` over underlay `U/q`, the host bits of an underlay address, moved left by `q - p`, are the
//! part of the overlay address that follows its prefix. No table and no state: Canonical's Fan, for every width.
//! Addresses are `u32` in host order here; the wire's byte order ends where a header is read.

use core::{error::Error, fmt, net::Ipv4Addr};

/// A valid pairing of an overlay network with an underlay network.
///
/// The IPv6 overlay follows the same rule with a 128-bit prefix and will be a twin of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FanMap {
    overlay: u32,
    overlay_len: u8,
    underlay: u32,
    underlay_len: u8,
}

/// Overlay networks that can hold no fan: "this network", loopback, multicast.
const FORBIDDEN: [(u32, u8); 3] = [(0, 8), (127 << 24, 8), (224 << 24, 4)];

/// The longest slice that still has room for a gateway and one endpoint.
pub const MAX_SLICE_LEN: u8 = 30;

impl FanMap {
    /// Pairs `overlay/overlay_len` with `underlay/underlay_len`.
    ///
    /// # Errors
    /// [`FanError`] names the rule that the pair breaks.
    pub fn new(
        (overlay, overlay_len): (Ipv4Addr, u8),
        (underlay, underlay_len): (Ipv4Addr, u8),
    ) -> Result<Self, FanError> {
        let (overlay, underlay) = (overlay.to_bits(), underlay.to_bits());
        if overlay_len > 32 || underlay_len > 32 {
            return Err(FanError::PrefixLength { len: overlay_len.max(underlay_len) });
        }
        if overlay & !mask(overlay_len) != 0 {
            return Err(FanError::OverlayHostBits { network: overlay & mask(overlay_len), len: overlay_len });
        }
        if underlay & !mask(underlay_len) != 0 {
            return Err(FanError::UnderlayHostBits {
                network: underlay & mask(underlay_len),
                len: underlay_len,
            });
        }
        if overlay_len >= underlay_len {
            return Err(FanError::OverlayNotWider { overlay_len, underlay_len });
        }
        let slice_len = slice_len(overlay_len, underlay_len);
        if slice_len > MAX_SLICE_LEN {
            return Err(FanError::SliceTooSmall { slice_len });
        }
        if let Some(&(network, len)) =
            FORBIDDEN.iter().find(|&&(network, len)| overlaps((overlay, overlay_len), (network, len)))
        {
            return Err(FanError::OverlayForbidden { network, len });
        }
        Ok(Self { overlay, overlay_len, underlay, underlay_len })
    }

    /// The overlay network's address and prefix length.
    pub const fn overlay(&self) -> (u32, u8) {
        (self.overlay, self.overlay_len)
    }

    /// The underlay network's address and prefix length.
    pub const fn underlay(&self) -> (u32, u8) {
        (self.underlay, self.underlay_len)
    }

    /// Prefix length of every host's slice.
    pub const fn slice_len(&self) -> u8 {
        slice_len(self.overlay_len, self.underlay_len)
    }

    /// How far host bits move between the two networks.
    pub const fn shift(&self) -> u8 {
        self.underlay_len - self.overlay_len
    }

    /// Base address of the slice that the underlay address `host` owns; `None` outside the underlay.
    pub const fn slice_of(&self, host: u32) -> Option<u32> {
        if host & mask(self.underlay_len) == self.underlay { Some(self.slice_base(host)) } else { None }
    }

    /// The underlay host that owns the overlay address `inner`; `None` outside the overlay.
    pub const fn host_of(&self, inner: u32) -> Option<u32> {
        if inner & mask(self.overlay_len) == self.overlay {
            Some(host_of(inner, mask(self.overlay_len), self.underlay, self.shift()))
        } else {
            None
        }
    }

    const fn slice_base(&self, host: u32) -> u32 {
        let host_bits = host & !mask(self.underlay_len);
        self.overlay | (host_bits << self.shift())
    }
}

/// The forward direction on numbers already known to be a valid fan, as the kernel programs hold them.
#[inline(always)]
pub const fn host_of(inner: u32, overlay_mask: u32, underlay: u32, shift: u8) -> u32 {
    underlay | ((inner & !overlay_mask) >> (shift & 31))
}

/// The network mask of a prefix length; lengths above 32 count as 32.
#[inline(always)]
pub const fn mask(len: u8) -> u32 {
    match len {
        0 => 0,
        1..=31 => u32::MAX << (32 - len),
        _ => u32::MAX,
    }
}

/// Whether two networks share an address.
pub const fn overlaps(a: (u32, u8), b: (u32, u8)) -> bool {
    let shorter = mask(if a.1 < b.1 { a.1 } else { b.1 });
    a.0 & shorter == b.0 & shorter
}

const fn slice_len(overlay_len: u8, underlay_len: u8) -> u8 {
    overlay_len + 32 - underlay_len
}

/// Why two networks make no fan. Each message says what is wrong and what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanError {
    /// A prefix length above 32.
    PrefixLength {
        /// The length given.
        len: u8,
    },
    /// The overlay has bits set behind its prefix.
    OverlayHostBits {
        /// The network the address lies in.
        network: u32,
        /// Its prefix length.
        len: u8,
    },
    /// The underlay has bits set behind its prefix.
    UnderlayHostBits {
        /// The network the address lies in.
        network: u32,
        /// Its prefix length.
        len: u8,
    },
    /// p >= q: the overlay must have more room than the underlay.
    OverlayNotWider {
        /// p
        overlay_len: u8,
        /// q
        underlay_len: u8,
    },
    /// A host's slice could not hold a gateway and an endpoint.
    SliceTooSmall {
        /// The resulting length.
        slice_len: u8,
    },
    /// The overlay overlaps 0/8, 127/8 or 224/4.
    OverlayForbidden {
        /// The forbidden network.
        network: u32,
        /// Its prefix length.
        len: u8,
    },
}

impl fmt::Display for FanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = Ipv4Addr::from_bits;
        match *self {
            Self::PrefixLength { len } => write!(f, "prefix length /{len} is above 32; use 0 to 32"),
            Self::OverlayHostBits { network, len } => {
                write!(f, "the overlay has host bits set; use {}/{len}", net(network))
            }
            Self::UnderlayHostBits { network, len } => {
                write!(f, "the underlay has host bits set; use {}/{len}", net(network))
            }
            Self::OverlayNotWider { overlay_len, underlay_len } => write!(
                f,
                "overlay /{overlay_len} has no room for underlay /{underlay_len}; \
                 use an overlay with a shorter prefix than the underlay's"
            ),
            Self::SliceTooSmall { slice_len } => write!(
                f,
                "each host would own only a /{slice_len}; use a shorter overlay prefix or a longer underlay \
                 prefix, for slices of /{MAX_SLICE_LEN} or larger"
            ),
            Self::OverlayForbidden { network, len } => write!(
                f,
                "the overlay overlaps {}/{len}, which is not usable for hosts; use an unused network such as \
                 250.0.0.0/8",
                net(network)
            ),
        }
    }
}

impl Error for FanError {}

#[cfg(test)]
mod tests;
