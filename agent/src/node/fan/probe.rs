//! Whether the encapsulation gets through to a host.

use std::{net::Ipv4Addr, time::Duration};

use control::observed::Mark;
use ipnet::Ipv4Net;
use serde::Serialize;

use super::{
    Node,
    error::{Error, Fault},
};
use crate::kernel::icmp::{self, Answer, Echo};

/// How long an answer may take, a first address resolution included.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the other host may take to find that nobody has an address: three requests of ARP, a second each.
const NOBODY: Duration = Duration::from_secs(5);
/// How often a lost request is repeated.
const ATTEMPTS: u32 = 2;
/// What is said of silence.
const NO_ANSWER: &str = "no answer";
/// What to do where a tunnel is closed and the underlay is not.
pub const LET_THROUGH: &str = "check that the same fan is up there, and that firewalls and the cloud's security groups between \
                               the hosts let IP protocol 4 (ipip) through";
/// Bytes of a small echo request, as `ping` sends it.
const SMALL: usize = 84;

/// One step of a test, and what it showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was tried: `underlay`, `tunnel` or `full-size`.
    pub name: &'static str,
    /// Source of the packet.
    pub from: Ipv4Addr,
    /// Its destination.
    pub to: Ipv4Addr,
    /// Bytes of the packet.
    pub size: usize,
    /// Whether an answer came.
    pub passed: bool,
    /// Time to the answer in microseconds.
    pub micros: Option<u64>,
    /// What happened.
    pub detail: String,
    /// What to do about it; empty when it passed.
    pub remedy: String,
}

impl Node {
    /// Sends packets to a host of a fan, by its underlay or any overlay address of its slice: to the host itself,
    /// then from gateway to gateway, small and as large as the fan's MTU. A host that drops what is meant for itself
    /// is asked for an address of its containers: what it forwards says whether the fan works.
    ///
    /// # Errors
    /// The address belongs to no fan or to this host, or no packet could be sent.
    pub async fn test(&self, host: Ipv4Addr) -> Result<Vec<Step>, Error> {
        let states = self.show().await?;
        let observed = self.observe().await?;
        let marks = observed.standing.iter().map(|standing| &standing.mark).filter(|mark| !mark.stale);
        let Some((mark, remote)) = marks.filter_map(|mark| Some((mark, remote(mark, host)?))).next() else {
            return Err(Error::NoFanOf { host });
        };
        if remote.underlay == mark.address {
            return Err(Error::ThisHost { host });
        }
        let mtu = states.iter().find(|state| state.gateway == mark.gateway()).map_or(0, |state| state.mtu);
        let plan = [
            ("underlay", mark.address, remote.underlay, SMALL),
            ("tunnel", mark.gateway(), remote.gateway, SMALL),
            ("full-size", mark.gateway(), remote.gateway, mtu as usize),
        ];
        let mut steps: Vec<Step> = Vec::new();
        for (name, from, to, size) in plan {
            if name == "full-size" && steps.last().is_some_and(|step| !step.passed) {
                break;
            }
            let answer = attempt(Echo { from, to, size, patience: PATIENCE })?;
            let reached = steps.first().is_some_and(|step| step.passed);
            let mut step = step(name, from, to, size, answer, reached);
            if name != "underlay" && answer == Answer::Silence && forwards(from, &remote, size)? {
                let why = format!(
                    "{to} itself does not answer, as behind a strict firewall; its containers are reached"
                );
                step.pass(why);
            }
            steps.push(step);
        }
        let is_through = steps.iter().any(|step| step.name == "tunnel" && step.passed);
        if let Some(first) = steps.first_mut().filter(|first| is_through && first.detail == NO_ANSWER) {
            first.pass(
                "does not answer ping, as behind a strict firewall; the tunnel gets through".to_owned(),
            );
        }
        Ok(steps)
    }
}

impl Step {
    /// It passed after all, as something else showed.
    fn pass(&mut self, detail: String) {
        self.passed = true;
        self.detail = detail;
        self.remedy.clear();
    }
}

/// A remote host.
struct Remote {
    underlay: Ipv4Addr,
    gateway: Ipv4Addr,
    slice: Ipv4Net,
}

impl Remote {
    /// The last address for a container.
    fn last(&self) -> Ipv4Addr {
        (self.slice.broadcast().to_bits() - 1).into()
    }
}

