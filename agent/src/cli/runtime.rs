//! What commands that talk to the kernel have in common.

use anyhow::Context;

use super::failure::Failure;
use crate::kernel::privileges;

/// Refuses early what the kernel would refuse halfway.
pub(super) fn require_privileges(command: &str) -> Result<(), Failure> {
    let missing = privileges::missing().context("reading this process's capabilities")?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(anyhow::anyhow!("{command}: this process lacks {missing}; run it as root, or grant these").into())
}

/// Runs a command's work on this thread: namespaces belong to threads.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    Ok(runtime.block_on(work)?)
}
