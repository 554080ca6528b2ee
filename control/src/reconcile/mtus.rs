//! MTUs of the endpoints that we wired: inside that of their fans, the host's end as large as can be, so that whatever
//! comes out reaches a program that answers it.

use dataplane_common::abi::FanRecord;

use super::fan_of_endpoint;
use crate::{model::VETH_MTU, observed::Wired};

/// The smallest MTU of an endpoint's fans; `None` while they are down.
pub fn mtu_of(fans: &[FanRecord], wired: &Wired) -> Option<u32> {
    let fans = wired.record.addresses.iter().filter_map(|&address| fan_of_endpoint(fans, address));
    fans.map(|fan| fan.mtu).min()
}

/// The endpoints whose host's end is smaller than can be.
pub fn small(wired: &[Wired]) -> Vec<&Wired> {
    wired.iter().filter(|wired| wired.mtu < VETH_MTU).collect()
}

/// The endpoints that were given another MTU than their fans have now, with the latter.
pub fn outdated<'a>(fans: &[FanRecord], wired: &'a [Wired]) -> Vec<(&'a Wired, u32)> {
    let other =
        |wired: &'a Wired| Some((wired, mtu_of(fans, wired).filter(|&mtu| mtu != wired.given_mtu())?));
    wired.iter().filter_map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::{address, bridged, fan};

    fn wired(mtu: u32, given: Option<u32>) -> Wired {
        let [wired] = Wired::among(&[bridged(4, "a", &[address(2)])]).try_into().unwrap();
        Wired { mtu, record: wired.record.clone().with_mtu(given), ..wired }
    }

    #[test]
    fn an_end_of_an_older_version_is_raised() {
        let ends = [wired(1480, None), wired(VETH_MTU, Some(1480)), wired(9000, Some(1480))];
        assert_eq!(small(&ends), [&ends[0], &ends[2]]);
    }

    #[test]
    fn the_device_inside_follows_the_fans_and_not_the_hosts_end() {
        let ends = [wired(VETH_MTU, Some(1480)), wired(VETH_MTU, Some(1380)), wired(1380, None)];
        assert_eq!(outdated(&[fan()], &ends), [(&ends[1], 1480), (&ends[2], 1480)]);
        assert_eq!(outdated(&[], &ends), []);
    }
}
