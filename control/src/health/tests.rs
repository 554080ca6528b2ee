use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn check(rise: u32, fall: u32) -> Check {
    Check { rise, fall, ..Check::new(Probe::Tcp) }
}

/// The states after each of these results.
fn states(begins: State, check: &Check, results: &str) -> Vec<State> {
    let mut machine = Machine::new(begins);
    let count = |result| {
        machine.count(result == '+', check);
        machine.state()
    };
    results.chars().map(count).collect()
}

#[test]
fn results_in_a_row_make_a_target_up_or_down() {
    use State::*;
    let check = check(2, 3);
    assert_eq!(states(Init, &check, "++"), [Init, Up]);
    assert_eq!(states(Init, &check, "+-+-+-"), [Init; 6]);
    assert_eq!(states(Init, &check, "---"), [Init, Init, Down]);
    assert_eq!(states(Up, &check, "--+---"), [Falling, Falling, Up, Falling, Falling, Down]);
    assert_eq!(states(Down, &check, "+-++-"), [Rising, Down, Rising, Up, Falling]);
    let quick = self::check(1, 1);
    assert_eq!(states(Init, &quick, "+-+"), [Up, Down, Up]);
}

#[test]
fn a_target_that_was_taken_out_goes_on_below() {
    let check = check(1, 2);
    let mut machine = Machine::new(State::Up);
    machine.disable(true);
    machine.count(false, &check);
    machine.count(false, &check);
    assert_eq!((machine.state(), machine.below()), (State::Disabled, State::Down));
    machine.disable(false);
    assert_eq!(machine.state(), State::Down);
}

#[test]
fn statuses_are_codes_and_ranges() {
    let expect: Expect = "200-299, 401,500".parse().unwrap();
    let passing: Vec<u16> =
        [199, 200, 299, 300, 401, 402, 500].into_iter().filter(|&code| expect.has(code)).collect();
    assert_eq!(passing, [200, 299, 401, 500]);
    assert_eq!(expect.to_string(), "200-299,401,500");
    assert!(Expect::default().has(302) && !Expect::default().has(404));
    for text in ["", "2xx", "299-200", "99", "600", "200-", "-", "200,,300", "+200", "0200"] {
        assert!(text.parse::<Expect>().is_err(), "{text}");
    }
}

#[test]
fn checks_that_come_together_start_spread_over_an_interval_and_one_alone_at_once() {
    let mut schedule = Schedule::new(10_000, 1);
    let check = Arc::new(Check::new(Probe::Tcp));
    for target in 0..1000 {
        schedule.set(&target, &check, State::Init, SECOND);
    }
    let mut starts = Vec::new();
    for tenth in 0..10 {
        let until = SECOND + check.interval * tenth / 10 + check.interval / 10;
        starts.push(std::iter::from_fn(|| schedule.begin(until - Duration::from_nanos(1))).count());
    }
    assert!(starts.iter().all(|count| (97..=103).contains(count)), "{starts:?}");
    let later = SECOND + 3 * check.interval;
    schedule.set(&1000, &check, State::Init, later);
    assert_eq!(schedule.deadline(), Some(later));
}

#[test]
fn no_more_checks_are_under_way_than_may_be_and_the_longest_due_is_next() {
    let mut schedule = Schedule::new(2, 1);
    let check = Arc::new(Check::new(Probe::Tcp));
    for target in 0..4 {
        schedule.set(&target, &check, State::Init, Duration::ZERO);
    }
    let now = 10 * SECOND;
    let first = schedule.begin(now).unwrap();
    assert_eq!((first.key, first.late), (0, now));
    let second = schedule.begin(now).unwrap();
    assert_eq!((schedule.begin(now), schedule.deadline()), (None, None));
    // What is removed frees its place when its check ends.
    assert!(schedule.remove(&second.key));
    assert_eq!(schedule.begin(now), None);
    assert_eq!(schedule.end(second.run, true, now), None);
    assert!(schedule.begin(now).is_some_and(|due| due.key != first.key));
}

#[test]
fn what_came_back_under_its_key_has_no_result_of_before() {
    let mut schedule = Schedule::new(8, 1);
    let check = Arc::new(check(1, 1));
    schedule.set(&"a", &check, State::Up, Duration::ZERO);
    let due = schedule.begin(SECOND).unwrap();
    schedule.remove(&"a");
    schedule.set(&"a", &check, State::Up, SECOND);
    assert_eq!(schedule.end(due.run, false, 2 * SECOND), None);
    assert_eq!(schedule.state(&"a"), Some(State::Up));
}

#[test]
fn another_check_of_a_target_keeps_its_state_and_is_due_by_its_own_interval() {
    let mut schedule = Schedule::new(8, 1);
    let slow = Arc::new(Check { interval: 3600 * SECOND, ..check(1, 1) });
    schedule.set(&"a", &slow, State::Up, Duration::ZERO);
    let due = schedule.begin(SECOND).unwrap();
    schedule.end(due.run, true, SECOND);
    assert!(schedule.deadline().unwrap() > 3000 * SECOND);
    let quick = Arc::new(Check { interval: 5 * SECOND, ..check(1, 1) });
    schedule.set(&"a", &quick, State::Init, 2 * SECOND);
    assert_eq!((schedule.deadline(), schedule.state(&"a")), (Some(7 * SECOND), Some(State::Up)));
}

