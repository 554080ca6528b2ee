//! Requests: what they ask for as changes of this node's log, or of the cluster's records; and their answers.

use control::desired::{Change, Desired};

use super::{plan::Known, speaker::Speaker, stage::Reply, state::State};
use crate::{
    cluster::{ServiceChange, ServicesChanged},
    node::writer::Applied as Held,
    serve::{Answer, Applied, Contributed, Drained, Refusal, Request},
};

/// What a request comes to.
#[derive(Debug)]
pub(super) enum Planned {
    /// Changes of this node's own log.
    Changes(Vec<Change>, Reply),
    /// A change of the cluster's records.
    Shared(ServiceChange, Asked),
}

/// A request for the cluster: where its answer goes.
#[derive(Debug)]
pub(super) enum Asked {
    /// So many services are to be there.
    Apply(usize, Answer<Applied>),
    /// One is to go.
    Remove(Answer<Applied>),
    /// A backend is to be drained, or not.
    Drain(Drained, Answer<Drained>),
    /// A backend is to be contributed, or not.
    Contribute(Contributed, Answer<Contributed>),
}

impl Asked {
    /// The answer, after what has changed and what is desired now.
    pub(super) fn reply(self, changed: ServicesChanged, desired: &Desired) -> Reply {
        let ServicesChanged { names, others, weight } = changed;
        match self {
            Self::Apply(total, answer) => {
                let applied = names.len();
                let unchanged = total - applied.min(total);
                Reply::Applied(answer, Applied { applied, unchanged, others, ..Applied::default() })
            }
            Self::Remove(answer) => {
                Reply::Applied(answer, Applied { removed: names.len(), ..Applied::default() })
            }
            Self::Drain(drained, answer) => {
                let entry = desired.get(&drained.service);
                let backends = entry.iter().flat_map(|entry| &entry.defined.backends);
                let backend = backends.clone().find(|backend| backend.socket() == drained.backend);
                let life = entry.zip(backend).map(|(entry, backend)| entry.life(backend));
                let state = life.unwrap_or(drained.state);
                Reply::Drained(answer, Drained { state, changed: !names.is_empty(), ..drained })
            }
            Self::Contribute(contributed, answer) => {
                let changed = !names.is_empty();
                Reply::Contributed(answer, Contributed { weight, changed, ..contributed })
            }
        }
    }
}

/// What a request comes to; a refusal is answered at once. `held` is what the kernel holds.
pub(super) fn plan(request: Request, state: &State, held: &Held) -> Planned {
    let known = Known { inputs: &state.inputs, desired: &state.desired, held };
    match state.speaker {
        Speaker::Own => alone(request, known),
        Speaker::Cluster => shared(request, known),
        Speaker::Awaited | Speaker::Lost => {
            let why = "the cluster's records are not open on this node; see 'fanlight status', and try again";
            refuse(request, Refusal::unavailable(why))
        }
    }
}

fn nothing() -> Planned {
    Planned::Changes(Vec::new(), Reply::Nobody)
}

fn refuse(request: Request, refusal: Refusal) -> Planned {
    // The client may have given up meanwhile.
    match request {
        Request::Reload(answer) => drop(answer.send(Err(refusal))),
        Request::Apply(_, answer) | Request::Remove(_, answer) => drop(answer.send(Err(refusal))),
        Request::Drain { answer, .. } => drop(answer.send(Err(refusal))),
        Request::Offer { answer, .. } | Request::Withdraw { answer, .. } => {
            drop(answer.send(Err(refusal)));
        }
    }
    nothing()
}

fn alone(request: Request, known: Known<'_>) -> Planned {
    match request {
        Request::Reload(_) => nothing(),
        Request::Apply(services, answer) => changes(known.apply(&services), answer, Reply::Applied),
        Request::Remove(name, answer) => changes(known.remove(&name), answer, Reply::Applied),
        Request::Drain { service, backend, drain, answer } => {
            changes(known.drain(service, backend, drain), answer, Reply::Drained)
        }
        Request::Offer { service, backend, weight, answer } => {
            changes(known.offer(service, backend, weight), answer, Reply::Contributed)
        }
        Request::Withdraw { service, backend, answer } => {
            changes(known.withdraw(service, backend), answer, Reply::Contributed)
        }
    }
}

/// The changes, and where their outcome goes.
fn changes<T>(
    planned: Result<(Vec<Change>, T), Refusal>,
    answer: Answer<T>,
    reply: impl FnOnce(Answer<T>, T) -> Reply,
) -> Planned {
    match planned {
        Ok((changes, outcome)) => Planned::Changes(changes, reply(answer, outcome)),
        Err(refusal) => {
            // The client may have given up meanwhile.
            drop(answer.send(Err(refusal)));
            nothing()
        }
    }
}

/// What this node knows is checked here; what its records say, by the cluster.
fn shared(request: Request, known: Known<'_>) -> Planned {
    let checked = match &request {
        Request::Apply(services, _) => known.check_apply(services).map(drop),
        Request::Remove(name, _) => known.check_remove(name),
        Request::Offer { service, backend, .. } => known.check_offer(service, *backend),
        Request::Reload(_) | Request::Drain { .. } | Request::Withdraw { .. } => Ok(()),
    };
    if let Err(refusal) = checked {
        return refuse(request, refusal);
    }
    let (change, asked) = match request {
        Request::Reload(_) => return nothing(),
        Request::Apply(services, answer) => {
            let asked = Asked::Apply(services.len(), answer);
            let services = services.into_iter().map(|placed| placed.service).collect();
            (ServiceChange::Apply(services), asked)
        }
        Request::Remove(name, answer) => (ServiceChange::Remove(name), Asked::Remove(answer)),
        Request::Drain { service, backend, drain, answer } => {
            let change = ServiceChange::Drain(service.clone(), backend, drain);
            (change, Asked::Drain(Drained::new(service, backend, drain), answer))
        }
        Request::Offer { service, backend, weight, answer } => {
            let change = ServiceChange::Offer(service.clone(), backend, weight);
            (change, Asked::Contribute(Contributed::new(service, backend), answer))
        }
        Request::Withdraw { service, backend, answer } => {
            let change = ServiceChange::Withdraw(service.clone(), backend);
            (change, Asked::Contribute(Contributed::new(service, backend), answer))
        }
    };
    Planned::Shared(change, asked)
}
