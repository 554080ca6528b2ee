//! What the task is asked for.

use std::{net::SocketAddrV4, sync::Arc};

use control::cluster::{
    events::{Event, EventError},
    identity::NodeName,
    membership::ForgetError,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    cluster::{
        keys::{Batch, KeyOutcome, KeyRead, KeyRefusal, KeyValue, KeyWrite},
        numbers::{Numbers, Slices},
        services::{Around, Local, OwnOffer, ServiceChange, ServiceOutcome, ServiceRefusal, Verdicts},
    },
    sources::config::ClusterConfig,
};

/// What the task is asked for.
#[derive(Debug)]
pub(in crate::cluster) enum Command {
    Forget(NodeName, oneshot::Sender<Result<(), ForgetError>>),
    ReadKeys(KeyRead, oneshot::Sender<Result<Vec<KeyValue>, KeyRefusal>>),
    WriteKey(KeyWrite, oneshot::Sender<KeyOutcome>),
    /// What this node's own sources say.
    State(Local),
    Change(ServiceChange, oneshot::Sender<ServiceOutcome>),
    /// What this node has found by checking backends; all of it where that is said.
    Found(Verdicts, bool),
    OwnBackends(Option<String>, oneshot::Sender<Result<Vec<OwnOffer>, ServiceRefusal>>),
    Maintain(bool, oneshot::Sender<ServiceOutcome>),
    /// Where this node is.
    Around(Around),
    /// Somebody follows the keys that begin so.
    WatchKeys(String, oneshot::Sender<Result<mpsc::Receiver<Batch>, KeyRefusal>>),
    /// Somebody who does has taken what it was given.
    TellKeys,
    Numbers(oneshot::Sender<Numbers>),
    Slices(oneshot::Sender<Slices>),
    /// A message to all members: name and payload.
    SendEvent(String, Vec<u8>, oneshot::Sender<Result<Arc<Event>, EventError>>),
    /// Other members to join by, other keys.
    Reconfigure(Box<ClusterConfig>),
    Advertise(SocketAddrV4),
    Leave(oneshot::Sender<()>),
}
