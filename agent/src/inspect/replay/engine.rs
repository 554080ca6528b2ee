use std::{collections::BTreeSet, time::Duration};

use control::{
    reconcile::ServiceOp,
    service::{Service, ring},
};
use dataplane_common::{
    abi::{EndpointRecord, FanRecord},
    outcome::{Hook, Outcome},
    packet::Packet as _,
    wire::{ETH_LEN, Ipv4},
};

use ipnet::Ipv4Net;

use super::{Error, Packet, Result, Served};
use crate::kernel::bpf::{self, Context, Counters, Datapath, Private, TestRun, program_name};

/// What the programs find in their maps.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Fans of the node.
    pub fans: Vec<FanRecord>,
    /// Overlays of those whose packets the host's filters are to see.
    pub filtered: Vec<Ipv4Net>,
    /// Endpoints of the node.
    pub endpoints: Vec<EndpointRecord>,
    /// Services of the node.
    pub services: Vec<Service>,
    /// Helper device: interface index and MAC address.
    pub helper: (u32, [u8; 6]),
}

impl Setup {
    /// The interface by which a frame comes to a hook here, as its addresses say: `None` where that is not known.
    pub fn device(&self, hook: Hook, frame: &[u8]) -> Option<u32> {
        let ip = Ipv4::new(frame.read(ETH_LEN)?);
        let of_slice = |address: u32| {
            let found = self.fans.iter().find(|fan| address & fan.slice_mask == fan.slice);
            found.map(|fan| fan.bridge)
        };
        let index = match hook {
            Hook::UplinkIngress | Hook::UplinkXdp => self.fans.first().map(|fan| fan.uplink),
            Hook::EndpointIngress => self
                .endpoints
                .iter()
                .find(|endpoint| endpoint.address == ip.src)
                .map(|endpoint| endpoint.ifindex),
            Hook::BridgeIngress => of_slice(ip.src),
            Hook::EndpointEgress => of_slice(ip.dst),
            Hook::HostEgress => Some(self.helper.0),
        };
        index.filter(|index| *index != 0)
    }

    /// Fills the maps of programs.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn apply(&self, datapath: &Private) -> Result<()> {
        let (ifindex, mac) = self.helper;
        datapath.config().set_helper(ifindex, mac);
        for fan in &self.fans {
            datapath.config().publish(fan)?;
        }
        datapath.config().set_filtered(&self.filtered);
        for &endpoint in &self.endpoints {
            datapath.endpoints().insert(endpoint)?;
        }
        let mut writer = datapath.services().writer(ring::build)?;
        for service in &self.services {
            writer.apply(&ServiceOp::Add(service.clone()))?;
        }
        datapath.config().set_services(self.services.len());
        Ok(())
    }
}

/// What the kernel would do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand it to the next program and the stack.
    Pass,
    /// End it.
    Drop,
    /// Send it out of an interface, or into one.
    Redirect,
}

impl Action {
    /// The name that people and scripts see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Redirect => "redirect",
        }
    }

    /// From a `TC_ACT_` value of `linux/pkt_cls.h`.
    const fn from_tc(code: i32) -> Option<Self> {
        match code {
            -1 | 0 => Some(Self::Pass),
            2 => Some(Self::Drop),
            7 => Some(Self::Redirect),
            _ => None,
        }
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the kernel would do with it.
    pub action: Action,
    /// As which it was counted.
    pub outcome: Outcome,
    /// What a service had to do with it.
    pub served: Served,
    /// The frame as the program left it; absent for a drop and an untouched pass.
    pub output: Option<Vec<u8>>,
    /// How long the programs ran.
    pub duration: Duration,
    /// Where it ended, of hooks that packets meet one after the other.
    pub hook: Option<Hook>,
    /// A super-packet that was run as a single packet, on a path that carries packets of every size: a test run's super-packet
    /// has no type, and the kernel's helpers change only those of TCP and UDP.
    pub unsegmented: bool,
}

/// The programs with maps of their own.
pub struct Engine {
    setup: Setup,
    hooks: Vec<Hook>,
    datapath: Private,
    counters: Counters,
    /// For super-packets, once there is one.
    unlimited: Option<Box<Self>>,
}

impl Engine {
    /// Loads the programs of some hooks and fills their maps.
    pub fn new(setup: &Setup, hooks: &[Hook]) -> Result<Self> {
        // What the one in front of another leaves to that one ends there.
        let all: BTreeSet<Hook> = hooks.iter().flat_map(|&hook| [hook, hook.deciding()]).collect();
        let programs: Vec<_> = all.into_iter().map(program_name).collect();
        let datapath = Datapath::private(&programs)?;
        setup.apply(&datapath)?;
        let (setup, hooks) = (setup.clone(), hooks.to_vec());
        Ok(Self { setup, hooks, datapath, counters: Counters::default(), unlimited: None })
    }

