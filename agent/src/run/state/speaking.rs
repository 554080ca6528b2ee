//! What this node's own sources say to the cluster, and the cluster to the state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control::desired::{Change, Dirty, Input, Name, SourceId, none_left};

use super::State;
use crate::{
    cluster::{Local, Said, Stating, Word},
    run::speaker::Speaker,
};

impl State {
    /// Waits for the cluster to speak.
    pub(in crate::run) fn await_cluster(&mut self) {
        self.speaker = Speaker::Awaited;
        self.inputs.set_clustered(true);
    }

    /// Says what this node's own sources have to a cluster, now and whenever it is something else.
    pub(in crate::run) fn join(&mut self, stating: Stating) {
        self.stating = Some(stating);
        self.say_all();
    }

    /// The cluster that was awaited can't speak; gives the services that changed by it.
    pub(in crate::run) fn lose_cluster(&mut self) -> Dirty {
        if self.speaker != Speaker::Awaited {
            return Dirty::default();
        }
        self.speaker = Speaker::Lost;
        let dirty = self.inputs.set_clustered(false);
        self.follow(&dirty)
    }

    /// Follows what the cluster says; gives the services that changed by it.
    pub(in crate::run) fn hear_cluster(&mut self, word: Word) -> Dirty {
        match word {
            Word::Silent => self.lose_cluster(),
            Word::Changes(changes) => {
                let said = |(name, statement)| self.inputs.state(SourceId::Cluster, &name, statement);
                let names = changes.into_iter().flat_map(said).collect();
                self.follow(&Dirty::Names(names))
            }
            Word::Whole(services) => {
                self.speaker = Speaker::Cluster;
                let input = Input { label: "the cluster".to_owned(), services, ..Input::default() };
                let dirty =
                    self.inputs.set_clustered(true).and(self.inputs.replace(SourceId::Cluster, input));
                let is_all = self.set_keeps_unknown();
                let changed = self.follow(&dirty);
                if is_all { Dirty::All } else { changed }
            }
        }
    }

    /// The changes that leave nothing of what was applied, once the cluster has it. What was applied since is said first.
    pub(in crate::run) fn handed_over(&mut self) -> Vec<Change> {
        if self.applied() == self.handed {
            return none_left(&self.inputs);
        }
        self.say_all();
        Vec::new()
    }

    /// Says all that this node's own sources have.
    pub(in crate::run) fn say_all(&mut self) {
        self.handed = self.applied();
        let files = self.inputs.files();
        let names: BTreeSet<Name> =
            files.flat_map(|source| self.inputs.services(source)).map(|(name, _)| Arc::clone(name)).collect();
        let (stated, applied) = (self.stated(&names), self.handed.clone());
        if let Some(stating) = &self.stating {
            stating.say(Local { stated, is_whole: true, applied });
        }
    }

    /// Says what this node's files have of some services.
    pub(in crate::run) fn say(&self, names: &BTreeSet<Name>) {
        if let Some(stating) = self.stating.as_ref().filter(|_| !names.is_empty()) {
            stating.say(Local { stated: self.stated(names), ..Local::default() });
        }
    }

    fn stated(&self, names: &BTreeSet<Name>) -> BTreeMap<Name, Option<Said>> {
        names.iter().map(|name| (Arc::clone(name), self.inputs.stated(name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use control::{
        desired::Statement,
        service::{Algorithm, Declared},
    };

    use super::*;

    fn service(name: &str, last: u8) -> Declared {
        let vip = format!("10.96.0.{last}:80/tcp").parse().unwrap();
        Declared {
            name: name.to_owned(),
            vip,
            algorithm: Algorithm::Maglev,
            checking: None,
            backends: Vec::new(),
        }
    }

    fn names(state: &State) -> Vec<&str> {
        state.desired.entries().map(|entry| entry.defined.name.as_str()).collect()
    }

    /// A node with an applied service that waits for its cluster.
    fn waiting() -> State {
        let mut state = State::default();
        state.change(&[Change::Set(service("own", 1))]);
        state.await_cluster();
        state.follow(&Dirty::All);
        state.set_keeps_unknown();
        state
    }

    #[test]
    fn until_the_cluster_speaks_the_kernel_stays_as_it_is_and_then_it_alone_counts() {
        let mut state = waiting();
        assert_eq!((names(&state), state.inputs.settings().keeps_unknown), (vec![], true));
        let web = Arc::new(Statement::of(&service("web", 2)));
        assert_eq!(state.hear_cluster(Word::Whole([("web".into(), web.clone())].into())), Dirty::All);
        assert_eq!((names(&state), state.inputs.settings().keeps_unknown), (vec!["web"], false));
        let changes = [("web".into(), None), ("db".into(), Some(Arc::new(Statement::of(&service("db", 3)))))];
        state.hear_cluster(Word::Changes(changes.into()));
        assert_eq!(names(&state), ["db"]);
        state.hear_cluster(Word::Silent);
        assert_eq!(names(&state), ["db"], "what it said last holds");
    }

    #[test]
    fn without_the_cluster_s_store_own_sources_are_followed_and_nothing_else_is_taken_away() {
        let mut state = waiting();
        state.hear_cluster(Word::Silent);
        assert_eq!((names(&state), state.inputs.settings().keeps_unknown), (vec!["own"], true));
        state.hear_cluster(Word::Whole(BTreeMap::new()));
        assert_eq!((names(&state), state.inputs.settings().keeps_unknown), (vec![], false));
    }

    #[test]
    fn what_was_applied_goes_from_here_once_the_cluster_has_it_and_not_what_came_since() {
        let mut state = waiting();
        state.say_all();
        let inverse = state.handed_over();
        assert_eq!(inverse, [Change::Remove("own".to_owned())]);
        state.change(&[Change::Set(service("late", 4))]);
        assert_eq!(state.handed_over(), []);
        state.change(&inverse);
        state.say_all();
        assert_eq!(state.handed_over(), [Change::Remove("late".to_owned())]);
    }
}
