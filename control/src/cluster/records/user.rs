//! User keys: bounds, versions and compare-and-set.

use thiserror::Error;

use super::{record::Record, view::View};
use crate::model::quoted;

/// Bytes of a user key at most.
pub const MAX_USER_KEY: usize = 512;
/// Bytes of a user value at most.
pub const MAX_USER_VALUE: usize = 65_536;
/// Bytes of all user keys and values together at most.
pub const MAX_USER_BYTES: usize = 16 << 20;

/// Why a user key can't be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UserError {
    /// Its length.
    #[error("a key has 1 to {MAX_USER_KEY} bytes; this one has {0}")]
    KeyLength(usize),
    /// Its letters.
    #[error("key {} has a control character; leave it out", quoted(.0))]
    Control(String),
    /// The value's length.
    #[error("a value has at most {MAX_USER_VALUE} bytes; this one has {0}")]
    ValueLength(usize),
    /// All keys together.
    #[error(
        "all keys and values together take at most {MAX_USER_BYTES} bytes, and would take {0}; delete some"
    )]
    Full(usize),
    /// Compare-and-set: another version is there.
    #[error("key {} has version {version}, not {expected}; read it again", quoted(.key))]
    Version {
        /// The key.
        key: String,
        /// Its version; 0: it is not there.
        version: u64,
        /// What was expected.
        expected: u64,
    },
}

fn compare(view: &View, key: &str, expected: Option<u64>) -> Result<(), UserError> {
    let version = view.user(key).map_or(0, |value| value.version);
    match expected {
        Some(expected) if expected != version => {
            Err(UserError::Version { key: key.to_owned(), version, expected })
        }
        _ => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), UserError> {
    if !(1..=MAX_USER_KEY).contains(&key.len()) {
        return Err(UserError::KeyLength(key.len()));
    }
    if key.chars().any(char::is_control) {
        return Err(UserError::Control(key.to_owned()));
    }
    Ok(())
}

/// The record that sets a user key; with `expected` only where that is its version, 0 where it is not there.
///
/// # Errors
/// A bound is exceeded, or another version is there.
pub fn put(view: &View, key: &str, value: &[u8], expected: Option<u64>) -> Result<Record, UserError> {
    check_key(key)?;
    if value.len() > MAX_USER_VALUE {
        return Err(UserError::ValueLength(value.len()));
    }
    let former = view.user(key).map_or(0, |former| key.len() + former.value.as_slice().len());
    let bytes = view.user_bytes() - former + key.len() + value.len();
    if bytes > MAX_USER_BYTES {
        return Err(UserError::Full(bytes));
    }
    compare(view, key, expected)?;
    Ok(Record::User { key: key.into(), value: Some(value.into()) })
}

/// The record that deletes a user key; `None`: it is not there.
///
/// # Errors
/// Another version is there than `expected`.
pub fn delete(view: &View, key: &str, expected: Option<u64>) -> Result<Option<Record>, UserError> {
    compare(view, key, expected)?;
    Ok(view.user(key).map(|value| Record::User { key: value.key.clone(), value: None }))
}
