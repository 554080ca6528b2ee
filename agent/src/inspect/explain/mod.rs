//! What would become of a packet here, and why: decided by the programs' own functions from the tables in the kernel,
//! without sending anything and without changing them.

mod packet;
mod start;
mod verdict;

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

use control::{
    observed::{Address, Link},
    service::Vip,
};
use dataplane_common::{
    abi::{FlowKey, FlowRecord, SEEN_SHIFT, ServiceWord, VipKey, idle},
    ct::{Flows as _, Segment, Tuple},
    decide,
    fan::host_of,
    outcome::Outcome,
    packet::Packet as _,
    wire::Ipv4,
};
use serde::Serialize;

use self::{start::Place, verdict::Decided};
use crate::{
    inspect::flow::FlowState,
    kernel::{
        bpf::{self, Candidate, Datapath},
        netlink::Netlink,
    },
};

/// A packet that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Its sender.
    pub src: Ipv4Addr,
    /// Where to.
    pub dst: Ipv4Addr,
    /// Number of its protocol.
    pub protocol: u8,
    /// Ports, of TCP and UDP.
    pub sport: Option<u16>,
    /// The destination's port.
    pub dport: Option<u16>,
}

impl Question {
    /// The source port of a client that names none.
    const SOURCE_PORT: u16 = 40_000;

    fn ports(&self) -> [u16; 2] {
        [self.sport.unwrap_or(Self::SOURCE_PORT), self.dport.unwrap_or_default()]
    }
}

/// What would become of it; the field names are the stable keys of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// Its sender.
    pub source: String,
    /// Where to.
    pub destination: String,
    /// Where it meets a program, if it does.
    pub hook: Option<&'static str>,
    /// The fan of its destination.
    pub overlay: Option<String>,
    /// The host that the destination computes, or that of the backend.
    pub host: Option<Ipv4Addr>,
    /// The service that it is for.
    pub service: Option<String>,
    /// The service's VIP.
    pub vip: Option<String>,
    /// Backends that new flows of the service may come to.
    pub candidates: Vec<Share>,
    /// The flow that it belongs to.
    pub flow: Option<Known>,
    /// The backend that it goes to or comes from.
    pub backend: Option<SocketAddrV4>,
    /// Source and destination that it gets.
    pub translation: Option<[String; 2]>,
    /// Largest packet to that host.
    pub mtu: Option<u32>,
    /// What it would be counted as.
    pub outcome: Option<&'static str>,
    /// What that means.
    pub meaning: Option<&'static str>,
    /// Announcements of the destination, while an agent runs.
    pub announced: Vec<Announced>,
    /// All of it in words, in order.
    pub steps: Vec<String>,
}

/// An announcement of the destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Announced {
    pub name: String,
    /// The announcement's state.
    pub state: String,
    pub prefix: String,
    /// Null while the prefix is withdrawn.
    pub med: Option<u32>,
}

/// A backend's share of new flows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// `ADDR:PORT`
    pub address: SocketAddrV4,
    /// Per cent.
    pub share: f64,
}

/// A flow that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// How far it has come.
    pub state: FlowState,
    /// Seconds since its last packet.
    pub age: u64,
}

/// What is known of this host beside the tables.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its interfaces.
    pub links: Vec<Link>,
    /// Names of services.
    pub names: HashMap<Vip, String>,
}

