//! Tasks and threads beside the event loop: a panic in one is told and the task begins anew, instead of silence that
//! reads as "nothing found".

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

/// How long a failure is told.
const TOLD: Duration = Duration::from_secs(600);
/// Rest before a task begins anew, so that one that fails at once takes no processor.
const REST: Duration = Duration::from_secs(1);

/// Tasks that failed of late; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<BTreeMap<&'static str, Fault>>>);

#[derive(Debug)]
struct Fault {
    count: u32,
    what: String,
    last: Instant,
}

impl Faults {
    /// Notes that a task failed.
    pub fn note(&self, task: &'static str, what: impl Into<String>) {
        let what = what.into();
        tracing::error!("task {task}: {what}");
        let mut faults = self.lock();
        let count = faults.get(task).map_or(0, |former| former.count);
        faults.insert(task, Fault { count: count.saturating_add(1), what, last: Instant::now() });
    }

    /// What to report, a line a task.
    pub fn reasons(&self) -> Vec<String> {
        self.reasons_at(Instant::now())
    }

    fn reasons_at(&self, now: Instant) -> Vec<String> {
        let mut faults = self.lock();
        faults.retain(|_, fault| now.saturating_duration_since(fault.last) < TOLD);
        let line = |(task, fault): (&&str, &Fault)| {
            let Fault { count, what, .. } = fault;
            let times = if *count == 1 { String::new() } else { format!(" ({count} times)") };
            format!(
                "task-failed: {task}: {what}{times}; it was started again: report what the log says of it"
            )
        };
        faults.iter().map(line).collect()
    }

    /// Runs a task, and anew whenever it panics, until it ends by itself or is aborted.
    pub fn keep<F>(&self, task: &'static str, mut start: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let faults = self.clone();
        tokio::spawn(async move {
            while let Err(panic) = AssertUnwindSafe(start()).catch_unwind().await {
                faults.note(task, said(panic.as_ref()));
                tokio::time::sleep(REST).await;
            }
        })
    }

    /// Runs a task that can't begin anew; a panic is told.
    pub fn once(
        &self,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let faults = self.clone();
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                faults.note(task, said(panic.as_ref()));
            }
        })
    }

    /// Runs a thread's work, and anew whenever it panics, until it ends by itself.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn keep_thread(&self, task: &'static str, mut work: impl FnMut() + Send + 'static) -> io::Result<()> {
        let faults = self.clone();
        let thread = thread::Builder::new().name(task.to_owned());
        thread.spawn(move || {
            while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut work)) {
                faults.note(task, said(panic.as_ref()));
                thread::sleep(REST);
            }
        })?;
        Ok(())
    }

    /// Does work that would stop the loop on another thread; `None`: it panicked. The caller starts it again.
    pub fn blocking<T: Send + 'static>(
        &self,
        task: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let faults = self.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            outcome.map_err(|panic| faults.note(task, said(panic.as_ref()))).ok()
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Fault>> {
        // Whole values are put in: a panic meanwhile leaves none in parts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
    format!("panicked: {text}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn reason(task: &str, times: &str) -> String {
        format!(
            "task-failed: {task}: panicked: no room{times}; it was started again: report what the log says of it"
        )
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told_and_begins_anew_until_it_ends() {
        let faults = Faults::default();
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let task = faults.keep("walk", move || {
            let counted = Arc::clone(&counted);
            async move {
                assert!(counted.fetch_add(1, Ordering::Relaxed) >= 2, "no room");
            }
        });
        task.await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert_eq!(faults.reasons(), [reason("walk", " (2 times)")]);
    }

    #[tokio::test]
    async fn an_aborted_task_does_not_begin_anew() {
        let faults = Faults::default();
        let task = faults.keep("walk", std::future::pending);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(faults.reasons(), [""; 0]);
    }

    #[test]
    fn a_thread_that_panics_is_told_and_goes_on_with_what_it_has() {
        let faults = Faults::default();
        let (done, end) = std::sync::mpsc::channel();
        let mut turns = 0;
        let kept = faults.keep_thread("walk", move || {
            turns += 1;
            assert!(turns > 1, "no room");
            done.send(turns).unwrap();
        });
        kept.unwrap();
        assert_eq!(end.recv().unwrap(), 2);
        assert_eq!(faults.reasons(), [reason("walk", "")]);
    }

    #[tokio::test]
    async fn work_that_panics_is_no_result_and_is_told_for_ten_minutes() {
        let faults = Faults::default();
        assert_eq!(faults.blocking("look", || 7).await.unwrap(), Some(7));
        assert_eq!(faults.reasons(), [""; 0]);
        assert_eq!(faults.blocking("look", || -> u8 { panic!("no {}", "room") }).await.unwrap(), None);
        assert_eq!(faults.reasons(), [reason("look", "")]);
        assert_eq!(faults.reasons_at(Instant::now() + TOLD), [""; 0]);
    }
}
