//! Benchmarks, and the load generator that they start inside namespaces.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use fanlight_tests::bench::load::{self, Load};

#[derive(Parser)]
#[command(about = "Fanlight's benchmarks")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve loads until killed.
    #[command(hide = true)]
    Serve,
    /// Run one load and print what was measured, as JSON.
    #[command(hide = true)]
    Load { load: Load, server: Ipv4Addr, milliseconds: u64 },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Serve => load::serve(),
        Command::Load { load, server, milliseconds } => {
            let measured = load::run(load, server, Duration::from_millis(milliseconds))?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
    }
}
