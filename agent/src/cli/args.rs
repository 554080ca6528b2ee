//! Command lines as clap reads them: words in their places, not yet what they mean.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::CONFIG_FILE;

/// Container addresses that compute their host, carried in the kernel
#[derive(Debug, Parser)]
#[command(name = "fanlight", version, disable_help_subcommand = true)]
pub(super) struct Cli {
    /// Print JSON with stable keys instead of tables
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the configuration without touching the host
    CheckConfig(CheckConfigArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Manual,
}

#[derive(Debug, Args)]
pub(super) struct CheckConfigArgs {
    /// The configuration to check, together with the file of fans
    #[arg(value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: Shell,
}
