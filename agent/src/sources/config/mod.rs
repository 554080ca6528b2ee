//! Configuration: `fanlight.toml`, the file of fans, and fanctl's operands, checked before anything is done.
//!
//! Errors name file, line, key, and what would be right. Nothing here looks at the host.

mod announce;
mod bgp;
pub mod check;
mod cluster;
mod duration;
pub mod fans;
mod file;
pub mod format;
mod health;
mod json;
pub mod operands;
mod problem;
mod section;
pub mod service;
mod source;
mod tree;
mod yaml;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use control::model::{HostFilters, PortRange, UplinkHook};
use control::{
    announce::Announcement,
    cluster::identity::NodeName,
    desired::{Desired, Dirty, Input, Inputs, Settings, SourceId, desired},
    model::{FanSpec, Origin, difference},
    service::{Declared, Service},
};
use ipnet::Ipv4Net;

pub use self::{
    bgp::{BgpConfig, Password, PeerConfig},
    cluster::{ClusterConfig, SecretKeys},
    problem::{ConfigError, FileProblem, Problem},
    source::SourceSpec,
};

use self::{
    fans::{FileLine, wanted},
    file::Document,
};

/// Where the configuration is unless said otherwise.
pub const CONFIG_FILE: &str = "/etc/fanlight/fanlight.toml";
/// Where the file of fans is.
pub const FANS_FILE: &str = "/etc/fanlight/fans";

/// Where clients find the agent; a socket that is configured elsewhere is reached from here, too.
pub const SOCKET: &str = "/run/fanlight/api.sock";

