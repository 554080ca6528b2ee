//! The keys that a cluster's datagrams are sealed with.
//!
//! A sealed text is the key's id (4 bytes), a random nonce (24 bytes) and what XChaCha20-Poly1305 makes of the plain one
//! (draft-irtf-cfrg-xchacha-03), 16 bytes longer. What is authenticated beside it (the associated data) is the caller's.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::{Key as Secret, KeyInit as _, Tag, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
use rand::Rng;

const ID: usize = 4;
const NONCE: usize = 24;
const TAG: usize = 16;

/// Bytes by which a sealed text is longer than the plain one.
pub const OVERHEAD: usize = ID + NONCE + TAG;

/// Keys that a ring holds at most: a flood of datagrams costs one look-up each, never one attempt a key.
const MAX_KEYS: usize = 16;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

struct Key {
    id: [u8; ID],
    cipher: XChaCha20Poly1305,
    /// What streams are sealed with.
    stream: [u8; 32],
}

/// Keys in their order: the first seals, all open. At least one.
pub struct Keyring(Vec<Key>);

/// Why a text is no key ring. Never holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error(
        "no key is in it: put in one of 32 random bytes in base64, as `head -c 32 /dev/urandom | base64` makes it"
    )]
    Empty,
    #[error("line {line}: no base64: a line is one key of 32 bytes in base64")]
    NoBase64 { line: usize },
    #[error("line {line}: a key of {bytes} bytes: a key has 32")]
    Length { line: usize, bytes: usize },
    #[error("line {line}: the key of line {first} again: remove one of them")]
    Repeated { line: usize, first: usize },
    #[error("line {line}: more than {MAX_KEYS} keys: remove those that no node seals with any more")]
    TooMany { line: usize },
}

/// Why a text was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// Shorter than anything sealed.
    Short,
    /// Sealed with a key that is not in the ring.
    UnknownKey,
    /// Altered, or sealed for other associated data.
    Altered,
}

impl Keyring {
    /// Reads the text of a file of keys: a line each, in base64; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// The first line that is no key, one that stands there twice, too many, or none at all.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<(usize, Key)> = Vec::new();
        for (line, word) in (1..).zip(text.lines().map(str::trim)) {
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            let bytes = BASE64.decode(word).ok().ok_or(KeyringError::NoBase64 { line })?;
            let length = bytes.len();
            let secret: [u8; 32] =
                bytes.try_into().ok().ok_or(KeyringError::Length { line, bytes: length })?;
            let key = Key::new(secret);
            if let Some((first, _)) = keys.iter().find(|(_, other)| other.id == key.id) {
                return Err(KeyringError::Repeated { line, first: *first });
            }
            if keys.len() == MAX_KEYS {
                return Err(KeyringError::TooMany { line });
            }
            keys.push((line, key));
        }
        if keys.is_empty() {
            Err(KeyringError::Empty)
        } else {
            Ok(Self(keys.into_iter().map(|(_, key)| key).collect()))
        }
    }

    /// The first key's id, and the secret for streams that is derived from it.
    pub fn stream_key(&self) -> Option<([u8; ID], [u8; 32])> {
        self.0.first().map(|key| (key.id, key.stream))
    }

    /// The secret for streams of the key with this id.
    pub fn stream_key_of(&self, id: [u8; ID]) -> Option<[u8; 32]> {
        self.0.iter().find(|key| key.id == id).map(|key| key.stream)
    }

    /// Appends a sealed text to `sealed`.
    pub fn seal(&self, rng: &mut impl Rng, associated: &[u8], plain: &[u8], sealed: &mut Vec<u8>) {
        let Some(key) = self.0.first() else { return };
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(plain);
        let body = sealed[start..].as_mut().into();
        // Only a text of 256 GiB is refused.
        if let Ok(tag) = key.cipher.encrypt_inout_detached(&XNonce::from(nonce), associated, body) {
            sealed.extend_from_slice(&tag);
        }
    }

    /// The plain text of a sealed one.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (id, rest) = sealed.split_first_chunk::<ID>().ok_or(Unopened::Short)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(Unopened::Short)?;
        let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(Unopened::Short)?;
        let key = self.0.iter().find(|key| key.id == *id).ok_or(Unopened::UnknownKey)?;
        let mut plain = body.to_vec();
        let opened = key.cipher.decrypt_inout_detached(
            &XNonce::from(*nonce),
            associated,
            plain.as_mut_slice().into(),
            &Tag::from(*tag),
        );
        if opened.is_ok() { Ok(plain) } else { Err(Unopened::Altered) }
    }
}

