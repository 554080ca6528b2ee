//! Commands with a time limit, processes that end with their value, and waiting for something to become true.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, pidfd_open},
};

use crate::{lab, tools};

/// Limit of a command that names none.
const LIMIT: Duration = Duration::from_secs(30);

/// A time for work whose length is no claim of a test: under emulation the verifier takes ten times as long.
pub(crate) fn patience(usual: Duration) -> Duration {
    if tools::in_guest() { usual * 6 } else { usual }
}

/// Read while a process starts. Until it runs its program it holds a copy of everything that is open here.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts a process; it runs its program when this returns.
pub(crate) fn start(command: &mut Command) -> io::Result<Child> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Closes what is open, and awaits the end of the copies in processes that other tests were just starting: its port is
/// free, its connection ended, its program detached when this returns.
pub fn close<T>(open: T) {
    drop(open);
    drop(STARTING.write().unwrap_or_else(PoisonError::into_inner));
}

/// Ends what asks for it when this goes, also when something has failed.
pub struct End<'e>(pub &'e AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A command to run in some namespace.
#[must_use]
pub struct Cmd {
    command: Command,
    limit: Duration,
    input: Option<String>,
    site: String,
}

/// What a command left.
#[derive(Debug)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    what: String,
}

impl Cmd {
    /// A command of the machine itself, or, after [`Cmd::edit`], of a namespace.
    pub fn new(program: impl AsRef<OsStr>, site: &str) -> Self {
        let mut command = Command::new(program);
        command.env(lab::MARK, lab::mark()).stdin(Stdio::null());
        Self { command, limit: patience(LIMIT), input: None, site: site.to_owned() }
    }

    /// Changes the command underneath.
    pub fn edit(mut self, edit: impl FnOnce(&mut Command)) -> Self {
        edit(&mut self.command);
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets how long it may run.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Gives it a text on standard input.
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Runs it to its end, whatever its status.
    #[track_caller]
    pub fn run(mut self) -> Output {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.input.is_some() {
            self.command.stdin(Stdio::piped());
        }
        let what = self.what();
        let mut child = start(&mut self.command).unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
        if let (Some(text), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A command that ends without reading its input says so by its status.
            let _ = stdin.write_all(text.as_bytes());
        }
        let stdout = Drain::start(child.stdout.take());
        let stderr = Drain::start(child.stderr.take());
        let status = wait(&mut child, self.limit);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (stdout.text(), stderr.text());
        let Some(status) = status else {
            panic!("{what} did not end within {:?}\n{stdout}{stderr}", self.limit);
        };
        Output { status, stdout, stderr, what }
    }

    /// Runs it; it must succeed. Its standard output, without trailing white space.
    #[track_caller]
    pub fn ok(self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{output}");
        output.stdout.trim_end().to_owned()
    }

    /// Runs it; it must exit with this status. What it left.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        let output = self.run();
        assert_eq!(output.status.code(), Some(code), "{output}");
        output
    }

    /// Runs it and shows each line of its standard output as it comes; it must succeed.
    #[track_caller]
    pub fn show(mut self, mut show: impl FnMut(&str)) {
        let what = self.what();
        let limit = self.limit;
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = start(&mut self.command).unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
        let stdout = child.stdout.take().into_iter();
        let mut process = Process { child, output: None, what };
        let lines = stdout.flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok);
        let deadline = Instant::now() + limit;
        for line in lines {
            assert!(Instant::now() < deadline, "{} did not end within {limit:?}", process.what);
            show(&line);
        }
        let status = wait(&mut process.child, limit);
        assert!(status.is_some_and(|status| status.success()), "{}: {status:?}", process.what);
    }

    /// Starts it in the background. Its output is shown when something goes wrong; in a lab that is kept it is
    /// thrown away, because its reader ends before it does.
    #[track_caller]
    pub fn spawn(mut self) -> Process {
        if !lab::kept() {
            return self.spawn_heard();
        }
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let what = self.what();
        let child = start(&mut self.command).unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
        Process { child, output: None, what }
    }

    /// Starts it in the background, to be asked for its output before this process ends.
    #[track_caller]
    pub fn spawn_heard(mut self) -> Process {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let what = self.what();
        let mut child = start(&mut self.command).unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
        let output = [Drain::start(child.stdout.take()), Drain::start(child.stderr.take())];
        Process { child, output: Some(output), what }
    }

    fn what(&self) -> String {
        let mut what = format!("{}: {}", self.site, self.command.get_program().to_string_lossy());
        for arg in self.command.get_args() {
            let _ = write!(what, " {}", arg.to_string_lossy());
        }
        what
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}\n{}{}", self.what, self.status, self.stdout, self.stderr)
    }
}

impl Output {
    /// The exit status, or 128 and the signal as a shell shows it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }
}

/// A process in the background. It is killed, by its own number, when the value goes.
pub struct Process {
    child: Child,
    output: Option<[Drain; 2]>,
    what: String,
}

impl Process {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.what));
    }

    /// Waits for its end. What it left.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Output {
        let status = wait(&mut self.child, limit);
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let (stdout, stderr) = self.text();
        let Some(status) = status else {
            panic!("{} did not end within {limit:?}\n{stdout}{stderr}", self.what);
        };
        Output { status, stdout, stderr, what: std::mem::take(&mut self.what) }
    }

    /// Kills it. What it left.
    pub fn kill(mut self) -> Output {
        let _ = self.child.kill();
        self.finish(patience(LIMIT))
    }

    fn text(&mut self) -> (String, String) {
        self.output.take().map(|[out, err]| (out.text(), err.text())).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if lab::kept() && !thread::panicking() {
            return;
        }
        if self.runs() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let (stdout, stderr) = self.text();
        if thread::panicking() && !(stdout.is_empty() && stderr.is_empty()) {
            eprintln!("--- {}\n{stdout}{stderr}", self.what);
        }
    }
}

/// What a pipe carried so far.
struct Drain {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Drain {
    /// Reads a pipe in the background, so that the writer never blocks.
    fn start(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut pipe = pipe;
            let mut chunk = [0; 8192];
            while let Some(pipe) = &mut pipe {
                match pipe.read(&mut chunk) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => sink.lock().expect("no panic while it is held").extend(&chunk[..length]),
                }
            }
        });
        Self { bytes, reader }
    }

    /// All of it, once the process has ended. A grandchild may hold the pipe open for longer: it is not waited for.
    fn text(self) -> String {
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        String::from_utf8_lossy(&self.bytes.lock().expect("no panic while it is held")).into_owned()
    }
}

/// Waits for a child's end; `None` where that takes longer.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    let ended = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty())
        .expect("a child can be waited for");
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a limit is a time");
        // A signal may interrupt it.
        let _ = poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&timeout));
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            _ if left.is_zero() => return None,
            _ => {}
        }
    }
}

/// Asks again and again until there is an answer; panics with `what` when there is none in time.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
