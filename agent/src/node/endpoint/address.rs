//! Which addresses an endpoint gets: those asked for, else the lowest free one of each fan.

use std::{collections::BTreeMap, net::Ipv4Addr};

use control::{
    model::network,
    reconcile::{endpoint_address, fan_of_endpoint},
};
use dataplane_common::abi::FanRecord;
use ipnet::Ipv4Net;

use super::Error;

/// A fan that endpoints can join.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// As the programs know it.
    pub(super) fan: FanRecord,
    /// So many addresses from the slice's start are left alone.
    pub(super) host_reserve: u32,
}

impl Place {
    pub(super) fn overlay(&self) -> Ipv4Net {
        network(self.fan.overlay, self.fan.overlay_mask)
    }

    pub(super) fn slice(&self) -> Ipv4Net {
        network(self.fan.slice, self.fan.slice_mask)
    }

    pub(super) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.fan.gateway)
    }

    /// The lowest address that is neither reserved nor taken.
    fn free(&self, taken: &Taken) -> Result<Ipv4Addr, Error> {
        let first = self.fan.slice + self.host_reserve.max(1) + 1;
        let broadcast = self.fan.slice | !self.fan.slice_mask;
        (first..broadcast)
            .map(Ipv4Addr::from_bits)
            .find(|address| endpoint_address(&self.fan, *address) && !taken.contains_key(address))
            .ok_or_else(|| Error::SliceFull { slice: self.slice() })
    }
}

/// Addresses in use.
pub(super) type Taken = BTreeMap<Ipv4Addr, Holder>;

/// What uses an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// An endpoint that we wired.
    Endpoint(String),
    /// A container behind a port of the bridge, by the port's name.
    Port(String),
    /// A client that has it by DHCP.
    Lease(String),
    /// A neighbour on a bridge that answers for it now, by its MAC address.
    Answers(String, String),
    /// A neighbour that was there not long ago: the address is not chosen for an endpoint, but may be asked for.
    Recent,
}

/// The addresses of a new endpoint with their places, the first fan first.
pub(super) fn choose(
    places: &[Place],
    overlays: &[Ipv4Net],
    asked: &[Ipv4Addr],
    taken: &Taken,
) -> Result<Vec<(Place, Ipv4Addr)>, Error> {
    let wanted = wanted(places, overlays, asked)?;
    let mut chosen = Vec::new();
    for &address in asked {
        // An address of no fan chooses none: it is told which there are.
        check(if wanted.is_empty() { places } else { &wanted }, address, taken)?;
    }
    for place in wanted {
        let mut own = asked.iter().filter(|&&address| endpoint_address(&place.fan, address));
        let address = match (own.next(), own.next()) {
            (Some(_), Some(&second)) => return Err(Error::TwoAddresses { slice: place.slice(), second }),
            (Some(&address), None) => address,
            (None, _) => place.free(taken)?,
        };
        chosen.push((place, address));
    }
    Ok(chosen)
}

/// The fans that are named, else those of the addresses asked for, else all.
fn wanted(places: &[Place], overlays: &[Ipv4Net], asked: &[Ipv4Addr]) -> Result<Vec<Place>, Error> {
    if places.is_empty() {
        return Err(Error::NoFan);
    }
    let up = || places.iter().map(Place::overlay).collect();
    if let Some(&overlay) = overlays.iter().find(|&&overlay| places.iter().all(|p| p.overlay() != overlay)) {
        return Err(Error::FanNotUp { overlay, up: up() });
    }
    let is_wanted = |place: &&Place| match (overlays, asked) {
        ([], []) => true,
        ([], asked) => asked.iter().any(|&address| endpoint_address(&place.fan, address)),
        (overlays, _) => overlays.contains(&place.overlay()),
    };
    Ok(places.iter().filter(is_wanted).copied().collect())
}