/// Explains.
///
/// # Errors
/// The tables can't be read.
pub async fn explain(
    question: &Question,
    datapath: &Datapath,
    host: &Host,
    netlink: &Netlink,
) -> bpf::Result<Explanation> {
    let mut told = Explanation::of(question);
    let fans = datapath.config().fans();
    let key = key(question);
    let services = datapath.services();
    let flow = match &key {
        Some(key) => services.flow(key)?.filter(|flow| flow.service != FlowRecord::DIRECT),
        None => None,
    };
    let ends = [question.src, question.dst].map(|address| datapath.endpoints().get(address));
    let [source, destination] = ends;
    let (source, destination) = (source?, destination?);
    let place = Place {
        fans: &fans,
        addresses: &host.addresses.iter().map(|address| address.address).collect::<Vec<_>>(),
        endpoints: [source, destination],
        is_bridged: source.is_some_and(|endpoint| {
            host.links.iter().any(|link| link.index == endpoint.ifindex && link.master.is_some())
        }),
        is_vip: services.vips()?.iter().any(|vip| vip.address == question.dst),
    };
    let bytes = packet::packet(question, flow.is_some());
    let start = match place.start(question.src, question.dst, &bytes) {
        Ok(start) => start,
        Err(why) => {
            told.steps.push(why);
            return Ok(told);
        }
    };
    told.hook = Some(start.hook.name());
    told.steps.push(format!("{} (hook {})", start.words, start.hook.name()));
    told.tell_overlay(question.dst, &fans);
    if let Some(key) = &key {
        told.tell_service(key, flow.as_ref(), datapath, host)?;
    }
    let look = datapath.look()?;
    let frame = start.frame.as_slice();
    let verdict = decide::complete(start.hook, frame, &start.meta, &look);
    let mut decided = Decided::of(&verdict, frame, &look);
    let now = look.now();
    look.end()?;
    if let Some(key) = &key {
        told.tell_choice(key, flow.as_ref(), &decided, question, now);
    }
    told.tell_way(&decided, &fans, datapath)?;
    told.tell_route(&mut decided, netlink).await;
    told.tell_outcome(decided.outcome);
    Ok(told)
}

/// Addresses and ports, where flows know the protocol.
fn key(question: &Question) -> Option<FlowKey> {
    let bytes = packet::packet(question, false);
    let ip = Ipv4::new(bytes.as_slice().read(0)?);
    Segment::read(bytes.as_slice(), &ip, 0).map(|segment| segment.key(&ip))
}

impl Explanation {
    fn of(question: &Question) -> Self {
        let has_ports = question.dport.is_some();
        let [sport, dport] = question.ports();
        let named = |address, port| match has_ports {
            true => SocketAddrV4::new(address, port).to_string(),
            false => address.to_string(),
        };
        let (source, destination) = (named(question.src, sport), named(question.dst, dport));
        Self { source, destination, ..Self::default() }
    }

    fn tell_overlay(&mut self, dst: Ipv4Addr, fans: &[dataplane_common::abi::FanRecord]) {
        let Some(fan) = fans.iter().find(|fan| dst.to_bits() & fan.overlay_mask == fan.overlay) else {
            return;
        };
        let overlay = format!("{}/{}", Ipv4Addr::from_bits(fan.overlay), fan.overlay_mask.count_ones());
        let host = Ipv4Addr::from_bits(host_of(dst.to_bits(), fan.overlay_mask, fan.underlay, fan.shift));
        let here = if dst.to_bits() & fan.slice_mask == fan.slice { ", which is this one" } else { "" };
        self.steps.push(format!("{dst} lies in overlay {overlay} and computes to host {host}{here}"));
        (self.overlay, self.host) = (Some(overlay), Some(host));
    }

    /// The service of a packet's flow, or that of its destination.
    fn tell_service(
        &mut self,
        key: &FlowKey,
        flow: Option<&FlowRecord>,
        datapath: &Datapath,
        host: &Host,
    ) -> bpf::Result<()> {
        let services = datapath.services();
        let vip_key = match flow.filter(|flow| flow.flags & FlowRecord::REPLY != 0) {
            Some(reply) => VipKey { address: reply.src, port: reply.sport, protocol: key.protocol, pad: 0 },
            None => VipKey { address: key.dst, port: key.dport, protocol: key.protocol, pad: 0 },
        };
        let exact = services.service(&vip_key)?;
        let found = match exact {
            Some(found) => Some(found),
            None => services.service(&VipKey { port: 0, ..vip_key })?,
        };
        let Some((index, word)) = found else { return Ok(()) };
        let Some(vip) = services.vip_of(index) else { return Ok(()) };
        self.service = host.names.get(&vip).cloned();
        self.vip = Some(vip.to_string());
        let name = self.service.as_deref().unwrap_or("without a known name");
        let whose = if flow.is_some_and(|flow| flow.flags & FlowRecord::REPLY != 0) {
            format!("it answers a flow of service {name}, VIP {vip}")
        } else {
            format!("{vip} is the VIP of service {name}")
        };
        self.steps.push(whose);
        self.tell_candidates(&services.candidates(word)?, word);
        Ok(())
    }

