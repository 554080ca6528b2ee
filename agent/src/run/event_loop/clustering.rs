//! The cluster: when it begins, and what it says of services.

use std::time::Duration;

use tokio::{sync::oneshot, time::timeout};

use super::Agent;
use crate::{cluster::ServiceNews, node::writer::Applied};

/// How long the cluster's first word may take until the agent answers without it, and how long the kernel to follow it.
const FIRST_WORD: Duration = Duration::from_secs(10);

impl Agent {
    /// Has the cluster begin where it is to, and follow where the node is.
    pub(super) fn follow_cluster(&mut self, applied: &Applied) {
        if let Some((cluster, stating)) = self.cluster.follow(applied, &mut self.report) {
            self.changes.join(cluster, stating);
        } else if self.cluster.is_lost() {
            self.changes.lose_cluster();
        }
    }

    /// Waits for what the cluster says at first: it is what packets are to find.
    pub(super) async fn wait_for_cluster(&mut self) {
        let Ok(Some(news)) = timeout(FIRST_WORD, self.cluster.first_word()).await else { return };
        if let Some(followed) = self.hear_cluster(news) {
            // A command may hold the kernel up.
            drop(timeout(FIRST_WORD, followed).await);
            self.follow_applied();
        }
    }

    /// Follows what the cluster says of services; what comes back comes when the kernel does.
    pub(super) fn hear_cluster(&mut self, news: ServiceNews) -> Option<oneshot::Receiver<Vec<String>>> {
        let ServiceNews { word, is_adopted } = news;
        self.is_handover_due |= is_adopted;
        word.map(|word| self.changes.hear_cluster(word))
    }
}