impl Key {
    fn new(secret: [u8; 32]) -> Self {
        let derived = blake3::derive_key("fanlight 2026 id of a cluster key", &secret);
        let mut id = [derived[0], derived[1], derived[2], derived[3]];
        // Zero says that nothing is sealed.
        id[0] = id[0].max(1);
        let stream = blake3::derive_key("fanlight 2026 streams of a cluster", &secret);
        Self { id, cipher: XChaCha20Poly1305::new(&Secret::from(secret)), stream }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keyring of {}", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn line(byte: u8) -> String {
        BASE64.encode([byte; 32])
    }

    fn ring(bytes: &[u8]) -> Keyring {
        let lines: Vec<_> = bytes.iter().map(|byte| line(*byte)).collect();
        Keyring::parse(&lines.join("\n")).unwrap()
    }

    fn sealed(ring: &Keyring, associated: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        ring.seal(&mut StdRng::seed_from_u64(1), associated, plain, &mut sealed);
        sealed
    }

    #[test]
    fn every_key_of_the_ring_opens_what_the_first_of_another_sealed() {
        let (old, both, new) = (ring(&[1]), ring(&[2, 1]), ring(&[2]));
        let text = sealed(&old, b"prod", b"hello");
        assert_eq!(both.open(b"prod", &text).unwrap(), b"hello");
        assert_eq!(new.open(b"prod", &text), Err(Unopened::UnknownKey));
        let text = sealed(&both, b"prod", b"hello");
        assert_eq!(new.open(b"prod", &text).unwrap(), b"hello");
        assert_eq!(text.len(), 5 + OVERHEAD);
    }

    #[test]
    fn each_key_has_a_secret_for_streams_that_is_not_its_own() {
        let (old, both) = (ring(&[1]), ring(&[2, 1]));
        let (id, secret) = old.stream_key().unwrap();
        assert_eq!(both.stream_key_of(id), Some(secret));
        assert_ne!(both.stream_key(), old.stream_key());
        assert_ne!(secret, [1; 32]);
        assert_eq!(old.stream_key_of(both.stream_key().unwrap().0), None);
    }

    #[test]
    fn a_changed_text_or_another_cluster_is_not_opened() {
        let ring = ring(&[1]);
        let text = sealed(&ring, b"prod", b"hello");
        assert_eq!(ring.open(b"test", &text), Err(Unopened::Altered));
        for at in ID..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert_eq!(ring.open(b"prod", &changed), Err(Unopened::Altered), "byte {at}");
        }
        for length in 0..OVERHEAD {
            assert_eq!(ring.open(b"prod", &text[..length]), Err(Unopened::Short));
        }
    }

    #[test]
    fn a_file_of_keys_is_refused_by_line_without_its_keys() {
        let error = |text: &str| Keyring::parse(text).unwrap_err();
        assert_eq!(error("# none\n\n"), KeyringError::Empty);
        assert_eq!(error(&format!("{}\n!!\n", line(1))), KeyringError::NoBase64 { line: 2 });
        assert_eq!(error(&BASE64.encode([1; 31])), KeyringError::Length { line: 1, bytes: 31 });
        let twice = format!("{}\n\n{}\n", line(1), line(1));
        assert_eq!(error(&twice), KeyringError::Repeated { line: 3, first: 1 });
        let many: Vec<_> = (0..17).map(line).collect();
        assert_eq!(error(&many.join("\n")), KeyringError::TooMany { line: 17 });
        assert!(!format!("{:?} {}", error(&twice), error(&twice)).contains(&line(1)[..8]));
        assert!(Keyring::parse(line(1).trim_end_matches('=')).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_opened(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ring(&[1]).open(b"prod", &bytes).is_err());
        }

        #[test]
        fn an_arbitrary_file_is_read_or_refused(text in ".{0,200}") {
            let _read = Keyring::parse(&text);
        }
    }
}
