//! Services and backends with their state.

use std::{collections::HashSet, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::service::{Algorithm, Backend, Forward, Service, Vip};

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

impl ServiceState {
    /// The service as the kernel holds it: with the backends that take new flows. `None` where it does not.
    pub fn held(&self) -> Option<Service> {
        let vip = self.vip.parse().ok().filter(|_| self.state.is_held())?;
        let usable = self.backends.iter().filter(|backend| backend.state == BackendLife::Up || backend.kept);
        let backends = usable.map(|backend| Backend {
            address: backend.address.ip(),
            port: backend.address.port(),
            weight: backend.weight,
        });
        Some(Service {
            name: self.name.clone(),
            vip,
            algorithm: self.algorithm,
            checking: None,
            backends: backends.collect(),
        })
    }
}

/// Whether a service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceLife {
    /// New flows find a backend.
    Up,
    /// No backend takes new flows: they are refused.
    Down,
    /// Too many backends are down at once: some of these take new flows all the same.
    Kept,
    /// All backends are down, and take new flows all the same.
    AllDown,
    /// Files of several nodes define it in different ways; the last change is followed.
    Conflict,
    /// The kernel does not hold it as it is wanted.
    Failed,
    /// It was to be there, and the kernel has no such VIP.
    Missing,
}

impl ServiceLife {
    /// Whether the kernel holds it as it is wanted.
    pub fn is_held(self) -> bool {
        !matches!(self, Self::Failed | Self::Missing)
    }
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
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Down>,
    /// It is down and takes new flows all the same: too few others could.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// Whether a backend takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendLife {
    /// It does.
    Up,
    /// Its flows go on, and it gets no new ones.
    Drained,
    /// It can't be reached, and gets no new flows until it can.
    Down,
}

/// Why a backend is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Down {
    /// Its endpoint on this node has gone.
    EndpointGone,
    /// Nothing answers for its address in this node's slice, or its device has no carrier.
    NoAnswer,
    /// The member that has its address is dead.
    NodeDead,
    /// The member that has its address has said good-bye.
    NodeLeft,
    /// Its check fails.
    CheckFailed,
    /// Its check has not passed yet.
    Unchecked,
}

impl Down {
    /// Whether it is this node's own finding about an endpoint of its own.
    pub fn is_of_endpoint(self) -> bool {
        matches!(self, Self::EndpointGone | Self::NoAnswer)
    }

    /// Whether a check says so, or has said nothing yet.
    pub fn is_of_check(self) -> bool {
        matches!(self, Self::CheckFailed | Self::Unchecked)
    }
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointGone => "endpoint-gone",
            Self::NoAnswer => "no-answer",
            Self::NodeDead => "node-dead",
            Self::NodeLeft => "node-left",
            Self::CheckFailed => "check-failed",
            Self::Unchecked => "unchecked",
        })
    }
}

/// A backend that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Why.
    pub why: Down,
    /// It takes new flows all the same: too few others could.
    pub is_kept: bool,
}

impl From<Down> for Outage {
    fn from(why: Down) -> Self {
        Self { why, is_kept: false }
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

    fn service(state: ServiceLife) -> ServiceState {
        let backend = |last, weight, state, reason| BackendState {
            address: ([250, 0, 28, last], 80).into(),
            weight,
            state,
            reason,
            kept: false,
        };
        ServiceState {
            name: "web".to_owned(),
            vip: "10.96.0.10:80/tcp".to_owned(),
            forward: Forward::Nat,
            algorithm: Algorithm::Maglev,
            state,
            backends: vec![
                backend(2, 3, BackendLife::Up, None),
                backend(3, 0, BackendLife::Drained, None),
                backend(4, 1, BackendLife::Down, Some(Down::EndpointGone)),
            ],
        }
    }

    #[test]
    fn a_service_that_packets_do_not_find_is_missing() {
        let reported = || vec![service(ServiceLife::Up)];
        assert_eq!(against(reported(), &["10.96.0.10:80/tcp".parse().unwrap()])[0].state, ServiceLife::Up);
        assert_eq!(against(reported(), &[])[0].state, ServiceLife::Missing);
    }

    #[test]
    fn the_kernel_holds_a_service_with_the_backends_that_take_new_flows() {
        let backends = |state| service(state).held().map(|service| service.backends);
        let up = Backend { address: [250, 0, 28, 2].into(), port: 80, weight: 3 };
        assert_eq!(backends(ServiceLife::Up), Some(vec![up]));
        assert_eq!(backends(ServiceLife::Failed), None);
        let mut kept = service(ServiceLife::Kept);
        kept.backends[2].kept = true;
        assert_eq!(kept.held().map(|service| service.backends.len()), Some(2));
    }

    #[test]
    fn the_json_has_the_keys_that_scripts_rely_on() {
        let json = serde_json::to_value(service(ServiceLife::Up)).unwrap();
        let expected = serde_json::json!({
            "name": "web", "vip": "10.96.0.10:80/tcp", "forward": "nat", "algorithm": "maglev", "state": "up",
            "backends": [
                {"address": "250.0.28.2:80", "weight": 3, "state": "up"},
                {"address": "250.0.28.3:80", "weight": 0, "state": "drained"},
                {"address": "250.0.28.4:80", "weight": 1, "state": "down", "reason": "endpoint-gone"},
            ],
        });
        assert_eq!(json, expected);
    }
}
