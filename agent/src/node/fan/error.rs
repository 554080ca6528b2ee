//! Why a fan could not be brought up, repaired, tested or taken down.

use std::{io, net::Ipv4Addr, path::PathBuf};

use control::{
    model::UnderlaySpec,
    reconcile::{PieceError, ResolveError},
};
use ipnet::Ipv4Net;

use crate::{
    kernel::{bpf, dhcp::DhcpError, lock::LockError, netlink, nft::NftError, sysctl::SysctlError},
    node::table,
};

/// Why an operation on a fan failed. One line each: what failed, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for contradicts itself or this host.
    #[error("fan {overlay}: {source}")]
    Impossible {
        /// The fan.
        overlay: Ipv4Net,
        /// The contradiction.
        source: ResolveError,
    },
    /// The fan is up with other options.
    #[error("fan {overlay} is up already with {differences}; take it down first, or use the same options")]
    Different {
        /// The fan.
        overlay: Ipv4Net,
        /// Every difference, as "egress masquerade instead of drop".
        differences: String,
    },
    /// There is no such fan.
    #[error("fan {overlay} is not up; see `fanlight fan show`")]
    NotUp {
        /// The fan.
        overlay: Ipv4Net,
    },
    /// Containers would lose their network.
    #[error("fan {overlay} is in use by {}; remove them first", users.join(", "))]
    InUse {
        /// The fan.
        overlay: Ipv4Net,
        /// Ports of its bridge, and routed endpoints.
        users: Vec<String>,
    },
    /// The address that its slice is by is gone, and no other can follow.
    #[error(
        "fan {overlay}: this host's address {address} is gone; the fan keeps its slice until it is back{}",
        others(overlay, underlay, unfit)
    )]
    AddressGone {
        /// The fan.
        overlay: Ipv4Net,
        /// As it was given.
        underlay: UnderlaySpec,
        /// The host's address in it.
        address: Ipv4Addr,
        /// Addresses that are there and are not taken for the host's.
        unfit: Vec<Ipv4Addr>,
    },
    /// A step failed.
    #[error("fan {overlay}: {fault}")]
    Failed {
        /// The fan.
        overlay: Ipv4Net,
        /// The step's failure.
        fault: Fault,
    },
    /// Several steps of taking a fan down failed.
    #[error("fan {overlay} is down in part only: {}; try again", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Incomplete {
        /// The fan.
        overlay: Ipv4Net,
        /// All failures.
        faults: Vec<Fault>,
    },
    /// The address belongs to no fan of this node.
    #[error("{host} lies in no fan's overlay or underlay; see `fanlight fan show`")]
    NoFanOf {
        /// The address.
        host: Ipv4Addr,
    },
    /// The address is this node's.
    #[error("{host} is this host; name another one of the fan")]
    ThisHost {
        /// The address.
        host: Ipv4Addr,
    },
    /// What the host has could not be found out.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Interfaces, addresses, routes.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Kernel settings.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Programs and maps.
    #[error(transparent)]
    Datapath(#[from] bpf::Error),
    /// Packet filter.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Others' rules.
    #[error("reading the packet filter's rules: {0}")]
    Rules(#[source] io::Error),
    /// Addresses by DHCP.
    #[error(transparent)]
    Dhcp(#[from] DhcpError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its endpoints.
    #[error("its endpoints: {0}")]
    Endpoints(#[source] table::Error),
    /// The uplink went away, or the address did.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A name that the fan needs is taken.
    #[error(transparent)]
    Piece(#[from] PieceError),
    /// A file under `/run/fanlight`.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Ports that the host can't spare.
    #[error("datapath.nat-ports: {0}")]
    Ports(String),
    /// An echo request could not be sent.
    #[error("echo request from {from} to {to}: {source}")]
    Echo {
        /// Source.
        from: Ipv4Addr,
        /// Destination.
        to: Ipv4Addr,
        /// Why.
        source: io::Error,
    },
}

/// What to do where other addresses are there.
fn others(overlay: &Ipv4Net, underlay: &UnderlaySpec, unfit: &[Ipv4Addr]) -> String {
    if unfit.is_empty() {
        return String::new();
    }
    let list = unfit.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "; {list} may be floating: `fanlight fan up {overlay} {underlay}` takes it for the host's all the same"
    )
}
