//! Who speaks: this node's own sources, or the cluster that they are written to.
//!
//! While the cluster speaks, the definitions, contributions and marks of local sources do not count here: what they say is
//! among the cluster's records, with what was changed elsewhere since. They are kept, and count again when it falls silent.

use std::sync::Arc;

use super::{Dirty, Inputs, Name, SourceId, Statement};

impl Inputs {
    /// Has the cluster speak, or this node's own sources; gives what that concerns.
    pub fn set_clustered(&mut self, is_clustered: bool) -> Dirty {
        if self.is_clustered == is_clustered {
            return Dirty::default();
        }
        self.is_clustered = is_clustered;
        self.index_anew();
        Dirty::All
    }

    /// Whether the cluster speaks.
    pub fn is_clustered(&self) -> bool {
        self.is_clustered
    }

    /// Whether what a source says counts.
    pub(super) fn speaks(&self, source: SourceId) -> bool {
        match source {
            SourceId::Cluster => self.is_clustered,
            SourceId::Checks => !self.is_clustered,
            _ => !(self.is_clustered && source.is_local()),
        }
    }

    /// The source that requests change.
    pub fn own(&self) -> SourceId {
        if self.is_clustered { SourceId::Cluster } else { SourceId::Applied }
    }

    /// This node's files, in the order of their precedence.
    pub fn files(&self) -> impl Iterator<Item = SourceId> + Clone {
        self.all_sources().filter(|source| source.is_file())
    }

    /// The first of this node's files that defines a service, whether it counts or not.
    pub fn file_of(&self, name: &str) -> Option<SourceId> {
        let defines = |source: &SourceId| self.get(*source, name).is_some_and(|own| own.definition.is_some());
        self.files().find(defines)
    }

    /// What this node's own files define of a name: which file, and what it says.
    pub fn stated(&self, name: &str) -> Option<(Name, Arc<Statement>)> {
        let source = self.file_of(name)?;
        Some((self.place(source, name).into(), Arc::clone(self.get(source, name)?)))
    }
}
