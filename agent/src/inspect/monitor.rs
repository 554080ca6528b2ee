//! What the kernel programs see while `monitor` has readers, in words: new flows, drops and refusals.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, SystemTime},
};

use control::{
    model::utc,
    service::{Protocol, Vip},
};
use dataplane_common::{
    abi::{FlowKey, TRACE_HEAD, TraceEvent},
    outcome::{Hook, Outcome},
    wire::{PLAIN, PROTO_ICMP, PROTO_TCP, PROTO_UDP},
};
use serde::{Deserialize, Serialize};

use crate::{health::Turned, inspect::status::seconds};

/// An event; the field names are the stable keys of the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in UTC.
    pub time: String,
    /// What.
    pub event: Kind,
    /// The outcome's name; absent for a new flow. What a check has seen.
    pub reason: Option<Cow<'static, str>>,
    /// The service's name.
    pub service: Option<String>,
    /// Who sent the packet: address, and port where it has one.
    pub client: Option<String>,
    /// The VIP that it was sent to, with the port.
    pub vip: Option<SocketAddrV4>,
    /// New flow: the backend that was chosen. Check: the backend.
    pub backend: Option<SocketAddrV4>,
    /// Where the packet was sent to: address, and port where it has one.
    pub destination: Option<String>,
    /// The packet's protocol.
    pub protocol: Option<Cow<'static, str>>,
    /// The hook that ended the packet.
    pub hook: Option<Cow<'static, str>>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A service's first packet of a flow found its backend.
    NewFlow,
    /// A packet was dropped.
    Drop,
    /// A packet was answered as a closed port answers.
    Refused,
    /// A backend is up by this node's check.
    CheckUp,
    /// A backend is down by this node's check.
    CheckDown,
}

/// Names of services, and what time it was when the machine started.
#[derive(Clone, Debug)]
pub struct Names {
    vips: HashMap<Vip, String>,
    start: SystemTime,
}

impl Names {
    /// Takes names by VIP. `uptime` is the programs' clock now.
    pub fn new(vips: HashMap<Vip, String>, uptime: Duration) -> Self {
        Self { vips, start: SystemTime::now().checked_sub(uptime).unwrap_or(SystemTime::UNIX_EPOCH) }
    }

    /// A trace event in words; `vip_of` tells the VIP of a service's index. `None` when it is another version's.
    pub fn tell(&self, traced: &TraceEvent, vip_of: impl Fn(u32) -> Option<Vip>) -> Option<Event> {
        let when = moment(self.start + Duration::from_nanos(traced.time));
        match traced.kind {
            TraceEvent::FLOW => {
                let key: FlowKey = bytemuck::pod_read_unaligned(&traced.head[..size_of::<FlowKey>()]);
                let ends = Ends::of(&key);
                Some(Event {
                    service: vip_of(traced.service.into()).and_then(|vip| self.vips.get(&vip).cloned()),
                    backend: Some(socket(traced.address, traced.port)),
                    vip: ends.to_port(),
                    ..ends.event(when, Kind::NewFlow)
                })
            }
            TraceEvent::END => {
                let outcome = Outcome::from_index(traced.outcome.into())?;
                let hook = Hook::from_index(traced.hook.into())?;
                let kind = if outcome.is_refusal() { Kind::Refused } else { Kind::Drop };
                let (reason, hook) = (Some(outcome.name().into()), Some(hook.name().into()));
                let Some(ends) = Ends::of_header(&traced.head) else {
                    return Some(Event { reason, hook, ..Event::bare(when, kind) });
                };
                let service = self.served(&ends);
                let vip = if service.is_some() || kind == Kind::Refused { ends.to_port() } else { None };
                Some(Event { reason, service, vip, hook, ..ends.event(when, kind) })
            }
            _ => None,
        }
    }

