//! Booting a guest under plain emulation: no KVM, no disk, no network, no privilege.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Output, VmSpec, root};
use crate::{
    command::run,
    runner::{self, Outcome, Pipe},
};

const REPORT: &str = "report";
const LOG: &str = "log";

/// Boots `spec`'s kernel, runs its command, and returns what it reported. `directory` is emptied first and then
/// holds the guest's files in `out/`.
pub(super) fn boot(spec: &VmSpec<'_>, directory: &Path) -> Result<Output> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    fs::create_dir_all(directory.join("out")).with_context(|| format!("making {}", directory.display()))?;
    let initramfs = directory.join("initramfs");
    fs::write(&initramfs, root::archive(spec)?.bytes())
        .with_context(|| format!("writing {}", initramfs.display()))?;

    let start = Instant::now();
    let mut qemu = emulator(spec, directory);
    let mut child = qemu.spawn().context("starting qemu-system-x86_64")?;
    let (stdout, place) = (child.stdout.take(), spec.kernel.series.clone());
    let output = thread::spawn(move || {
        // Several guests may run at once.
        let show = |line: &str| println!("{place:5}| {line}");
        let stdout = stdout.map(|stdout| Box::new(stdout) as Pipe);
        runner::follow(stdout, &place, show)
    });
    let in_time = wait(&mut child, spec.limit)?;
    let tests: Outcome = output.join().unwrap_or_default();
    fs::remove_file(&initramfs).with_context(|| format!("removing {}", initramfs.display()))?;
    if !in_time {
        bail!(
            "{} did not finish within {} s{}",
            spec.kernel.release,
            spec.limit.as_secs(),
            last_words(directory)
        );
    }
    let status = report(directory)?.with_context(|| {
        format!("{} ended without a report{}", spec.kernel.release, last_words(directory))
    })?;
    Ok(Output { status, tests, files: directory.join("out"), took: start.elapsed() })
}

fn emulator(spec: &VmSpec<'_>, directory: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    let cpus = if spec.instruction_clock { 1 } else { spec.cpus };
    if spec.instruction_clock {
        // A guest's nanosecond is an instruction, whatever this machine's load.
        qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    } else {
        qemu.args(["-accel", "tcg,thread=multi"]);
    }
    qemu.args(["-machine", "q35", "-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.args(["-smp", &cpus.to_string(), "-m", &spec.memory_mib.to_string()]);
    qemu.arg("-kernel").arg(&spec.kernel.image).arg("-initrd").arg(directory.join("initramfs"));
    qemu.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    for name in [REPORT, LOG] {
        let path = directory.join(name).display().to_string();
        qemu.args([
            "-chardev",
            &format!("file,id={name},path={path}"),
            "-serial",
            &format!("chardev:{name}"),
        ]);
    }
    let arguments = "console=ttyS2,115200 loglevel=4 panic=-1 oops=panic random.trust_cpu=on nokaslr rcupdate.rcu_expedited=1 \
                     mitigations=off nowatchdog tsc=reliable net.ifnames=0";
    qemu.args(["-append", arguments]);
    if !spec.interactive {
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    }
    qemu
}

/// Whether it ended by itself in time.
fn wait(child: &mut Child, limit: Duration) -> Result<bool> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if child.try_wait().context("waiting for the guest")?.is_some() {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill().context("ending the guest")?;
    child.wait().context("waiting for the guest")?;
    Ok(false)
}

/// The command's exit status, once its files are unpacked.
fn report(directory: &Path) -> Result<Option<i32>> {
    let report = fs::read(directory.join(REPORT)).context("reading the guest's report")?;
    let end = report.iter().position(|byte| *byte == b'\n').unwrap_or(report.len());
    let status = String::from_utf8_lossy(&report[..end]).trim().strip_prefix("status=").map(str::parse);
    let Some(Ok(status)) = status else { return Ok(None) };
    let files = &report[(end + 1).min(report.len())..];
    if !files.is_empty() {
        let packed = directory.join("out.tar.gz");
        fs::write(&packed, files).with_context(|| format!("writing {}", packed.display()))?;
        run(Command::new("tar").arg("-C").arg(directory.join("out")).arg("-xmzf").arg(&packed))?;
    }
    Ok(Some(status))
}

/// The end of the kernel's messages, to say why.
fn last_words(directory: &Path) -> String {
    let log = fs::read(directory.join(LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    if last.is_empty() { String::new() } else { format!("; its last messages:\n{}", last.join("\n")) }
}
