//! Programs that this process runs: each has a deadline, and its output a bound.
//!
//! A child has a process group of its own, which is killed when the deadline passes: what the child started ends, too. A
//! daemon that left the group (dnsmasq) stays.

pub(crate) mod awaited;

use std::{
    fmt, io,
    io::{Read, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Most that a child may write to each of its outputs: eight times what `iptables-save` prints for 10,000 services.
const BOUND: usize = 64 << 20;
/// How long the pipes of a child that has ended are read: a process that it left behind may hold them open.
const GRACE: Duration = Duration::from_millis(200);
/// How long the end of a killed child is waited for; one that hangs in the kernel ends when that lets it go.
const END: Duration = Duration::from_secs(1);
/// Longest command line in a message.
const SHOWN: usize = 120;

/// Why a child's work is not known.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started, or its pipes broke.
    #[error("`{command}` could not be run: {source}")]
    Run {
        /// Which.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It did not end in time.
    #[error("`{command}` did not end within {} s and was killed; see what holds it up", limit.as_secs_f64())]
    Late {
        /// Which.
        command: String,
        /// How long it had.
        limit: Duration,
    },
    /// It wrote too much.
    #[error("`{command}` wrote more than {} MiB and was killed", BOUND >> 20)]
    TooMuch {
        /// Which.
        command: String,
    },
}

impl ChildError {
    /// Whether there is no such program.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What a child left.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it succeeded.
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// Its standard output.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The first line of its complaint: further ones quote what it was given.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        text.lines().next().unwrap_or("no reason given").trim().to_owned()
    }
}

/// Runs a program to its end, at most for `limit`, with `input` on its standard input.
///
/// # Errors
/// It can't be run, did not end in time or wrote too much; it is gone then. A status other than success is no error.
pub fn run(program: &str, arguments: &[&str], input: &str, limit: Duration) -> Result<Output, ChildError> {
    let command = || shown(program, arguments);
    let failed = |source| ChildError::Run { command: command(), source };
    let child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut running = Running { child, is_over: false };
    match running.follow(input.as_bytes(), limit).map_err(failed)? {
        Followed::Ended(output) => Ok(output),
        Followed::Late => Err(ChildError::Late { command: command(), limit }),
        Followed::TooMuch => Err(ChildError::TooMuch { command: command() }),
    }
}

/// A command line for messages.
fn shown(program: &str, arguments: &[&str]) -> String {
    let mut line = [&[program], arguments].concat().join(" ");
    if line.len() > SHOWN {
        line.truncate(line.floor_char_boundary(SHOWN));
        line.push_str("...");
    }
    line
}

enum Followed {
    Ended(Output),
    Late,
    TooMuch,
}

/// A child that is killed with its group unless it has ended.
struct Running {
    child: Child,
    is_over: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // The leader is not reaped yet, so that its number names no other group.
        let _gone = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Running {
    /// Feeds and reads the child until it has ended.
    fn follow(&mut self, input: &[u8], limit: Duration) -> io::Result<Followed> {
        let mut deadline = Instant::now() + limit;
        let end = pidfd(self.child.id())?;
        let mut feed = Feed::new(self.child.stdin.take(), input)?;
        let mut outputs = [Sink::new(self.child.stdout.take())?, Sink::new(self.child.stderr.take())?];
        let mut has_ended = false;
        loop {
            if has_ended && outputs.iter().all(Sink::is_at_end) {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if has_ended {
                    break;
                }
                return Ok(Followed::Late);
            }
            let ended = wait(&end, has_ended, &feed, &outputs, left)?;
            if ended && !has_ended {
                has_ended = true;
                deadline = deadline.min(Instant::now() + GRACE);
            }
            feed.go_on()?;
            for output in &mut outputs {
                output.go_on()?;
                if output.bytes.len() > BOUND {
                    return Ok(Followed::TooMuch);
                }
            }
        }
        let status = self.child.wait()?;
        self.is_over = true;
        let [stdout, stderr] = outputs.map(|output| output.bytes);
        Ok(Followed::Ended(Output { status, stdout, stderr }))
    }
}

/// Waits until the child has ended or a pipe is ready; says whether it has ended.
fn wait(
    end: &OwnedFd,
    has_ended: bool,
    feed: &Feed<'_>,
    outputs: &[Sink],
    limit: Duration,
) -> io::Result<bool> {
    let mut fds = Vec::with_capacity(4);
    if !has_ended {
        fds.push(PollFd::new(end.as_fd(), PollFlags::POLLIN));
    }
    fds.extend(feed.pipe.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
    fds.extend(outputs.iter().filter_map(Sink::fd).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // At least a millisecond: less would be no wait at all.
    let limit = limit.max(Duration::from_millis(1));
    match poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(has_ended || fds.first().is_some_and(|end| end.any().unwrap_or(false)))
}

/// What is left to write.
struct Feed<'i> {
    pipe: Option<ChildStdin>,
    left: &'i [u8],
}

impl<'i> Feed<'i> {
    fn new(pipe: Option<ChildStdin>, left: &'i [u8]) -> io::Result<Self> {
        let pipe = pipe.filter(|_| !left.is_empty());
        if let Some(pipe) = &pipe {
            set_nonblocking(pipe)?;
        }
        Ok(Self { pipe, left })
    }

    fn go_on(&mut self) -> io::Result<()> {
        while let Some(pipe) = &mut self.pipe {
            match pipe.write(self.left) {
                Ok(length) => self.left = &self.left[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // It reads no more: its status and complaint say why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.left = &[],
                Err(error) => return Err(error),
            }
            if self.left.is_empty() {
                self.pipe = None;
            }
        }
        Ok(())
    }
}

/// What was read so far.
struct Sink {
    pipe: Option<Box<dyn Pipe>>,
    bytes: Vec<u8>,
}

trait Pipe: Read + AsFd {}
impl<P: Read + AsFd> Pipe for P {}

impl Sink {
    fn new(pipe: Option<impl Pipe + 'static>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            set_nonblocking(pipe)?;
        }
        Ok(Self { pipe: pipe.map(|pipe| Box::new(pipe) as Box<dyn Pipe>), bytes: Vec::new() })
    }

    fn is_at_end(&self) -> bool {
        self.pipe.is_none()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|pipe| pipe.as_fd())
    }

    fn go_on(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 << 10];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.bytes.extend(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.bytes.len() > BOUND {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// A descriptor that becomes readable when a child ends.
fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel just gave this descriptor, which nothing else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}

#[cfg(test)]
mod tests;
