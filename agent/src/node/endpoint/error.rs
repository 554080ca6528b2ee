use std::{fmt::Display, net::Ipv4Addr};

use control::{model::quoted, observed::TooLong};
use ipnet::Ipv4Net;

use crate::{
    kernel::{bpf, lock::LockError, netlink, netns::NetnsError},
    node::{fan, table},
};

/// Why an endpoint can't be wired, removed or listed. Nothing has changed then: what was done is undone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No fan is up.
    #[error("no fan is up; bring one up with `fanlight fan up`")]
    NoFan,
    /// The fan named isn't up.
    #[error("fan {overlay} is not up; bring it up, or use {}", list(up))]
    FanNotUp {
        /// The fan named.
        overlay: Ipv4Net,
        /// Those that are.
        up: Vec<Ipv4Net>,
    },
    /// The address lies outside the slices.
    #[error(
        "address {address} is not for endpoints here; use one of {} other than the first two and the last",
        list(slices)
    )]
    AddressOutside {
        /// The address asked for.
        address: Ipv4Addr,
        /// Where it could lie.
        slices: Vec<Ipv4Net>,
    },
    /// Two addresses of one fan.
    #[error("address {second} is the second one in {slice}; give one address a fan")]
    TwoAddresses {
        /// The fan's slice.
        slice: Ipv4Net,
        /// The superfluous address.
        second: Ipv4Addr,
    },
    /// The address is another endpoint's.
    #[error("address {address} belongs to endpoint {name}; use another")]
    AddressOfEndpoint {
        /// The address asked for.
        address: Ipv4Addr,
        /// Whose it is.
        name: String,
    },
    /// The address is used by something behind a port.
    #[error("address {address} is used behind port {device}; use another")]
    AddressOnPort {
        /// The address asked for.
        address: Ipv4Addr,
        /// The port.
        device: String,
    },
    /// No address is free.
    #[error(
        "slice {slice} has no free address; remove an endpoint, or bring the fan up with a smaller host-reserve"
    )]
    SliceFull {
        /// The slice.
        slice: Ipv4Net,
    },
    /// The namespace is the one we are in.
    #[error("namespace '{netns}' is the host's own; give a container's")]
    OwnNamespace {
        /// As it was given.
        netns: String,
    },
    /// The namespace has an interface of that name.
    #[error("namespace '{netns}' has an interface {device} already; remove or rename it first")]
    DeviceExists {
        /// As it was given.
        netns: String,
        /// The interface.
        device: &'static str,
    },
    /// The namespace is wired under another name.
    #[error("namespace '{netns}' is endpoint {name} already; use that name, or remove it first")]
    OtherName {
        /// As it was given.
        netns: String,
        /// The name it has.
        name: String,
    },
    /// The name is taken by another namespace.
    #[error("endpoint {name} is namespace '{netns}'; choose another name, or remove it first")]
    NameTaken {
        /// The name asked for.
        name: String,
        /// The namespace it stands for.
        netns: String,
    },
    /// The endpoint is there, with other options.
    #[error("endpoint {name} has {has}, not {asked}; remove it first")]
    Differs {
        /// The endpoint.
        name: String,
        /// What it has.
        has: String,
        /// What was asked for.
        asked: String,
    },
    /// The name can't be used.
    #[error(
        "name {} can't be used; give one of 1 to {} characters without blanks with --name",
        quoted(.name),
        super::MAX_NAME
    )]
    BadName {
        /// As given or derived.
        name: String,
    },
    /// There is no such endpoint.
    #[error("there is no endpoint {name}; see `fanlight endpoint list`")]
    NoEndpoint {
        /// The name asked for.
        name: String,
    },
    /// The record does not fit.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The namespace can't be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// What stands of fans can't be found out.
    #[error(transparent)]
    Fan(#[from] fan::Error),
    /// The endpoint table can't be brought to what is there.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The datapath refused.
    #[error(transparent)]
    Datapath(#[from] bpf::Error),
    /// The lock was not to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
