//! What Docker and podman have in common: the words of their command lines.

use super::{IMAGE, PORT, PUBLISHED, Running, SERVER, make_image, mark, ok};
use crate::{command::Cmd, host::Host};

/// An engine with Docker's command line.
pub(super) trait CommandLine {
    /// Template of a container's address.
    const ADDRESS: &'static str;
    /// Options of every container.
    const OPTIONS: &'static [&'static str];

    fn host(&self) -> &Host;

    /// The engine's command with these words.
    fn command(&self, words: &[&str]) -> Cmd;

    /// Makes the image that all containers are started from.
    #[track_caller]
    fn import(&self) {
        make_image(self.host());
        ok(self.command(&["import", &format!("{IMAGE}.tar"), "box"]));
    }

    #[track_caller]
    fn start_container(&self, name: &str, options: &[&str]) -> Running {
        let run = ["run", "-d", "--name", name, "-e", &mark()];
        ok(self.command(&run).args(Self::OPTIONS).args(options).arg("box").args(SERVER));
        let format = format!("{{{{.State.Pid}}}} {}", Self::ADDRESS);
        let found = ok(self.command(&["inspect", "-f", &format, name]));
        let (pid, address) = found.split_once(' ').unwrap_or_else(|| panic!("{name}: {found}"));
        Running::of_process(self.host(), name, pid, address)
    }

    /// Starts a container whose port is published.
    #[track_caller]
    fn start_published(&self, name: &str) -> Running {
        self.start_container(name, &["-p", &format!("{PUBLISHED}:{PORT}")])
    }
}
