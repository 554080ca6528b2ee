//! What readers are shown of the cluster.

use std::{collections::BTreeMap, net::SocketAddrV4, sync::Arc, time::Instant};

use control::cluster::{
    identity::{NodeName, PublicKey},
    membership::{Member, MemberState},
};

/// The cluster at one moment, as this node knows it; clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// Known members by name, this node included.
    pub members: Arc<[MemberView]>,
    /// What is not as it ought to be.
    pub reasons: Vec<String>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    pub name: NodeName,
    /// Where it is reached.
    pub address: SocketAddrV4,
    pub state: MemberState,
    /// When its state became another one.
    pub since: Instant,
    /// It grows whenever the member starts, gets another address or was taken for dead.
    pub generation: u64,
    pub key: PublicKey,
    /// Whether it is this node.
    pub is_own: bool,
}

impl MemberView {
    pub(super) fn new(member: &Member, start: Instant, own: &NodeName) -> Self {
        let identity = &member.identity;
        Self {
            name: identity.name().clone(),
            address: identity.address(),
            state: member.state,
            since: start + member.since,
            generation: identity.generation(),
            key: identity.key(),
            is_own: identity.name() == own,
        }
    }

    /// The word for its state.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "dead",
            MemberState::Left => "left",
            MemberState::Maintenance => "maintenance",
        }
    }
}

impl View {
    /// Members by state, states without members left out.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for member in &*self.members {
            *counts.entry(member.state_name().to_owned()).or_default() += 1;
        }
        counts
    }
}

/// Why this node is on the smaller side of a partition: no more than half of the members that it knows can be reached. Those
/// that have left do not count.
pub(super) fn minority(members: &[MemberView]) -> Option<String> {
    let counted = members.iter().filter(|member| member.state != MemberState::Left).count();
    let reachable = members.iter().filter(|member| member.state.is_reachable()).count();
    (counted > 1 && reachable * 2 <= counted).then(|| {
        format!(
            "minority: {reachable} of {counted} members can be reached, this node included; mend the network, or run \
             'fanlight node forget' for those that are no more"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use control::cluster::identity::Identity;

    use super::*;

    fn members(states: &[MemberState]) -> Vec<MemberView> {
        let start = Instant::now();
        let own = NodeName::new("n0").unwrap();
        let member = |(number, &state)| {
            let name = NodeName::new(&format!("n{number}")).unwrap();
            let address = "10.0.0.1:7481".parse().unwrap();
            let identity = Identity::new(name, address, 7, PublicKey([1; 32]));
            MemberView::new(&Member { identity, state, since: Duration::from_secs(1) }, start, &own)
        };
        states.iter().enumerate().map(member).collect()
    }

    #[test]
    fn half_of_the_members_is_a_minority_and_those_that_left_do_not_count() {
        use MemberState::{Alive, Dead, Left, Maintenance, Suspect};
        let is_minority = |states: &[MemberState]| minority(&members(states)).is_some();
        assert!(is_minority(&[Alive, Dead]) && is_minority(&[Alive, Dead, Suspect, Dead]));
        assert!(!is_minority(&[Alive]) && !is_minority(&[Alive, Left, Left]));
        assert!(!is_minority(&[Alive, Suspect, Dead]) && !is_minority(&[Alive, Maintenance, Dead]));
    }

    #[test]
    fn members_are_counted_by_state_and_this_node_is_told_apart() {
        let members = members(&[MemberState::Alive, MemberState::Dead, MemberState::Alive]);
        assert!(members[0].is_own && !members[1].is_own);
        let view = View { cluster: "prod".into(), members: members.into(), reasons: Vec::new() };
        assert_eq!(view.counts(), [("alive".to_owned(), 2), ("dead".to_owned(), 1)].into());
    }
}
