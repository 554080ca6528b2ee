//! The members as the protocols of what is shared see them: which there are, how they stand, which one decides.

use std::time::Duration;

use super::{
    identity::NodeName,
    log::{Listener, Name},
    membership::{Member, MemberState, Membership},
    records::{View, owner_of},
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
        let listener =
            |member: &Member| Listener { name: name(member), is_reachable: member.state.is_reachable() };
        others.map(listener).collect()
    }
}

/// How the members stand, for what is to be served.
pub fn standings(membership: &Membership) -> Vec<(Name, Standing)> {
    let standing = |state| match state {
        MemberState::Dead => Standing::Gone,
        MemberState::Left => Standing::Left,
        // What a member says of its maintenance is among the records.
        MemberState::Alive | MemberState::Suspect | MemberState::Maintenance => Standing::Alive,
    };
    let members = membership.members();
    members.iter().map(|member| (name(member), standing(member.state))).collect()
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

/// Where so many members go at once, it may be this node that is cut off from them: the first sign of a partition, long before
/// half of a thousand members are taken for dead.
const MANY: usize = 3;

/// From one look at members of which a suspicion lasts to the next.
const AGAIN: Duration = Duration::from_millis(200);

/// The member that decides on a user key, as far as this node knows; `now` is the time since its start.
///
/// Nodes that have logs are members, too: one that starts on the smaller side of a partition has heard of no others yet.
pub fn decider(membership: &Membership, view: &View, key: &str, now: Duration) -> Decider {
    let members = membership.members();
    let is_unheard =
        |name: &&str| members.binary_search_by(|one| one.identity.name().as_str().cmp(name)).is_err();
    let unheard = view.facts().map(|(name, _)| &**name).filter(is_unheard).count();
    decider_of(&members, unheard, membership.identity().name(), key, now)
}

/// `unheard` are members of which nothing has been heard since this node's start.
fn decider_of(members: &[Member], unheard: usize, own: &NodeName, key: &str, now: Duration) -> Decider {
    let counted = unheard + members.iter().filter(|member| member.state != MemberState::Left).count();
    let is_majority = |wanted: &dyn Fn(&Member) -> bool| {
        counted <= 1 || members.iter().filter(|one| wanted(one)).count() * 2 > counted
    };
    let owner = |wanted: &dyn Fn(&Member) -> bool| {
        let names: Vec<Name> = members.iter().filter(|one| wanted(one)).map(name).collect();
        owner_of(key, &names).and_then(|owner| NodeName::new(owner).ok())
    };
    let answers = |member: &Member| member.state.is_reachable();
    if !is_majority(&answers) {
        // It may be about to join.
        return if now < SETTLED { Decider::OwnFrom(SETTLED) } else { Decider::Nobody };
    }
    if let Some(other) = owner(&answers).filter(|owner| owner != own) {
        return Decider::Other(other);
    }
    let is_recent = |member: &Member| member.identity.name() != own && now < member.since + SETTLED;
    let is_steady =
        |member: &Member| answers(member) && member.state != MemberState::Suspect && !is_recent(member);
    let was_own = owner(&|member| answers(member) || is_recent(member)).as_ref() == Some(own);
    let is_going = |member: &&Member| {
        is_recent(member) && matches!(member.state, MemberState::Suspect | MemberState::Dead)
    };
    let go_many = members.iter().filter(is_going).count() >= MANY;
    if now >= SETTLED && was_own && !go_many && is_majority(&is_steady) {
        return Decider::Own;
    }
    let recent = members.iter().filter(|member| is_recent(member)).map(|member| member.since + SETTLED);
    Decider::OwnFrom(recent.fold(SETTLED, Duration::max).max(now + AGAIN))
}

fn name(member: &Member) -> Name {
    member.identity.name().as_str().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::identity::{Identity, PublicKey};

    const SECOND: Duration = Duration::from_secs(1);

    /// Members `n0` and so on with their states and since when, in seconds.
    fn members(states: &[(MemberState, u64)]) -> Vec<Member> {
        let member = |(number, (state, since)): (usize, &(MemberState, u64))| {
            let name = NodeName::new(&format!("n{number}")).unwrap();
            let identity = Identity::new(name, "10.0.0.1:7481".parse().unwrap(), 1, PublicKey([1; 32]));
            Member { identity, state: *state, since: Duration::from_secs(*since) }
        };
        states.iter().enumerate().map(member).collect()
    }

    /// What `n0` makes of a key that of all three is `n1`'s, and of the others its own.
    fn of_two(other: (MemberState, u64), third: (MemberState, u64), now: u64) -> Decider {
        let members = members(&[(MemberState::Alive, 0), other, third]);
        let names = ["n0", "n1", "n2"].map(Name::from);
        let is_wanted = |key: &String| {
            owner_of(key, &names) == Some(&names[1])
                && owner_of(key, [&names[0], &names[2]]) == Some(&names[0])
        };
        let key = (0..).map(|number| format!("key-{number}")).find(is_wanted).unwrap();
        decider_of(&members, 0, members[0].identity.name(), &key, Duration::from_secs(now))
    }

    #[test]
    fn a_member_decides_in_place_of_one_that_has_gone_once_what_that_wrote_has_arrived() {
        use MemberState::{Alive, Dead, Left};
        let n1 = || Decider::Other(NodeName::new("n1").unwrap());
        assert_eq!(of_two((Alive, 0), (Alive, 0), 100), n1());
        assert_eq!(of_two((Dead, 100), (Alive, 0), 101), Decider::OwnFrom(102 * SECOND));
        assert_eq!(of_two((Dead, 100), (Alive, 0), 102), Decider::Own);
        assert_eq!(of_two((Left, 100), (Alive, 0), 101), Decider::OwnFrom(102 * SECOND));
        // It is back.
        assert_eq!(of_two((Alive, 101), (Alive, 0), 102), n1());
    }

    #[test]
    fn a_node_that_has_just_come_into_a_majority_waits_and_a_minority_decides_nothing() {
        use MemberState::{Alive, Dead, Suspect};
        assert_eq!(of_two((Dead, 0), (Alive, 0), 1), Decider::OwnFrom(2 * SECOND));
        assert_eq!(of_two((Dead, 50), (Dead, 60), 100), Decider::Nobody);
        assert_eq!(of_two((Dead, 50), (Alive, 99), 100), Decider::OwnFrom(101 * SECOND));
        // A suspected member is none that a majority is made of.
        assert!(matches!(of_two((Dead, 50), (Suspect, 99), 100), Decider::OwnFrom(_)));
        // Three of many.
        let mut many = members(&[(Alive, 0); 100]);
        let key = (0..).map(|number| format!("key-{number}"));
        let own = many[0].identity.name().clone();
        let key =
            key.clone().find(|key| decider_of(&many, 0, &own, key, 100 * SECOND) == Decider::Own).unwrap();
        let others = [1, 2, 3].map(|member: usize| (member, Duration::from_secs(99)));
        for (member, since) in others {
            assert_eq!(decider_of(&many, 0, &own, &key, 100 * SECOND), Decider::Own);
            (many[member].state, many[member].since) = (Suspect, since);
        }
        assert_eq!(decider_of(&many, 0, &own, &key, 100 * SECOND), Decider::OwnFrom(101 * SECOND));
        let alone = members(&[(Alive, 0)]);
        let own = alone[0].identity.name();
        assert_eq!(decider_of(&alone, 0, own, "key", 5 * SECOND), Decider::Own);
        // It has the logs of others, of which it has heard nothing since its start.
        assert_eq!(decider_of(&alone, 1, own, "key", SECOND), Decider::OwnFrom(2 * SECOND));
        assert_eq!(decider_of(&alone, 1, own, "key", 5 * SECOND), Decider::Nobody);
    }
}
