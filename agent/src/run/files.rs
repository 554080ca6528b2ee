//! The files of the configuration.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use control::model::PortRange;

use super::{
    sources::Door,
    stage::{Loaded, Loading},
};
use crate::{
    inspect::status::host_name,
    kernel::reserved_ports,
    sources::config::{self, ConfigError, FANS_FILE},
};

/// Reads the configuration.
pub(super) fn load(path: &Path) -> Result<config::Sources, ConfigError> {
    let sources = config::load(path, Path::new(FANS_FILE))?;
    if let Ok(host) = host_name() {
        sources.check_name(path, &host)?;
    }
    // Where the range can't be read, the ports are not reserved either, and that is reported.
    if let Ok((first, last)) = reserved_ports::local() {
        sources.check_beside(path, PortRange(first, last))?;
    }
    Ok(sources)
}

/// Reads the configuration and the sources that it lists, or says all that is wrong. Blocks.
pub(super) fn load_all(path: &Path, door: &Door) -> Loading {
    let sources = load(path).map_err(|error| error.lines())?;
    let opened = door.open(&sources.config.sources);
    let opened =
        opened.map_err(|error| vec![format!("sources: {error}; see whether the host is out of threads")])?;
    Ok(Box::new(Loaded { sources, opened }))
}

/// The node's name.
pub(super) fn name(files: &config::Sources) -> Result<Arc<str>> {
    let name = files.config.node.name.clone().map_or_else(host_name, Ok);
    Ok(name.context("agent: the host's name")?.into())
}
