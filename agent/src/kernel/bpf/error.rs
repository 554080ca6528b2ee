use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// What went wrong between the agent and the kernel's BPF side: what failed, why, and what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}{}", advice(source))]
    Call {
        /// What it was for.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel programs could not be loaded.
    #[error("loading the kernel programs: {}", chain(source))]
    Load {
        /// aya's answer.
        #[from]
        source: EbpfError,
    },
    /// One program could not be loaded or run.
    #[error("kernel program {name}: {}", program_reason(source))]
    Program {
        name: String,
        /// aya's answer.
        source: Box<ProgramError>,
    },
    /// A map could not be used.
    #[error("map {name}: {}", chain(source))]
    Map {
        name: String,
        /// aya's answer.
        source: Box<MapError>,
    },
    /// The embedded object lacks a part.
    #[error("the embedded kernel object has no {what}; build it again with `cargo xtask build-ebpf`")]
    Object {
        /// What is missing.
        what: String,
    },
    /// A newer version's datapath is in place.
    #[error(
        "the datapath in place has layout {found}, this version knows layouts up to {known}; use a version of \
         fanlight that knows layout {found}"
    )]
    NewerLayout {
        /// The layout found.
        found: u32,
        /// The latest of this version.
        known: u32,
    },
    /// A pinned map is not the one that the programs need.
    #[error(
        "pinned map {} has {property} {found}, but {expected} is needed; take the fans down with the fanlight that \
         made it, or remove that file",
        path.display()
    )]
    OtherMap {
        /// Where it is pinned.
        path: PathBuf,
        /// What differs.
        property: &'static str,
        /// As it is.
        found: u32,
        /// As it ought to be.
        expected: u32,
    },
    /// All fan slots are taken.
    #[error("publishing the fan: this node has {0} fans, and no more are possible; take one down first")]
    NoSlot(usize),
    /// A frame that the kernel makes no packet of.
    #[error("a frame of {0} bytes is too long for a test run; kernels take up to about 16,000")]
    Frame(usize),
    /// More flows than memory.
    #[error("{flows} flows take {needed} MiB, and this host has {memory} MiB; use auto, or at most {most}")]
    Memory {
        /// How many are wanted.
        flows: u32,
        /// MiB that they take.
        needed: u64,
        /// MiB that the host has.
        memory: u64,
        /// The most flows that may be wanted.
        most: u64,
    },
    /// A table of services is full.
    #[error(
        "the table of {what} is full ({most}); remove services, or wait until the flows of former backends end"
    )]
    Full {
        /// What it holds.
        what: &'static str,
        /// How much of it.
        most: u64,
    },
    /// Services are IPv4.
    #[error("{0} is no IPv4 address; give it one")]
    NotV4(std::net::IpAddr),
    /// An operation on a service that the kernel doesn't hold.
    #[error("the kernel holds no service on {0}; look again")]
    NoService(control::service::Vip),
    /// Only the maps were opened.
    #[error("attaching a program: the programs were not loaded")]
    NotLoaded,
}

/// A result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn map(name: &str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { name: name.to_owned(), source: Box::new(source) }
    }

    /// Whether somebody else has the place.
    pub(super) fn is_taken(&self) -> bool {
        let Self::Call { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
    }

    pub(super) fn program(name: &str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { name: name.to_owned(), source: Box::new(source) }
    }
}

/// Names what a failed system call was for.
pub(super) trait Context<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Call { what: what(), source })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).during(what)
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        _ => "",
    }
}

/// aya's errors with their causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut denied = is_denied(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        denied |= is_denied(error);
        cause = error.source();
    }
    let line = text.lines().next().unwrap_or_default().to_owned();
    if denied { line + "; run it as root" } else { line }
}

fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The verifier's log has hundreds of lines: the last that says something is the reason, the rest goes to the trace.
fn program_reason(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return chain(error) };
    let log = verifier_log.to_string();
    tracing::debug!("verifier log: {log}");
    let figures = ["processed ", "verification time", "stack depth"];
    let reason = log.lines().rev().map(str::trim);
    let mut reason = reason.filter(|line| !line.is_empty() && !figures.iter().any(|it| line.starts_with(it)));
    let reason = reason.next();
    match reason {
        Some(reason) => format!("the kernel's verifier refused it: {reason} ({io_error})"),
        None => format!("{io_error}{}", advice(io_error)),
    }
}
