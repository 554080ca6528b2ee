//! What is not as it ought to be, in words.

use std::time::Duration;

use super::Task;
use crate::cluster::view::{MemberView, minority};

/// How long members may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(3);

impl Task<'_> {
    pub(super) fn reasons(&mut self, members: &[MemberView], now: Duration) -> Vec<String> {
        let mut reasons: Vec<String> = self.unheard.iter().cloned().collect();
        if let Some(holder) = self.core.name_holder() {
            let (name, address) = (holder.name(), holder.address());
            reasons.push(format!(
                "name-taken {name}: the member at {address} has this node's name; set another node.name, or run 'fanlight \
                 node forget {name}' on a member once that one has stopped"
            ));
        } else {
            reasons.extend(self.no_member(members, now));
        }
        reasons.extend(minority(members));
        let skewed = self.core.skewed();
        reasons.extend(skewed.iter().map(|(name, ahead)| {
            let direction = if *ahead < 0 { "behind" } else { "ahead of" };
            // A clock that runs off would be another reason each second.
            format!("skewed {name}: its clock is more than a minute {direction} those of the members; set it, as by NTP")
        }));
        reasons.extend(self.troubles.reasons(now));
        reasons.extend(self.unstored.clone());
        reasons.extend(self.services.unwritten.as_ref().map(|(why, ..)| why.clone()));
        if let Some(shared) = &self.shared {
            reasons.extend(shared.failing.clone());
            let damaged = &shared.store.damaged;
            reasons.extend(damaged.exists().then(|| {
                format!("store-damaged: the store was damaged and is put aside; members give back what was in it; remove {}", damaged.display())
            }));
        }
        reasons
    }

    /// Why no other member is known, where there ought to be some.
    fn no_member(&self, members: &[MemberView], now: Duration) -> Option<String> {
        let has_joined = members.iter().any(|member| !member.is_own && member.state.is_reachable());
        let own = self.inbox.settings.advertise;
        let has_seeds =
            self.seeds.addresses.iter().any(|seed| *seed != own) || !self.seeds.unresolved.is_empty();
        if has_joined || !has_seeds || now < self.alone_since + PATIENCE {
            return None;
        }
        let join = self.inbox.settings.config.join.join(", ");
        let unresolved = match self.seeds.unresolved.as_slice() {
            [] => String::new(),
            names => format!(" ({} can't be resolved)", names.join(", ")),
        };
        Some(format!(
            "no-member: none of {join} answers{unresolved}; see whether their agents run, and have this cluster's name and \
             keys"
        ))
    }
}
