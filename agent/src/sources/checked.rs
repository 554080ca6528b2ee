//! What this node's checks have found, as a source of the desired state: it counts while no cluster speaks.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use control::{
    desired::{Name, Statement},
    service::{BackendLife, Down, ServiceState},
};

/// Of services: backends, and whether they are up by their checks.
pub(crate) type Found = BTreeMap<Name, BTreeMap<SocketAddr, bool>>;

/// What this source says of a service.
pub(crate) fn statement(checked: BTreeMap<SocketAddr, bool>) -> Option<Arc<Statement>> {
    (!checked.is_empty()).then(|| Arc::new(Statement { checked, ..Statement::default() }))
}

/// What was found when an agent left these services: what took flows then goes on to.
pub(crate) fn left(services: &[ServiceState]) -> Found {
    let of = |service: &ServiceState| {
        let found = service.backends.iter().filter_map(|backend| match (backend.state, backend.reason) {
            (BackendLife::Up | BackendLife::Drained, _) => Some((backend.address, true)),
            (BackendLife::Down, Some(Down::CheckFailed)) => Some((backend.address, false)),
            (BackendLife::Down, _) => None,
        });
        (Name::from(service.name.as_str()), found.collect())
    };
    services.iter().map(of).collect()
}