fn remote(mark: &Mark, host: Ipv4Addr) -> Option<Remote> {
    let map = mark.map()?;
    let underlay = map.host_of(host.to_bits()).unwrap_or(host.to_bits());
    let base = map.slice_of(underlay)?;
    let slice = Ipv4Net::new(base.into(), map.slice_len()).ok()?;
    Some(Remote { underlay: underlay.into(), gateway: (base | 1).into(), slice })
}

/// Whether the host forwards to its containers: somebody there answers, or the host says that nobody has the address.
/// Neither passes its filter for what is meant for itself.
fn forwards(from: Ipv4Addr, remote: &Remote, size: usize) -> Result<bool, Error> {
    let to = remote.last();
    let answer = icmp::echo(beyond(from, to, size));
    Ok(match answer.map_err(|source| Fault::Echo { from, to, source })? {
        Answer::Reply(_) => true,
        Answer::Unreachable(by, _) => remote.slice.contains(&by),
        Answer::TooBig(_) | Answer::Silence => false,
    })
}

/// Asks for an address of a host's containers: somebody there answers, or the host finds that nobody has it.
pub(super) fn beyond(from: Ipv4Addr, to: Ipv4Addr, size: usize) -> Echo {
    Echo { from, to, size, patience: NOBODY }
}

fn attempt(echo: Echo) -> Result<Answer, Error> {
    let mut answer = Answer::Silence;
    for _ in 0..ATTEMPTS {
        answer = icmp::echo(echo).map_err(|source| Fault::Echo { from: echo.from, to: echo.to, source })?;
        if answer != Answer::Silence {
            break;
        }
    }
    Ok(answer)
}

fn step(
    name: &'static str,
    from: Ipv4Addr,
    to: Ipv4Addr,
    size: usize,
    answer: Answer,
    reached: bool,
) -> Step {
    let detail = match answer {
        Answer::Reply(time) => format!("answered in {} us", time.as_micros()),
        Answer::TooBig(0) => "the kernel knows that the path is smaller".to_owned(),
        Answer::TooBig(mtu) => format!("the path takes {mtu} bytes only"),
        Answer::Unreachable(by, code) => format!("{by} says unreachable (code {code})"),
        Answer::Silence => NO_ANSWER.to_owned(),
    };
    let (passed, micros) = match answer {
        Answer::Reply(time) => (true, u64::try_from(time.as_micros()).ok()),
        _ => (false, None),
    };
    let remedy = if passed { String::new() } else { remedy(name, to, reached).to_owned() };
    Step { name, from, to, size, passed, micros, detail, remedy }
}

fn remedy(name: &str, to: Ipv4Addr, reached: bool) -> String {
    match (name, reached) {
        ("underlay", _) => format!("check that {to} is up, the route to it, and that it answers ping"),
        ("tunnel", true) => LET_THROUGH.to_owned(),
        ("tunnel", false) => "get the underlay to work first".to_owned(),
        _ => {
            "the underlay between the hosts carries less than the uplink's MTU: raise it there, or lower the \
              uplink's MTU"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_be_named_by_its_underlay_or_any_overlay_address() {
        for host in [[172, 30, 0, 27], [250, 0, 27, 1], [250, 0, 27, 200]] {
            let remote = remote(&Mark::example(), host.into()).unwrap();
            assert_eq!(remote.underlay, Ipv4Addr::new(172, 30, 0, 27));
            assert_eq!(remote.gateway, Ipv4Addr::new(250, 0, 27, 1));
            assert_eq!(remote.last(), Ipv4Addr::new(250, 0, 27, 254));
        }
        assert!(remote(&Mark::example(), [10, 0, 0, 1].into()).is_none());
    }

    #[test]
    fn a_failed_step_says_what_to_do() {
        let to = Ipv4Addr::new(250, 0, 27, 1);
        let failed = step("tunnel", to, to, SMALL, Answer::Silence, true);
        assert!(!failed.passed && failed.remedy.contains("IP protocol 4"), "{}", failed.remedy);
        let passed = step("tunnel", to, to, SMALL, Answer::Reply(Duration::from_micros(7)), true);
        assert!(passed.passed && passed.remedy.is_empty() && passed.micros == Some(7));
    }
}
