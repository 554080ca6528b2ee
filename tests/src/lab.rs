//! Ownership: every process of a run carries a mark in its environment, and namespaces live no longer than
//! the processes in them, so a run that was killed leaves nothing but marked processes.

use std::{
    fs,
    sync::{
        Once, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Environment variable that holds the mark.
pub const MARK: &str = "FANLIGHT_LAB";

static KEEP: OnceLock<()> = OnceLock::new();
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Lets the processes of this run outlive it. Call it before anything is made.
pub fn keep() {
    KEEP.get_or_init(|| ());
}

/// Whether this run's processes outlive it.
pub fn kept() -> bool {
    KEEP.get().is_some()
}

/// The mark of this run: `fl-PID-START`, with `-kept` where processes may outlive their owner.
pub fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let pid = std::process::id();
        let kept = if kept() { "-kept" } else { "" };
        format!("fl-{pid}-{}{kept}", started(pid).unwrap_or_default())
    })
}

/// A name that nothing else of this run has.
pub fn name(what: &str) -> String {
    format!("fl-{}-{what}{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// Ends what runs left whose owner is dead. Done once, before anything is made.
pub fn sweep() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        end_processes(|mark| {
            let mut parts = mark.split('-').skip(1);
            let pid = parts.next().and_then(|pid| pid.parse().ok());
            let start = parts.next().and_then(|start| start.parse().ok());
            parts.next().is_none() && pid.is_some_and(|pid| started(pid) != start)
        });
    });
}

/// Ends every lab that was kept; how many processes that were.
pub fn clean() -> usize {
    end_processes(|mark| mark.ends_with("-kept"))
}

/// Processes of this run that are left, besides this one.
pub fn left() -> Vec<u32> {
    let own = std::process::id();
    processes(|found| found == mark()).filter(|&pid| pid != own).collect()
}

fn end_processes(ours: impl Fn(&str) -> bool) -> usize {
    processes(ours).filter(|&pid| kill(Pid::from_raw(pid as i32), Signal::SIGKILL).is_ok()).count()
}

/// Processes whose mark is one of these.
fn processes(ours: impl Fn(&str) -> bool) -> impl Iterator<Item = u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(move |&pid| mark_of(pid).is_some_and(|mark| ours(&mark)))
}

/// The mark that a process carries.
fn mark_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{MARK}=");
    let entries = environment.split(|&byte| byte == 0);
    let mut entries = entries.filter_map(|entry| std::str::from_utf8(entry).ok());
    entries
        .find_map(|entry| Some(entry.strip_prefix(&prefix)?.to_owned()))
        .filter(|mark| mark.starts_with("fl-"))
}

/// When a process started, in clock ticks since boot: tells a process from a later one with its number.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: fields count from behind it; the start time is field 22.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
