//! Members of the cluster in the API.

use std::time::Instant;

use axum::{
    Json,
    extract::{Path, State},
    routing::{MethodRouter, put},
};
use control::cluster::{identity::NodeName, membership::ForgetError};
use serde::{Deserialize, Serialize};

use super::{Maintained, MaintainedGroup, Refusal, server::App};
use crate::cluster::{MemberView, Reader, Unforgotten};

/// A member as `node list` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    pub name: String,
    /// `ADDR:PORT` that it is reached at; none without a cluster.
    pub address: Option<String>,
    /// `alive`, `suspect`, `dead`, `left` or `maintenance`.
    pub state: String,
    /// Seconds since its state changed.
    pub age: u64,
}

/// A member as `node show` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDetail {
    #[serde(flatten)]
    pub row: NodeRow,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_own: bool,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// It grows whenever the member starts, gets another address or was taken for dead.
    pub generation: Option<u64>,
    /// The member's public Ed25519 key in hexadecimal digits.
    pub key: Option<String>,
}

/// What `node forget` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The member's name.
    pub forgotten: String,
}

fn detail(cluster: &str, member: &MemberView, now: Instant) -> NodeDetail {
    let row = NodeRow {
        name: member.name.to_string(),
        address: Some(member.address.to_string()),
        state: member.state_name().to_owned(),
        age: now.saturating_duration_since(member.since).as_secs(),
    };
    NodeDetail {
        row,
        is_own: member.is_own,
        cluster: Some(cluster.to_owned()),
        generation: Some(member.generation),
        key: Some(member.key.0.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

impl App {
    /// All members by name; without a cluster this node alone.
    fn nodes(&self) -> Vec<NodeDetail> {
        let now = Instant::now();
        let Some(cluster) = self.cluster.borrow().as_ref().map(Reader::view) else {
            let age = now.saturating_duration_since(self.started).as_secs();
            let row = NodeRow {
                name: self.view.borrow().node.to_string(),
                address: None,
                state: "alive".to_owned(),
                age,
            };
            return vec![NodeDetail { row, is_own: true, cluster: None, generation: None, key: None }];
        };
        cluster.members.iter().map(|member| detail(&cluster.cluster, member, now)).collect()
    }
}

pub(super) async fn list(State(app): State<App>) -> Json<Vec<NodeRow>> {
    Json(app.nodes().into_iter().map(|node| node.row).collect())
}

pub(super) async fn show(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<NodeDetail>, Refusal> {
    let found = app.nodes().into_iter().find(|node| node.row.name == name);
    found.map(Json).ok_or_else(|| unknown(&name))
}

pub(super) async fn forget(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Forgotten>, Refusal> {
    let cluster = app.cluster()?;
    let node = NodeName::new(&name).map_err(|_other| unknown(&name))?;
    match cluster.forget(node).await {
        Ok(()) => Ok(Json(Forgotten { forgotten: name })),
        Err(Unforgotten::Refused(ForgetError::Unknown(_))) => Err(unknown(&name)),
        Err(Unforgotten::Refused(alive @ ForgetError::Alive(_))) => Err(Refusal::conflict(alive.to_string())),
        Err(error @ Unforgotten::NoAnswer) => Err(Refusal::failed(error.to_string())),
    }
}

/// Has this node leave rotation, or come back.
pub(super) fn maintenance() -> MethodRouter<App> {
    put(async |app| maintain(app, true).await).delete(async |app| maintain(app, false).await)
}

async fn maintain(State(app): State<App>, is_on: bool) -> Result<Json<Maintained>, Refusal> {
    // What is announced leads here no more before backends leave rotation.
    let announced = app.announcer.maintain(is_on).await?;
    let in_cluster = match (app.cluster(), announced) {
        (Ok(cluster), _) => Some(cluster.maintain(is_on).await.map_err(Refusal::from)?),
        (Err(_alone), Some(_)) => None,
        (Err(alone), None) => return Err(alone),
    };
    let changed = announced.or(in_cluster).unwrap_or_default() || in_cluster.unwrap_or_default();
    let node = app.view.borrow().node.to_string();
    Ok(Json(Maintained { node, maintenance: is_on, changed }))
}

/// Has a group of announcements withdrawn on all its members, or announced again.
pub(super) fn group_maintenance() -> MethodRouter<App> {
    put(async |app, name| maintain_group(app, name, true).await)
        .delete(async |app, name| maintain_group(app, name, false).await)
}

async fn maintain_group(
    State(app): State<App>,
    Path(group): Path<String>,
    is_on: bool,
) -> Result<Json<MaintainedGroup>, Refusal> {
    let changed = app.cluster()?.maintain_group(group.as_str().into(), is_on).await?;
    Ok(Json(MaintainedGroup { group, maintenance: is_on, changed }))
}

fn unknown(name: &str) -> Refusal {
    let name = control::model::quoted(name);
    Refusal::not_found(format!("no node {name}; 'fanlight node list' lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_keys_that_scripts_rely_on() {
        let row = NodeRow { name: "a".to_owned(), address: None, state: "alive".to_owned(), age: 7 };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json, serde_json::json!({"name": "a", "address": null, "state": "alive", "age": 7}));
        let detail = NodeDetail { row, is_own: true, cluster: None, generation: Some(1), key: None };
        let json = serde_json::to_value(detail).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["address", "age", "cluster", "generation", "key", "name", "self", "state"]);
    }
}
