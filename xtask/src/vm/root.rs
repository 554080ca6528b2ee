//! The guest's file system: busybox, this machine's programs with their libraries, and what is to be run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{VmSpec, archive::Archive, module};
use crate::command::{capture, find_program};

/// This machine's programs; the tests mean these and not busybox's.
const PROGRAMS: [&str; 23] = [
    "bridge",
    "curl",
    "dnsmasq",
    "ethtool",
    "ip",
    "iperf3",
    "ipvsadm",
    "mount",
    "nc",
    "nft",
    "nginx",
    "nsenter",
    "ping",
    "sleep",
    "ss",
    "sysctl",
    "tc",
    "tcpdump",
    "timeout",
    "traceroute",
    "umount",
    "unshare",
    "wrk",
];

const DIRECTORIES: [&str; 14] = [
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "out",
    "payload",
    "root",
    "var/lib/nginx",
    "var/run",
];

/// The archive to boot from.
pub(super) fn archive(spec: &VmSpec<'_>) -> Result<Archive> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory);
    }
    archive.file("/init", 0o755, include_str!("init.sh"));
    add_programs(&mut archive)?;
    add_accounts(&mut archive);
    module::add(&mut archive, spec.kernel)?;
    for (from, name) in &spec.payload {
        add_payload(&mut archive, from, name)?;
    }
    archive.file("/etc/guest.command", 0o755, script(spec));
    if spec.interactive {
        archive.file("/etc/guest.shell", 0o644, "");
    }
    Ok(archive)
}

fn add_programs(archive: &mut Archive) -> Result<()> {
    let busybox = find_program("busybox").context("busybox is missing; run `cargo xtask setup`")?;
    archive.copy("/bin/busybox", &busybox)?;
    for name in PROGRAMS {
        let Some(path) = find_program(name) else { bail!("{name} is missing; run `cargo xtask setup`") };
        add_program(archive, &path, &format!("/usr/local/bin/{name}"))?;
    }
    // busybox's own shell may prefer its applets to PATH.
    add_program(archive, Path::new("/bin/sh"), "/bin/sh")
}

fn add_program(archive: &mut Archive, from: &Path, to: &str) -> Result<()> {
    let from = fs::canonicalize(from).with_context(|| format!("reading {}", from.display()))?;
    archive.copy(to, &from)?;
    add_libraries(archive, &from)
}

/// A static program has none, and makes ldd fail.
fn add_libraries(archive: &mut Archive, program: &Path) -> Result<()> {
    let listed = capture(Command::new("ldd").arg(program)).unwrap_or_default();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from) {
        if !archive.contains(&library) {
            archive.copy(&library, &library)?;
        }
    }
    Ok(())
}

/// Line tables are for debuggers, and every megabyte has to be unpacked under emulation.
fn add_payload(archive: &mut Archive, from: &Path, name: &str) -> Result<()> {
    add_libraries(archive, from)?;
    let stripped = std::env::temp_dir().join(format!("fanlight-{}-{name}", std::process::id()));
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(from).output();
    let to = Path::new("/payload").join(name);
    if !strip.is_ok_and(|output| output.status.success()) {
        return archive.copy(to, from);
    }
    let copied = archive.copy(to, &stripped);
    fs::remove_file(&stripped).with_context(|| format!("removing {}", stripped.display()))?;
    copied
}

/// tcpdump changes to a user of its own.
fn add_accounts(archive: &mut Archive) {
    let users = "root:x:0:0:root:/root:/bin/sh\ntcpdump:x:100:100::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n";
    archive.file("/etc/passwd", 0o644, users);
    archive.file("/etc/group", 0o644, "root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n");
    archive.file("/etc/hosts", 0o644, "127.0.0.1 localhost\n");
    archive.file("/etc/protocols", 0o644, "icmp 1 ICMP\nipencap 4 IP-ENCAP\ntcp 6 TCP\nudp 17 UDP\n");
    archive.link("/etc/mtab", "/proc/mounts");
}

fn script(spec: &VmSpec<'_>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut script = String::from("#!/bin/sh\ncd /payload || exit 125\n");
    for (name, value) in &spec.environment {
        script.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    if spec.instruction_clock {
        // What the kernel puts off while booting would count against whatever is measured first (plain routing took
        // twice its instructions); an idle second costs nothing on this clock.
        script.push_str("sleep 30\n");
    }
    let words: Vec<_> = spec.command.iter().map(|word| quoted(word)).collect();
    script.push_str(&format!("exec {}\n", words.join(" ")));
    script
}
