//! Work on many services, done by all processors.

use std::{
    num::NonZero,
    panic::resume_unwind,
    thread::{self, Builder, ScopedJoinHandle},
};

/// Services that a thread is worth starting for: each takes about as long as the start.
const LEAST: usize = 8;

/// Does work on each item; gives what came of it in the items' order.
pub(super) fn spread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let share = items.len().div_ceil(threads(items.len())).max(1);
    let run = |share: &[T]| share.iter().map(&work).collect::<Vec<R>>();
    let run = &run;
    let mut shares = items.chunks(share);
    let Some(first) = shares.next() else { return Vec::new() };
    thread::scope(|scope| {
        let start = |share| {
            let thread = Builder::new().name("services".to_owned()).spawn_scoped(scope, move || run(share));
            (share, thread.ok())
        };
        let others: Vec<_> = shares.map(start).collect();
        let mut done = run(first);
        for (share, thread) in others {
            // Where the system gives no more threads, this one does their work.
            done.extend(thread.map_or_else(|| run(share), joined));
        }
        done
    })
}

fn joined<R>(thread: ScopedJoinHandle<'_, R>) -> R {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// How many threads so many items are for.
fn threads(items: usize) -> usize {
    match items / LEAST {
        0 | 1 => 1,
        most => thread::available_parallelism().map_or(1, NonZero::get).min(most),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn everything_is_done_once_and_told_in_order() {
        for count in [0, 1, LEAST, 2 * LEAST + 1, 1_000] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(
                spread(&items, |item| item * 2),
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_handful_is_done_by_the_thread_that_asks() {
        let by = spread(&[(); 2 * LEAST - 1], |()| thread::current().id());
        assert_eq!(by.into_iter().collect::<HashSet<_>>(), [thread::current().id()].into());
    }
}