    /// The service that a packet is sent to: an exact port wins over any port.
    fn served(&self, ends: &Ends) -> Option<String> {
        let protocol = Protocol::from_number(ends.protocol)?;
        let exact = Vip { address: IpAddr::V4(ends.dst), port: ends.ports?.1, protocol };
        self.vips.get(&exact).or_else(|| self.vips.get(&Vip { port: 0, ..exact })).cloned()
    }
}

/// Where a packet comes from and goes to, in host order.
struct Ends {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ports: Option<(u16, u16)>,
    protocol: u8,
}

impl Ends {
    fn of(key: &FlowKey) -> Self {
        Self {
            src: Ipv4Addr::from(key.src.to_ne_bytes()),
            dst: Ipv4Addr::from(key.dst.to_ne_bytes()),
            ports: Some((u16::from_be(key.sport), u16::from_be(key.dport))),
            protocol: key.protocol,
        }
    }

    /// Of an IPv4 header and what follows it; `None` for other network layers.
    fn of_header(head: &[u8; TRACE_HEAD]) -> Option<Self> {
        let &[vihl, _, _, _, _, _, fragment, below, _, protocol, _, _, a, b, c, d, e, f, g, h, i, j, k, l] =
            head;
        let is_first = fragment & 0x1f == 0 && below == 0;
        let has_ports = vihl == PLAIN && is_first && [PROTO_TCP, PROTO_UDP].contains(&protocol);
        (vihl >> 4 == 4).then(|| Self {
            src: Ipv4Addr::new(a, b, c, d),
            dst: Ipv4Addr::new(e, f, g, h),
            ports: has_ports.then(|| (u16::from_be_bytes([i, j]), u16::from_be_bytes([k, l]))),
            protocol,
        })
    }

    fn to_port(&self) -> Option<SocketAddrV4> {
        self.ports.map(|(_, port)| SocketAddrV4::new(self.dst, port))
    }

    fn event(&self, time: String, event: Kind) -> Event {
        let at = |address: Ipv4Addr, port: Option<u16>| match port {
            Some(port) => SocketAddrV4::new(address, port).to_string(),
            None => address.to_string(),
        };
        Event {
            client: Some(at(self.src, self.ports.map(|(source, _)| source))),
            destination: Some(at(self.dst, self.ports.map(|(_, destination)| destination))),
            protocol: Some(protocol_name(self.protocol)),
            ..Event::bare(time, event)
        }
    }
}

impl Event {
    /// A backend that went up or down by its check, with what that saw.
    pub fn turned(turned: &Turned, vip: Option<Vip>) -> Self {
        let Turned { time, service, backend, state, said, .. } = turned;
        let v4 = |socket| match socket {
            SocketAddr::V4(socket) => Some(socket),
            SocketAddr::V6(_) => None,
        };
        let kind = if state.is_up() == Some(true) { Kind::CheckUp } else { Kind::CheckDown };
        Self {
            reason: Some(said.clone().into()),
            service: Some(service.to_string()),
            vip: vip.and_then(|vip| v4(SocketAddr::new(vip.address, vip.port))),
            backend: v4(*backend),
            ..Self::bare(moment(*time), kind)
        }
    }

    /// One of which no more is known.
    fn bare(time: String, event: Kind) -> Self {
        Self {
            time,
            event,
            reason: None,
            service: None,
            client: None,
            vip: None,
            backend: None,
            destination: None,
            protocol: None,
            hook: None,
        }
    }
}

/// `2026-11-21T06:34:12.345Z` (RFC 3339)
fn moment(time: SystemTime) -> String {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_millis();
    let second = utc(seconds(time)).replace(' ', "T");
    format!("{}.{millis:03}Z", second.trim_end_matches('Z'))
}

fn protocol_name(number: u8) -> Cow<'static, str> {
    match number {
        PROTO_ICMP => "icmp".into(),
        PROTO_TCP => "tcp".into(),
        PROTO_UDP => "udp".into(),
        other => other.to_string().into(),
    }
}

fn socket(address: u32, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), u16::from_be(port))
}

#[cfg(test)]
mod tests {
    use dataplane_common::abi::FlowRecord;

    use super::*;

