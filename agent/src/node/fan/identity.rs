//! Which address identifies this host in a fan's underlay, over time.
//!
//! The one that it has, as long as it is there. Addresses come and go beside it: floating ones, secondaries, and the
//! own one itself for a moment, when a lease is renewed. Each of them would be another slice, and containers would
//! lose their network for it.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use control::observed::Address;
use ipnet::Ipv4Net;

/// How long an address may be away: DHCP clients that renew a lease by deleting and adding take a third of a second.
const GRACE: Duration = Duration::from_secs(3);

/// What is known of the fans' own addresses.
#[derive(Debug, Default)]
pub struct Identities(HashMap<Ipv4Net, Known>);

#[derive(Debug)]
struct Known {
    address: Ipv4Addr,
    /// Addresses that were there beside it.
    beside: Vec<Ipv4Addr>,
    gone: Option<Instant>,
}

/// What becomes of a fan with the host's addresses as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Its address is there.
    Present,
    /// It is away, and may be back in a moment.
    Away,
    /// It is gone; none of these can follow it: they were there before, or are floating ones.
    Gone {
        /// Addresses that are there and can't follow.
        unfit: Vec<Ipv4Addr>,
    },
}

impl Identities {
    /// What becomes of the fan over `overlay`, whose slice is by `address`.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        overlay: Ipv4Net,
        address: Ipv4Addr,
        all: &[Address],
    ) -> Identity {
        let known = self.0.entry(overlay).or_insert_with(|| Known::new(address));
        if known.address != address {
            *known = Known::new(address);
        }
        if all.iter().any(|other| other.address == address) {
            known.gone = None;
            known.beside = all.iter().map(|other| other.address).filter(|other| *other != address).collect();
            return Identity::Present;
        }
        if now.saturating_duration_since(*known.gone.get_or_insert(now)) < GRACE {
            return Identity::Away;
        }
        let is_unfit = |other: &&Address| other.prefix_len == 32 || known.beside.contains(&other.address);
        Identity::Gone { unfit: all.iter().filter(is_unfit).map(|other| other.address).collect() }
    }
}

impl Known {
    fn new(address: Ipv4Addr) -> Self {
        Self { address, beside: Vec::new(), gone: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "172.30.0.28/16";

    fn addresses(texts: &[&str]) -> Vec<Address> {
        let address = |text: &&str| {
            let network: Ipv4Net = text.parse().unwrap();
            Address { index: 2, address: network.addr(), prefix_len: network.prefix_len() }
        };
        texts.iter().map(address).collect()
    }

    fn judge(identities: &mut Identities, now: Instant, texts: &[&str]) -> Identity {
        let overlay = "250.0.0.0/8".parse().unwrap();
        identities.judge(now, overlay, [172, 30, 0, 28].into(), &addresses(texts))
    }

    #[test]
    fn an_address_that_is_back_in_time_was_never_away() {
        let (mut identities, start) = (Identities::default(), Instant::now());
        assert_eq!(judge(&mut identities, start, &[OWN]), Identity::Present);
        assert_eq!(judge(&mut identities, start, &["172.30.0.99/16"]), Identity::Away);
        let later = start + GRACE / 2;
        assert_eq!(judge(&mut identities, later, &["172.30.0.99/16"]), Identity::Away);
        assert_eq!(judge(&mut identities, later, &[OWN, "172.30.0.99/16"]), Identity::Present);
        assert_eq!(judge(&mut identities, start + GRACE, &[]), Identity::Away, "the time starts anew");
    }

    #[test]
    fn only_an_address_that_came_since_can_follow_and_no_floating_one() {
        let (mut identities, start) = (Identities::default(), Instant::now());
        judge(&mut identities, start, &[OWN, "172.30.0.98/16"]);
        let now = ["172.30.0.97/32", "172.30.0.98/16", "172.30.0.99/16"];
        judge(&mut identities, start, &now);
        let unfit = ["172.30.0.97", "172.30.0.98"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(judge(&mut identities, start + GRACE, &now), Identity::Gone { unfit });
    }

    #[test]
    fn another_address_of_the_fan_starts_anew() {
        let (mut identities, start) = (Identities::default(), Instant::now());
        judge(&mut identities, start, &["172.30.0.99/16"]);
        let all = addresses(&["172.30.0.99/16"]);
        let overlay = "250.0.0.0/8".parse().unwrap();
        let judged = identities.judge(start + GRACE, overlay, [172, 30, 0, 99].into(), &all);
        assert_eq!(judged, Identity::Present);
    }
}
