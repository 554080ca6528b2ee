//! The usual fan and services of a node, as its configuration has them.

use std::fmt::Display;

use crate::host::Host;

/// The usual fan's table.
const FAN: &str = "[[fan]]\noverlay = \"250.0.0.0/8\"\nunderlay = \"eth0\"\n";

/// A service's table.
pub fn service(name: &str, vip: impl Display, backends: &[String]) -> String {
    table(name, vip, backends.iter().map(|address| format!("{{ address = \"{address}\" }}")))
}

/// The table of a service that chooses by chance.
pub fn random(name: &str, vip: impl Display, backends: &[String]) -> String {
    format!("{}algorithm = \"random\"\n", service(name, vip, backends))
}

/// The table of a service whose backends have weights.
pub fn weighted(name: &str, vip: impl Display, backends: &[(String, u32)]) -> String {
    let backend =
        |(address, weight): &(String, u32)| format!("{{ address = \"{address}\", weight = {weight} }}");
    table(name, vip, backends.iter().map(backend))
}

fn table(name: &str, vip: impl Display, backends: impl Iterator<Item = String>) -> String {
    let backends: Vec<_> = backends.collect();
    format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nbackends = [{}]\n", backends.join(", "))
}

/// Writes a host's configuration: the usual fan, and these tables.
#[track_caller]
pub fn configure(host: &Host, tables: &[String]) {
    host.write("/etc/fanlight/fanlight.toml", &format!("{FAN}{}", tables.concat()));
}
