//! Programs of other owners: a few instructions each, on hooks that packets or sockets meet before they meet ours.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use bytemuck::{Pod, Zeroable};
use nix::net::if_::if_nametoindex;

use crate::{
    host::Host,
    lab,
    site::Site,
    sys::{bpf, bpf_fd},
};

const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const PROG_ATTACH: libc::c_long = 8;
pub(crate) const TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;

pub(crate) const SCHED_CLS: u32 = 3;
pub(crate) const PROG_XDP: u32 = 6;
const CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_INET4_CONNECT: u32 = 10;
const TCX_INGRESS: u32 = 46;
const XDP: u32 = 37;
/// `BPF_F_BEFORE`; with nothing named: before all others.
const BEFORE: u32 = 1 << 3;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Load {
    kind: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// The head of `union bpf_attr` for BPF_PROG_TEST_RUN.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct TestRun {
    pub(crate) program: u32,
    pub(crate) result: u32,
    pub(crate) size_in: u32,
    pub(crate) size_out: u32,
    pub(crate) data_in: u64,
    pub(crate) data_out: u64,
    pub(crate) repeat: u32,
    pub(crate) duration: u32,
    pub(crate) context_in_size: u32,
    pub(crate) context_out_size: u32,
    pub(crate) context_in: u64,
    pub(crate) context_out: u64,
    pub(crate) flags: u32,
    pub(crate) cpu: u32,
    pub(crate) batch_size: u32,
    pub(crate) pad: u32,
}

/// The head of `union bpf_attr` for the other commands, whose first fields have four bytes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Words([u32; 6]);

/// A loaded program; a link on it ends with the value.
pub struct Foreign {
    program: OwnedFd,
    _link: Option<OwnedFd>,
}

impl Foreign {
    /// A classifier that leaves every packet to whoever comes after it.
    #[track_caller]
    pub fn classifier(name: &str) -> Self {
        // TC_ACT_UNSPEC, which is also TCX_NEXT.
        Self::load(name, SCHED_CLS, 0, &[set(0, -1), EXIT])
    }

    /// An XDP program that leaves every packet to whoever comes after it.
    #[track_caller]
    pub fn xdp(name: &str) -> Self {
        const PASS: i32 = 2;
        Self::load(name, PROG_XDP, 0, &[set(0, PASS), EXIT])
    }

    /// An XDP program that drops every packet.
    #[track_caller]
    pub fn xdp_drop(name: &str) -> Self {
        const DROP: i32 = 1;
        Self::load(name, PROG_XDP, 0, &[set(0, DROP), EXIT])
    }

    /// A program that has connections to one address go to another.
    #[track_caller]
    pub fn connect(name: &str, from: Ipv4Addr, to: Ipv4Addr) -> Self {
        const USER_IP4: i16 = 4;
        let word = |address: Ipv4Addr| i32::from_ne_bytes(address.octets());
        let insn = |code, registers, offset, immediate| Insn { code, registers, offset, immediate };
        let instructions = [
            // w2 = ctx->user_ip4; unless it is `from`, leave; ctx->user_ip4 = `to`; allow.
            insn(0x61, 0x12, USER_IP4, 0),
            insn(0x56, 0x02, 2, word(from)),
            insn(0xb4, 0x02, 0, word(to)),
            insn(0x63, 0x21, USER_IP4, 0),
            set(0, 1),
            EXIT,
        ];
        Self::load(name, CGROUP_SOCK_ADDR, CGROUP_INET4_CONNECT, &instructions)
    }

    #[track_caller]
    fn load(name: &str, kind: u32, attach_type: u32, insns: &[Insn]) -> Self {
        Self { program: load(name, kind, attach_type, insns), _link: None }
    }

    /// Puts it before all others on the tcx ingress hook of a host's device, until the value goes.
    #[track_caller]
    pub fn before_all(self, host: &Site, device: &str) -> Self {
        self.attach(host, device, TCX_INGRESS, BEFORE)
    }

    /// Has a device's driver run it (an XDP program), until the value goes.
    #[track_caller]
    pub fn on(self, host: &Site, device: &str) -> Self {
        self.attach(host, device, XDP, 0)
    }

    #[track_caller]
    fn attach(mut self, host: &Site, device: &str, attach_type: u32, flags: u32) -> Self {
        self._link = Some(host.inside(|| {
            let index = if_nametoindex(device).expect("the device exists");
            let mut attr = Words([self.program.as_raw_fd() as u32, index, attach_type, flags, 0, 0]);
            bpf_fd(LINK_CREATE, &mut attr).unwrap_or_else(|error| panic!("attaching to {device}: {error}"))
        }));
        self
    }

    /// Pins it on a host, as programs get it that know only paths.
    #[track_caller]
    pub fn pin(&self, host: &Host, path: &str) {
        let text = std::ffi::CString::new(path).expect("a path");
        let address = text.as_ptr().expose_provenance() as u64;
        let (low, high) = (address as u32, (address >> 32) as u32);
        let mut attr = Words([low, high, self.program.as_raw_fd() as u32, 0, 0, 0]);
        host.inside(|| bpf(OBJ_PIN, &mut attr).unwrap_or_else(|error| panic!("pinning at {path}: {error}")));
    }

    /// Makes it decide for the processes of a control group, for as long as that lives.
    #[track_caller]
    pub fn for_group(&self, group: &Group) {
        let directory = File::open(&group.0).expect("the group is there");
        let (target, program) = (directory.as_raw_fd() as u32, self.program.as_raw_fd() as u32);
        bpf(PROG_ATTACH, &mut Words([target, program, CGROUP_INET4_CONNECT, 0, 0, 0]))
            .unwrap_or_else(|error| panic!("attaching to a control group: {error}"));
    }
}

/// A control group of its own.
pub struct Group(PathBuf);

impl Group {
    /// Makes one.
    #[track_caller]
    pub fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc");
        let mut found = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let at = words.next()?;
            (words.next()? == "cgroup2").then_some(at)
        });
        let path = Path::new(found.next().expect("cgroup2 is mounted")).join(lab::name("group"));
        fs::create_dir(&path).expect("a control group");
        Self(path)
    }

    /// Moves a process into it.
    #[track_caller]
    pub fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process moves");
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes that are just ending still count for a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("{}: left behind", self.0.display());
    }
}

/// Loads a program of a few instructions.
#[track_caller]
pub(crate) fn load(name: &str, kind: u32, attach_type: u32, insns: &[Insn]) -> OwnedFd {
    let mut load = Load {
        kind,
        attach_type,
        insn_count: insns.len() as u32,
        insns: insns.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        ..Zeroable::zeroed()
    };
    load.name[..name.len()].copy_from_slice(name.as_bytes());
    bpf_fd(PROG_LOAD, &mut load).unwrap_or_else(|error| panic!("loading {name}: {error}"))
}

pub(crate) const EXIT: Insn = Insn { code: 0x95, registers: 0, offset: 0, immediate: 0 };

/// Sets a register to a number.
pub(crate) const fn set(register: u8, immediate: i32) -> Insn {
    Insn { code: 0xb7, registers: register, offset: 0, immediate }
}
