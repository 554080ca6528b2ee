//! When everything is reconciled again: soon after a change, not too often, ever more rarely while something keeps
//! failing, and every few seconds in any case. Time comes in as values.

use std::time::{Duration, Instant};

/// A burst of changes (a container that comes up makes a dozen) is one pass.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Rest between two passes, because what we do makes changes itself.
const REST: Duration = Duration::from_millis(80);
/// Rest before a pass that can't wait: packets are lost until then, but a storm of such reasons must leave time for others.
const URGENT_REST: Duration = Duration::from_millis(40);
/// Longest rest while something keeps failing; a device that is back must be served within 10 s.
const LONGEST_REST: Duration = Duration::from_secs(4);
/// First rest after a pass was put off, which doubles: most commands end within a second.
const DELAY: Duration = Duration::from_millis(20);
/// Longest rest while passes are put off.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// The periodic check: finds what no event told of.
const CHECK: Duration = Duration::from_secs(5);

/// The times of passes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    earliest: Instant,
    /// The same for what can't wait.
    urgent: Instant,
    due: Instant,
    /// When the periodic check is due, whatever else is.
    check: Instant,
    failures: u32,
    /// How often in a row a pass was put off.
    delays: u32,
}

impl Pace {
    /// The first pass is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { earliest: now, urgent: now, due: now, check: now, failures: 0, delays: 0 }
    }

    /// Something changed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.due = self.due.min((now + DEBOUNCE).max(self.earliest));
    }

    /// Something changed that can't wait for others of its kind.
    pub(super) fn urgent(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.urgent));
    }

    /// A pass is due at a time, if there is one and none comes before.
    pub(super) fn by(&mut self, time: Option<Instant>) {
        self.due = time.map_or(self.due, |time| self.due.min(time.max(self.earliest)));
    }

    /// A pass could not begin; it is tried again, each time later, whatever changes meanwhile.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.earliest = now + DELAY.saturating_mul(1 << self.delays.min(10)).min(LONGEST_DELAY);
        self.delays = self.delays.saturating_add(1);
        self.due = self.earliest;
    }

    /// A pass ended; with failures the next comes sooner than the periodic check, but each time later. One that was not over
    /// everything leaves the check where it was.
    pub(super) fn passed(&mut self, now: Instant, failed: bool, is_whole: bool) {
        self.delays = 0;
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        let rest = REST.saturating_mul(1 << self.failures.min(10)).min(LONGEST_REST);
        self.earliest = now + rest;
        self.urgent = now + URGENT_REST;
        self.check = match (failed, is_whole) {
            (true, _) => self.earliest,
            (false, true) => now + CHECK,
            (false, false) => self.check.max(self.earliest),
        };
        self.due = self.check;
    }

    /// Whether the periodic check is due.
    pub(super) fn is_periodic(&self, now: Instant) -> bool {
        now >= self.check
    }

    /// What was due needed no pass; the periodic check stays where it was. `again`: not all of it is done.
    pub(super) fn skipped(&mut self, now: Instant, again: bool) {
        self.earliest = self.earliest.max(now + REST);
        self.urgent = now + URGENT_REST;
        self.due = if again { self.check.min(self.earliest) } else { self.check };
    }

    /// When the next pass is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_changes_is_one_pass() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.due(), start);
        pace.passed(start, false, true);
        assert_eq!(pace.due(), start + CHECK);
        let first = start + Duration::from_secs(1);
        pace.changed(first);
        pace.changed(first + Duration::from_millis(10));
        assert_eq!(pace.due(), first + DEBOUNCE);
    }

    #[test]
    fn what_needs_no_pass_does_not_put_the_periodic_check_off() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.passed(start, false, true);
        let change = start + CHECK - DEBOUNCE;
        pace.changed(change - DEBOUNCE);
        assert!(!pace.is_periodic(change));
        pace.skipped(change, false);
        assert_eq!(pace.due(), start + CHECK);
        assert!(pace.is_periodic(pace.due()));
    }

    #[test]
    fn changes_that_a_pass_made_itself_wait_for_the_rest_to_end() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.passed(start, false, true);
        pace.changed(start);
        assert_eq!(pace.due(), start + REST);
        pace.urgent(start);
        assert_eq!(pace.due(), start + URGENT_REST);
    }

    #[test]
    fn what_cannot_wait_is_done_at_once_but_a_storm_of_it_leaves_time_for_others() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.passed(now, false, true);
        now += Duration::from_secs(1);
        pace.urgent(now);
        assert_eq!(pace.due(), now);
        let (end, mut passes) = (now + Duration::from_secs(1), 0);
        while now < end {
            pace.urgent(now);
            if now >= pace.due() {
                passes += 1;
                pace.passed(now, passes % 2 == 0, true);
            }
            now += Duration::from_micros(100);
        }
        assert!((20..=25).contains(&passes), "{passes} passes a second");
    }

    #[test]
    fn what_cannot_wait_puts_nothing_off() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.urgent(start + Duration::from_secs(1));
        assert_eq!(pace.due(), start);
    }

    #[test]
    fn a_pass_that_cannot_begin_is_tried_ever_more_rarely_but_every_second() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            pace.put_off(now);
            pace.changed(now);
            let rest = pace.due() - now;
            assert!(rest >= last.min(LONGEST_DELAY) && rest <= LONGEST_DELAY + DEBOUNCE, "{rest:?}");
            (now, last) = (pace.due(), rest);
        }
        assert_eq!(last, LONGEST_DELAY);
        pace.passed(now, false, true);
        pace.put_off(now);
        assert_eq!(pace.due(), now + DELAY);
    }

    #[test]
    fn what_keeps_failing_is_tried_ever_more_rarely_but_often_enough() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            pace.passed(start, true, true);
            let rest = pace.due() - start;
            assert!(rest >= last && rest <= LONGEST_REST, "{rest:?}");
            last = rest;
        }
        assert_eq!(last, LONGEST_REST);
        pace.passed(start, false, true);
        pace.changed(start);
        assert_eq!(pace.due(), start + REST);
    }

    #[test]
    fn passes_over_a_part_do_not_put_the_periodic_check_off() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.passed(start, false, true);
        pace.passed(start + CHECK / 2, false, false);
        assert_eq!(pace.due(), start + CHECK);
        pace.passed(start + CHECK, false, false);
        assert_eq!(pace.due(), start + CHECK + REST);
        assert!(pace.is_periodic(pace.due()));
    }
}
