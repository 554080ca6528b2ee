//! A program that ends with status 0.

use std::{
    os::unix::process::ExitStatusExt as _,
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

use super::{Seen, Subject, shown};

/// Bytes of output that are kept.
const KEPT: usize = 64 * 1024;
/// How long the output of a program that has ended is read: what it left behind may hold the pipes open.
const GRACE: Duration = Duration::from_millis(100);

/// Runs a program to its end, at most for `limit`; what it writes is given only where `keeps`. Its process group is killed at the
/// limit, and when nobody waits any more.
pub(super) async fn ends_well(
    words: &[String],
    subject: &Subject,
    limit: Duration,
    keeps: bool,
) -> (Seen, Option<String>) {
    let Some((program, arguments)) = words.split_first() else { return (Err("no program".to_owned()), None) };
    let outputs = || if keeps { Stdio::piped() } else { Stdio::null() };
    let child = Command::new(program)
        .args(arguments)
        .envs(subject.environment.iter().map(|(name, value)| (*name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(outputs())
        .stderr(outputs())
        .spawn();
    let mut group = match child {
        Ok(child) => Group(child),
        Err(error) => return (Err(format!("{program}: {error}")), None),
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
    let seen = match ended {
        Ok(Ok(status)) if status.success() => Ok(said(status)),
        Ok(Ok(status)) => Err(said(status)),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_late) => Err(format!("did not end within {} and was killed", shown(limit))),
    };
    written.extend(complained);
    (seen, keeps.then(|| String::from_utf8_lossy(&written).into_owned()))
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

fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
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