    /// The maps, to look into or to change between packets.
    pub fn datapath(&self) -> &Private {
        &self.datapath
    }

    /// Runs a packet through a hook's program.
    pub fn run(&mut self, hook: Hook, packet: &Packet) -> Result<Verdict> {
        let verdict = self.run_once(hook, packet)?;
        // Its size was found right by then: as a single packet of any size it goes the same way.
        if packet.gso_size != 0 && verdict.outcome == Outcome::DropHelperFailed {
            let single = self.unlimited()?.run_once(hook, &Packet { gso_size: 0, ..packet.clone() })?;
            return Ok(Verdict { unsegmented: true, ..single });
        }
        Ok(verdict)
    }

    /// The same node on a path that carries packets of every size.
    fn unlimited(&mut self) -> Result<&mut Self> {
        const LARGEST: u32 = u16::MAX as u32;
        let engine = match self.unlimited.take() {
            Some(engine) => engine,
            None => {
                let mut setup = self.setup.clone();
                setup.fans.iter_mut().for_each(|fan| fan.mtu = LARGEST);
                Box::new(Self::new(&setup, &self.hooks)?)
            }
        };
        Ok(self.unlimited.insert(engine))
    }

    fn run_once(&mut self, hook: Hook, packet: &Packet) -> Result<Verdict> {
        // Super-packets are put together behind XDP.
        if hook != Hook::UplinkXdp || packet.gso_size != 0 {
            return self.run_at(hook.deciding(), packet);
        }
        let (ended, duration) = self.run_early(packet)?;
        if let Some(verdict) = ended {
            return Ok(verdict);
        }
        let hook = hook.deciding();
        let verdict = self.run_at(hook, packet)?;
        Ok(Verdict { duration: verdict.duration + duration, hook: Some(hook), ..verdict })
    }

    /// Runs a packet through the program in front of `uplink-ingress`: the end that it finds there, if it does.
    fn run_early(&mut self, packet: &Packet) -> Result<(Option<Verdict>, Duration)> {
        const DROP: i32 = 1;
        const PASS: i32 = 2;
        let failed = |reason| Error::Packet { number: packet.number, reason };
        let frame = on_the_wire(packet).map_err(failed)?;
        let run = self.datapath.run_early(program_name(Hook::UplinkXdp), &frame, packet.ifindex);
        let TestRun { action, frame: output, duration } = run.map_err(|error| failed(error.to_string()))?;
        let counted = self.grown(Hook::UplinkXdp)?;
        match (action, counted.as_slice()) {
            (PASS, []) if output == frame => Ok((None, duration)),
            (DROP, &[(outcome, 1)]) if outcome.is_drop() => {
                let (action, served) = (Action::Drop, Served::default());
                let hook = Some(Hook::UplinkXdp);
                Ok((
                    Some(Verdict {
                        action,
                        outcome,
                        served,
                        output: None,
                        duration,
                        hook,
                        unsegmented: false,
                    }),
                    duration,
                ))
            }
            (action, counted) => Err(failed(format!("XDP returned {action} and counted {counted:?}"))),
        }
    }

    fn run_at(&mut self, hook: Hook, packet: &Packet) -> Result<Verdict> {
        let failed = |reason| Error::Packet { number: packet.number, reason };
        let (frame, context) = received(packet).map_err(failed)?;
        let run = self.datapath.run(program_name(hook), &frame, context);
        let TestRun { action, frame: output, duration } =
            run.map_err(|error| failed(explain(&error, context)))?;
        let outcome = self.counted(hook)?.map_err(failed)?;
        let action =
            Action::from_tc(action).ok_or_else(|| failed(format!("the program returned {action}")))?;
        let untouched = action == Action::Pass && output == frame;
        let output = (action != Action::Drop && !untouched).then_some(output);
        let served = Served::find(self.datapath.services(), &self.setup.services, &frame, outcome)?;
        Ok(Verdict { action, outcome, served, output, duration, hook: None, unsegmented: false })
    }

    /// The one outcome that was counted since the last packet.
    fn counted(&mut self, hook: Hook) -> Result<Result<Outcome, String>> {
        Ok(match self.grown(hook)?.as_slice() {
            &[(outcome, 1)] => Ok(outcome),
            other => Err(format!("the program counted {other:?} instead of one outcome")),
        })
    }

    /// What a hook has counted since the last packet.
    fn grown(&mut self, hook: Hook) -> Result<Vec<(Outcome, u64)>> {
        let mut now = self.counters.clone();
        self.datapath.counter_map().read_hook(hook, &mut now)?;
        let difference = now.since(&self.counters);
        self.counters = now;
        Ok(difference.iter().map(|(_, outcome, packets)| (outcome, packets)).collect())
    }
}

