//! The datapath that a fan is brought up on: one that there is, or one that the plan loads.

use control::reconcile;
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
}

impl<'d> Programs<'d> {
    /// That of somebody who has it loaded.
    pub(in crate::node::fan) fn of(datapath: &'d Datapath) -> Self {
        Self { given: Some(datapath), own: None, flows: None }
    }

    /// The one that is pinned, if all of it is, with this version's programs.
    pub(super) fn find(flows: Option<u32>) -> Result<Self, Fault> {
        let is_there = matches!(Datapath::open_existing(), Ok(Some(_)));
        let own = if is_there { Some(Datapath::open_for(flows)?) } else { None };
        Ok(Self { given: None, own, flows })
    }

    /// Loads it.
    pub(super) fn load(&mut self) -> Result<(), Fault> {
        self.own = Some(Datapath::open_for(self.flows)?);
        Ok(())
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
        let others = others.into_iter().filter(|attachment| datapath.runs(attachment));
        Ok(Some(reconcile::Programs {
            helper: datapath.config().helper(),
            fans: datapath.config().fans(),
            hooks: others.map(|attachment| (attachment.hook, attachment.ifindex)).collect(),
            ports: ports.iter().map(|attachment| attachment.ifindex).collect(),
        }))
    }
}
