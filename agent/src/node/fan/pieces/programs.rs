//! The datapath that a fan is brought up on: one that there is, or one that the plan loads.

use control::{model::UplinkHook, reconcile};
use dataplane_common::outcome::Hook;

use crate::{
    kernel::bpf::{self, Attachment, Datapath},
    node::fan::error::Fault,
};

/// The datapath, once there is one.
pub(in crate::node::fan) struct Programs<'d> {
    given: Option<&'d Datapath>,
    own: Option<Datapath>,
    /// Flows that it holds where it is loaded.
    flows: Option<u32>,
    /// What is asked for at the uplinks; `None`: as the datapath says.
    asked: Option<UplinkHook>,
}

impl<'d> Programs<'d> {
    /// That of somebody who has it loaded.
    pub(in crate::node::fan) fn of(datapath: &'d Datapath) -> Self {
        Self { given: Some(datapath), own: None, flows: None, asked: None }
    }

    /// The one that is pinned, if all of it is, with this version's programs.
    pub(super) fn find(flows: Option<u32>, asked: Option<UplinkHook>) -> Result<Self, Fault> {
        let mut programs = Self { given: None, own: None, flows, asked };
        if matches!(Datapath::open_existing(), Ok(Some(_))) {
            programs.load()?;
        }
        Ok(programs)
    }

    /// Loads it.
    pub(super) fn load(&mut self) -> Result<(), Fault> {
        let datapath = Datapath::open_for(self.flows)?;
        if let Some(asked) = self.asked {
            datapath.uplinks().set_asked(asked);
        }
        self.own = Some(datapath);
        Ok(())
    }

    /// What is asked for at the uplinks.
    pub(super) fn asked(&self) -> UplinkHook {
        let said = || self.get().ok().and_then(|datapath| datapath.uplinks().asked());
        self.asked.or_else(said).unwrap_or_default()
    }

    /// Whether it is that of an agent.
    pub(super) fn are_given(&self) -> bool {
        self.given.is_some()
    }

    /// The datapath.
    pub(super) fn get(&self) -> Result<&Datapath, Fault> {
        Ok(self.own.as_ref().or(self.given).ok_or(bpf::Error::NotLoaded)?)
    }

    /// What it holds; `None` where there is none.
    pub(super) fn look(&self) -> Result<Option<reconcile::Programs>, Fault> {
        let Ok(datapath) = self.get() else { return Ok(None) };
        let (ports, others): (Vec<Attachment>, Vec<Attachment>) =
            datapath.attachments()?.into_iter().partition(|own| own.hook == Hook::EndpointIngress);
        let early = others.iter().filter(|own| own.hook == Hook::UplinkXdp);
        let early = early.map(|own| (own.ifindex, own.program_id)).collect();
        let others = others.into_iter().filter(|attachment| datapath.runs(attachment));
        Ok(Some(reconcile::Programs {
            helper: datapath.config().helper(),
            fans: datapath.config().fans(),
            hooks: others.map(|attachment| (attachment.hook, attachment.ifindex)).collect(),
            ports: ports.iter().map(|attachment| attachment.ifindex).collect(),
            early,
            macs: datapath.uplinks().list(),
            refused: datapath.refusals().into_iter().map(|(ifindex, _)| ifindex).collect(),
        }))
    }
}
