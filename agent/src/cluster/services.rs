//! Services as they are asked for, said and told: what the rest of the agent and the cluster's task give each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use control::{
    desired::{Name, Statement},
    service::Declared,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What a file of this node's says of a service: the file, and what it says.
pub type Said = (Name, Arc<Statement>);

/// What this node's own sources say.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// By service; `None`: no file defines it any more.
    pub stated: BTreeMap<Name, Option<Said>>,
    /// Services that are not among them are defined by no file.
    pub is_whole: bool,
    /// What was applied before the cluster spoke; it is written once.
    pub applied: Vec<(Name, Arc<Statement>)>,
}

/// What the task keeps of that.
#[derive(Debug, Default)]
pub(super) struct Stated {
    pub(super) said: BTreeMap<Name, Said>,
    pub(super) applied: Vec<(Name, Arc<Statement>)>,
}

impl Stated {
    /// Follows what is said now; gives the services of which that is something else.
    pub(super) fn follow(&mut self, local: Local) -> BTreeSet<Name> {
        let Local { stated, is_whole, applied } = local;
        let mut names = BTreeSet::new();
        if is_whole {
            self.applied = applied;
            names
                .extend(self.said.extract_if(.., |name, _| !stated.contains_key(name)).map(|(name, _)| name));
        }
        for (name, said) in stated {
            if self.said.get(&name) != said.as_ref() {
                match said {
                    Some(said) => drop(self.said.insert(Arc::clone(&name), said)),
                    None => drop(self.said.remove(&name)),
                }
                names.insert(name);
            }
        }
        names
    }
}

/// What a request asks of services.
#[derive(Clone, Debug)]
pub enum ServiceChange {
    /// These are to be there, with these backends of this node.
    Apply(Vec<Declared>),
    /// The service is to go, with all that nodes contribute to it.
    Remove(String),
    /// A backend is to take no new flows, or to take them again.
    Drain(String, SocketAddr, bool),
    /// This node is to contribute a backend, of this weight where it is given.
    Offer(String, SocketAddr, Option<u32>),
    /// This node is to contribute a backend no more.
    Withdraw(String, SocketAddr),
}

/// What this node has found of backends by checking them: service, address, and whether it is up; `None`: nothing.
pub type Verdicts = BTreeMap<(Name, SocketAddr), Option<bool>>;

/// A backend that this node contributes: service, address, weight.
pub type OwnOffer = (String, SocketAddr, u32);

/// A backend that another node contributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherBackend {
    /// The service's name.
    pub service: String,
    /// `ADDR:PORT`
    pub address: SocketAddr,
    /// The node.
    pub node: String,
}

/// What a change of services has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicesChanged {
    /// Services of which something is other.
    pub names: BTreeSet<Name>,
    /// Of services that were applied: backends of other nodes.
    pub others: Vec<OtherBackend>,
    /// The weight of a backend that is contributed, or was.
    pub weight: u32,
}

/// Why services were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceRefusal {
    /// It is about nothing that there is.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what there is.
    #[error("{0}")]
    Refused(String),
    /// It can't be stored.
    #[error("{0}")]
    Unavailable(String),
}

impl ServiceRefusal {
    /// The disk has not answered.
    pub fn late() -> Self {
        Self::Unavailable("it was not stored in time; see 'fanlight status'".to_owned())
    }
}

/// The outcome of a change.
pub type ServiceOutcome = Result<ServicesChanged, ServiceRefusal>;

/// Where this node is: what members are told, to know which backends go with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Its addresses in the underlays and overlays.
    pub addresses: BTreeSet<IpAddr>,
    /// The networks of its containers.
    pub slices: BTreeSet<Ipv4Net>,
}

/// What the cluster says of services.
#[derive(Debug)]
pub enum Word {
    /// All that there is, in place of what was.
    Whole(BTreeMap<Name, Arc<Statement>>),
    /// What is other; `None`: nothing is said of it any more.
    Changes(BTreeMap<Name, Option<Arc<Statement>>>),
    /// It can't say anything: the store does not open.
    Silent,
}

