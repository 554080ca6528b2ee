//! Where the answers of requests go.

use control::desired::{Change, Desired};

use crate::{
    cluster::{ServiceChange, ServicesChanged},
    serve::{Answer, Applied, Contributed, Drained, Refusal},
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

/// Where the outcome of changes goes.
#[derive(Debug)]
pub(super) enum Reply {
    /// Services are applied or removed.
    Applied(Answer<Applied>, Applied),
    /// A backend is drained or undrained.
    Drained(Answer<Drained>, Drained),
    /// A backend is contributed, or no more.
    Contributed(Answer<Contributed>, Contributed),
    /// The agent itself asked.
    Nobody,
}

impl Reply {
    /// Answers; the client may have given up meanwhile.
    pub(super) fn send(self, outcome: Result<(), Refusal>) {
        match self {
            Self::Applied(answer, applied) => drop(answer.send(outcome.map(|()| applied))),
            Self::Drained(answer, drained) => drop(answer.send(outcome.map(|()| drained))),
            Self::Contributed(answer, contributed) => drop(answer.send(outcome.map(|()| contributed))),
            Self::Nobody => {
                if let Err(refusal) = outcome {
                    tracing::warn!("{refusal}");
                }
            }
        }
    }
}
