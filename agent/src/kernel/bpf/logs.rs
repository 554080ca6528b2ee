//! Lines of programs built with `cargo xtask build-ebpf --log`, forwarded to the agent's own log.

use aya_log::EbpfLogger;

use super::{
    error::{Context as _, Result},
    sys,
};

/// Forwards log lines of the program with this id, and of all that share its ring, for as long as it is polled;
/// `None` when the programs were built without.
///
/// aya-log writes to the `log` crate's logger, which tracing-subscriber bridges to tracing.
pub(super) fn forward(program_id: u32) -> Result<Option<impl Future<Output = ()>>> {
    let Ok(logger) = EbpfLogger::init_from_id(program_id) else { return Ok(None) };
    let mut logger =
        sys::readable(logger).during(|| "waiting for log lines of the kernel programs".to_owned())?;
    Ok(Some(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }))
}
