use std::net::{Ipv4Addr, SocketAddrV4};

use control::service::{Protocol, Service, Vip};
use dataplane_common::{
    abi::{FlowKey, FlowRecord},
    ct,
    outcome::Outcome,
    packet::Packet as _,
    tunnel,
    wire::{ETH_LEN, Ipv4},
};

use super::Result;
use crate::kernel::bpf::ServiceMap;

/// What a service had to do with a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The service's name.
    pub service: Option<String>,
    /// The backend that the packet goes to or comes from.
    pub backend: Option<SocketAddrV4>,
}

impl Served {
    /// Finds out after a run, from the flow that the program entered or found.
    pub(super) fn find(
        map: &ServiceMap,
        services: &[Service],
        frame: &[u8],
        outcome: Outcome,
    ) -> Result<Self> {
        let concerns = is_forwarded(outcome) || is_refused(outcome);
        let Some(key) = key_of(frame).filter(|_| concerns && !services.is_empty()) else {
            return Ok(Self::default());
        };
        let flow = map.flow(&key)?.filter(|flow| flow.service != FlowRecord::DIRECT);
        let vip = match &flow {
            Some(flow) => map.vip_of(flow.service.into()),
            None if is_refused(outcome) => vip_at(services, &key),
            None => None,
        };
        let named = services.iter().find(|service| Some(service.vip) == vip);
        let backend = flow.filter(|_| is_forwarded(outcome)).map(|flow| backend(&key, &flow));
        Ok(Self { service: named.map(|service| service.name.clone()), backend })
    }
}

/// Whether a packet that ended so went on, or would have if it were smaller or had a route.
fn is_forwarded(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Encapsulated
            | Outcome::Decapsulated
            | Outcome::DecapsulatedToHost
            | Outcome::DecapsulatedFiltered
            | Outcome::PassFiltered
            | Outcome::DeliveredLocally
            | Outcome::DeliveredToHost
            | Outcome::Routed
            | Outcome::AnsweredTooBig
            | Outcome::AnsweredUnreachable
            | Outcome::AnsweredSilentHost
    )
}

/// Whether a packet that ended so found a service that could not serve it.
fn is_refused(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::RefusedNoBackend | Outcome::RefusedCollision | Outcome::RefusedBackendGone)
}

/// How flows know the innermost packet.
fn key_of(frame: &[u8]) -> Option<FlowKey> {
    let outer = Ipv4::new(frame.read(ETH_LEN)?);
    let offset = if tunnel::is_tunnel(&outer) { tunnel::INNER } else { ETH_LEN };
    let ip = Ipv4::new(frame.read(offset)?);
    ct::flow_key(frame, &ip, offset)
}

/// The VIP that a packet is sent to: an exact port wins over any port.
fn vip_at(services: &[Service], key: &FlowKey) -> Option<Vip> {
    let address = Ipv4Addr::from(key.dst.to_ne_bytes()).into();
    let protocol = Protocol::from_number(key.protocol)?;
    let exact = Vip { address, port: u16::from_be(key.dport), protocol };
    let serves = |vip: Vip| services.iter().any(|service| service.vip == vip).then_some(vip);
    serves(exact).or_else(|| serves(Vip { port: 0, ..exact }))
}

/// The backend of a flow, from the entry of either direction.
fn backend(key: &FlowKey, flow: &FlowRecord) -> SocketAddrV4 {
    let (address, port) =
        if flow.flags & FlowRecord::REPLY == 0 { (flow.dst, flow.dport) } else { (key.src, key.sport) };
    SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), u16::from_be(port))
}
