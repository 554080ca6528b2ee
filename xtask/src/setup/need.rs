//! What is needed, and whether it is there.

use std::process::Command;

use ebpf_build::{Compiler, LINKER_VERSION, LLVM_MAJOR, Linker, NIGHTLY, Place};

use super::Scope;
use crate::command::{capture, cargo_program, find_program};

/// Something missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A compiler that makes BPF code.
    Compiler,
    /// bpf-linker, with an LLVM that fits.
    Linker,
    /// A part of the Rust toolchain.
    Component(&'static str),
    /// A program, by name or path, from a Debian package: the first of these, separated by `|`, that the release has.
    Program { name: &'static str, package: &'static str, purpose: &'static str },
}

/// Programs that the tests, the demo and the benchmarks start.
const LAB: [(&str, &str); 16] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("tcpdump", "tcpdump"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("curl", "curl"),
    ("nc", "netcat-openbsd"),
    ("ethtool", "ethtool"),
    ("busybox", "busybox-static"),
    ("nginx", "nginx"),
    ("dnsmasq", "dnsmasq-base"),
    ("wrk", "wrk"),
    ("iptables-restore", "iptables"),
];

/// Programs that only tests start: what hosts have beside Fanlight.
const TESTS: [(&str, &str); 16] = [
    ("bird", "bird2"),
    ("/usr/lib/frr/bgpd", "frr"),
    ("gobgpd", "gobgpd"),
    ("exabgp", "exabgp"),
    ("iptables-legacy-restore", "iptables"),
    ("ipvsadm", "ipvsadm"),
    ("dockerd", "docker.io"),
    ("docker", "docker-cli|docker.io"),
    ("containerd", "containerd"),
    ("podman", "podman"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("conmon", "conmon"),
    ("runc", "runc"),
    ("lxc-start", "lxc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("systemd-analyze", "systemd"),
];

/// Programs that boot a guest. Its initramfs is written by ourselves.
const VM: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("dpkg-deb", "dpkg"),
    ("ipvsadm", "ipvsadm"),
];

impl Need {
    /// What, what for, where from.
    pub(super) fn row(&self) -> [String; 3] {
        match self {
            Self::Compiler => [
                "compiler for BPF".into(),
                "kernel programs".into(),
                format!("rustup toolchain {NIGHTLY} with rust-src, else the distribution's rustc-web"),
            ],
            Self::Linker => [
                "bpf-linker".into(),
                "kernel programs".into(),
                format!(
                    "cargo install bpf-linker {LINKER_VERSION} into target/tools, with LLVM {LLVM_MAJOR}"
                ),
            ],
            Self::Component(name) => [(*name).into(), "ci".into(), format!("rustup component add {name}")],
            Self::Program { name, package, purpose } => [
                (*name).into(),
                (*purpose).into(),
                format!("apt-get install {}", package.replace('|', " or ")),
            ],
        }
    }
}

/// What `scope` needs and this machine lacks.
pub(super) fn missing(place: &Place, scope: Scope) -> Vec<Need> {
    let mut missing = Vec::new();
    let compiler = Compiler::find().ok();
    if compiler.is_none() {
        missing.push(Need::Compiler);
    }
    let fits = |linker: Linker| compiler.as_ref().is_none_or(|compiler| linker.check(compiler).is_ok());
    if !Linker::find(place).is_ok_and(fits) {
        missing.push(Need::Linker);
    }
    let programs = |list: &[(&'static str, &'static str)], purpose| -> Vec<Need> {
        list.iter().map(|&(name, package)| Need::Program { name, package, purpose }).collect()
    };
    let lab = programs(&LAB, "tests, demo, benchmarks");
    let tests = programs(&TESTS, "tests");
    let vm = programs(&VM, "VM matrix");
    let programs = match scope {
        Scope::Lab => lab,
        Scope::Tests => [lab, tests].concat(),
        Scope::Vm => [lab, vm].concat(),
        Scope::Ci => [lab, tests, vm].concat(),
    };
    if scope == Scope::Ci {
        let components = [("fmt", "rustfmt"), ("clippy", "clippy")];
        let absent = components.into_iter().filter(|(task, _)| !has_task(task));
        missing.extend(absent.map(|(_, component)| Need::Component(component)));
    }
    let absent = |need: &Need| matches!(need, Need::Program { name, .. } if find_program(name).is_none());
    missing.extend(programs.into_iter().filter(absent));
    missing
}

/// Whether cargo has a task that is no part of cargo itself.
fn has_task(task: &str) -> bool {
    capture(Command::new(cargo_program()).args([task, "--version"])).is_ok()
}
