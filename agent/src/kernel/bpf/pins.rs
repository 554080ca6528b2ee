//! Where things are pinned: `/sys/fs/bpf/fanlight/v<layout>/{maps,programs,links}` of the current mount namespace.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use dataplane_common::{
    abi::{FLOW_LAYOUT, FlowTable, LAYOUT},
    outcome::Hook,
};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{
    error::{Context as _, Error, Result},
    flow_maps,
};

const BPFFS: &str = "/sys/fs/bpf";
/// How names of arrays of stages begin.
const STAGES: &str = "stages-";
const ROOT: &str = "/sys/fs/bpf/fanlight";

/// The pin directory of this version's layout.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    layout: PathBuf,
}

impl Pins {
    /// Names the directories; touches nothing.
    pub(super) fn new() -> Self {
        let root = PathBuf::from(ROOT);
        Self { layout: root.join(format!("v{LAYOUT}")), root }
    }

    /// Makes the directories, mounting bpffs where it is missing. Refuses a newer layout before anything else.
    pub(super) fn create(&self) -> Result<()> {
        if !is_bpffs()? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700"))
                .during(|| format!("mounting bpffs on {BPFFS}"))?;
        }
        self.refuse_newer()?;
        for directory in [self.maps(), self.programs(), self.links()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .during(|| format!("creating {}", directory.display()))?;
        }
        Ok(())
    }

    /// Whether this layout's maps are pinned. Refuses a newer layout.
    pub(super) fn exist(&self) -> Result<bool> {
        if !is_bpffs()? {
            return Ok(false);
        }
        self.refuse_newer()?;
        Ok(self.map("config").exists())
    }

    fn refuse_newer(&self) -> Result<()> {
        match names(&self.root)?.iter().filter_map(|name| layout_number(name)).max() {
            Some(found) if found > LAYOUT => return Err(Error::NewerLayout { found, known: LAYOUT }),
            _ => {}
        }
        match self.flow_layouts()?.into_iter().max() {
            Some(found) if found > FLOW_LAYOUT => Err(Error::NewerLayout { found, known: FLOW_LAYOUT }),
            _ => Ok(()),
        }
    }

    /// Layouts of flow tables that are pinned.
    fn flow_layouts(&self) -> Result<Vec<u32>> {
        Ok(names(&self.maps())?.iter().filter_map(|name| flow_maps::layout_of(name)).collect())
    }

    /// Makes flow tables of earlier layouts former ones, and lets go of what leads to them. Says whether there were any.
    pub(super) fn retire_flow_layouts(&self) -> Result<bool> {
        let maps = self.maps();
        let mut layouts = self.flow_layouts()?;
        layouts.retain(|&layout| layout < FLOW_LAYOUT);
        for &layout in &layouts {
            for table in FlowTable::ALL {
                let earlier = maps.join(flow_maps::file_name(table.name(), layout));
                rename(&earlier, &self.map(&flow_maps::former_name(table)))?;
                // What a process left that ended while it replaced tables.
                let fresh = flow_maps::fresh_name(table);
                remove_pin(&maps.join(flow_maps::file_name(&fresh, layout)))?;
            }
            for outer in [flow_maps::FORMER, flow_maps::PRESENT] {
                remove_pin(&maps.join(flow_maps::file_name(outer, layout)))?;
            }
        }
        Ok(!layouts.is_empty())
    }

    /// Gives a map another name; one that is not there is left at that.
    pub(super) fn rename_map(&self, from: &str, to: &str) -> Result<()> {
        rename(&self.map(from), &self.map(to))
    }

    fn maps(&self) -> PathBuf {
        self.layout.join("maps")
    }

    fn links(&self) -> PathBuf {
        self.layout.join("links")
    }

    fn programs(&self) -> PathBuf {
        self.layout.join("programs")
    }

    /// Where a program is pinned that comes from the object with this hash.
    pub(super) fn program(&self, name: &str, object: u64) -> PathBuf {
        self.programs().join(format!("{name}-{object:016x}"))
    }

    /// Where the array of the stages is pinned that belongs to the object with this hash.
    pub(super) fn stages(&self, object: u64) -> PathBuf {
        self.maps().join(format!("{STAGES}{object:016x}"))
    }

    /// Arrays of stages that belong to other objects.
    pub(super) fn other_stages(&self, object: u64) -> Result<Vec<PathBuf>> {
        let (maps, own) = (self.maps(), self.stages(object));
        let arrays = names(&maps)?.into_iter().filter(|name| name.starts_with(STAGES));
        Ok(arrays.map(|name| maps.join(name)).filter(|path| *path != own).collect())
    }

    /// Unpins all programs but these.
    pub(super) fn keep_programs(&self, kept: &[PathBuf]) -> Result<()> {
        let directory = self.programs();
        let pinned = names(&directory)?.into_iter().map(|name| directory.join(name));
        pinned.filter(|path| !kept.contains(path)).try_for_each(|path| remove_pin(&path))
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        let maps = self.maps();
        if flow_maps::has_layout(name) {
            maps.join(flow_maps::file_name(name, FLOW_LAYOUT))
        } else {
            maps.join(name)
        }
    }

    /// Where a link is pinned.
    pub(super) fn link(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.links().join(format!("{}-{ifindex}", hook.name()))
    }

    /// Hook, interface index and path of every pinned link.
    pub(super) fn all_links(&self) -> Result<Vec<(Hook, u32, PathBuf)>> {
        let directory = self.links();
        let mut found = Vec::new();
        for name in names(&directory)? {
            if let Some((hook, ifindex)) = link_name(&name) {
                found.push((hook, ifindex, directory.join(name)));
            }
        }
        Ok(found)
    }

    /// Unpins everything of this layout and removes the directories that are empty then.
    pub(super) fn remove(&self) -> Result<()> {
        for directory in [self.links(), self.programs(), self.maps()] {
            for name in names(&directory)? {
                remove_pin(&directory.join(name))?;
            }
            remove_empty(&directory)?;
        }
        remove_empty(&self.layout)?;
        remove_empty(&self.root)
    }
}

/// Removes a pin; one that is gone already is fine.
pub(super) fn remove_pin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.during(|| format!("unpinning {}", path.display())),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.during(|| format!("renaming {} to {}", from.display(), to.display())),
    }
}

fn remove_empty(directory: &Path) -> Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        other => other.during(|| format!("removing {}", directory.display())),
    }
}

fn is_bpffs() -> Result<bool> {
    let found = statfs(BPFFS).during(|| format!("looking at {BPFFS}"))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.during(|| format!("listing {}", directory.display()))?,
    };
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .during(|| format!("listing {}", directory.display()))
}

fn layout_number(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.parse().ok()
}

fn link_name(name: &str) -> Option<(Hook, u32)> {
    let (hook, ifindex) = name.rsplit_once('-')?;
    Some((Hook::from_name(hook)?, ifindex.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_again_by_its_file_name() {
        let path = Pins::new().link(Hook::UplinkIngress, 17);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        assert_eq!(link_name(name), Some((Hook::UplinkIngress, 17)));
        assert_eq!(link_name("uplink-ingress"), None);
        assert_eq!(link_name("somebody-else-17"), None);
    }

    #[test]
    fn only_directories_named_like_a_layout_count_as_one() {
        assert_eq!(layout_number("v12"), Some(12));
        assert_eq!(layout_number("vault"), None);
        assert_eq!(layout_number("12"), None);
    }
}