impl Word {
    /// What holds once `self` and then `later` were said.
    fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Whole(mut all), Self::Changes(changes)) => {
                for (name, statement) in changes {
                    match statement {
                        Some(statement) => drop(all.insert(name, statement)),
                        None => drop(all.remove(&name)),
                    }
                }
                Self::Whole(all)
            }
            (Self::Changes(mut former), Self::Changes(changes)) => {
                former.extend(changes);
                Self::Changes(former)
            }
            (_, later) => later,
        }
    }
}

/// What waits to be followed.
#[derive(Debug, Default)]
pub struct ServiceNews {
    /// What the cluster says.
    pub word: Option<Word>,
    /// What was applied before the cluster spoke is in it, and on disk.
    pub is_adopted: bool,
}

/// What the task has told and nobody has followed yet: never more than all services.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<ServiceNews>,
    changed: Notify,
}

impl Outbox {
    /// Tells what the cluster says.
    pub(super) fn say(&self, word: Word) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.word = Some(match waiting.word.take() {
            Some(former) => former.and(word),
            None => word,
        });
        drop(waiting);
        self.changed.notify_one();
    }

    /// Tells that what was applied is in the cluster.
    pub(super) fn adopted(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_adopted = true;
        self.changed.notify_one();
    }

    /// What waits, if anything does.
    pub(super) fn take(&self) -> Option<ServiceNews> {
        let news = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        (news.word.is_some() || news.is_adopted).then_some(news)
    }

    /// Waits for something. Dropping this loses nothing.
    pub async fn next(&self) -> ServiceNews {
        loop {
            if let Some(news) = self.take() {
                return news;
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use control::desired::Topic;

    use super::*;

    fn name(text: &str) -> Name {
        text.into()
    }

    fn statement(text: &str) -> Arc<Statement> {
        Arc::new(Statement { notes: vec![(Topic::Clash, text.into())], ..Statement::default() })
    }

    #[test]
    fn what_waits_is_one_and_what_is_said_whole_takes_the_place_of_all_before() {
        let outbox = Outbox::default();
        assert!(outbox.take().is_none());
        outbox.say(Word::Whole([(name("a"), statement("1")), (name("b"), statement("1"))].into()));
        outbox.say(Word::Changes([(name("a"), None), (name("c"), Some(statement("2")))].into()));
        outbox.adopted();
        let news = outbox.take().unwrap();
        let Some(Word::Whole(all)) = news.word else { panic!("all of it") };
        assert_eq!(all, [(name("b"), statement("1")), (name("c"), statement("2"))].into());
        assert!(news.is_adopted && outbox.take().is_none());
        outbox.say(Word::Changes([(name("a"), Some(statement("3")))].into()));
        outbox.say(Word::Changes([(name("a"), None)].into()));
        assert!(
            matches!(outbox.take().unwrap().word, Some(Word::Changes(all)) if all == [(name("a"), None)].into())
        );
    }

    #[test]
    fn services_of_which_a_file_says_something_else_are_told() {
        let said = |file: &str, text: &str| Some((name(file), statement(text)));
        let whole = |stated: &[(&str, Option<Said>)]| Local {
            stated: stated.iter().map(|(service, said)| (name(service), said.clone())).collect(),
            is_whole: true,
            ..Local::default()
        };
        let mut stated = Stated::default();
        let both = whole(&[("a", said("/f", "1")), ("b", said("/f", "1"))]);
        assert_eq!(stated.follow(both.clone()), [name("a"), name("b")].into());
        assert_eq!(stated.follow(both), BTreeSet::new());
        assert_eq!(stated.follow(whole(&[("a", said("/g", "1"))])), [name("a"), name("b")].into());
        let part = Local { is_whole: false, ..whole(&[("c", said("/f", "1"))]) };
        assert_eq!(stated.follow(part), [name("c")].into());
        assert_eq!(stated.said.len(), 2);
    }
}
