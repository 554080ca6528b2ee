//! `fanlight agent`

use std::process::ExitCode;

use super::{args::AgentArgs, failure::Failure, runtime};
use crate::run::{self, Options};

pub(super) fn run(args: AgentArgs) -> Result<ExitCode, Failure> {
    runtime::require_privileges("agent")?;
    run::run(&Options { config: args.config, detach: args.detach })?;
    Ok(ExitCode::SUCCESS)
}
