//! The initramfs format: cpio's "newc".

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// A file tree to boot from; everything belongs to root.
#[derive(Debug, Default)]
pub(super) struct Archive(BTreeMap<PathBuf, (u32, Vec<u8>)>);

impl Archive {
    pub(super) fn directory(&mut self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), DIRECTORY, Vec::new());
    }

    pub(super) fn file(&mut self, path: impl AsRef<Path>, permissions: u32, data: impl Into<Vec<u8>>) {
        self.put(path.as_ref(), FILE | permissions, data.into());
    }

    pub(super) fn link(&mut self, path: impl AsRef<Path>, target: &str) {
        self.put(path.as_ref(), LINK, target.into());
    }

    /// Copies a file of this machine with its permissions.
    pub(super) fn copy(&mut self, path: impl AsRef<Path>, from: &Path) -> Result<()> {
        let data = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        let permissions =
            from.metadata().with_context(|| format!("reading {}", from.display()))?.permissions();
        self.file(path, permissions.mode() & 0o777, data);
        Ok(())
    }

    pub(super) fn contains(&self, path: &Path) -> bool {
        self.0.contains_key(relative(path))
    }

    fn put(&mut self, path: &Path, mode: u32, data: Vec<u8>) {
        let path = relative(path);
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.0.entry(parent.to_path_buf()).or_insert((DIRECTORY, Vec::new()));
        }
        self.0.insert(path.to_path_buf(), (mode, data));
    }

    /// The archive's bytes. Parents sort before what they hold.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, (path, (mode, data))) in (1..).zip(&self.0) {
            append(&mut bytes, number, *mode, &path.to_string_lossy(), data);
        }
        append(&mut bytes, 0, 0, "TRAILER!!!", &[]);
        bytes
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn append(bytes: &mut Vec<u8>, number: u32, mode: u32, name: &str, data: &[u8]) {
    let links = if mode == DIRECTORY { 2 } else { 1 };
    let (owner, group, modified, device) = (0, 0, 0, 0);
    let fields = [
        number as usize,
        mode as usize,
        owner,
        group,
        links,
        modified,
        data.len(),
        device,
        device,
        device,
        device,
        name.len() + 1,
        0,
    ];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(data);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_the_parents_of_its_files_first() {
        let mut archive = Archive::default();
        archive.file("/etc/a/b", 0o644, *b"text");
        let bytes = archive.bytes();
        let position = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text).unwrap();
        assert!(position(b"etc\0") < position(b"etc/a\0") && position(b"etc/a\0") < position(b"etc/a/b\0"));
        assert!(position(b"text") < position(b"TRAILER!!!"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
