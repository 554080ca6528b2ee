//! `fanlight agent`

use std::process::ExitCode;

use super::{args::AgentArgs, failure::Failure, runtime};
use crate::daemon::{self, Options};

pub(super) fn run(args: AgentArgs) -> Result<ExitCode, Failure> {
    runtime::require_privileges("agent")?;
    daemon::run(&Options { config: args.config, detach: args.detach })?;
    Ok(ExitCode::SUCCESS)
}
