//! The one function that brings all inputs together.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{
    Definition, Desired, Dirty, Entry, Inputs, Name, SourceId, Statement, Topic,
    clash::{homeless, obstacle},
};
use crate::service::{Backend, Outage, Service, Vip};

/// What a node is to be like by what its sources say, and the names of the services that differ from `former`.
///
/// `dirty` are the services of which anything was said since `former` was made; [`Dirty::All`] makes everything anew.
/// Whatever the way, the value is the same.
pub fn desired(inputs: &Inputs, former: &Desired, dirty: &Dirty) -> (Arc<Desired>, BTreeSet<Name>) {
    let names: BTreeSet<Name> = match dirty {
        Dirty::All => inputs.names().chain(former.entries.keys()).cloned().collect(),
        Dirty::Names(names) => touched(inputs, former, names),
    };
    let mut next = former.clone();
    next.generation += 1;
    next.is_clustered = inputs.is_clustered();
    next.settings = Arc::clone(inputs.settings());
    next.down = Arc::clone(inputs.all_down());
    next.faults = Arc::clone(inputs.faults());
    for name in &names {
        next.forget(name, inputs);
    }
    if *dirty == Dirty::All {
        (next.clashes, next.notes) = Default::default();
    }
    let contributors = inputs.contributors();
    for source in inputs.sources() {
        for name in &names {
            let Some(statement) = inputs.get(source, name) else { continue };
            next.note(name, &statement.notes);
            let Some(definition) = &statement.definition else { continue };
            let why = match inputs.resolve(&definition.vip) {
                None => Some(homeless(inputs, name, &definition.vip)),
                Some(vip) => match obstacle(inputs, &next, (source, name), vip, statement) {
                    None => {
                        let what = (vip, definition, hashed(inputs, statement, vip));
                        next.take(former, name, entry(inputs, &contributors, source, name, what));
                        next.get(name).and_then(|entry| moved(entry))
                    }
                    why => why,
                },
            };
            if let Some(why) = why {
                next.clashes.insert_mut((Arc::clone(name), source), why);
            }
        }
    }
    names.iter().for_each(|name| next.note_kept(name));
    let changed = names.into_iter().filter(|name| !is_same(next.get(name), former.get(name)));
    let changed = changed.collect();
    (Arc::new(next), changed)
}

/// The address that a VIP's name hashes to, where the VIP has another.
fn hashed(inputs: &Inputs, statement: &Statement, vip: Vip) -> Option<Ipv4Addr> {
    let name = statement.definition.as_ref()?.vip.name()?;
    inputs.index.named().hashed(name).filter(|hashed| vip.address != *hashed)
}

/// What is told of a service whose VIP is not where its name hashes to.
fn moved(entry: &Entry) -> Option<String> {
    let (Service { name, vip, .. }, hashed) = (&entry.defined, entry.hashed?);
    Some(format!(
        "vip-collision {name}: {hashed}, which its VIP's name hashes to, is another's; it has {}: give one of them an \
         address of its own",
        vip.address
    ))
}

fn is_same(entry: Option<&Arc<Entry>>, former: Option<&Arc<Entry>>) -> bool {
    match (entry, former) {
        (Some(entry), Some(former)) => Arc::ptr_eq(entry, former),
        (None, None) => true,
        _ => false,
    }
}

impl Desired {
    fn forget(&mut self, name: &Name, inputs: &Inputs) {
        if let Some(entry) = self.entries.get(name) {
            let vip = entry.defined.vip;
            self.names.remove_mut(&vip);
            self.entries.remove_mut(name);
        }
        for source in inputs.sources() {
            self.clashes.remove_mut(&(Arc::clone(name), source));
        }
        self.forget_notes(name);
    }

    /// An entry that is as before stays the same one.
    fn take(&mut self, former: &Self, name: &Name, entry: Entry) {
        let same = former.get(name).filter(|former| ***former == entry);
        let entry = same.map_or_else(|| Arc::new(entry), Arc::clone);
        self.names.insert_mut(entry.defined.vip, Arc::clone(name));
        self.entries.insert_mut(Arc::clone(name), entry);
    }
}

/// These names and those whose definitions one of them may hide or uncover, now or before, and so on.
fn touched(inputs: &Inputs, former: &Desired, names: &BTreeSet<Name>) -> BTreeSet<Name> {
    let mut touched = BTreeSet::new();
    let mut open: Vec<Name> = names.iter().cloned().collect();
    while let Some(name) = open.pop() {
        if touched.contains(&name) {
            continue;
        }
        let was = former.get(&name).map(|entry| &entry.defined);
        let is = || inputs.sources().filter_map(|source| inputs.get(source, &name));
        let vips = is().filter_map(|own| inputs.resolve(&own.definition.as_ref()?.vip));
        // What others contribute counts, too.
        let backends =
            was.into_iter().flat_map(|was| &was.backends).chain(is().flat_map(|own| &own.backends));
        let index = &inputs.index;
        let vips = was.into_iter().map(|was| was.vip).chain(vips);
        let beside_vips = vips.flat_map(|vip| index.with_vip(vip).chain(index.with_backend(vip.address)));
        let beside = beside_vips.chain(backends.flat_map(|backend| index.with_vip_address(backend.address)));
        open.extend(beside.map(|(_, name)| name).filter(|name| !touched.contains(*name)).cloned());
        touched.insert(name);
    }
    touched
}

/// A service by its definition and what the sources contribute.
fn entry(
    inputs: &Inputs,
    contributors: &[SourceId],
    origin: SourceId,
    name: &Name,
    (vip, definition, hashed): (Vip, &Definition, Option<Ipv4Addr>),
) -> Entry {
    let counts = |source: SourceId, own: &Statement| source == origin || own.definition.is_none();
    let mut sockets = BTreeSet::new();
    let mut backends: Vec<Backend> = Vec::new();
    for &source in contributors {
        let Some(own) = inputs.get(source, name).filter(|own| counts(source, own)) else { continue };
        backends.extend(own.backends.iter().filter(|backend| sockets.insert(backend.socket())));
    }
    let statements: Vec<&Arc<Statement>> =
        inputs.sources().filter_map(|source| inputs.get(source, name)).collect();
    let is_drained = |socket: SocketAddr| statements.iter().any(|own| own.drained.contains(&socket));
    let Definition { algorithm, checking, .. } = definition.clone();
    let defined = Service { name: name.to_string(), vip, algorithm, checking, backends };
    let provenance = inputs.get(origin, name).map(|own| Arc::clone(&own.provenance)).unwrap_or_default();
    let is_conflict =
        statements.iter().any(|own| own.notes.iter().any(|(topic, _)| *topic == Topic::Conflict));
    let mut entry = Entry { hashed, is_conflict, provenance, ..Entry::new(defined, origin) };
    let is_checked = |socket: SocketAddr| statements.iter().find_map(|own| own.checked.get(&socket).copied());
    entry.set_out(is_drained, is_checked, |backend| {
        let absent = inputs.all_down().get(&backend.address).map(|why| Outage::from(*why));
        let stated = statements.iter().filter_map(|own| own.down.get(&backend.socket()).copied());
        let both = |one: Outage, other: Outage| Outage { is_kept: one.is_kept && other.is_kept, ..one };
        absent.into_iter().chain(stated).reduce(both)
    });
    entry
}
