//! One check, made: a connection, a request or a program. What a target sends is bounded, and so is the time that all of it takes.

mod command;
mod http;
mod tcp;
mod tls;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use control::health::{Check, Probe};
use tokio::{sync::Semaphore, time::timeout};

use self::tls::Trust;

/// Programs at a time; further ones wait for their turn, which is no part of their time.
const PROGRAMS: usize = 32;
/// Longest account of what a check has seen.
const SAID: usize = 200;

/// What is checked: for its environment where that is a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Names and values for a program's environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Where it is reached; the port is the check's where that has one.
    pub(crate) address: SocketAddr,
}

impl Subject {
    /// A backend of a service.
    pub(crate) fn backend(service: &str, backend: SocketAddr) -> Self {
        let environment =
            vec![("FANLIGHT_SERVICE", service.to_owned()), ("FANLIGHT_BACKEND", backend.to_string())];
        Self { environment, address: backend }
    }
}

/// What a check has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether it passed.
    pub(crate) passed: bool,
    /// What it has seen, in one line.
    pub(crate) said: String,
    /// How long it took.
    pub(crate) took: Duration,
    /// What a program has written, where that was asked for.
    pub(crate) output: Option<String>,
}

/// What one kind of check has seen: the account of a pass, or why it is none.
type Seen = Result<String, String>;

/// Makes checks; clones share what they have read.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    trust: Arc<Trust>,
    programs: Arc<Semaphore>,
}

impl Default for Prober {
    fn default() -> Self {
        Self { trust: Arc::default(), programs: Arc::new(Semaphore::new(PROGRAMS)) }
    }
}

impl Prober {
    /// Makes a check of a target. `keeps`: what a program writes is wanted.
    pub(crate) async fn make(&self, check: &Check, subject: &Subject, keeps: bool) -> Outcome {
        let place = match check.probe {
            // It is never closed.
            Probe::Command(_) => self.programs.acquire().await.ok(),
            Probe::Tcp | Probe::Http(_) => None,
        };
        let start = Instant::now();
        let address = SocketAddr::new(subject.address.ip(), check.port.unwrap_or(subject.address.port()));
        let mut output = None;
        let seen = match &check.probe {
            Probe::Tcp => within(check.timeout, tcp::connects(address)).await,
            Probe::Http(http) => within(check.timeout, http::answers(http, address, &self.trust)).await,
            Probe::Command(words) => {
                let (seen, written) = command::ends_well(words, subject, check.timeout, keeps).await;
                output = written;
                seen
            }
        };
        drop(place);
        let (passed, said) = match seen {
            Ok(said) => (true, said),
            Err(said) => (false, said),
        };
        Outcome { passed, said: one_line(&said), took: start.elapsed(), output }
    }
}

async fn within(limit: Duration, probe: impl Future<Output = Seen>) -> Seen {
    timeout(limit, probe).await.unwrap_or_else(|_late| Err(format!("no answer within {}", shown(limit))))
}

/// A length of time for people.
fn shown(length: Duration) -> String {
    if length < Duration::from_secs(1) {
        format!("{} ms", length.as_millis())
    } else {
        format!("{} s", length.as_secs_f64())
    }
}

/// What came from elsewhere, in one line of printable characters.
fn one_line(text: &str) -> String {
    text.chars().map(|own| if own.is_control() { ' ' } else { own }).take(SAID).collect()
}

#[cfg(test)]
mod tests;
