//! What tests may leave behind on the machine, compared before and after: another's things may have been there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// Everything on the machine that could be ours.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Namespaces, links, pins and processes as they are now.
    pub(crate) fn take() -> Self {
        let mut found = BTreeSet::new();
        let namespaces = names(Path::new("/run/netns")).into_iter().filter(|name| name.starts_with("fl-"));
        found.extend(namespaces.map(|name| format!("network namespace {name}")));
        let links = names(Path::new("/sys/class/net")).into_iter().filter(|name| is_our_link(name));
        found.extend(links.map(|name| format!("link {name}")));
        let pins = files_below(PathBuf::from("/sys/fs/bpf/fanlight"));
        found.extend(pins.into_iter().map(|pin| format!("pin {}", pin.display())));
        let processes = names(Path::new("/proc")).into_iter().filter_map(|id| orphan(&id));
        found.extend(processes);
        Self(found)
    }

    /// Fails with a list of what is there now and was not before.
    pub(crate) fn check_since(&self, before: &Self) -> Result<()> {
        let left: Vec<_> = self.0.difference(&before.0).map(String::as_str).collect();
        if !left.is_empty() {
            bail!("left behind on the machine: {}", left.join(", "));
        }
        println!("Nothing left behind: no namespace, link, pin or process.");
        Ok(())
    }
}

/// The bridge, the helper pair, and the host sides of endpoints: `fl` and eight hex digits.
fn is_our_link(name: &str) -> bool {
    let hex = |digits: &str| digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    name.starts_with("fan-") || name.starts_with("fanlight") || name.strip_prefix("fl").is_some_and(hex)
}

/// The harness marks every process that it starts with `fl-PID-START`, its own number first. While that one runs,
/// what it started is no leak; `-kept` is a lab that was asked for.
fn orphan(id: &str) -> Option<String> {
    let id: u32 = id.parse().ok()?;
    let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
    let environment = String::from_utf8_lossy(&environment);
    let mark = environment.split('\0').find_map(|entry| entry.strip_prefix("FANLIGHT_LAB=fl-"))?;
    let owner = mark.split('-').next().unwrap_or_default();
    let lives = Path::new("/proc").join(owner).exists();
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    (!lives && !mark.ends_with("-kept")).then(|| format!("process {} {id}", name.trim_end()))
}

/// None where there is no such directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn files_below(directory: PathBuf) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![directory]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if directory { &mut open } else { &mut files }.push(entry.path());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_ours_are_known_by_their_names() {
        for ours in ["fan-250-0-28", "fanlight0", "fl0123abcd"] {
            assert!(is_our_link(ours), "{ours}");
        }
        for other in ["eth0", "flannel.1", "fl0123abc", "lo"] {
            assert!(!is_our_link(other), "{other}");
        }
    }

    #[test]
    fn what_was_there_before_is_nobodys_leak() {
        let before = Snapshot(BTreeSet::from(["link fan-1".into()]));
        assert!(Snapshot(BTreeSet::from(["link fan-1".into()])).check_since(&before).is_ok());
        let left = Snapshot(BTreeSet::from(["link fan-1".into(), "pin a".into()])).check_since(&before);
        assert!(left.unwrap_err().to_string().ends_with("pin a"));
    }
}
