//! Requests: what they ask for, as changes of this node's log or of the cluster's records.

use control::desired::Change;

use super::{
    answers::{Asked, Planned, Reply},
    plan::Known,
    speaker::Speaker,
    state::State,
};
use crate::{
    cluster::ServiceChange,
    node::writer::Applied as Held,
    serve::{Answer, Contributed, Drained, Refusal, Request},
};

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
