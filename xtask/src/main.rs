//! The project's own commands.

mod build;
mod ci;
mod clock;
mod command;
mod grace;
mod guests;
mod lab;
mod leaks;
#[cfg(test)]
mod rooms;
mod runner;
mod setup;
mod simulate;
#[cfg(test)]
mod tidy;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Fanlight's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check what building, testing and the lab need, and install what is missing
    Setup(Install),
    /// Build the kernel programs into one object
    BuildEbpf {
        /// Compile log lines in (slow; a debugging aid)
        #[arg(long)]
        log: bool,
    },
    /// Run unit and integration tests, and check that they leave nothing behind (root)
    Test {
        #[command(flatten)]
        install: Install,
        /// Run only integration tests whose names contain one of these
        filter: Vec<String>,
    },
    /// Show a small fleet of hosts in namespaces at work (root)
    Demo {
        #[command(flatten)]
        install: Install,
        /// Leave the fleet running, to look around in
        #[arg(long)]
        keep: bool,
        /// Remove fleets that were left running, and do nothing else
        #[arg(long, conflicts_with = "keep")]
        clean: bool,
    },
    /// Boot supported kernels under emulation, and run the tests that are marked for them
    Vm {
        #[command(flatten)]
        install: Install,
        /// Kernel series, like 6.1
        #[arg(required = true)]
        kernels: Vec<String>,
        /// Run the integration tests whose names contain this instead
        #[arg(long = "test", value_name = "FILTER")]
        tests: Vec<String>,
        /// Run all tests that can run in a guest
        #[arg(long, conflicts_with = "tests")]
        full: bool,
        /// Take the measured numbers of verified instructions as the new table
        #[arg(long)]
        bless: bool,
        /// Open a shell in the guest instead
        #[arg(long, conflicts_with_all = ["tests", "bless"])]
        shell: bool,
    },
    /// Check everything: format, lints, tests, supported kernels, instruction clock (root)
    Ci {
        /// Run all tests that can run in a guest on every kernel
        #[arg(long)]
        full: bool,
        /// When the run began, in seconds since 1970: what building this command took counts, too
        #[arg(long, value_name = "TIME")]
        since: Option<u64>,
        /// `cargo xtask test` has just passed: leave it out
        #[arg(long)]
        tested: bool,
    },
    /// Run clusters on simulated time, and compare what happens with bounds
    Simulate(simulate::Request),
    /// Run benchmarks (root); `bench --help` lists them
    #[command(disable_help_flag = true)]
    Bench {
        /// Benchmarks and their options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Args, Clone, Copy)]
struct Install {
    /// Report what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

fn run(task: Task) -> Result<()> {
    let place = build::place()?;
    match task {
        Task::Setup(install) => setup::setup(&place, !install.no_install),
        Task::BuildEbpf { log } => build::build_ebpf(&place, log),
        Task::Test { install, filter } => lab::test(&place, !install.no_install, &filter),
        Task::Demo { install, keep, clean } => {
            let options = [("--keep", keep), ("--clean", clean)].into_iter().filter(|(_, given)| *given);
            let arguments: Vec<_> = options.map(|(option, _)| option.to_owned()).collect();
            lab::demo(&place, !install.no_install, &arguments)
        }
        Task::Vm { install, kernels, tests, full, bless, shell } => {
            let request = vm::Request { kernels, tests, full, bless, shell };
            vm::matrix(&place, !install.no_install, &request)
        }
        Task::Ci { full, since, tested } => ci::ci(&place, full, since, tested),
        Task::Simulate(request) => simulate::simulate(&request),
        Task::Bench { arguments } if arguments.first().is_some_and(|name| name == "clock") => {
            clock::bench(&place, &arguments[1..])
        }
        Task::Bench { arguments } => lab::bench(&place, true, &arguments),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
