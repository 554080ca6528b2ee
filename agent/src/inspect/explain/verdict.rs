//! A decision in words.

use std::net::Ipv4Addr;

use dataplane_common::{
    ct::Tuple,
    decide::{self, Tables},
    outcome::Outcome,
    verdict::{Action, Verdict, Way, route_of},
};

/// What a decision comes to.
pub(super) struct Decided {
    /// What the packet is counted as.
    pub(super) outcome: Outcome,
    /// The addresses and ports that it gets, where it gets others.
    pub(super) rewrite: Option<Tuple>,
    /// The remote host that it is carried to.
    pub(super) host: Option<Ipv4Addr>,
    /// What it is counted as where the routing table leads nowhere.
    pub(super) unrouted: Option<Outcome>,
}

impl Decided {
    pub(super) fn of(verdict: &Verdict, frame: &[u8], tables: &impl Tables) -> Self {
        let Verdict { action, outcome, rewrite, out, words } = *verdict;
        let plain = Self { outcome, rewrite: None, host: None, unrouted: None };
        match action {
            Action::Forward => {
                let host = (out.way == Way::Tunnel).then(|| Ipv4Addr::from_bits(out.host));
                Self { rewrite: Some(rewrite).filter(|rewrite| !rewrite.is_kept()), host, ..plain }
            }
            Action::Route => {
                let (rewrite, sender) = route_of(words);
                let unrouted = decide::unrouted(frame, tables, sender, rewrite).map(|answer| answer.outcome);
                Self { rewrite: Some(rewrite), unrouted, ..plain }
            }
            _ => plain,
        }
    }
}