    const CLIENT: u32 = u32::from_ne_bytes([250, 0, 28, 2]);
    const VIP: u32 = u32::from_ne_bytes([10, 96, 0, 10]);

    fn names() -> Names {
        let vip = |text: &str| text.parse().unwrap();
        let vips =
            [(vip("10.96.0.10:80/tcp"), "web".to_owned()), (vip("10.96.0.10:0/udp"), "any".to_owned())];
        Names { vips: vips.into(), start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_242_852) }
    }

    fn told(traced: &TraceEvent) -> Event {
        names().tell(traced, |index| (index == 7).then(|| "10.96.0.10:80/tcp".parse().unwrap())).unwrap()
    }

    fn ended(outcome: Outcome, header: [u8; TRACE_HEAD]) -> TraceEvent {
        let hook = Hook::EndpointIngress as u8;
        TraceEvent { head: header, ..TraceEvent::of_end(5_000_000, hook, outcome as u8) }
    }

    /// From the client to port 80 of the VIP.
    fn header(protocol: u8, vihl: u8, fragment: [u8; 2]) -> [u8; TRACE_HEAD] {
        let mut header = [0; TRACE_HEAD];
        (header[0], header[6], header[7], header[9]) = (vihl, fragment[0], fragment[1], protocol);
        header[12..16].copy_from_slice(&CLIENT.to_ne_bytes());
        header[16..20].copy_from_slice(&VIP.to_ne_bytes());
        header[20..24].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        header
    }

    #[test]
    fn a_new_flow_has_the_keys_that_scripts_rely_on() {
        let (sport, dport) = (40_000u16.to_be(), 80u16.to_be());
        let key = FlowKey::new(CLIENT, VIP, sport, dport, PROTO_TCP);
        let backend = u32::from_ne_bytes([250, 0, 27, 3]);
        let forward =
            FlowRecord { dst: backend, dport: 8080u16.to_be(), service: 7, ..bytemuck::Zeroable::zeroed() };
        let event = told(&TraceEvent::of_flow(1_345_000_000, &key, &forward));
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            serde_json::json!({
                "time": "2026-11-21T06:34:13.345Z", "event": "new-flow", "reason": null, "service": "web",
                "client": "250.0.28.2:40000", "vip": "10.96.0.10:80", "backend": "250.0.27.3:8080",
                "destination": "10.96.0.10:80", "protocol": "tcp", "hook": null,
            })
        );
    }

    #[test]
    fn a_refusal_names_the_service_of_the_exact_port_else_of_any() {
        let refused = |protocol| told(&ended(Outcome::RefusedNoBackend, header(protocol, PLAIN, [0x40, 0])));
        let event = refused(PROTO_TCP);
        assert_eq!((event.event, event.service.as_deref()), (Kind::Refused, Some("web")));
        assert_eq!(event.vip, Some("10.96.0.10:80".parse().unwrap()));
        assert_eq!(
            (event.reason.as_deref(), event.hook.as_deref()),
            (Some("refused-no-backend"), Some("endpoint-ingress"))
        );
        assert_eq!(refused(PROTO_UDP).service.as_deref(), Some("any"));
    }

    #[test]
    fn a_packet_without_ports_is_told_by_its_addresses() {
        for header in [
            header(PROTO_ICMP, PLAIN, [0, 0]),
            header(PROTO_UDP, PLAIN, [0, 9]),
            header(PROTO_UDP, 0x46, [0, 0]),
        ] {
            let event = told(&ended(Outcome::DropFragmentEarly, header));
            assert_eq!(event.event, Kind::Drop);
            assert_eq!(
                (event.client.as_deref(), event.destination.as_deref()),
                (Some("250.0.28.2"), Some("10.96.0.10"))
            );
            assert_eq!((event.vip, event.service), (None, None));
        }
        let event = told(&ended(Outcome::DropNoFan, [0x60; TRACE_HEAD]));
        assert_eq!((event.client, event.reason.as_deref()), (None, Some("drop-no-fan")));
    }
}
