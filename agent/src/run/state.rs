//! What the node is to be like, as the event loop holds it: what the sources say, and what follows from it.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, sync::Arc};

use control::{
    desired::{
        Change, Desired, Dirty, Input, Inputs, Name, Settings, SourceId, Statement, desired, make,
        stale_marks,
    },
    service::Down,
};

use crate::sources::{config, presence};

/// Inputs and the desired state.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) inputs: Inputs,
    pub(super) desired: Arc<Desired>,
}

impl State {
    /// Follows the files; `keeps_unknown`: services that no source names stay in the kernel.
    pub(super) fn set_files(
        &mut self,
        path: &Path,
        files: &config::Sources,
        node: &str,
        keeps_unknown: bool,
    ) {
        let config = &files.config;
        self.inputs.settings = Arc::new(Settings {
            fans: files.fans(),
            uplinks: config.node.uplink.clone(),
            uplink_hook: config.datapath.uplink_hook,
            host_filters: config.datapath.host_filters,
            flows: config.datapath.flows,
            nat_ports: config.datapath.nat_ports,
            vip_range: config.datapath.vip_range,
            keeps_unknown,
        });
        let input = Input::defining(&path.display().to_string(), &config.services);
        self.inputs.replace(SourceId::File, Input { node: node.into(), ..input });
        self.follow(&Dirty::All);
    }

    /// Whether services that no source names stay; says whether that is news.
    pub(super) fn set_keeps_unknown(&mut self, keeps_unknown: bool) -> bool {
        if self.inputs.settings.keeps_unknown == keeps_unknown {
            return false;
        }
        Arc::make_mut(&mut self.inputs.settings).keeps_unknown = keeps_unknown;
        self.follow(&Dirty::All);
        true
    }

    /// Follows changes of what was applied; gives what takes them back, and the services that changed by it.
    pub(super) fn change(&mut self, changes: &[Change]) -> (Vec<Change>, Dirty) {
        let (inverse, dirty) = make(&mut self.inputs, changes);
        (inverse, self.follow(&dirty))
    }

    /// Follows the presence of endpoints; gives the services that changed by it.
    pub(super) fn set_absent(&mut self, absent: &BTreeMap<Ipv4Addr, Down>) -> Dirty {
        let dirty = self.inputs.replace(SourceId::Presence, presence::input(absent));
        let changed = self.follow(&dirty);
        if let Dirty::Names(names) = &changed
            && !names.is_empty()
        {
            tracing::info!("services {names:?}: local backends changed");
        }
        changed
    }

    /// The changes that take drain marks away whose backends are no more.
    pub(super) fn stale_marks(&self) -> Vec<Change> {
        stale_marks(&self.inputs)
    }

    /// All that was applied.
    pub(super) fn applied(&self) -> Vec<(Name, Arc<Statement>)> {
        let stated = self.inputs.services(SourceId::Applied);
        stated.map(|(name, own)| (Arc::clone(name), Arc::clone(own))).collect()
    }

    fn follow(&mut self, dirty: &Dirty) -> Dirty {
        let (desired, changed) = desired(&self.inputs, &self.desired, dirty);
        self.desired = desired;
        Dirty::Names(changed)
    }
}
