//! Programs that a task awaits: a deadline, a process group that ends with it, and no more of the output than a bound.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};

/// Bytes of each output that are kept.
const KEPT: usize = 64 * 1024;
/// How long the output of a program that has ended is read: what it left behind may hold the pipes open.
const GRACE: Duration = Duration::from_millis(100);

/// How a program ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With this status.
    Status(ExitStatus),
    /// Not in time: it was killed with its process group.
    Late,
    /// It could not be run.
    Failed(io::Error),
}

/// Runs a program with its arguments to its end, at most for `limit`, with an empty standard input; gives what it wrote, too, where
/// `keeps`. Its process group is killed at the limit, and when nobody awaits it any more.
pub(crate) async fn run(
    (program, arguments): (&str, &[String]),
    environment: &[(&str, String)],
    limit: Duration,
    keeps: bool,
) -> (End, Option<String>) {
    let outputs = || if keeps { Stdio::piped() } else { Stdio::null() };
    let child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(outputs())
        .stderr(outputs())
        .spawn();
    let mut group = match child {
        Ok(child) => Group(child),
        Err(error) => return (End::Failed(error), None),
    };
    let (mut written, mut complained) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (group.0.stdout.take(), group.0.stderr.take());
    let ended = {
        let reading = async {
            tokio::join!(keep(stdout, &mut written), keep(stderr, &mut complained));
        };
        let mut reading = std::pin::pin!(reading);
        let ending = timeout(limit, group.0.wait());
        let mut ending = std::pin::pin!(ending);
        let mut is_read = false;
        let ended = loop {
            tokio::select! {
                ended = &mut ending => break ended,
                () = &mut reading, if !is_read => is_read = true,
            }
        };
        if !is_read && ended.is_ok() {
            drop(timeout(GRACE, reading).await);
        }
        ended
    };
    let end = match ended {
        Ok(Ok(status)) => End::Status(status),
        Ok(Err(error)) => End::Failed(error),
        Err(_late) => End::Late,
    };
    written.extend(complained);
    (end, keeps.then(|| String::from_utf8_lossy(&written).into_owned()))
}

/// Reads all that comes, and keeps the first of it.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        let room = KEPT.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&chunk[..room]);
    }
}

/// A child whose process group is killed unless it has ended.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // None once it was waited for: its number may be another's by then.
        if let Some(id) = self.0.id() {
            let _gone = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}
