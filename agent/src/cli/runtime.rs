//! What commands that talk to the kernel have in common.

use anyhow::{Context, anyhow};
use control::{model::quoted, service::ServiceState};

use super::failure::Failure;
use crate::{
    kernel::capabilities,
    serve::{Client, paths},
};

/// Refuses early what the kernel would refuse halfway.
pub(super) fn require_privileges(command: &str) -> Result<(), Failure> {
    let missing = capabilities::missing().context("reading this process's capabilities")?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    let missing = missing.join(", ");
    Err(anyhow::anyhow!("{command}: this process lacks {missing}; run it as root, or grant these").into())
}

/// Runs a command's work on this thread: namespaces belong to threads.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    Ok(runtime.block_on(work)?)
}

/// The services that the running agent has.
pub(super) async fn services() -> anyhow::Result<Vec<ServiceState>> {
    Ok(Client::connect().await?.get(paths::STATES).await?)
}

/// The running agent's service of a name; a name that none has is a mistake.
pub(super) async fn service(name: &str) -> anyhow::Result<ServiceState> {
    let found = services().await?.into_iter().find(|service| service.name == name);
    found.ok_or_else(|| anyhow!("no service {}; 'fanlight service list' lists them", quoted(name)))
}
