//! The project's own commands.

mod build;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fanlight's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel programs into one object
    BuildEbpf {
        /// Compile log lines in (slow; a debugging aid)
        #[arg(long)]
        log: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::BuildEbpf { log } => build::build_ebpf(log),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
