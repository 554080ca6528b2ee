//! Services and backends with their state.

use std::{collections::HashSet, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::service::{Algorithm, Backend, Entry, Forward, Vip};

/// A service; the field names are the stable keys of the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    pub name: String,
    /// `ADDR:PORT/PROTO`
    pub vip: String,
    /// How packets reach the backend.
    pub forward: Forward,
    /// How a flow's backend is chosen.
    pub algorithm: Algorithm,
    /// Whether it works.
    pub state: ServiceLife,
    /// Its backends.
    pub backends: Vec<BackendState>,
}

/// Whether a service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceLife {
    /// New flows find a backend.
    Up,
    /// No backend takes new flows: they are refused.
    Down,
    /// The kernel does not hold it as it is wanted.
    Failed,
    /// It was to be there, and the kernel has no such VIP.
    Missing,
}

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendState {
    /// `ADDR:PORT`
    pub address: SocketAddr,
    /// Its share of new flows.
    pub weight: u32,
    /// Whether it takes new flows.
    pub state: BackendLife,
}

/// Whether a backend takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendLife {
    /// It does.
    Up,
    /// Its flows go on, and it gets no new ones.
    Drained,
    /// Its endpoint on this host has gone, and it gets no new flows until it is back.
    Down,
}

impl ServiceState {
    /// A service that is wanted; `is_held`: the kernel holds it so.
    pub fn new(entry: &Entry, is_held: bool) -> Self {
        let service = &entry.defined;
        let state = |backend: &Backend| match backend.weight {
            _ if entry.absent.contains(&backend.socket()) => BackendLife::Down,
            1.. if !entry.drained.contains(&backend.socket()) => BackendLife::Up,
            _ => BackendLife::Drained,
        };
        let backend = |backend: &Backend| BackendState {
            address: backend.socket(),
            weight: backend.weight,
            state: state(backend),
        };
        let backends: Vec<_> = service.backends.iter().map(backend).collect();
        let has_usable = backends.iter().any(|backend| backend.state == BackendLife::Up);
        Self {
            name: service.name.clone(),
            vip: service.vip.to_string(),
            forward: Forward::Nat,
            algorithm: service.algorithm,
            state: match (is_held, has_usable) {
                (false, _) => ServiceLife::Failed,
                (true, true) => ServiceLife::Up,
                (true, false) => ServiceLife::Down,
            },
            backends,
        }
    }
}

/// What an agent said of services, against the VIPs that packets find now.
pub fn against(reported: Vec<ServiceState>, vips: &[Vip]) -> Vec<ServiceState> {
    let vips: HashSet<String> = vips.iter().map(ToString::to_string).collect();
    let seen = |mut service: ServiceState| {
        if service.state != ServiceLife::Failed && !vips.contains(&service.vip) {
            service.state = ServiceLife::Missing;
        }
        service
    };
    reported.into_iter().map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Origin, Service};

    fn service(weights: &[u32]) -> Entry {
        let backend = |(&weight, last)| Backend { address: [250, 0, 28, last].into(), port: 80, weight };
        let service = Service {
            name: "web".to_owned(),
            vip: "10.96.0.10:80/tcp".parse().unwrap(),
            algorithm: Algorithm::Maglev,
            backends: weights.iter().zip(2..).map(backend).collect(),
        };
        Entry::new(service, Origin::File, None)
    }

    #[test]
    fn a_service_is_up_while_a_backend_takes_new_flows() {
        let states =
            [vec![1, 0], vec![0], vec![]].map(|weights| ServiceState::new(&service(&weights), true).state);
        assert_eq!(states, [ServiceLife::Up, ServiceLife::Down, ServiceLife::Down]);
        assert_eq!(ServiceState::new(&service(&[1]), false).state, ServiceLife::Failed);
    }

    #[test]
    fn a_service_that_packets_do_not_find_is_missing() {
        let reported = || vec![ServiceState::new(&service(&[1]), true)];
        assert_eq!(against(reported(), &[service(&[]).wanted.vip])[0].state, ServiceLife::Up);
        assert_eq!(against(reported(), &[])[0].state, ServiceLife::Missing);
    }

    #[test]
    fn the_json_has_the_keys_that_scripts_rely_on() {
        let json = serde_json::to_value(ServiceState::new(&service(&[3, 0]), true)).unwrap();
        let expected = serde_json::json!({
            "name": "web", "vip": "10.96.0.10:80/tcp", "forward": "nat", "algorithm": "maglev", "state": "up",
            "backends": [
                {"address": "250.0.28.2:80", "weight": 3, "state": "up"},
                {"address": "250.0.28.3:80", "weight": 0, "state": "drained"},
            ],
        });
        assert_eq!(json, expected);
    }
}