/// The frame with the tag that came with it.
fn on_the_wire(packet: &Packet) -> Result<Vec<u8>, String> {
    if packet.frame.len() < ETH_LEN {
        return Err(format!("{} bytes are less than an Ethernet header", packet.frame.len()));
    }
    let mut frame = packet.frame.clone();
    if let Some(vlan) = packet.vlan {
        insert_tag(&mut frame, vlan);
    }
    Ok(frame)
}

/// The frame as it reaches a hook, and what comes with it.
pub(super) fn received(packet: &Packet) -> Result<(Vec<u8>, Context), String> {
    /// What fits into the page in which a test run makes its packet: extending it would end its segmentation.
    const LONGEST_SUPER_PACKET: usize = 3500;
    let mut frame = on_the_wire(packet)?;
    if packet.gso_size != 0 && packet.frame.len() > LONGEST_SUPER_PACKET {
        let length = packet.frame.len();
        return Err(format!(
            "a super-packet of {length} bytes is too long for a test run; use up to {LONGEST_SUPER_PACKET}"
        ));
    }
    remove_priority_tag(&mut frame);
    let segments = if packet.gso_size == 0 { 0 } else { (frame.len() as u32).div_ceil(packet.gso_size) };
    let context = Context {
        mark: packet.mark,
        ifindex: packet.ifindex.unwrap_or_default(),
        gso_segs: segments,
        gso_size: packet.gso_size,
    };
    Ok((frame, context))
}

/// Offset of the EtherType, and EtherType of a VLAN tag (IEEE 802.1Q).
const TYPE: usize = 12;
const TAG: [u8; 2] = [0x81, 0x00];
const TAG_LEN: usize = 4;

fn insert_tag(frame: &mut Vec<u8>, vlan: u16) {
    let [high, low] = vlan.to_be_bytes();
    frame.splice(TYPE..TYPE, [TAG[0], TAG[1], high, low]);
}

/// Receiving takes a tag out of the frame; one with VLAN 0 then only carries a priority, which no program looks at.
fn remove_priority_tag(frame: &mut Vec<u8>) {
    let is_priority = matches!(frame.get(TYPE..), Some(&[a, b, high, low, _, _, ..]) if [a, b] == TAG && high & 0x0f == 0 && low == 0);
    if is_priority {
        frame.drain(TYPE..TYPE + TAG_LEN);
    }
}

/// Why the kernel refused to run a frame, where that is known.
fn explain(error: &bpf::Error, context: Context) -> String {
    match error {
        bpf::Error::Call { source, .. } if source.raw_os_error() == Some(libc::ENODEV) => {
            format!("no interface {} in this network namespace", context.ifindex)
        }
        bpf::Error::Call { source, .. }
            if source.raw_os_error() == Some(libc::EINVAL) && context.gso_size != 0 =>
        {
            "the kernel runs no super-packet of this size; leave gso_size out".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(frame: Vec<u8>) -> Packet {
        Packet { number: 1, frame, ..Packet::default() }
    }

    #[test]
    fn a_frame_without_an_ethernet_header_is_an_input_error() {
        assert!(received(&packet(vec![0; 14])).is_ok());
        let error = received(&packet(vec![0; 13])).unwrap_err();
        assert_eq!(error, "13 bytes are less than an Ethernet header");
    }

    #[test]
    fn a_priority_tag_is_taken_off_and_any_other_kept_inside() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0x00, 0xe0, 0x00, 0x08, 0x00, 0x45]);
        assert_eq!(received(&packet(frame.clone())).unwrap().0[12..], [0x08, 0x00, 0x45]);
        frame[15] = 5;
        assert_eq!(received(&packet(frame.clone())).unwrap().0, frame);
        let untagged = [&[0; 12][..], &[0x08, 0x00, 0x45]].concat();
        let tagged = Packet { vlan: Some(5), ..packet(untagged.clone()) };
        assert_eq!(received(&tagged).unwrap().0[12..], [0x81, 0x00, 0x00, 0x05, 0x08, 0x00, 0x45]);
        let priority = Packet { vlan: Some(0), ..packet(untagged.clone()) };
        assert_eq!(received(&priority).unwrap().0, untagged);
    }

    #[test]
    fn a_super_packet_has_as_many_segments_as_it_needs() {
        let large = Packet { gso_size: 1000, ..packet(vec![0; 2500]) };
        assert_eq!(received(&large).unwrap().1.gso_segs, 3);
        assert_eq!(received(&packet(vec![0; 2500])).unwrap().1.gso_segs, 0);
        let error = received(&Packet { gso_size: 1000, ..packet(vec![0; 3501]) }).unwrap_err();
        assert!(error.starts_with("a super-packet of 3501 bytes is too long"), "{error}");
    }
}
