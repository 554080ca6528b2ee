//! What the announcer is told and asked.

use std::sync::Arc;

use control::announce::{Announcement, Facts, ServiceFact};
use tokio::sync::oneshot;

use super::rows::{AnnouncementRow, PeerRow, RouteRow, Switched};
use crate::sources::config::BgpConfig;

/// What is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    pub bgp: Option<BgpConfig>,
    pub announcements: Vec<Announcement>,
    /// Names of the uplinks, as far as they are configured.
    pub uplinks: Vec<String>,
    /// The node's name.
    pub node: Arc<str>,
}

impl Setup {
    pub(super) fn is_empty(&self) -> bool {
        self.bgp.is_none() && self.announcements.is_empty()
    }
}

/// How the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The datapath stays.
    Leave,
    /// Nothing is served any more.
    Detach,
}

/// What the announcer is told and asked.
#[derive(Debug)]
pub(super) enum Command {
    Configure(Box<Setup>),
    /// What the kernel holds.
    Hold(Facts),
    /// What services the kernel is about to hold; answered once withdrawals are sent.
    Foresee(Vec<ServiceFact>, std::sync::mpsc::Sender<()>),
    Switch {
        name: String,
        disable: bool,
        answer: oneshot::Sender<Result<Switched, Unanswered>>,
    },
    Maintain(bool, oneshot::Sender<Result<bool, Unanswered>>),
    Announcements(oneshot::Sender<Vec<AnnouncementRow>>),
    Peers(oneshot::Sender<Vec<PeerRow>>),
    Routes(oneshot::Sender<Vec<RouteRow>>),
    Stop(Ending, oneshot::Sender<()>),
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("no announcement '{0}'; 'fanlight announce list' lists them")]
    Unknown(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
    #[error("the announcer does not answer; see 'fanlight status'")]
    NoAnswer,
}
