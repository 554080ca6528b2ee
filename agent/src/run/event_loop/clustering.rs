//! The cluster: when it begins, and what it says of services.

use super::Agent;
use crate::{cluster::ServiceNews, node::writer::Applied};

impl Agent {
    /// Has the cluster begin where it is to, and follow where the node is.
    pub(super) fn follow_cluster(&mut self, applied: &Applied) {
        if let Some((cluster, stating)) = self.cluster.follow(applied, &mut self.report) {
            self.changes.join(cluster, stating);
        } else if self.cluster.is_lost() {
            self.changes.lose_cluster();
        }
    }

    /// Follows what the cluster says of services.
    pub(super) fn hear_cluster(&mut self, ServiceNews { word, is_adopted }: ServiceNews) {
        self.is_handover_due |= is_adopted;
        if let Some(word) = word {
            self.changes.hear_cluster(word);
        }
    }
}
