//! `[[source]]`: where further services come from.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use control::model::quoted;

use super::{
    problem::Problems,
    section::{Keys, Section},
};

pub(super) const SOURCE: Keys = Keys { known: &["kind", "path"], later: &[] };

/// Most sources of a file.
const MAX_SOURCES: usize = 16;
/// What an example of a path is.
const EXAMPLE: &str = "/etc/fanlight/services.d";

/// A source of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// Files of services in a directory.
    Directory(PathBuf),
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// All sources that are right.
pub(super) fn sources(root: &Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<SourceSpec> {
    let mut sources = Vec::new();
    for section in root.tables("source", problems) {
        let Some(source) = source(&section, problems) else { continue };
        if sources.contains(&source) {
            let why = format!("{source} is another source's path too; list it once");
            problems.add(&section.place("path"), section.key("path"), why);
        } else if sources.len() == MAX_SOURCES {
            let why = format!("a node has at most {MAX_SOURCES} sources; remove some");
            problems.add(&section.span, "source", why);
            break;
        } else {
            sources.push(source);
        }
    }
    sources
}

fn source(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<SourceSpec> {
    section.check_keys(&SOURCE, problems);
    for (key, example) in [("kind", "directory"), ("path", EXAMPLE)] {
        if section.get(key).is_none() {
            let why = format!("is missing; add one such as \"{example}\"");
            problems.add(&section.span, section.key(key), why);
        }
    }
    let kind = section.parsed("kind", kind, problems);
    let path = section.parsed("path", path, problems);
    kind.and(path).map(SourceSpec::Directory)
}

fn kind(text: &str) -> Result<(), String> {
    match text {
        "directory" => Ok(()),
        other => Err(format!("{} is unknown; use directory", quoted(other))),
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        let word = quoted(text);
        return Err(format!(
            "{word} is no path of a directory from the root on; write one such as {EXAMPLE}"
        ));
    }
    // The same path is written in one way: without empty parts and an end of '/'.
    Ok(path.components().collect())
}
