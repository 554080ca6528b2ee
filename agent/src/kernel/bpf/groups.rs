//! Programs that decide where processes of a control group connect to.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_attach_type::BPF_CGROUP_INET4_CONNECT;

use super::{
    ForeignProgram,
    error::{Context as _, Result},
    sys,
};

/// Those that decide for this process; none of ours ever does.
pub fn connect_programs() -> Result<Vec<ForeignProgram>> {
    let what = || "asking for the programs of the control group".to_owned();
    let Some(path) = own_group().during(what)? else { return Ok(Vec::new()) };
    let group = match File::open(&path) {
        // Another root of the hierarchy is mounted here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.during(|| format!("opening {}", path.display()))?,
    };
    let programs = sys::query_group(group.as_fd(), BPF_CGROUP_INET4_CONNECT).during(what)?;
    Ok(programs.into_iter().map(ForeignProgram::by_id).collect())
}

fn own_group() -> io::Result<Option<PathBuf>> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount(&mounts).zip(group(&groups)).map(|(mount, group)| Path::new(mount).join(group)))
}

/// `0::/system.slice/fanlight.service`
fn group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// `30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw`
fn mount(mounts: &str) -> Option<&str> {
    let of_kind = |line: &&str| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup2 "));
    mounts.lines().find(of_kind)?.split(' ').nth(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_beside_others() {
        let mounts = "29 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      31 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      30 29 0:26 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(group("4:memory:/a\n0::/system.slice/b.service\n"), Some("system.slice/b.service"));
    }
}
