//! A decision in words.

use std::net::Ipv4Addr;

use dataplane_common::{
    decide::{self, Forward, Verdict},
    outcome::Outcome,
    vip::Tuple,
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
    pub(super) fn of(verdict: &Verdict<'_>, frame: &[u8]) -> Self {
        let plain = |outcome| Self { outcome, rewrite: None, host: None, unrouted: None };
        match *verdict {
            Verdict::Pass(outcome) | Verdict::Drop(outcome) => plain(outcome),
            Verdict::RemoveOptions => plain(Outcome::OptionsRemoved),
            Verdict::Answer(answer) => plain(answer.outcome),
            Verdict::LearnPathMtu { .. } => plain(Outcome::PassPathMtuLearnt),
            Verdict::Forward(forward) => Self::forwarded(forward, None),
            Verdict::Translate { rewrite, forward } => {
                let unrouted = match forward {
                    Forward::Route { sender } => decide::unrouted(frame, sender, rewrite),
                    _ => None,
                };
                let unrouted = unrouted.map(|answer| answer.outcome);
                Self { unrouted, ..Self::forwarded(forward, Some(rewrite)) }
            }
        }
    }

    fn forwarded(forward: Forward<'_>, rewrite: Option<Tuple>) -> Self {
        let (outcome, host) = match forward {
            Forward::Encapsulate { host, .. } => (Outcome::Encapsulated, Some(Ipv4Addr::from_bits(host))),
            Forward::Decapsulate { endpoint: Some(_), .. } => (Outcome::Decapsulated, None),
            Forward::Decapsulate { endpoint: None, .. } => (Outcome::DecapsulatedToHost, None),
            Forward::Deliver { .. } => (Outcome::DeliveredLocally, None),
            Forward::ToHost { .. } => (Outcome::DeliveredToHost, None),
            Forward::Route { .. } | Forward::DecapsulateAndRoute { .. } => (Outcome::Routed, None),
        };
        Self { outcome, rewrite, host, unrouted: None }
    }
}
