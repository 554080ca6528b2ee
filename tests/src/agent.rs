//! A running agent.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    command::{Output, Process, eventually, patience},
    host::Host,
    lab,
};

/// How long an agent may take to say that it is ready, on a slow machine.
const READY: Duration = Duration::from_secs(30);

/// `fanlight agent` on a host, watched as systemd would. It is killed when the value goes.
pub struct Agent {
    process: Process,
    notices: UnixDatagram,
}

impl Agent {
    #[track_caller]
    pub(crate) fn start(host: &Host) -> Self {
        let name = format!("/run/{}", lab::name("notify"));
        let notices = UnixDatagram::bind(host.path(&name)).expect("the host has a /run of its own");
        let process = host.fanlight(["agent"]).env("NOTIFY_SOCKET", &name).spawn();
        let mut agent = Self { process, notices };
        agent.wait_for("READY=1", patience(READY));
        agent
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for a notice.
    #[track_caller]
    pub fn wait_for(&mut self, notice: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut message = [0; 4096];
        loop {
            assert!(self.process.runs(), "the agent ended instead of saying {notice}");
            assert!(Instant::now() < deadline, "the agent did not say {notice} within {limit:?}");
            self.notices
                .set_read_timeout(Some(Duration::from_millis(100)))
                .expect("a limit that is not zero");
            let Ok(length) = self.notices.recv(&mut message) else { continue };
            if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == notice) {
                return;
            }
        }
    }

    /// Makes it read its configuration again.
    #[track_caller]
    pub fn reload(&mut self) {
        self.process.signal(Signal::SIGHUP);
        self.wait_for("READY=1", patience(READY));
    }

    /// Makes it read a configuration of its host that it must refuse: `status` says so, and everything else in it is as
    /// before.
    #[track_caller]
    pub fn reload_refused(&mut self, host: &Host) {
        let seen = || {
            let mut status = host.json("status");
            let reasons = status["degraded"].take();
            ([status["fans"].take(), status["services"].take(), status["datapath"].take()], reasons)
        };
        let (before, _) = seen();
        self.reload();
        // `status` reads what the agent writes when it has answered.
        let after = eventually("status says what was refused", patience(READY), || {
            let (after, reasons) = seen();
            let said = reasons.as_array().into_iter().flatten().filter_map(|reason| reason.as_str());
            (said.filter(|reason| reason.starts_with("config-invalid: ")).count() == 1).then_some(after)
        });
        assert_eq!(after, before);
    }

    /// Kills it without warning.
    pub fn kill9(self) -> Output {
        let Self { process, .. } = self;
        process.kill()
    }

    /// Asks it to stop, as systemd does.
    #[track_caller]
    pub fn stop(self) -> Output {
        let Self { process, .. } = self;
        process.signal(Signal::SIGTERM);
        process.finish(patience(READY))
    }
}
