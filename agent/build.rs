//! Builds the kernel programs and places them where the agent embeds them from.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ebpf_build::embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
