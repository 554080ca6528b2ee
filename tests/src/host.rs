//! A host: what a machine with Fanlight is to its neighbours, in namespaces.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    ops::Deref,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Mutex,
};

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::{agent::Agent, command::Cmd, container::Container, counters::Counters, site::Site};

/// Gives the calling thread's mount namespace its own bpffs, its own /run, and its own fanlight directories in /etc and
/// /var/lib. What else is in those two stays visible through symbolic links, but for the machine's settings of the kernel:
/// nothing of the machine changes, and no mount point needs to exist beforehand.
fn own_mounts() -> io::Result<()> {
    let none = None::<&str>;
    let tmpfs = |at: &str| mount(Some("fanlight"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755"));
    tmpfs("/run")?;
    fs::create_dir("/run/netns")?;
    fs::create_dir("/run/fanlight")?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none)?;
    for below in ["/etc", "/var/lib"].map(Path::new) {
        let machine = Path::new("/run/machine").join(below.strip_prefix("/").unwrap_or(below));
        fs::create_dir_all(&machine)?;
        mount(Some(below), &machine, none, MsFlags::MS_BIND, none)?;
        tmpfs(&below.to_string_lossy())?;
        for entry in fs::read_dir(&machine)? {
            let name = entry?.file_name();
            if !["fanlight", "sysctl.conf", "sysctl.d"].iter().any(|own| name == *own) {
                symlink(machine.join(&name), below.join(&name))?;
            }
        }
        fs::create_dir(below.join("fanlight"))?;
    }
    Ok(())
}

/// A network and mount namespace in which `fanlight` believes itself alone.
pub struct Host {
    site: Site,
    binary: Mutex<PathBuf>,
}

impl Host {
    /// A host without any device but `lo`.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let host = Self { site: Site::with_mounts(name), binary: Mutex::new(binary()) };
        host.inside(own_mounts).unwrap_or_else(|error| panic!("mounts of {name}: {error}"));
        host
    }

    /// Uses another binary from now on.
    pub fn use_binary(&self, binary: PathBuf) {
        *self.binary.lock().expect("no panic while it is held") = binary;
    }

    /// `fanlight` with these words.
    pub fn fanlight<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Cmd {
        let binary = self.binary.lock().expect("no panic while it is held").clone();
        self.command(binary).args(words)
    }

    /// `fanlight` with these words, split at spaces; it must succeed. Its output.
    #[track_caller]
    pub fn run(&self, words: &str) -> String {
        self.fanlight(words.split_whitespace()).ok()
    }

    /// `fanlight` with these words and `--json`; what it printed, whatever its status.
    #[track_caller]
    pub fn json(&self, words: &str) -> Value {
        let output = self.fanlight(words.split_whitespace().chain(["--json"])).run();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{output}"))
    }

    /// Writes a file inside, with the directories it needs; below a directory that is the host's own.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        assert!(!path.starts_with("/tmp"), "{path}: all hosts share it; write to /run");
        let real = self.path(path);
        let written = fs::create_dir_all(real.parent().expect("a path below the root"));
        let written = written.and_then(|()| fs::write(&real, text));
        written.unwrap_or_else(|error| panic!("{}: {path}: {error}", self.name()));
    }

    /// Where a path of this host is found from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder()))
    }

    /// Starts the agent with the configuration that the host has; it is ready when this returns.
    #[track_caller]
    pub fn agent(&self) -> Agent {
        Agent::start(self)
    }

    /// A new container: a plain network namespace under this host's `/run/netns`.
    #[track_caller]
    pub fn container(&self, name: &str) -> Container<'_> {
        Container::new(self, name)
    }

    /// The programs' counters.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        Counters::read(self)
    }
}

impl Deref for Host {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// The `fanlight` under test: `$FANLIGHT_BIN`, or the one that was built beside the running program.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("FANLIGHT_BIN") {
        return path.into();
    }
    let own = env::current_exe().expect("a running program has a path");
    let mut near = own.ancestors().skip(1).take(2).map(|directory| directory.join("fanlight"));
    near.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no fanlight beside {}; run `cargo build -p fanlight` or set FANLIGHT_BIN", own.display())
    })
}

/// A binary whose flow records have another layout: `$FANLIGHT_LATER_BIN`.
#[track_caller]
pub fn later() -> PathBuf {
    let later = env::var_os("FANLIGHT_LATER_BIN");
    later.expect("FANLIGHT_LATER_BIN names a fanlight with feature trial-flow-layout").into()
}

/// Another binary that does the same as the one under test, in a directory.
pub fn rebuilt(directory: &Path) -> PathBuf {
    let path = directory.join("fanlight");
    let mut bytes = fs::read(binary()).expect("the binary under test");
    bytes.extend(b"rebuilt");
    fs::write(&path, bytes).expect("a copy");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable copy");
    path
}
