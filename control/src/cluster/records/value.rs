//! Records' values as bytes: the number of a format, then the fields (postcard).

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    cluster::{
        clock::Stamp,
        log::{Bytes, Name},
    },
    health::Checking,
    model::fnv1a,
    service::{self, Algorithm, Backend, VipSpec},
};

/// The format that is written and read here. Fields are only ever added at a value's end; anything else is another format.
const FORMAT: u8 = 1;

/// What a service is, beside its backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Where clients find it; each node finds a name's address by itself.
    pub vip: VipSpec,
    /// How a flow's backend is chosen.
    pub algorithm: Algorithm,
    /// When a service of this name was first defined, since it was removed last.
    pub created: Stamp,
    /// By which node.
    pub creator: Name,
    /// When a service of this name was removed last: what belonged to that does not belong to this one.
    pub since: Stamp,
    /// How its backends are checked.
    #[serde(with = "super::added")]
    pub checking: Option<Arc<Checking>>,
}

impl Definition {
    /// Whether it is of a service that is so.
    pub fn is_of(&self, other: &service::Definition) -> bool {
        (&self.vip, self.algorithm, &self.checking) == (&other.vip, other.algorithm, &other.checking)
    }
}

/// A backend that a node contributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRecord {
    /// Its share of new flows among all; 0: none.
    pub weight: u32,
    /// The file that names it; `None`: a command.
    pub file: Option<Name>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The overlay networks of its containers.
    pub slices: Vec<IpNet>,
    /// The version that it runs.
    pub version: String,
    /// It is being worked on, and leaves rotation.
    pub is_in_maintenance: bool,
}

/// What a node says of its part in a group of announcements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The prefixes that are its own.
    pub own: Vec<IpNet>,
    /// Whether a router has them from it.
    pub is_up: bool,
}

/// A node that was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Its logs that were born up to this start are no more.
    pub born: u32,
}

/// What a file said of a service when it was written from it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Where clients find it.
    pub vip: VipSpec,
    /// How a flow's backend is chosen.
    pub algorithm: Algorithm,
    /// A hash of the backends, in any order.
    pub backends: u64,
    /// A hash of how they are checked; 0: they are not.
    #[serde(with = "super::added")]
    pub checking: u64,
}

/// What a node has found of a backend by checking it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it is up.
    pub is_up: bool,
}

impl Claim {
    /// What a file says that defines a service so, with these backends.
    pub fn of(definition: &service::Definition, backends: &[Backend]) -> Self {
        let service::Definition { vip, algorithm, checking } = definition;
        let text = checking.as_ref().map(|checking| serde_json::to_string(checking).unwrap_or_default());
        let checking = text.map_or(0, fnv1a);
        Self { vip: vip.clone(), algorithm: *algorithm, backends: Self::hash(backends), checking }
    }

    /// The hash of a file's backends.
    fn hash(backends: &[Backend]) -> u64 {
        let mut backends = backends.to_vec();
        backends.sort_unstable();
        let text: String =
            backends.iter().map(|backend| format!("{} {}\n", backend.socket(), backend.weight)).collect();
        fnv1a(text)
    }
}

/// A value as bytes.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    let bytes = postcard::to_extend(value, vec![FORMAT]).unwrap_or_default();
    bytes.as_slice().into()
}

/// A value from bytes; `None`: of a format of a later version, or none at all.
pub(super) fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Option<T> {
    let (format, fields) = bytes.as_slice().split_first()?;
    let (value, _added_later) = postcard::take_from_bytes(fields).ok()?;
    (*format == FORMAT).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Check, OnDown, Probe};

    /// A definition as the version before checks has it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Former {
        vip: VipSpec,
        algorithm: Algorithm,
        created: Stamp,
        creator: Name,
        since: Stamp,
    }

    #[test]
    fn versions_with_checks_and_without_read_each_others_definitions() {
        let vip: VipSpec = "10.96.0.10:80/tcp".parse().unwrap();
        let former = || Former {
            vip: vip.clone(),
            algorithm: Algorithm::Random,
            created: Stamp::ZERO,
            creator: "h1".into(),
            since: Stamp::ZERO,
        };
        let read: Definition = decode(&encode(&former())).unwrap();
        assert_eq!((&read.vip, read.algorithm, &read.checking), (&vip, Algorithm::Random, &None));
        let check = Check::new(Probe::Command(vec!["/bin/true".to_owned()])).into();
        let checking = Some(Arc::new(Checking { check, on_down: OnDown::Reset }));
        let written = encode(&Definition { checking, ..read });
        assert_eq!(decode::<Former>(&written), Some(former()));
        let again: Definition = decode(&written).unwrap();
        assert_eq!(again.checking.map(|checking| checking.on_down), Some(OnDown::Reset));
    }

    #[test]
    fn a_check_that_is_unknown_here_is_none_and_takes_nothing_along() {
        let vip: VipSpec = "10.96.0.10:80/tcp".parse().unwrap();
        let claim = Claim { vip, algorithm: Algorithm::Maglev, backends: 7, checking: 9 };
        let mut bytes = encode(&claim).as_slice().to_vec();
        let end = bytes.len();
        // Its length says more than there is.
        bytes[end - 2] = 0x7f;
        let read: Claim = decode(&bytes.as_slice().into()).unwrap();
        assert_eq!((read.backends, read.checking), (7, 0));
    }
}
