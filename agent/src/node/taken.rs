//! Addresses that no VIP may have, because this host needs them as they are: its own, its default gateways', and its
//! resolvers'.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr},
};

use control::{
    observed::Route,
    service::{Service, Vip},
};

/// Where the resolvers are named: systemd-resolved names only itself in the first.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// The port that resolvers answer at.
const DNS: u16 = 53;

/// The addresses, as they were seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// This host's, with their devices.
    pub(crate) own: HashMap<Ipv4Addr, String>,
    gateways: Vec<Ipv4Addr>,
    resolvers: Vec<Ipv4Addr>,
}

impl Taken {
    pub(crate) fn new(own: HashMap<Ipv4Addr, String>, routes: &[Route]) -> Self {
        let default = routes.iter().filter(|route| route.destination.prefix_len() == 0);
        let texts = RESOLVERS.iter().filter_map(|path| fs::read_to_string(path).ok());
        Self {
            own,
            gateways: default.filter_map(|route| route.gateway).collect(),
            resolvers: texts.flat_map(|text| resolvers(&text)).collect(),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.own.keys().chain(&self.gateways).chain(&self.resolvers).copied()
    }

    /// Why one of these services can't have its VIP. A resolver's address is free for services when one of `all`
    /// answers queries there.
    pub(crate) fn why(&self, vip: Vip, mut all: impl Iterator<Item = Vip>) -> Option<String> {
        let IpAddr::V4(address) = vip.address else { return None };
        if let Some(device) = self.own.get(&address) {
            return Some(format!("is an address of {device}"));
        }
        if self.gateways.contains(&address) {
            return Some("is the default gateway's".to_owned());
        }
        let resolves = |other: Vip| other.address == vip.address && [0, DNS].contains(&other.port);
        let is_resolver = self.resolvers.contains(&address) && !all.any(resolves);
        is_resolver.then(|| format!("is a resolver of this host ({})", RESOLVERS[0]))
    }

    /// The addresses of services that can't be served, each with the reason.
    pub(crate) fn among<'a>(
        &self,
        services: impl Iterator<Item = &'a Service> + Clone,
    ) -> BTreeMap<Ipv4Addr, String> {
        let why = services.clone().filter_map(|service| {
            let IpAddr::V4(address) = service.vip.address else { return None };
            Some((address, self.why(service.vip, services.clone().map(|service| service.vip))?))
        });
        why.collect()
    }
}

/// The IPv4 resolvers that a text in the form of `resolv.conf(5)` names.
fn resolvers(text: &str) -> Vec<Ipv4Addr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next()? == "nameserver" { words.next()?.parse().ok() } else { None }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::service::Algorithm;

    fn service(vip: &str) -> Service {
        let vip = vip.parse().unwrap();
        Service {
            name: "a".to_owned(),
            vip,
            algorithm: Algorithm::Maglev,
            checking: None,
            backends: Vec::new(),
        }
    }

    #[test]
    fn a_resolvers_address_is_free_for_a_service_that_resolves_and_a_gateways_never() {
        let taken = Taken {
            own: HashMap::new(),
            gateways: vec![[10, 0, 0, 1].into()],
            resolvers: vec![[10, 0, 0, 2].into()],
        };
        let why = |vips: &[&str]| {
            let services: Vec<Service> = vips.iter().map(|vip| service(vip)).collect();
            taken.among(services.iter()).into_values().collect::<Vec<_>>()
        };
        assert_eq!(why(&["10.0.0.1:53/udp"]), ["is the default gateway's"]);
        assert_eq!(why(&["10.0.0.2:80/tcp"]), ["is a resolver of this host (/etc/resolv.conf)"]);
        assert_eq!(why(&["10.0.0.2:80/tcp", "10.0.0.2:53/udp"]), [""; 0]);
        assert_eq!(why(&["10.0.0.2:0/udp", "10.0.0.3:80/tcp"]), [""; 0]);
    }

    #[test]
    fn resolvers_are_the_words_after_nameserver() {
        let text = "# nameserver 1.1.1.1\nsearch a.b\nnameserver 10.0.0.2\n nameserver\tfd00::1\nnameserver 10.0.0.3 x\n";
        assert_eq!(resolvers(text), [[10, 0, 0, 2], [10, 0, 0, 3]].map(Ipv4Addr::from));
    }
}
