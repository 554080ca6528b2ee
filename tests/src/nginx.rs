//! nginx in a container, as a backend.

use std::{fs, path::PathBuf};

use crate::{Container, Host, command::Process, load::wait_until_listening};

/// Bytes of `/large`.
pub const LARGE: usize = 3 << 20;

/// A server on port 80 that answers `/name` with its name, and counts what it answers.
pub struct Nginx {
    process: Process,
    log: PathBuf,
}

impl Nginx {
    /// Starts one; its files live and go with the host.
    #[track_caller]
    pub fn start(host: &Host, container: &Container<'_>, name: &str) -> Self {
        let root = format!("/run/nginx-{name}");
        host.write(&format!("{root}/name"), &format!("{name}\n"));
        host.write(&format!("{root}/large"), &"x".repeat(LARGE));
        let file = format!("{root}/nginx.conf");
        host.write(&file, &configuration(&root));
        let process = container.command("nginx").args(["-p", &root, "-c", &file]).spawn();
        wait_until_listening(container, 80);
        Self { process, log: host.path(&format!("{root}/log")) }
    }

    /// Requests that it has answered.
    #[track_caller]
    pub fn answered(&self) -> usize {
        let log = fs::read(&self.log).unwrap_or_else(|error| panic!("{}: {error}", self.log.display()));
        log.iter().filter(|&&byte| byte == b'\n').count()
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }
}

/// One process, so that SIGKILL ends the server.
fn configuration(root: &str) -> String {
    format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/errors;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         log_format short $status; access_log {root}/log short;\n\
         client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
         uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         server {{ listen 80 backlog=1024; root {root}; }}\n\
         }}\n"
    )
}
