//! A source of services as it is followed: what each of its parts said last, whatever becomes of the source.
//!
//! All sources that the configuration lists come in by this door: they tell [`News`] and nothing else. What is lost or
//! wrong takes no service away; only a part that is gone does, and a part is gone when the source says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use control::desired::{Name, Statement};
use ipnet::Ipv4Net;

use super::config::{
    FileProblem, Problem, SourceSpec,
    service::{Placed, check_addresses},
};

/// What a part of a source is called: a file's path.
pub(crate) type PartName = Arc<str>;
/// What a part says, or what is wrong with it.
pub(crate) type Part = Result<Vec<Placed>, Vec<Problem>>;

/// Reasons of one kind that are named; the rest is counted.
const NAMED: usize = 10;

/// What a source tells.
#[derive(Debug)]
pub(crate) enum News {
    /// All that it has, at its start and after a loss: what is not among it is gone.
    Snapshot(Vec<(PartName, Part)>),
    /// Parts that say something else; `None` is gone.
    Changes(Vec<(PartName, Option<Part>)>),
    /// It can't be followed, and why. A snapshot comes when it can again.
    Lost(String),
}

/// A source, and what is followed of it.
#[derive(Debug)]
pub(crate) struct Followed {
    /// Which one it is.
    pub(crate) spec: SourceSpec,
    parts: BTreeMap<PartName, Kept>,
    /// Which parts define a service: the first is followed.
    defines: BTreeMap<Name, BTreeSet<PartName>>,
    /// Services that several parts define.
    doubled: BTreeSet<Name>,
    /// Parts that are wrong.
    bad: BTreeSet<PartName>,
    lost: Option<String>,
    has_begun: bool,
    /// It was followed before: the kernel may hold services of it that nobody can name yet.
    was_followed: bool,
}

/// What is kept of a part.
#[derive(Debug, Default)]
struct Kept {
    /// What it said when it was right.
    good: BTreeMap<Name, Arc<Statement>>,
    /// What is wrong with it now.
    problems: Vec<Problem>,
    /// It was wrong from the start.
    is_unknown: bool,
}

impl Followed {
    /// A source that has told nothing yet. `was_followed`: a former agent may have followed it.
    pub(crate) fn new(spec: SourceSpec, was_followed: bool) -> Self {
        Self {
            spec,
            parts: BTreeMap::new(),
            defines: BTreeMap::new(),
            doubled: BTreeSet::new(),
            bad: BTreeSet::new(),
            lost: None,
            has_begun: false,
            was_followed,
        }
    }