/// Checks that take this long, all at their times; when each began.
fn run(
    targets: u32,
    check: &Arc<Check>,
    takes: Duration,
    end: Duration,
    results: impl Fn(u32, usize) -> bool,
) -> BTreeMap<u32, Vec<Duration>> {
    let mut schedule = Schedule::new(targets as usize, 7);
    for target in 0..targets {
        schedule.set(&target, check, State::Init, Duration::ZERO);
    }
    let mut begun: BTreeMap<u32, Vec<Duration>> = BTreeMap::new();
    let mut running: BTreeMap<(Duration, u32), Run> = BTreeMap::new();
    let mut now = Duration::ZERO;
    while now < end {
        while let Some(due) = schedule.begin(now) {
            begun.entry(due.key).or_default().push(now);
            running.insert((now + takes, due.key), due.run);
        }
        while let Some(first) = running.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, target), run) = first.remove_entry();
            let number = begun[&target].len();
            schedule.end(run, results(target, number), now);
        }
        let next = running.keys().next().map(|(time, _)| *time).into_iter().chain(schedule.deadline()).min();
        now = next.unwrap_or(end).max(now);
    }
    begun
}

#[test]
fn ten_thousand_checks_stay_on_schedule() {
    let check = Arc::new(check(2, 3));
    let begun = run(10_000, &check, Duration::from_millis(3), 62 * SECOND, |_, _| true);
    let total: usize = begun.values().map(Vec::len).sum();
    // Eleven intervals and a half, and the second of the first two passes.
    assert!((10_000 * 12..10_000 * 14).contains(&total), "{total}");
    for times in begun.values() {
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (rising, steady) = gaps.split_first().unwrap();
        assert!(*rising >= SECOND * 9 / 10 && *rising <= SECOND * 11 / 10, "{rising:?}");
        let (least, most) = (check.interval * 9 / 10, check.interval * 11 / 10);
        assert!(steady.iter().all(|gap| (least..=most).contains(gap)), "{steady:?}");
    }
}

#[test]
fn a_check_that_takes_longer_than_its_spacing_is_due_at_once_and_never_twice_at_a_time() {
    let check = Arc::new(Check { interval: SECOND, fast_interval: SECOND, ..check(1, 1) });
    let begun = run(3, &check, 3 * SECOND, 60 * SECOND, |_, _| false);
    for times in begun.values() {
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 3 * SECOND), "{times:?}");
    }
}

proptest! {
    #[test]
    fn a_target_is_up_or_down_by_its_last_results_alone(
        results in vec(any::<bool>(), 1..60),
        rise in 1_u32..4,
        fall in 1_u32..4,
    ) {
        let check = check(rise, fall);
        let mut machine = Machine::default();
        let mut expected = None;
        for (place, passed) in results.iter().enumerate() {
            machine.count(*passed, &check);
            let row = results[..=place].iter().rev().take_while(|own| *own == passed).count() as u32;
            if row >= if *passed { rise } else { fall } {
                expected = Some(*passed);
            }
            prop_assert_eq!(machine.state().is_up(), expected);
            let settled = expected == Some(*passed);
            prop_assert_eq!(machine.state().is_steady(), settled);
        }
    }

    #[test]
    fn whatever_happens_a_target_has_one_check_at_a_time_and_all_places_come_back(
        steps in vec((0_u8..6, 0_u8..5, 0_u64..3000), 1..200),
        bound in 1_usize..4,
    ) {
        let check = Arc::new(check(2, 2));
        let mut schedule = Schedule::new(bound, 3);
        let (mut running, mut now) = (Vec::new(), Duration::ZERO);
        for (kind, target, ms) in steps {
            now += Duration::from_millis(ms);
            match kind {
                0 | 1 => schedule.set(&target, &check, State::Init, now),
                2 => drop(schedule.remove(&target)),
                3 if !running.is_empty() => {
                    let (_, run): (u8, Run) = running.remove(usize::from(target) % running.len());
                    schedule.end(run, ms % 2 == 0, now);
                }
                _ => running.extend(schedule.begin(now).map(|due| (due.key, due.run))),
            }
            prop_assert!(running.len() <= bound);
        }
        for (_, run) in running.drain(..) {
            schedule.end(run, true, now);
        }
        let later = now + Duration::from_secs(60);
        let free = std::iter::from_fn(|| schedule.begin(later)).count();
        prop_assert_eq!(free, bound.min(schedule.len()));
    }

    #[test]
    fn statuses_are_read_as_they_are_written(ranges in vec((100_u16..600, 0_u16..100), 1..8)) {
        let parts = ranges.iter().map(|(first, more)| format!("{first}-{}", (first + more).min(599)));
        let expect: Expect = parts.collect::<Vec<_>>().join(",").parse().unwrap();
        prop_assert_eq!(expect.to_string().parse::<Expect>(), Ok(expect));
    }
}
