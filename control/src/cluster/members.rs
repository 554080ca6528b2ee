//! The members as the protocols of what is shared see them: which there are, how they stand, which one decides.

use std::time::Duration;

use super::{
    identity::NodeName,
    log::{Listener, Name},
    membership::{Member, MemberState, Membership},
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
        let listener = |member: &Member| Listener {
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
    /// This node, if nothing changes until then.
    OwnFrom(Duration),
    /// Another one.
    Other(NodeName),
    /// None that this node may ask: it reaches no more than half of the members.
    Nobody,
}

/// How long a member has to be the one that decides on a key before it does.
///
/// What the one before it has written is everywhere by then, a node that has come back has what it missed, and one that a
/// partition left with a minority knows that.
const SETTLED: Duration = Duration::from_secs(2);

/// The member that decides on a user key, as far as this node knows; `now` is the time since its start.
pub fn decider(membership: &Membership, key: &str, now: Duration) -> Decider {
    let members = membership.members();
    let own = membership.identity().name();
    let counted = members.iter().filter(|member| member.state != MemberState::Left).count();
    let is_majority = |number: usize| counted <= 1 || number * 2 > counted;
    let owner = |wanted: &dyn Fn(&Member) -> bool| {
        let names: Vec<Name> = members
            .iter()
            .filter(|member| wanted(member))
            .map(|member| member.identity.name().as_str().into())
            .collect();
        owner_of(key, &names).and_then(|owner| NodeName::new(owner).ok())
    };
    if !is_majority(members.iter().filter(|member| member.state.is_reachable()).count()) {
        return Decider::Nobody;
    }
    if let Some(other) = owner(&|member| member.state.is_reachable()).filter(|owner| owner != own) {
        return Decider::Other(other);
    }
    let is_recent = |member: &Member| now < member.since + SETTLED;
    let answers = |member: &Member| matches!(member.state, MemberState::Alive | MemberState::Maintenance);
    let steady = |member: &&Member| member.identity.name() == own || answers(member) && !is_recent(member);
    let was_own = owner(&|member| member.state.is_reachable() || is_recent(member)).as_ref() == Some(own);
    if now >= SETTLED && was_own && is_majority(members.iter().filter(steady).count()) {
        return Decider::Own;
    }
    Decider::OwnFrom(SETTLED)
}
