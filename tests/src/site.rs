//! A place where commands run: a network namespace, and for hosts a mount namespace and a host name.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    command::{self, Cmd, Output, eventually},
    lab,
    socket::RawSocket,
    sys::{self, Namespaces},
};

pub use crate::sys::Offload;

/// How long a socket waits for its port.
const PORT_FREE: Duration = Duration::from_secs(10);

/// A network namespace, with what else its kind has. It lives as long as this value and the processes in it.
pub struct Site {
    name: String,
    namespaces: Namespaces,
    /// The process that holds the namespaces; a container's are held by its host.
    holder: Option<Child>,
}

impl Site {
    /// A bare network namespace: a switch, a router, an outside client.
    #[track_caller]
    pub fn bare(name: &str) -> Self {
        Self::held(name, None)
    }

    /// A network namespace with a mount namespace and a host name of its own.
    #[track_caller]
    pub(crate) fn with_mounts(name: &str) -> Self {
        Self::held(name, Some(name))
    }

    #[track_caller]
    fn held(name: &str, hostname: Option<&str>) -> Self {
        lab::sweep();
        let mut command = if lab::kept() {
            let mut sleep = Command::new("sleep");
            sleep.arg("infinity").stdin(Stdio::null());
            sleep
        } else {
            // It reads a pipe that closes with this process, so it never outlives it, even when that is killed.
            let mut cat = Command::new("cat");
            cat.stdin(Stdio::piped());
            cat
        };
        command.env(lab::MARK, lab::mark()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::in_new_namespaces(&mut command, hostname);
        let holder = command::start(&mut command)
            .unwrap_or_else(|error| panic!("cannot make namespaces for {name}: {error}"));
        let open = |kind: &str| open_namespace(&format!("/proc/{}/ns/{kind}", holder.id()));
        let own = hostname.map(|_| Arc::new((open("mnt"), open("uts"))));
        let namespaces = Namespaces { net: Arc::new(open("net")), own };
        let site = Self { name: name.to_owned(), namespaces, holder: Some(holder) };
        site.ip("link set lo up");
        site
    }

    /// The network namespace that a path names, with the mounts of `host`.
    #[track_caller]
    pub(crate) fn at(name: &str, path: &str, host: &Self) -> Self {
        let net = Arc::new(open_namespace(path));
        Self {
            name: name.to_owned(),
            namespaces: Namespaces { net, own: host.namespaces.own.clone() },
            holder: None,
        }
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that holds the namespaces.
    #[track_caller]
    pub fn holder(&self) -> u32 {
        self.holder.as_ref().expect("a container has no holder of its own").id()
    }

    /// A command to run here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
        Cmd::new(program, &self.name).edit(|command| self.namespaces.apply(command))
    }

    /// A command line, split at spaces; it must succeed. Its output.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line names a program");
        self.command(program).args(words).ok()
    }

    /// A command line, split at spaces; it must fail. What it left.
    #[track_caller]
    pub fn sh_fails(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line names a program");
        let output = self.command(program).args(words).run();
        assert!(!output.status.success(), "{output}");
        output
    }

    /// `ip` with these words; it must succeed.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        self.command("ip").args(words.split_whitespace()).ok()
    }

    /// Several lines for `ip`, by one process; all must succeed.
    #[track_caller]
    pub fn ip_lines(&self, lines: &[String]) {
        self.command("ip").args(["-batch", "-"]).input(lines.join("\n")).ok();
    }

    /// Sets `/proc/sys/KEY`, with dots in the key as sysctl(8) writes them.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.inside(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{}: {path}: {error}", self.name));
    }

    /// The same, where the kernel has such a key.
    pub fn sysctl_if_known(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        // It is absent where its module is, and so is the behaviour that it switches.
        let _ = self.inside(|| std::fs::write(&path, value));
    }

    /// Runs a closure in a thread that is inside.
    #[track_caller]
    pub fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let entered = self.namespaces.enter_thread();
                entered.unwrap_or_else(|error| panic!("cannot enter {}: {error}", self.name));
                task()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Opens a socket that listens on an address of the site. A copy of a former one keeps its port for a moment, where
    /// another test is starting a process: until that runs its program.
    #[track_caller]
    pub fn bound<S: Send>(&self, bind: impl Fn() -> io::Result<S> + Sync) -> S {
        let bound = eventually("its port is free", PORT_FREE, || match self.inside(&bind) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            bound => Some(bound),
        });
        bound.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Switches an offload of a device, as `ethtool -K` does.
    #[track_caller]
    pub fn offload(&self, device: &str, offload: Offload, on: bool) {
        let done = self.inside(|| sys::set_offload(device, offload, on));
        done.unwrap_or_else(|error| panic!("{}: {offload:?} of {device}: {error}", self.name));
    }

    /// Opens a raw socket on a device.
    #[track_caller]
    pub fn raw(&self, device: &str) -> RawSocket {
        self.inside(|| RawSocket::open(device))
    }

    /// The MAC address of a device.
    #[track_caller]
    pub fn mac(&self, device: &str) -> [u8; 6] {
        let link = self.ip(&format!("-o link show dev {device}"));
        let text = link.split_once("link/ether ").and_then(|(_, rest)| rest.split(' ').next());
        let octets = text.into_iter().flat_map(|text| text.split(':'));
        let octets: Vec<u8> = octets.filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        octets.try_into().unwrap_or_else(|_| panic!("no MAC address in {link}"))
    }

    /// Whether a device exists.
    pub fn has_device(&self, device: &str) -> bool {
        self.command("ip").args(["link", "show", "dev", device]).run().status.success()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if lab::kept() && !thread::panicking() {
            return;
        }
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

#[track_caller]
fn open_namespace(path: &str) -> OwnedFd {
    File::open(path).unwrap_or_else(|error| panic!("cannot open {path}: {error}")).into()
}
