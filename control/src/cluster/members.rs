//! The members as the protocols of what is shared see them: which there are, how they stand, which one decides.

use super::{
    identity::NodeName,
    log::{Listener, Name},
    membership::{MemberState, Membership},
    records::owner_of,
    replication::Peers,
    rotation::Standing,
};

/// The members of a node's cluster for its replication.
pub struct Members<'m>(pub &'m mut Membership);

impl Peers for Members<'_> {
    fn random(&mut self, count: usize) -> Vec<Name> {
        let picked = self.0.random_reachable(count);
        picked.iter().map(|member| member.name().as_str().into()).collect()
    }

    fn all(&self) -> Vec<Listener> {
        let own = self.0.identity().name();
        let members = self.0.members();
        let others = members.iter().filter(|member| member.identity.name() != own);
        let listener = |member: &super::membership::Member| Listener {
            name: member.identity.name().as_str().into(),
            is_reachable: member.state.is_reachable(),
        };
        others.map(listener).collect()
    }
}

/// How the members stand, for what is to be served.
pub fn standings(membership: &Membership) -> Vec<(Name, Standing)> {
    let standing = |state| match state {
        MemberState::Alive | MemberState::Suspect => Standing::Alive,
        MemberState::Maintenance => Standing::Maintenance,
        MemberState::Dead | MemberState::Left => Standing::Gone,
    };
    let members = membership.members();
    members.iter().map(|member| (member.identity.name().as_str().into(), standing(member.state))).collect()
}

/// Which member decides on a write that compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// This node.
    Own,
    /// Another one.
    Other(NodeName),
    /// None that this node may ask: it reaches no more than half of the members.
    Nobody,
}

/// The member that decides on a user key, as far as this node knows.
pub fn decider(membership: &Membership, key: &str) -> Decider {
    if membership.is_minority() {
        return Decider::Nobody;
    }
    let members = membership.members();
    let reachable: Vec<Name> = members
        .iter()
        .filter(|member| member.state.is_reachable())
        .map(|member| member.identity.name().as_str().into())
        .collect();
    let owner = owner_of(key, &reachable).and_then(|owner| NodeName::new(owner).ok());
    match owner.filter(|owner| owner != membership.identity().name()) {
        Some(owner) => Decider::Other(owner),
        None => Decider::Own,
    }
}