    fn tell_candidates(&mut self, candidates: &[Candidate], word: ServiceWord) {
        let slots: u32 = candidates.iter().map(|candidate| candidate.slots).sum();
        let share = |candidate: &Candidate| Share {
            address: candidate.socket,
            share: (f64::from(candidate.slots) * 1_000.0 / f64::from(slots.max(1))).round() / 10.0,
        };
        self.candidates = candidates.iter().map(share).collect();
        if self.candidates.is_empty() {
            self.steps.push("no backend takes new flows".to_owned());
            return;
        }
        let how = if word.flags & ServiceWord::RANDOM != 0 { "one is drawn of" } else { "the ring holds" };
        let listed: Vec<String> =
            self.candidates.iter().map(|share| format!("{} ({:.1} %)", share.address, share.share)).collect();
        self.steps.push(format!("new flows: {how} {}", listed.join(", ")));
    }

    /// Which backend, and what the addresses become.
    fn tell_choice(
        &mut self,
        key: &FlowKey,
        flow: Option<&FlowRecord>,
        decided: &Decided,
        question: &Question,
        now: u32,
    ) {
        if let Some(flow) = flow {
            let known = Known {
                state: FlowState::of(flow.state),
                age: (u64::from(idle(flow.seen, now)) << SEEN_SHIFT) / 1_000_000_000,
            };
            let is_reply = flow.flags & FlowRecord::REPLY != 0;
            let backend = if is_reply { (key.src, key.sport) } else { (flow.dst, flow.dport) };
            self.backend = Some(socket(backend));
            self.steps.push(format!(
                "there is a flow, {}, its last packet {} s ago: it stays with {}",
                known.state.name(),
                known.age,
                socket(backend)
            ));
            self.flow = Some(known);
        }
        let Some(rewrite) = &decided.rewrite else { return };
        if flow.is_none() && self.vip.is_some() {
            let backend = socket((rewrite.dst, rewrite.dport));
            let mut step = format!("a new flow: it goes to {backend}");
            if question.sport.is_none() && self.candidates.len() > 1 {
                let _ = write!(
                    step,
                    " (from source port {}; another port may meet another)",
                    u16::from_be(key.sport)
                );
            }
            self.steps.push(step);
            self.backend = Some(backend);
        }
        let Tuple { src, dst, sport, dport } = *rewrite;
        let [source, destination] = [(src, sport), (dst, dport)].map(socket);
        self.steps.push(format!("its addresses become {source} > {destination}"));
        self.translation = Some([source.to_string(), destination.to_string()]);
    }

    /// The host that it is carried to, and how large it may be.
    fn tell_way(
        &mut self,
        decided: &Decided,
        fans: &[dataplane_common::abi::FanRecord],
        datapath: &Datapath,
    ) -> bpf::Result<()> {
        let Some(host) = decided.host else { return Ok(()) };
        let Some(fan) = fans.iter().find(|fan| host.to_bits() & fan.underlay_mask == fan.underlay) else {
            return Ok(());
        };
        let learnt = datapath.paths().get(host)?.map(|path| path.mtu).filter(|&mtu| mtu < fan.mtu);
        let mtu = learnt.unwrap_or(fan.mtu);
        let why = if learnt.is_some() { ", as its path was found to be" } else { "" };
        self.steps.push(format!("it is carried to host {host}; packets of up to {mtu} bytes get there{why}"));
        (self.host, self.mtu) = (Some(host), Some(mtu));
        Ok(())
    }

    /// Whether the routing table leads to the backend, where it is asked.
    async fn tell_route(&mut self, decided: &mut Decided, netlink: &Netlink) {
        let (Some(unrouted), Some(rewrite)) = (decided.unrouted, decided.rewrite) else { return };
        let destination = Ipv4Addr::from(rewrite.dst.to_ne_bytes());
        match netlink.route_to(destination).await {
            Ok(_) => {}
            Err(error) if error.is_unreachable() => {
                self.steps.push(format!("no route leads there: {error}"));
                decided.outcome = unrouted;
            }
            Err(error) => self.steps.push(format!("whether a route leads there can't be told: {error}")),
        }
    }

    fn tell_outcome(&mut self, outcome: Outcome) {
        (self.outcome, self.meaning) = (Some(outcome.name()), Some(outcome.meaning()));
        self.steps.push(format!("{}: {}", outcome.name(), outcome.meaning()));
    }
}

fn socket((address, port): (u32, u16)) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), u16::from_be(port))
}
