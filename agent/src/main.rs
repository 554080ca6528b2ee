//! The `fanlight` binary: agent and command line. Called as `fanctl` it is `fanlight fan`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanlight::cli::main(std::env::args_os())
}
