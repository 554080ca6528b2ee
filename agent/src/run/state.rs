//! What the node is to be like, as the event loop holds it: what the sources say, and what follows from it.

mod speaking;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
};

use control::{
    desired::{
        Change, Desired, Dirty, Input, Inputs, Name, Reserved, Settings, SourceId, Statement, desired, make,
        stale,
    },
    service::{Down, ServiceState},
};
use ipnet::Ipv4Net;

use super::{
    sources::{Listed, Number},
    speaker::Speaker,
};
use crate::{
    cluster::Stating,
    sources::{
        checked, config,
        followed::{Followed, News},
        presence,
    },
};

/// Files that are to be followed.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) path: PathBuf,
    pub(super) sources: Arc<config::Sources>,
    pub(super) node: Arc<str>,
}

/// Inputs and the desired state.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) inputs: Inputs,
    pub(super) desired: Arc<Desired>,
    /// Who speaks of services.
    pub(super) speaker: Speaker,
    /// Where this node's own sources say to a cluster what they have.
    pub(super) stating: Option<Stating>,
    /// What was applied, as it was said to the cluster last.
    pub(super) handed: Vec<(Name, Arc<Statement>)>,
    /// The sources that the files list, in their order.
    listed: Vec<(Number, Followed)>,
    /// Addresses that no named VIP may have.
    reserved: Reserved,
    /// Services may have been applied that nobody can name.
    has_lost: bool,
    has_begun: bool,
}

impl State {
    /// A state without sources, after an agent that left these services.
    pub(super) fn after(left: &[ServiceState], reserved: Reserved) -> Self {
        let mut state = Self::default();
        state.set_reserved(reserved);
        state.set_absent(&presence::absent(left));
        state.set_found(checked::left(left), true);
        state
    }

    /// Follows files and the sources that they list; `has_lost`: services may have been applied that nobody can name.
    pub(super) fn set_files(&mut self, files: &Files, listed: Vec<Listed>, has_lost: bool) {
        let Files { path, sources, node } = files;
        let config = &sources.config;
        self.has_lost = has_lost;
        if !self.has_begun && config.cluster.is_some() {
            self.await_cluster();
        }
        self.inputs.set_settings(Settings {
            fans: sources.fans(),
            uplinks: config.node.uplink.clone(),
            uplink_hook: config.datapath.uplink_hook,
            host_filters: config.datapath.host_filters,
            flows: config.datapath.flows,
            nat_ports: config.datapath.nat_ports,
            vip_range: config.datapath.vip_range,
            keeps_unknown: false,
        });
        // Which of them lie in the range was found out for the former one.
        self.inputs.set_reserved(self.reserved.clone());
        let input = Input::defining(&path.display().to_string(), &config.services);
        self.inputs.replace(SourceId::File, Input { node: Arc::clone(node), ..input });
        self.inputs.describe(SourceId::Applied, "", node);
        self.list(listed, node);
        self.set_keeps_unknown();
        self.follow(&Dirty::All);
        self.has_begun = true;
        self.say_all();
    }

    /// Follows these sources instead of the former ones. One that was followed already goes on from what it said last.
    fn list(&mut self, listed: Vec<Listed>, node: &Name) {
        let mut former = std::mem::take(&mut self.listed);
        (0..former.len()).for_each(|place| self.inputs.remove(source(place)));
        for (place, Listed { number, spec, first }) in listed.into_iter().enumerate() {
            let known = former.iter().position(|(_, followed)| followed.spec == spec);
            let known = known.map(|place| former.swap_remove(place).1);
            let mut followed = known.unwrap_or_else(|| Followed::new(spec, !self.has_begun));
            followed.follow(first, &self.overlays());
            self.inputs.describe(source(place), &followed.spec.to_string(), node);
            for name in followed.names() {
                self.inputs.state(source(place), name, followed.statement(name));
            }
            self.inputs.set_faults(source(place), followed.faults());
            self.listed.push((number, followed));
        }
    }

