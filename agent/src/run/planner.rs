//! The thread of the desired state: ten thousand services are checked, sorted and brought together there, so that the
//! event loop has none of it. What it is asked for it does in that order, and the writer gets its orders in the same.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
};

use anyhow::{Context as _, Result};
use control::desired::Desired;
use tokio::sync::{oneshot, watch};

use super::state::State;

type Job = Box<dyn FnOnce(&mut State) + Send>;

/// The thread; it ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Planner {
    jobs: mpsc::Sender<Job>,
    desired: watch::Receiver<Arc<Desired>>,
}

impl Planner {
    /// Starts it with a state.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(super) fn start(mut state: State) -> io::Result<Self> {
        let (jobs, asked) = mpsc::channel::<Job>();
        let (output, desired) = watch::channel(Arc::clone(&state.desired));
        thread::Builder::new().name("state".to_owned()).spawn(move || {
            for job in asked {
                job(&mut state);
                output.send_if_modified(|former| {
                    let is_other = !Arc::ptr_eq(former, &state.desired);
                    if is_other {
                        former.clone_from(&state.desired);
                    }
                    is_other
                });
            }
        })?;
        Ok(Self { jobs, desired })
    }

    /// Has something done; the result never comes where the thread has ended.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, result) = oneshot::channel();
        // Who asked may have given up; that the thread has ended tells `changed`.
        let job = move |state: &mut State| drop(answer.send(job(state)));
        drop(self.jobs.send(Box::new(job)));
        result
    }

    /// What is desired, as of late.
    pub(super) fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.desired.borrow())
    }

    /// Waits until something else is desired. Dropping this loses nothing.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) async fn changed(&mut self) -> Result<()> {
        self.desired.changed().await.context(ENDED)
    }
}

/// Nothing can be followed any more.
pub(super) const ENDED: &str =
    "agent: the thread of the desired state has ended; see the log, and start the agent again";

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::time::{sleep, timeout};

    use super::{super::state::Files, *};

    #[tokio::test]
    async fn who_asks_goes_on_while_a_job_takes_long_and_jobs_keep_their_order() {
        let mut planner = Planner::start(State::default()).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let slow = planner.ask(move |state| {
            wait.recv().unwrap();
            let files = Files { path: "fanlight.toml".into(), sources: Arc::default(), node: "a".into() };
            state.set_files(&files, Vec::new(), false);
            state.desired.generation
        });
        let quick = planner.ask(|state| state.desired.generation);
        let start = Instant::now();
        sleep(Duration::from_millis(20)).await;
        assert!(start.elapsed() < Duration::from_secs(5), "a timer waited");
        assert_eq!(planner.desired().generation, 0);
        go.send(()).unwrap();
        assert_eq!((slow.await.unwrap(), quick.await.unwrap()), (1, 1));
        timeout(Duration::from_secs(5), planner.changed()).await.expect("it is told of").unwrap();
        assert_eq!(planner.desired().generation, 1);
    }

    #[tokio::test]
    async fn the_end_of_the_thread_is_told() {
        let mut planner = Planner::start(State::default()).unwrap();
        planner.ask(|_| panic!("half a service")).await.unwrap_err();
        assert_eq!(planner.changed().await.unwrap_err().to_string(), ENDED);
        planner.ask(|_| ()).await.unwrap_err();
    }
}