fn check(wanted: &[Place], address: Ipv4Addr, taken: &Taken) -> Result<(), Error> {
    let fans: Vec<FanRecord> = wanted.iter().map(|place| place.fan).collect();
    if fan_of_endpoint(&fans, address).is_none() {
        let slices = wanted.iter().map(Place::slice).collect();
        return Err(Error::AddressOutside { address, slices });
    }
    match taken.get(&address) {
        Some(Holder::Endpoint(name)) => Err(Error::AddressOfEndpoint { address, name: name.clone() }),
        Some(Holder::Port(device)) => Err(Error::AddressOnPort { address, device: device.clone() }),
        Some(Holder::Lease(client)) => Err(Error::AddressLeased { address, client: client.clone() }),
        Some(Holder::Answers(holder, bridge)) => {
            let (holder, bridge) = (holder.clone(), bridge.clone());
            Err(Error::AddressAnswers { address, holder, bridge })
        }
        Some(Holder::Recent) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn place(overlay: &str, slice: &str, host_reserve: u32) -> Place {
        let (overlay, slice): (Ipv4Net, Ipv4Net) = (overlay.parse().unwrap(), slice.parse().unwrap());
        let fan = FanRecord {
            overlay: overlay.addr().to_bits(),
            overlay_mask: overlay.netmask().to_bits(),
            slice: slice.addr().to_bits(),
            slice_mask: slice.netmask().to_bits(),
            gateway: slice.addr().to_bits() + 1,
            ..FanRecord::zeroed()
        };
        Place { fan, host_reserve }
    }

    fn places() -> [Place; 2] {
        [place("250.0.0.0/8", "250.0.28.0/24", 1), place("251.0.0.0/8", "251.0.28.0/24", 10)]
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn chosen(overlays: &[&str], asked: &[&str], taken: &[(&str, Holder)]) -> Result<Vec<Ipv4Addr>, String> {
        let overlays: Vec<_> = overlays.iter().map(|overlay| overlay.parse().unwrap()).collect();
        let asked: Vec<_> = asked.iter().map(|address| ip(address)).collect();
        let taken = taken.iter().map(|(address, holder)| (ip(address), holder.clone())).collect();
        let pairs = choose(&places(), &overlays, &asked, &taken).map_err(|error| error.to_string())?;
        Ok(pairs.into_iter().map(|(_, address)| address).collect())
    }

    #[test]
    fn without_wishes_an_endpoint_gets_the_lowest_unreserved_address_of_each_fan() {
        assert_eq!(chosen(&[], &[], &[]).unwrap(), [ip("250.0.28.2"), ip("251.0.28.11")]);
        let taken = [("250.0.28.2", Holder::Endpoint("a".into())), ("250.0.28.3", Holder::Recent)];
        assert_eq!(chosen(&["250.0.0.0/8"], &[], &taken).unwrap(), [ip("250.0.28.4")]);
    }

    #[test]
    fn addresses_asked_for_name_their_fans_and_may_lie_in_the_reserve() {
        assert_eq!(chosen(&[], &["251.0.28.5"], &[]).unwrap(), [ip("251.0.28.5")]);
        let both = chosen(&["250.0.0.0/8", "251.0.0.0/8"], &["251.0.28.5"], &[]).unwrap();
        assert_eq!(both, [ip("250.0.28.2"), ip("251.0.28.5")]);
    }

    #[test]
    fn an_address_that_just_vanished_can_be_asked_for() {
        let taken = [("250.0.28.7", Holder::Recent)];
        assert_eq!(chosen(&[], &["250.0.28.7"], &taken).unwrap(), [ip("250.0.28.7")]);
    }

    #[test]
    fn impossible_wishes_are_refused_with_what_would_be_right() {
        let outside = chosen(&["250.0.0.0/8"], &["251.0.28.5"], &[]).unwrap_err();
        assert!(outside.contains("250.0.28.0/24"), "{outside}");
        for stranger in ["250.0.27.9", "10.0.0.1"] {
            let outside = chosen(&[], &[stranger], &[]).unwrap_err();
            let want = "use one of 250.0.28.0/24, 251.0.28.0/24 other than the first two and the last";
            assert!(outside.contains(want), "{outside}");
        }
        for special in ["250.0.28.0", "250.0.28.1", "250.0.28.255", "250.0.27.9"] {
            assert!(chosen(&[], &[special], &[]).is_err(), "{special}");
        }
        let unknown = chosen(&["252.0.0.0/8"], &[], &[]).unwrap_err();
        assert!(unknown.contains("250.0.0.0/8, 251.0.0.0/8"), "{unknown}");
        let twice = chosen(&[], &["250.0.28.5", "250.0.28.6"], &[]).unwrap_err();
        assert!(twice.contains("250.0.28.6"), "{twice}");
        let taken = chosen(&[], &["250.0.28.5"], &[("250.0.28.5", Holder::Endpoint("web".into()))]);
        assert!(taken.unwrap_err().contains("web"));
        let port = chosen(&[], &["250.0.28.5"], &[("250.0.28.5", Holder::Port("veth7".into()))]);
        assert!(port.unwrap_err().contains("veth7"));
        assert!(choose(&[], &[], &[], &Taken::new()).is_err());
    }

    #[test]
    fn a_full_slice_is_an_error_that_names_it() {
        let tiny = place("250.0.0.0/8", "250.0.28.0/30", 1);
        let taken = [(ip("250.0.28.2"), Holder::Recent)].into();
        let error = choose(&[tiny], &[], &[], &taken).unwrap_err();
        assert!(error.to_string().contains("250.0.28.0/30"), "{error}");
    }
}
