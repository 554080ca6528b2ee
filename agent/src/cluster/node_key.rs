//! What tells this node from others of its name: an Ed25519 key (RFC 8032), made once, and a generation that grows at each
//! start. Both are files of their own in the data folder, so that a lost store does not cost the name.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use control::cluster::identity::PublicKey;
use ed25519_dalek::SigningKey;

use crate::kernel::replace::replace;

const KEY_FILE: &str = "node.key";
const GENERATION_FILE: &str = "generation";
/// A key's hexadecimal digits and the end of the line.
const KEY_SIZE: usize = 65;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system refuses.
    #[error("{}: {source}; see cluster.data", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gives no random bytes.
    #[error("no random bytes for a key: {0}")]
    Random(#[from] getrandom::Error),
    /// Others could take this node's name.
    #[error("{} has mode {mode:04o}, which lets others than its owner at the key; chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What is there is no key.
    #[error(
        "{} is damaged; restore it, or remove it for a new key and run 'fanlight node forget' with this node's name on a \
         member",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The node's key; it is made where there is none.
///
/// # Errors
/// It can't be read or made, or is readable by others.
pub(super) fn signing_key(data: &Path) -> Result<SigningKey, KeyError> {
    let path = data.join(KEY_FILE);
    let failed = |source| KeyError::Io { path: path.clone(), source };
    let secret = match fs::File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
        Err(error) => return Err(failed(error)),
        Ok(file) => {
            let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(KeyError::Open { path, mode });
            }
            let mut text = Vec::new();
            file.take(KEY_SIZE as u64 + 1).read_to_end(&mut text).map_err(failed)?;
            decode(&text).ok_or(KeyError::Damaged { path })?
        }
    };
    Ok(SigningKey::from_bytes(&secret))
}

/// What members know a key by.
pub(super) fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn make(path: &Path) -> Result<[u8; 32], KeyError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect();
    replace(path, text.as_bytes()).map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
    Ok(secret)
}

fn decode(text: &[u8]) -> Option<[u8; 32]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let digits: Vec<u8> = text
        .iter()
        .map(|&digit| char::from(digit).to_digit(16))
        .map(|digit| Some(digit? as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (text.len() == 64).then_some(bytes)?.try_into().ok()
}

/// Whether this node has started before.
pub(super) fn has_started(data: &Path) -> bool {
    data.join(GENERATION_FILE).exists()
}

/// The generation of this start: above all former ones, and the seconds since 1970, should the file be lost. Where it can't be
/// kept the clock alone makes the next one higher.
pub(super) fn next_generation(data: &Path, seconds: u64) -> u64 {
    let path = data.join(GENERATION_FILE);
    let former = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let next = former.map_or(0, |former| former.saturating_add(1)).max(seconds);
    if let Err(error) = replace(&path, format!("{next}\n").as_bytes()) {
        tracing::warn!("{}: {error}; see whether the disk is full", path.display());
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = signing_key(&data).unwrap();
        assert_eq!(signing_key(&data).unwrap(), first);
        let path = data.join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(signing_key(&data), Err(KeyError::Open { mode: 0o640, .. })));
        assert_ne!(signing_key(&folder.path().join("other")).unwrap(), first);
    }

    #[test]
    fn a_damaged_key_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "ab\n", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66), &"é".repeat(32)] {
            let path = folder.path().join(KEY_FILE);
            replace(&path, text.as_bytes()).unwrap();
            let error = signing_key(folder.path()).unwrap_err();
            assert!(matches!(error, KeyError::Damaged { .. }), "{text}: {error}");
            assert!(error.to_string().contains("'fanlight node forget'"), "{error}");
        }
    }

    #[test]
    fn a_generation_grows_at_each_start_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let next = |seconds| next_generation(folder.path(), seconds);
        assert_eq!([next(100), next(100), next(50), next(200)], [100, 101, 102, 200]);
        fs::write(folder.path().join(GENERATION_FILE), "damaged").unwrap();
        assert_eq!(next(300), 300);
        assert_eq!(next_generation(Path::new("/proc/nowhere"), 7), 7);
    }
}
