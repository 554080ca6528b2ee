//! What the cluster says of one service, as a source of the desired state.

use std::{net::SocketAddr, sync::Arc};

use control::{
    cluster::{
        log::Name,
        records::{Parts, overruled},
        rotation::{Placed, PlacedBackend, Rotation, Standing},
    },
    desired::{Provenance, Statement, Topic},
    service::{Backend, Down, Outage},
};

/// What is said of a service: by the records of it, and by what of that this node is to serve.
pub(super) fn statement(
    own: &Name,
    parts: Option<&Parts>,
    placed: Option<&Placed>,
) -> Option<Arc<Statement>> {
    let notes = notes(own, parts, placed);
    let statement = match placed.filter(|placed| placed.clash.is_none()) {
        Some(placed) => Statement { notes, ..served(placed) },
        None if notes.is_empty() => return None,
        None => Statement { notes, ..Statement::default() },
    };
    Some(Arc::new(statement))
}

fn served(placed: &Placed) -> Statement {
    let backend = |own: &PlacedBackend| Backend {
        address: own.socket.ip(),
        port: own.socket.port(),
        weight: own.weight,
    };
    let provenance = |own: &PlacedBackend| Provenance {
        socket: own.socket,
        node: own.node.clone(),
        contributors: Arc::clone(&own.contributors),
    };
    let drained = placed.backends.iter().filter(|own| own.rotation == Rotation::Drained);
    Statement {
        definition: Some(placed.definition.clone()),
        backends: placed.backends.iter().map(backend).collect(),
        drained: drained.map(|own| own.socket).collect(),
        down: placed.backends.iter().filter_map(outage).collect(),
        checked: placed.backends.iter().filter_map(|own| Some((own.socket, own.is_checked_up?))).collect(),
        provenance: placed.backends.iter().map(provenance).collect(),
        age: placed.age,
        ..Statement::default()
    }
}

fn outage(own: &PlacedBackend) -> Option<(SocketAddr, Outage)> {
    let is_kept = match own.rotation {
        Rotation::Kept => true,
        Rotation::Down => false,
        Rotation::Up | Rotation::Drained => return None,
    };
    let why = if own.standing == Standing::Left { Down::NodeLeft } else { Down::NodeDead };
    Some((own.socket, Outage { why, is_kept }))
}

fn notes(own: &Name, parts: Option<&Parts>, placed: Option<&Placed>) -> Vec<(Topic, Arc<str>)> {
    let mut notes: Vec<(Topic, Arc<str>)> = Vec::new();
    if let Some(conflict) = placed.and_then(|placed| placed.conflict.as_ref()) {
        let files: Vec<String> =
            conflict.files.iter().map(|(node, file)| format!("{file} of {node}")).collect();
        let why = format!(
            "{} define it in different ways, and the last change is followed; make them alike",
            files.join(" and ")
        );
        notes.push((Topic::Conflict, why.into()));
    }
    if let Some((placed, older)) = placed.and_then(|placed| Some((placed, placed.clash.as_ref()?))) {
        let why = format!(
            "{} is the VIP of service {older}, which is older and followed; give one of them another",
            placed.definition.vip
        );
        notes.push((Topic::Clash, why.into()));
    }
    if let Some((parts, file)) = parts.and_then(|parts| Some((parts, overruled(parts, own)?))) {
        let by = match parts.latest() {
            Some(latest) if latest.is_removal() => format!("was removed on {}", latest.writer()),
            Some(latest) => format!("was changed on {}", latest.writer()),
            None => "was removed elsewhere".to_owned(),
        };
        let why = format!("{file} defines it, and it {by} since; change the file to be followed again");
        notes.push((Topic::Overruled, why.into()));
    }
    notes
}
