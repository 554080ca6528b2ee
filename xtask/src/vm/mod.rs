//! `vm`: the kernels that are supported, booted under plain emulation.

mod archive;
mod ceilings;
mod guest;
mod kernel;
mod matrix;
mod module;
mod root;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use ebpf_build::Place;

pub(crate) use self::{
    kernel::Kernel,
    matrix::{Request, matrix, run_tests},
};
use crate::runner::Outcome;

/// What to run in which guest.
#[derive(Debug)]
pub(crate) struct VmSpec<'a> {
    pub(crate) kernel: &'a Kernel,
    /// Files of this machine and their names in `/payload`, the command's directory.
    pub(crate) payload: Vec<(PathBuf, String)>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) command: Vec<String>,
    /// One virtual CPU, whose nanoseconds are instructions: a duration depends on the code alone.
    pub(crate) instruction_clock: bool,
    /// Our terminal is the command's.
    pub(crate) interactive: bool,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) limit: Duration,
}

/// What a guest's command came to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    /// What test binaries among its output came to.
    pub(crate) tests: Outcome,
    /// What it left in `/out`.
    pub(crate) files: PathBuf,
    pub(crate) took: Duration,
}

impl<'a> VmSpec<'a> {
    pub(crate) fn new(kernel: &'a Kernel, command: &[&str]) -> Self {
        Self {
            kernel,
            payload: Vec::new(),
            environment: Vec::new(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            instruction_clock: false,
            interactive: false,
            cpus: 2,
            memory_mib: 1536,
            limit: Duration::from_secs(1800),
        }
    }
}

/// Boots a guest, runs the command in it with its output on ours, and ends it.
pub(crate) fn run(place: &Place, spec: &VmSpec<'_>) -> Result<Output> {
    let kind = if spec.instruction_clock { "-clock" } else { "" };
    guest::boot(spec, &place.target.join("vm/guests").join(format!("{}{kind}", spec.kernel.series)))
}
