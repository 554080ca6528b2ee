//! Where the two ends of a load run. Left to the scheduler, a round trip mostly measures how long an idle processor
//! takes to wake up, and that differs from run to run. So every thread has its place: the client always runs on one
//! processor; the server of round trips and connections runs there too, so that the figure is the cost of the path; the
//! receiver of streams and datagrams runs on another one, so that sending and receiving overlap as on two hosts. What
//! softirqs do in between happens where the packet was sent. Both processors are taken from those that this process
//! may use; where that is only one, all runs there.

use std::fmt;

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// `sched_setaffinity(2)`: the calling thread.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// The two processors of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processors {
    client: usize,
    receiver: usize,
}

impl Processors {
    /// The first two that the calling thread may use.
    pub fn allowed() -> Result<Self> {
        let set = sched_getaffinity(THIS_THREAD).context("read which processors may be used")?;
        Self::first_of((0..CpuSet::count()).filter(|&processor| set.is_set(processor).unwrap_or(false)))
    }

    fn first_of(mut allowed: impl Iterator<Item = usize>) -> Result<Self> {
        let client = allowed.next().context("no processor may be used")?;
        Ok(Self { client, receiver: allowed.next().unwrap_or(client) })
    }

    /// Keeps the calling thread, and those that it starts from now on, where clients run.
    pub fn pin_to_client(self) -> Result<()> {
        pin(self.client)
    }

    /// Keeps the calling thread, and those that it starts from now on, where streams and datagrams are received.
    pub fn pin_to_receiver(self) -> Result<()> {
        pin(self.receiver)
    }
}

/// The method in one line.
impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, receiver } = self;
        write!(f, "Placement: round trips and connections with both ends on processor {client}; ")?;
        write!(f, "streams and datagrams sent on {client}, received on {receiver}")
    }
}

fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).with_context(|| format!("processor {processor}"))?;
    sched_setaffinity(THIS_THREAD, &set).with_context(|| format!("run on processor {processor} only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_placed_on_the_first_two_processors_that_may_be_used() {
        let processors = Processors::first_of([3, 5, 6].into_iter()).unwrap();
        assert_eq!(processors, Processors { client: 3, receiver: 5 });
    }

    #[test]
    fn a_single_processor_has_both_ends() {
        let processors = Processors::first_of([7].into_iter()).unwrap();
        assert_eq!(processors, Processors { client: 7, receiver: 7 });
    }

    #[test]
    fn a_pinned_thread_and_those_it_starts_may_use_no_other_processor() {
        let allowed = || Processors::allowed().unwrap();
        let pinned = std::thread::spawn(move || {
            let receiver = allowed().receiver;
            allowed().pin_to_receiver().unwrap();
            (receiver, allowed(), std::thread::spawn(allowed).join().unwrap())
        });
        let (receiver, own, inherited) = pinned.join().unwrap();
        assert_eq!(own, Processors { client: receiver, receiver });
        assert_eq!(inherited, own);
    }
}
