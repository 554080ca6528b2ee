//! `build-ebpf`.

use std::{env, time::Instant};

use anyhow::{Context, Result};
use ebpf_build::{Feature, Place};

/// The checkout and target directory this process was built in.
pub(crate) fn place() -> Result<Place> {
    Place::of(&env::current_exe().context("finding the running program")?)
}

/// Builds the kernel programs, and fails where one outgrows its kind.
pub(crate) fn build_ebpf(place: &Place, log: bool) -> Result<()> {
    let start = Instant::now();
    let built = ebpf_build::build(place, if log { &[Feature::Log] } else { &[] })?;
    println!(
        "{}: {} bytes in {:.1} s, by {}",
        built.object.display(),
        built.size,
        start.elapsed().as_secs_f32(),
        built.compiler
    );
    println!("{:<20} {:>12} {:>6}", "program", "instructions", "stack");
    for (name, size) in &built.programs {
        println!("{name:<20} {:>12} {:>6}", size.instructions, size.stack);
    }
    if !log {
        return ebpf_build::check_sizes(&built.programs);
    }
    println!("To embed it in the agent: {}=1 cargo build -p fanlight", ebpf_build::LOG_VARIABLE);
    Ok(())
}
