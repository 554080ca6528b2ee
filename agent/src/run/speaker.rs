//! Who speaks of services: this node's own sources, or the cluster.

/// Who speaks of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speaker {
    /// This node's own sources.
    #[default]
    Own,
    /// Nobody yet, as a cluster is configured: what the kernel holds stays as it is.
    Awaited,
    /// This node's own sources, as the cluster can't; what the kernel holds beside them stays.
    Lost,
    /// The cluster.
    Cluster,
}

impl Speaker {
    /// Whether the kernel may hold services of the cluster that nobody has named yet.
    pub(super) fn is_unheard(self) -> bool {
        matches!(self, Self::Awaited | Self::Lost)
    }
}
