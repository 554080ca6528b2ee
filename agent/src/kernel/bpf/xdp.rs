//! The program in front of `uplink-ingress`: on an uplink, or refused by it.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use control::observed::{XdpMode, XdpProgram};
use dataplane_common::{abi::MAX_UPLINKS, outcome::Hook};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};

use super::{
    Attached, Datapath,
    clsact::{connect, send},
    error::{Context as _, Error, Result},
    links,
    object::{GENERIC_EARLY, program_name},
};
use crate::kernel::netlink;

impl Datapath {
    /// Makes an uplink run the program in front of `uplink-ingress`, in the first of these modes that it can. One that
    /// refuses is [remembered](Self::refusals).
    pub fn attach_early(&self, ifindex: u32, name: &str, modes: &[XdpMode]) -> Result<Attached> {
        let present = self.mode_of(ifindex)?.filter(|mode| modes.contains(mode));
        let present = present.as_ref().map(std::slice::from_ref);
        let attached = self.attach_in(ifindex, name, present.unwrap_or(modes));
        match &attached {
            Ok(_) => self.refusals.forget(ifindex),
            // Another owner's came first: that is seen, and may go.
            Err(error) if error.is_taken() => {}
            Err(error) => self.refusals.add(ifindex, error.to_string()),
        }
        attached
    }

    /// In the first of these modes that the kernel takes.
    fn attach_in(&self, ifindex: u32, name: &str, modes: &[XdpMode]) -> Result<Attached> {
        let mut refused = Err(Error::NotLoaded);
        for &mode in modes {
            let own = match mode {
                XdpMode::Generic => GENERIC_EARLY,
                XdpMode::Native | XdpMode::Offloaded => program_name(Hook::UplinkXdp),
            };
            let mut all = self.all_wanted(Hook::UplinkXdp);
            let Some(wanted) = all.find(|wanted| wanted.program.name == own) else { continue };
            match links::attach(&self.pins, &wanted, ifindex, (name, links::xdp_flags(mode))) {
                Err(error) => refused = Err(error),
                attached => return attached,
            }
        }
        refused
    }

    /// How an uplink runs ours.
    fn mode_of(&self, ifindex: u32) -> Result<Option<XdpMode>> {
        let ours = self.attachments()?;
        let is_ours = |id| ours.iter().any(|own| own.hook == Hook::UplinkXdp && own.program_id == id);
        let programs = programs(ifindex).during(|| format!("asking for the XDP programs of {ifindex}"))?;
        Ok(programs.into_iter().find(|program| is_ours(program.id)).map(|program| program.mode))
    }

    /// Has that program know an uplink's MAC address. Where there is no room for it, the uplink is one that refuses.
    pub fn know_uplink(&self, ifindex: u32, mac: [u8; 6]) -> Result<()> {
        let running = self.attachments()?;
        let runs = |own: u32| running.iter().any(|it| it.hook == Hook::UplinkXdp && it.ifindex == own);
        self.tables.uplinks.keep(|own| own == ifindex || runs(own));
        if !self.tables.uplinks.put(ifindex, mac) {
            self.refusals
                .add(ifindex, format!("{MAX_UPLINKS} uplinks of this node run it, the most that can"));
        }
        Ok(())
    }

    /// Uplinks that would not run that program, and why.
    pub fn refusals(&self) -> Vec<(u32, String)> {
        self.refusals.list()
    }

    /// Whether an uplink is one of them.
    pub fn is_refused(&self, ifindex: u32) -> bool {
        self.refusals.list().iter().any(|(own, _)| *own == ifindex)
    }

    /// They are asked once more.
    pub fn forget_refusals(&self) {
        self.refusals.clear();
    }
}

/// An interface's XDP programs; none of one that is not in this network namespace.
pub(super) fn programs(ifindex: u32) -> io::Result<Vec<XdpProgram>> {
    let socket = connect()?;
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    send(&socket, RouteNetlinkMessage::GetLink(message), 0)?;
    let (datagram, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(netlink::xdp_programs(&link)),
        NetlinkPayload::Error(error) if error.to_io().raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!("unexpected netlink answer {other:?}"))),
    }
}

/// Uplinks that took no XDP program, and why: an attempt may stop a device for a moment, so that none is made again before
/// somebody says so.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<u32, String>>);

impl Refusals {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u32, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, ifindex: u32, why: String) {
        self.all().insert(ifindex, why);
    }

    pub(super) fn forget(&self, ifindex: u32) {
        self.all().remove(&ifindex);
    }

    pub(super) fn clear(&self) {
        self.all().clear();
    }

    pub(super) fn list(&self) -> Vec<(u32, String)> {
        self.all().iter().map(|(&ifindex, why)| (ifindex, why.clone())).collect()
    }
}
