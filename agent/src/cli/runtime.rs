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

/// A part of a path: whatever could mean something else there is written by its number (RFC 3986).
pub(super) fn encode(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    let encoded = part.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    // Two dots alone would name the folder above.
    if part.bytes().all(|byte| byte == b'.') { part.replace('.', "%2E") } else { encoded.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_the_path_whatever_it_is() {
        assert_eq!(["web-1.a", "a/b c", "..", "ü"].map(encode), ["web-1.a", "a%2Fb%20c", "%2E%2E", "%C3%BC"]);
    }
}
