//! What a request asks for, as changes; or why it is refused.

use std::net::SocketAddr;

use control::{
    desired::{self, Change, ChangeError, Desired, Inputs},
    model::network,
    service::{Backend, BackendLife, Declared},
};
use ipnet::Ipv4Net;

use crate::{
    node::writer::Applied as Held,
    serve::{Applied, Contributed, Drained, Refusal},
    sources::config::{
        Problem,
        service::{Placed, check_addresses, check_backend, check_beside, check_range},
    },
};

/// What a request is answered from.
#[derive(Clone, Copy)]
pub(super) struct Known<'k> {
    pub(super) inputs: &'k Inputs,
    pub(super) desired: &'k Desired,
    pub(super) held: &'k Held,
}

impl Known<'_> {
    /// Whether services may be there, in place of former ones of their names; gives the places of those that are others.
    pub(super) fn check_apply(&self, placed: &[Placed]) -> Result<Vec<usize>, Refusal> {
        let mut problems = check_addresses(placed, &self.overlays());
        problems.extend(check_range(placed, self.desired.settings.vip_range));
        if !problems.is_empty() {
            return Err(Refusal::invalid(problems));
        }
        let taken = placed.iter().filter_map(|own| {
            let vip = own.service.vip.at()?;
            let address = vip.address;
            let standing = self.inputs.with_vip_address(self.desired, address).map(|service| service.vip);
            let all = placed.iter().filter_map(|placed| placed.service.vip.at()).chain(standing);
            let why = self.held.taken.why(vip, all)?;
            Some(own.wrong_vip(format!("{address} {why}; give the service another VIP")))
        });
        let taken: Vec<Problem> = taken.collect();
        if !taken.is_empty() {
            return Err(Refusal::conflicts(taken));
        }
        let problems = check_beside(placed, self.inputs, self.desired);
        if !problems.is_empty() {
            return Err(Refusal::conflicts(problems));
        }
        let services: Vec<&Declared> = placed.iter().map(|placed| &placed.service).collect();
        desired::check(self.inputs, self.desired, &services).map_err(|problems| {
            let problem = |(place, error): (usize, ChangeError)| match error {
                ChangeError::VipTaken { .. }
                | ChangeError::Named { .. }
                | ChangeError::NoRange(_)
                | ChangeError::RangeFull(_) => placed[place].wrong_vip(error.to_string()),
                _ => placed[place].wrong_name(error.to_string()),
            };
            Refusal::conflicts(problems.into_iter().map(problem).collect())
        })
    }

    /// Services are to be there, in place of former ones of their names.
    pub(super) fn apply(&self, placed: &[Placed]) -> Result<(Vec<Change>, Applied), Refusal> {
        let changed = self.check_apply(placed)?;
        let changes: Vec<Change> =
            changed.iter().map(|&place| Change::Set(placed[place].service.clone())).collect();
        if self.held.services.is_none() && !changes.is_empty() {
            return Err(Refusal::conflict(
                "no fan is up, so that no service can be served; bring one up first",
            ));
        }
        let applied = changes.len();
        Ok((changes, Applied { applied, unchanged: placed.len() - applied, ..Applied::default() }))
    }

    /// An applied service is to go.
    pub(super) fn remove(&self, name: &str) -> Result<(Vec<Change>, Applied), Refusal> {
        let change = desired::remove(self.inputs, name).map_err(refuse)?;
        Ok((vec![change], Applied { removed: 1, ..Applied::default() }))
    }

    /// Whether a service may be removed: a file's is removed there.
    pub(super) fn check_remove(&self, name: &str) -> Result<(), Refusal> {
        let Some(source) = self.inputs.file_of(name) else { return Ok(()) };
        let label = self.inputs.place(source, name).to_owned();
        Err(refuse(ChangeError::OfSource { name: name.to_owned(), label }))
    }

    /// Whether an address can be a backend of a service.
    pub(super) fn check_offer(&self, service: &str, backend: SocketAddr) -> Result<(), Refusal> {
        let port = self.desired.get(service).map(|entry| entry.defined.vip.port);
        check_backend(backend, port).map_err(|why| Refusal::invalid(vec![Problem::general(why)]))?;
        desired::may_offer(self.inputs, self.desired, service, backend).map_err(refuse)
    }

    /// A backend is to take no new flows, or to take them again.
    pub(super) fn drain(
        &self,
        service: String,
        backend: SocketAddr,
        drain: bool,
    ) -> Result<(Vec<Change>, Drained), Refusal> {
        let change = desired::drain(self.desired, &service, backend, drain).map_err(refuse)?;
        let entry = self.desired.get(&service);
        let weighs = |own: &Backend| own.socket() == backend && own.weight > 0;
        let state = match entry {
            Some(entry) if !drain && entry.down.contains_key(&backend) => BackendLife::Down,
            Some(entry) if !drain && entry.defined.backends.iter().any(weighs) => BackendLife::Up,
            _ => BackendLife::Drained,
        };
        let changed = change.is_some();
        Ok((change.into_iter().collect(), Drained { service, backend, state, changed }))
    }

    /// This node is to contribute a backend.
    pub(super) fn offer(
        &self,
        service: String,
        backend: SocketAddr,
        weight: Option<u32>,
    ) -> Result<(Vec<Change>, Contributed), Refusal> {
        let port = self.desired.get(&service).map(|entry| entry.defined.vip.port);
        check_backend(backend, port).map_err(|why| Refusal::invalid(vec![Problem::general(why)]))?;
        let (change, Backend { weight, .. }) =
            desired::offer(self.inputs, self.desired, &service, backend, weight).map_err(refuse)?;
        let changed = change.is_some();
        Ok((change.into_iter().collect(), Contributed { service, address: backend, weight, changed }))
    }

    /// This node is to contribute a backend no more.
    pub(super) fn withdraw(
        &self,
        service: String,
        backend: SocketAddr,
    ) -> Result<(Vec<Change>, Contributed), Refusal> {
        let (change, Backend { weight, .. }) =
            desired::withdraw(self.inputs, self.desired, &service, backend).map_err(refuse)?;
        Ok((vec![change], Contributed { service, address: backend, weight, changed: true }))
    }

    /// Networks that backends may live in: those of all fans, of the files or by hand.
    fn overlays(&self) -> Vec<Ipv4Net> {
        let wanted = self.desired.settings.fans.iter().map(|(spec, _)| spec.overlay);
        let standing = self.held.fans.iter().map(|fan| network(fan.overlay, fan.overlay_mask));
        wanted.chain(standing).collect()
    }
}

fn refuse(error: ChangeError) -> Refusal {
    match error {
        ChangeError::NoService(_) | ChangeError::NoBackend { .. } => Refusal::not_found(error.to_string()),
        _ => Refusal::conflict(error.to_string()),
    }
}
