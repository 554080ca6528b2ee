//! What tcpdump makes of the packets on a device.

use std::{path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    command::{Process, eventually},
    site::Site,
};

/// A running tcpdump that writes to a file.
pub struct Capture {
    process: Process,
    directory: TempDir,
}

impl Capture {
    /// Starts one with a filter expression; it captures when this returns.
    #[track_caller]
    pub fn start(site: &Site, device: &str, filter: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("capture.pcap");
        let command =
            site.command("tcpdump").args(["-i", device, "-U", "--immediate-mode", "-Z", "root", "-w"]);
        let process = command.arg(&file).args(filter.split_whitespace()).spawn();
        // The file's header is written once the socket is open.
        let written = || std::fs::metadata(&file).is_ok_and(|file| file.len() >= 24).then_some(());
        eventually("tcpdump captures", Duration::from_secs(10), written);
        Self { process, directory }
    }

    /// Ends it and decodes what it saw, one packet a line with its contents (`-vv`).
    #[track_caller]
    pub fn decode(self) -> String {
        std::thread::sleep(Duration::from_millis(100));
        self.process.signal(Signal::SIGINT);
        self.process.finish(Duration::from_secs(10));
        let file: PathBuf = self.directory.path().join("capture.pcap");
        crate::Cmd::new("tcpdump", "capture").args(["-nn", "-vv", "-r"]).arg(file).ok()
    }
}
