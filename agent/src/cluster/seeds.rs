//! Addresses to join by. Names are resolved again and again: a member may get another address, or its name later.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// From one resolution to the next.
const AGAIN: Duration = Duration::from_secs(5);
/// How long one name may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses that one name counts for.
const OF_ONE: usize = 16;

/// What the names in `join` lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seeds {
    pub(super) addresses: Vec<SocketAddrV4>,
    /// Names that lead nowhere.
    pub(super) unresolved: Vec<String>,
}

impl Seeds {
    /// Those that need no resolution; names are taken as unresolved.
    pub(super) fn literal(join: &[String]) -> Self {
        let mut seeds = Self::default();
        for seed in join {
            match seed.parse() {
                Ok(address) => seeds.addresses.push(address),
                Err(_name) => seeds.unresolved.push(seed.clone()),
            }
        }
        seeds
    }
}

/// Resolves names for as long as there are readers, and tells what is other than before.
pub(super) async fn follow(join: Vec<String>, output: watch::Sender<Seeds>) {
    let literal = Seeds::literal(&join);
    if literal.unresolved.is_empty() {
        return;
    }
    let mut known = Seeds::default();
    let mut resolved: BTreeMap<&str, Vec<SocketAddrV4>> = BTreeMap::new();
    loop {
        for name in &literal.unresolved {
            let found = resolve(name).await;
            // A name server that fails takes nothing back.
            if !found.is_empty() {
                resolved.insert(name, found);
            }
        }
        let addresses: BTreeSet<_> =
            literal.addresses.iter().chain(resolved.values().flatten()).copied().collect();
        let unresolved = literal.unresolved.iter().filter(|name| !resolved.contains_key(name.as_str()));
        let seeds =
            Seeds { addresses: addresses.into_iter().collect(), unresolved: unresolved.cloned().collect() };
        if seeds != known {
            known = seeds.clone();
            if output.send(seeds).is_err() {
                return;
            }
        }
        sleep(AGAIN).await;
    }
}

/// The IPv4 addresses of `NAME:PORT`, by the system's resolver, on a thread that may wait.
async fn resolve(name: &str) -> Vec<SocketAddrV4> {
    let ipv4 = |address| if let SocketAddr::V4(address) = address { Some(address) } else { None };
    match timeout(PATIENCE, tokio::net::lookup_host(name)).await {
        Ok(Ok(found)) => found.filter_map(ipv4).take(OF_ONE).collect(),
        Ok(Err(error)) => {
            tracing::debug!("cluster: {name}: {error}");
            Vec::new()
        }
        Err(_late) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_resolution_and_names_do() {
        let join = ["10.0.0.1:7481".to_owned(), "seed:7481".to_owned()];
        let seeds = Seeds::literal(&join);
        assert_eq!(seeds.addresses, ["10.0.0.1:7481".parse().unwrap()]);
        assert_eq!(seeds.unresolved, ["seed:7481"]);
    }
}