    /// Follows what it tells, beside these overlays; gives the services that it may say something else of.
    pub(crate) fn follow(&mut self, news: News, overlays: &[Ipv4Net]) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        match news {
            News::Lost(why) => self.lost = Some(why),
            News::Changes(changes) => {
                for (part, content) in changes {
                    self.take(part, content, overlays, &mut names);
                }
            }
            News::Snapshot(parts) => {
                self.lost = None;
                let there: BTreeSet<&PartName> = parts.iter().map(|(part, _)| part).collect();
                let gone: Vec<_> = self.parts.keys().filter(|part| !there.contains(part)).cloned().collect();
                for part in gone {
                    self.take(part, None, overlays, &mut names);
                }
                for (part, content) in parts {
                    self.take(part, Some(content), overlays, &mut names);
                }
                self.has_begun = true;
            }
        }
        names
    }

    fn take(
        &mut self,
        part: PartName,
        content: Option<Part>,
        overlays: &[Ipv4Net],
        names: &mut BTreeSet<Name>,
    ) {
        let former = self.parts.remove(&part);
        for name in former.iter().flat_map(|kept| kept.good.keys()) {
            self.define(name, |parts| parts.remove(&part));
            names.insert(Arc::clone(name));
        }
        self.bad.remove(&part);
        let Some(content) = content else { return };
        let right = content.and_then(|placed| match check_addresses(&placed, overlays) {
            problems if problems.is_empty() => Ok(placed),
            problems => Err(problems),
        });
        let kept = match right {
            Ok(placed) => Kept { good: statements(&part, &placed), ..Kept::default() },
            Err(problems) => {
                let is_new = former.is_none();
                let former = former.unwrap_or_default();
                let is_unknown = former.is_unknown || (is_new && self.was_followed && !self.has_begun);
                let good = former.good.into_iter().filter(|(_, own)| !lies_in(own, overlays)).collect();
                self.bad.insert(Arc::clone(&part));
                Kept { good, problems, is_unknown }
            }
        };
        for name in kept.good.keys() {
            self.define(name, |parts| parts.insert(Arc::clone(&part)));
            names.insert(Arc::clone(name));
        }
        self.parts.insert(part, kept);
    }

    fn define(&mut self, name: &Name, change: impl FnOnce(&mut BTreeSet<PartName>) -> bool) {
        let parts = self.defines.entry(Arc::clone(name)).or_default();
        change(parts);
        match parts.len() {
            2.. => self.doubled.insert(Arc::clone(name)),
            _ => self.doubled.remove(name),
        };
        if parts.is_empty() {
            self.defines.remove(name);
        }
    }

    /// What it says of a service.
    pub(crate) fn statement(&self, name: &Name) -> Option<Arc<Statement>> {
        let part = self.defines.get(name)?.first()?;
        self.parts.get(part)?.good.get(name).cloned()
    }

    /// All services that it says something of.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.defines.keys()
    }

    /// Whether the kernel may hold services of it that nobody can name: it was not read since the agent's start.
    pub(crate) fn is_unsure(&self) -> bool {
        let is_unknown = |part| self.parts.get(part).is_some_and(|kept: &Kept| kept.is_unknown);
        self.was_followed && (!self.has_begun || self.bad.iter().any(is_unknown))
    }

    /// All that is wrong with its parts.
    pub(crate) fn problems(&self) -> Vec<FileProblem> {
        let bad = self.bad.iter().filter_map(|part| Some((part, self.parts.get(part)?)));
        let in_file = |part: &PartName, problem: &Problem| FileProblem {
            file: PathBuf::from(&**part),
            problem: problem.clone(),
        };
        bad.flat_map(|(part, kept)| {
            kept.problems.iter().map(|problem| in_file(part, problem)).collect::<Vec<_>>()
        })
        .collect()
    }

    /// What can't be followed of it, for people.
    pub(crate) fn faults(&self) -> Vec<String> {
        let lost = self.lost.iter().map(|why| {
            format!(
                "source-lost {}: {why}; what it said last holds: put it right, or remove the source",
                self.spec
            )
        });
        let bad = self.bad.iter().filter_map(|part| fault(part, self.parts.get(part)?));
        let doubled = self.doubled.iter().flat_map(|name| {
            let parts = self.defines.get(name).into_iter().flatten();
            let first = parts.clone().next();
            parts.skip(1).zip(first.into_iter().cycle()).map(move |(part, first)| {
                format!("source-file {part}: service {name}: {first} has it too, and is followed; remove it from one of them")
            })
        });
        let (bad, doubled) = (some(bad.collect(), &self.spec), some(doubled.collect(), &self.spec));
        lost.chain(bad).chain(doubled).collect()
    }
}

fn statements(part: &PartName, placed: &[Placed]) -> BTreeMap<Name, Arc<Statement>> {
    let stated = placed.iter().map(|Placed { service, .. }| {
        let statement = Statement { place: Some(Arc::clone(part)), ..Statement::of(service) };
        (Name::from(service.name.as_str()), Arc::new(statement))
    });
    stated.collect()
}

/// Whether its VIP lies in one of these networks.
fn lies_in(statement: &Statement, networks: &[Ipv4Net]) -> bool {
    let vip = statement.definition.as_ref().and_then(|definition| definition.vip.at());
    matches!(vip.map(|vip| vip.address), Some(IpAddr::V4(vip)) if networks.iter().any(|network| network.contains(&vip)))
}

fn fault(part: &PartName, kept: &Kept) -> Option<String> {
    let [problem, more @ ..] = kept.problems.as_slice() else { return None };
    let problem = FileProblem { file: PathBuf::from(&**part), problem: problem.clone() };
    let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
    let kept = if kept.good.is_empty() {
        "nothing of the file is followed"
    } else {
        "the file's last content is followed"
    };
    Some(format!("source-file {problem}{more}; {kept}"))
}

fn some(mut faults: Vec<String>, spec: &SourceSpec) -> Vec<String> {
    let more = faults.len().saturating_sub(NAMED);
    if more > 0 {
        faults.truncate(NAMED);
        faults.push(format!("source-file {spec}: and {more} more of the kind"));
    }
    faults
}

#[cfg(test)]
mod tests;