    /// Follows what a source tells; gives the services that changed by it. A source that is followed no more is not heard.
    pub(super) fn hear(&mut self, number: Number, news: News) -> Dirty {
        let overlays = self.overlays();
        let Some(place) = self.listed.iter().position(|(own, _)| *own == number) else {
            return Dirty::default();
        };
        let (_, followed) = &mut self.listed[place];
        let names = followed.follow(news, &overlays);
        let said = |name: Name| self.inputs.state(source(place), &name, followed.statement(&name));
        let names: BTreeSet<Name> = names.into_iter().flat_map(said).collect();
        self.inputs.set_faults(source(place), followed.faults());
        self.say(&names);
        let is_all = self.set_keeps_unknown();
        let changed = self.follow(&Dirty::Names(names));
        if is_all { Dirty::All } else { changed }
    }

    /// Overlays of the files' fans.
    fn overlays(&self) -> Vec<Ipv4Net> {
        self.inputs.settings().fans.iter().map(|(spec, _)| spec.overlay).collect()
    }

    /// Whether the kernel may hold services that a source has, and that nobody can name.
    fn is_unsure(&self) -> bool {
        self.has_lost
            || self.speaker.is_unheard()
            || self.listed.iter().any(|(_, followed)| followed.is_unsure())
    }

    /// Whether services that no source names stay in the kernel; says whether that is news.
    pub(super) fn set_keeps_unknown(&mut self) -> bool {
        let keeps_unknown = self.is_unsure();
        let settings = self.inputs.settings();
        if settings.keeps_unknown == keeps_unknown {
            return false;
        }
        self.inputs.set_settings(Settings { keeps_unknown, ..(**settings).clone() });
        true
    }

    /// Whether services may have been applied that nobody can name; says whether that is news.
    pub(super) fn set_lost(&mut self, has_lost: bool) -> bool {
        self.has_lost = has_lost;
        let is_news = self.set_keeps_unknown();
        if is_news {
            self.follow(&Dirty::All);
        }
        is_news
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

    /// Follows what this node's checks have found; gives the services that changed by it. Where `is_whole`, they have found nothing of
    /// others.
    pub(super) fn set_found(&mut self, found: checked::Found, is_whole: bool) -> Dirty {
        let mut names = BTreeSet::new();
        if is_whole {
            let former = self.inputs.services(SourceId::Checks).map(|(name, _)| Arc::clone(name));
            let gone: Vec<Name> = former.filter(|name| !found.contains_key(name)).collect();
            names.extend(gone.iter().flat_map(|name| self.inputs.state(SourceId::Checks, name, None)));
        }
        for (name, found) in found {
            names.extend(self.inputs.state(SourceId::Checks, &name, checked::statement(found)));
        }
        if names.is_empty() { Dirty::default() } else { self.follow(&Dirty::Names(names)) }
    }

    /// Keeps named VIPs from addresses; gives the services that changed by it.
    pub(super) fn set_reserved(&mut self, reserved: Reserved) -> Dirty {
        self.reserved = reserved.clone();
        let dirty = self.inputs.set_reserved(reserved);
        if dirty.is_empty() { dirty } else { self.follow(&dirty) }
    }

    /// The changes that take away what is about nothing any more; none while that is not known.
    pub(super) fn stale(&self) -> Vec<Change> {
        if self.is_unsure() || self.inputs.is_clustered() { Vec::new() } else { stale(&self.inputs) }
    }

    /// All that was applied.
    pub(super) fn applied(&self) -> Vec<(Name, Arc<Statement>)> {
        let stated = self.inputs.services(SourceId::Applied);
        stated.map(|(name, own)| (Arc::clone(name), Arc::clone(own))).collect()
    }

    pub(super) fn follow(&mut self, dirty: &Dirty) -> Dirty {
        let (desired, changed) = desired(&self.inputs, &self.desired, dirty);
        self.desired = desired;
        Dirty::Names(changed)
    }
}

/// The source in a place of the list, which the configuration keeps short.
fn source(place: usize) -> SourceId {
    SourceId::Listed(u8::try_from(place).unwrap_or(u8::MAX))
}