/// What `fanlight.toml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[node]`
    pub node: NodeConfig,
    /// `[datapath]`
    pub datapath: DatapathConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[cluster]`
    pub cluster: Option<Box<ClusterConfig>>,
    /// `[bgp]`
    pub bgp: Option<Box<BgpConfig>>,
    /// `[[announce]]`
    pub announcements: Vec<Announcement>,
    /// `[[fan]]`
    pub fans: Vec<FanSpec>,
    /// `[[service]]`
    pub services: Vec<Declared>,
    /// `[[source]]`
    pub sources: Vec<SourceSpec>,
}

impl Config {
    /// The services of this file alone, named VIPs with the addresses that they have then.
    pub fn resolved(&self) -> Vec<Service> {
        let mut inputs = Inputs::default();
        inputs.set_settings(Settings { vip_range: self.datapath.vip_range, ..Settings::default() });
        inputs.replace(SourceId::File, Input::defining("", &self.services));
        let (desired, _) = desired(&inputs, &Desired::default(), &Dirty::All);
        desired.entries().map(|entry| entry.wanted.clone()).collect()
    }
}

/// `[node]`: the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name; the host's own when absent.
    pub name: Option<String>,
    /// Its underlay interfaces; found by the fans' underlays when empty.
    pub uplink: Vec<String>,
}

/// `[datapath]`: how packets are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatapathConfig {
    /// What is attached to the uplink.
    pub uplink_hook: UplinkHook,
    /// What is done about others' packet filters.
    pub host_filters: HostFilters,
    /// How many flows the table holds; as the memory allows when absent.
    pub flows: Option<u32>,
    /// Network of named VIPs, whose addresses are all routed to the datapath.
    pub vip_range: Option<Ipv4Net>,
    /// Source ports of flows whose source is translated.
    pub nat_ports: PortRange,
}

/// `[api]`: how the agent is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it listens for readers by TCP; nowhere when absent.
    pub listen: Option<SocketAddr>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { socket: PathBuf::from(SOCKET), listen: None }
    }
}

/// Both files together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// `fanlight.toml`.
    pub config: Config,
    /// The lines of the file of fans; a bad one concerns that fan only.
    pub lines: Vec<FileLine>,
    /// The line of `datapath.nat-ports`, where it is given.
    nat_ports_line: Option<usize>,
    /// Lines of keys that are refused after the file was read, by name.
    lines_of_keys: BTreeMap<String, usize>,
}

impl Sources {
    /// Every fan that is asked for once, and where.
    pub fn fans(&self) -> Vec<(FanSpec, Origin)> {
        let config = self.config.fans.iter().map(|spec| (spec.clone(), Origin::Config));
        let file = wanted(&self.lines)
            .filter(|(_, line)| self.config.fans.iter().all(|spec| spec.overlay != line.spec.overlay))
            .map(|(_, line)| (line.spec.clone(), Origin::File));
        config.chain(file).collect()
    }

    /// Checks the host's name where a member of a cluster has no other: members go by host name labels.
    ///
    /// # Errors
    /// It is none.
    pub fn check_name(&self, config: &Path, host: &str) -> Result<(), ConfigError> {
        if self.config.cluster.is_none() || self.config.node.name.is_some() {
            return Ok(());
        }
        NodeName::new(host).map(|_name| ()).map_err(|error| {
            let message = format!("is missing, and the host's {error}; set it");
            ConfigError { problems: vec![self.problem(config, "node.name", message)] }
        })
    }

    /// What is wrong with a key of `fanlight.toml`, with its line, or that of its table.
    pub fn problem(&self, config: &Path, key: &str, message: String) -> FileProblem {
        let table = key.split('.').next().unwrap_or_default();
        let line = self.lines_of_keys.get(key).or_else(|| self.lines_of_keys.get(table)).copied();
        FileProblem { file: config.to_owned(), problem: Problem { line, key: key.to_owned(), message } }
    }

    /// Checks what depends on the host: that a given range of ports leaves it enough of those that its sockets get. The
    /// default's trouble is shown when it is put to use.
    ///
    /// # Errors
    /// It doesn't.
    pub fn check_beside(&self, config: &Path, local: PortRange) -> Result<(), ConfigError> {
        let Some(line) = self.nat_ports_line else { return Ok(()) };
        self.config.datapath.nat_ports.check_beside(local).map_err(|message| {
            let problem = Problem { line: Some(line), key: "datapath.nat-ports".to_owned(), message };
            ConfigError { problems: vec![FileProblem { file: config.to_owned(), problem }] }
        })
    }
}

/// Reads and checks both files.
///
/// A file of fans that is not there is empty, and so is `fanlight.toml` in its usual place.
pub fn load(config: &Path, fans: &Path) -> Result<Sources, ConfigError> {
    let optional = config == Path::new(CONFIG_FILE);
    let document = match read(config)? {
        Some(text) => parse_config(config, &text)?,
        None if optional => parse_config(config, "")?,
        None => return Err(whole_file(config, "no such file; create it or name another".to_owned())),
    };
    let lines = load_fans(fans)?;
    let sources = combine(config, document, fans, lines)?;
    with_keys(sources, config)
}

/// Reads the files of keys and passwords that the configuration names.
fn with_keys(mut sources: Sources, config: &Path) -> Result<Sources, ConfigError> {
    let mut problems = Vec::new();
    if let Some(cluster) = &mut sources.config.cluster {
        match cluster.key_file.as_deref().map(cluster::read_keys).transpose() {
            Ok(keys) => cluster.keys = keys,
            Err(message) => {
                let line = sources.lines_of_keys.get("cluster.keys").copied();
                problems.push(Problem { line, key: "cluster.keys".to_owned(), message });
            }
        }
    }
    if let Some(bgp) = &mut sources.config.bgp {
        let line = sources.lines_of_keys.get("bgp.peer").or_else(|| sources.lines_of_keys.get("bgp"));
        problems.extend(bgp::with_passwords(bgp, line.copied()));
    }
    let of_file = |problem| FileProblem { file: config.to_owned(), problem };
    match problems.is_empty() {
        true => Ok(sources),
        false => Err(ConfigError { problems: problems.into_iter().map(of_file).collect() }),
    }
}

/// Reads the file of fans; one that is not there has no lines.
pub fn load_fans(path: &Path) -> Result<Vec<FileLine>, ConfigError> {
    Ok(read(path)?.map(|text| fans::parse(&text)).unwrap_or_default())
}

/// What is wrong with single lines of the file of fans.
pub fn bad_lines(path: &Path, lines: &[FileLine]) -> Vec<FileProblem> {
    let problems = lines.iter().filter_map(|line| line.fan.as_ref().err().cloned());
    problems.map(|problem| FileProblem { file: path.to_owned(), problem }).collect()
}

fn parse_config(path: &Path, text: &str) -> Result<Document, ConfigError> {
    file::parse(text).map_err(|problems| ConfigError {
        problems: problems
            .into_iter()
            .map(|problem| FileProblem { file: path.to_owned(), problem })
            .collect(),
    })
}

/// A fan may stand in both files only with the same values, and no two may overlap; services fit to the fans of both.
fn combine(
    config: &Path,
    document: Document,
    fans: &Path,
    lines: Vec<FileLine>,
) -> Result<Sources, ConfigError> {
    let mut problems = Vec::new();
    for (number, line) in wanted(&lines) {
        for (spec, at) in document.config.fans.iter().zip(&document.fan_lines) {
            let clash = if spec.overlay == line.spec.overlay {
                difference(spec, &line.spec).map(|what| format!("fan {}: {what}", spec.overlay))
            } else {
                check::conflict(spec, &line.spec)
            };
            if let Some(why) = clash {
                let message = format!("{why} ({}:{at}); change or remove one of them", config.display());
                let problem = Problem { line: Some(number), key: String::new(), message };
                problems.push(FileProblem { file: fans.to_owned(), problem });
            }
        }
    }
    let Document { config: said, nat_ports_line, lines: lines_of_keys, .. } = document;
    let mut sources = Sources { config: said, lines, nat_ports_line, lines_of_keys };
    let overlays: Vec<_> = sources.fans().into_iter().map(|(spec, _)| spec.overlay).collect();
    if let Some(range) = sources.config.datapath.vip_range
        && let Some(overlay) = overlays.iter().find(|overlay| check::share_addresses(**overlay, range))
    {
        let message = format!("{range} overlaps overlay {overlay}; use another network");
        let problem = Problem { line: None, key: "datapath.vip-range".to_owned(), message };
        problems.push(FileProblem { file: config.to_owned(), problem });
    }
    let mut wrong = service::check_addresses(&document.services, &overlays);
    wrong.extend(service::check_range(&document.services, sources.config.datapath.vip_range));
    problems.extend(wrong.into_iter().map(|problem| FileProblem { file: config.to_owned(), problem }));
    sources.config.services = document.services.into_iter().map(|placed| placed.service).collect();
    if let Some(why) = check::too_many(sources.fans().len()) {
        let problem = Problem { line: None, key: String::new(), message: why };
        problems.push(FileProblem { file: fans.to_owned(), problem });
    }
    if problems.is_empty() { Ok(sources) } else { Err(ConfigError { problems }) }
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(whole_file(path, format!("can't be read: {error}; make it a readable text file"))),
    }
}

fn whole_file(path: &Path, message: String) -> ConfigError {
    let problem = Problem { line: None, key: String::new(), message };
    ConfigError { problems: vec![FileProblem { file: path.to_owned(), problem }] }
}

/// "did you mean" for the nearest of `known`, when one is near.
pub(crate) fn suggest(word: &str, known: &[&str]) -> Option<String> {
    /// Below this Jaro-Winkler similarity a suggestion misleads more than it helps (clap uses 0.7 as well).
    const NEAR: f64 = 0.7;
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("did you mean '{candidate}'?"))
}

#[cfg(test)]
mod tests;
