//! `bench api`: how long readers of the API wait while its writer is busy: services are applied one at a time, and fans are
//! broken again and again.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{report::milliseconds, services::service};
use crate::{
    Host,
    api::{Answer, ask},
    eventually,
    fleet::Fleet,
};

const SERVICES: &str = "/v1/services";
/// An answer of one service.
const SMALL: &str = "/v1/services/s0";
/// The first octets of the fans' overlays.
const FANS: [u8; 3] = [250, 251, 252];
/// The most that the 99th percentile of an answer is wanted to take, in milliseconds.
const MOST: f64 = 10.0;
const SOON: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Services that are applied.
    pub services: u32,
    /// Backends of each.
    pub backends: u32,
    /// Time from one break of a fan to the next.
    pub pause: Duration,
}

/// How long one kind of answers took, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was asked, and until what the time was taken.
    pub name: &'static str,
    /// How many answers.
    pub count: usize,
    /// Half of them took less.
    pub median: f64,
    /// 99 of 100 took less.
    pub most_of_99: f64,
    /// The longest.
    pub longest: f64,
    /// What the 99th percentile is wanted to be at most.
    pub most: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The answers' times.
    pub rows: Vec<Row>,
    /// How often a fan's route was found put back by the agent.
    pub repairs: u32,
    /// Bytes of the largest answer.
    pub largest: usize,
}

/// Answers of one kind.
#[derive(Default)]
struct Series {
    first: Vec<f64>,
    last: Vec<f64>,
    largest: usize,
}

/// Applies services, breaks fans, and reads.
pub fn measure(plan: Plan) -> Result<Report> {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    let fans = FANS.map(|octet| format!("[[fan]]\noverlay = \"{octet}.0.0.0/8\"\nunderlay = \"eth0\"\n"));
    host.write("/etc/fanlight/fanlight.toml", &fans.concat());
    let _agent = host.agent();
    // The small request has an answer from the first time on.
    change(host, plan, 0)?;
    let (applied, is_over) = (AtomicU32::new(1), AtomicBool::new(false));
    let over = || is_over.load(Ordering::Relaxed);
    let outcome = thread::scope(|scope| {
        let breaking = scope.spawn(|| break_fans(host, plan.pause, over));
        let list = scope.spawn(|| read_list(host, &applied, over));
        let states = scope.spawn(|| read_states(host, over));
        let small = scope.spawn(|| read(host, SMALL, over, |_answer| Ok(())));
        let changes = apply_all(host, plan, &applied);
        is_over.store(true, Ordering::Relaxed);
        let repairs = breaking.join().expect("breaks of fans");
        let [list, states, small] = [list, states, small].map(|reader| reader.join().expect("a reader"));
        Ok::<_, anyhow::Error>((changes?, list?, states?, small?, repairs))
    });
    let (changes, list, states, small, repairs) = outcome?;
    check_end(host, plan)?;
    ensure!(repairs > 0, "the agent put no route back meanwhile");
    let rows = [
        Row::of("list, first byte", &list.first, Some(MOST)),
        Row::of("list, last byte", &list.last, None),
        Row::of("list without flows, first byte", &states.first, Some(MOST)),
        Row::of("list without flows, last byte", &states.last, None),
        Row::of("one service", &small.last, Some(MOST)),
        Row::of("a change", &changes, None),
    ];
    let rows = rows.into_iter().collect::<Option<Vec<_>>>().context("no answer of some kind")?;
    Ok(Report { rows, repairs, largest: list.largest })
}

/// Applies one service; how long its answer took.
fn change(host: &Host, plan: Plan, number: u32) -> Result<f64> {
    let answer = ask(host, "POST", SERVICES, &service(number, plan.backends, 1))?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200, "service {number}: {} {text}", answer.status);
    let applied: Value = serde_json::from_str(&text)?;
    ensure!(applied["applied"] == 1, "service {number}: {text}");
    Ok(milliseconds(answer.last))
}

fn apply_all(host: &Host, plan: Plan, applied: &AtomicU32) -> Result<Vec<f64>> {
    let apply = |number| {
        let time = change(host, plan, number)?;
        applied.store(number + 1, Ordering::Release);
        Ok(time)
    };
    (1..plan.services).map(apply).collect()
}

/// Reads all services again and again. Each answer has those that were applied before it was asked for.
fn read_list(host: &Host, applied: &AtomicU32, over: impl Fn() -> bool) -> Result<Series> {
    let before = || applied.load(Ordering::Acquire);
    let mut least = before();
    read(host, SERVICES, over, move |answer| {
        let found = answer.body.windows(6).filter(|window| window == b"\"vip\":").count();
        ensure!(found >= least as usize, "{least} services were applied, {found} answered");
        least = before();
        Ok(())
    })
}

fn read_states(host: &Host, over: impl Fn() -> bool) -> Result<Series> {
    read(host, "/v1/services?flows=no", over, |_answer| Ok(()))
}

fn read(
    host: &Host,
    path: &str,
    over: impl Fn() -> bool,
    mut check: impl FnMut(&Answer) -> Result<()>,
) -> Result<Series> {
    let mut series = Series::default();
    while !over() {
        let answer = ask(host, "GET", path, "").with_context(|| format!("GET {path}"))?;
        ensure!(answer.status == 200, "GET {path}: {}", answer.status);
        check(&answer)?;
        series.first.push(milliseconds(answer.first));
        series.last.push(milliseconds(answer.last));
        series.largest = series.largest.max(answer.body.len());
        // A reader that asks without a pause would measure the other readers' share of the processors.
        thread::sleep(answer.last.max(Duration::from_millis(1)));
    }
    Ok(series)
}

/// Deletes a fan's route, and takes another's bridge down, again and again. A route that can be deleted once more was put
/// back meanwhile: how many those were.
fn break_fans(host: &Host, pause: Duration, over: impl Fn() -> bool) -> u32 {
    let mut repairs = 0_u32;
    let mut is_deleted = [false; FANS.len()];
    for turn in (0..FANS.len()).cycle() {
        if over() {
            break;
        }
        let is_gone = host.command("ip").args(["route", "delete", &overlay(turn)]).run().status.success();
        repairs += u32::from(is_gone && is_deleted[turn]);
        is_deleted[turn] |= is_gone;
        let other = format!("fan-{}-0-27", FANS[(turn + 1) % FANS.len()]);
        host.ip(&format!("link set {other} down"));
        thread::sleep(pause);
    }
    repairs
}

fn overlay(fan: usize) -> String {
    format!("{}.0.0.0/8", FANS[fan])
}

/// All services are there as they were applied, and all fans work.
fn check_end(host: &Host, plan: Plan) -> Result<()> {
    let answer = ask(host, "GET", SERVICES, "")?;
    let services: Vec<Value> = serde_json::from_slice(&answer.body)?;
    ensure!(services.len() == plan.services as usize, "{} services at the end", services.len());
    let odd = services.iter().find(|service| {
        service["backends"].as_array().is_none_or(|backends| backends.len() != plan.backends as usize)
    });
    ensure!(odd.is_none(), "a service that was not applied like this: {odd:?}");
    eventually("all fans are whole", SOON, || {
        (host.json("status")["degraded"] == Value::Array(vec![])).then_some(())
    });
    Ok(())
}

impl Row {
    /// Of a series; `None` when it is empty.
    fn of(name: &'static str, times: &[f64], most: Option<f64>) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let longest = *sorted.last()?;
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        Some(Self { name, count: sorted.len(), median: at(50), most_of_99: at(99), longest, most })
    }
}

/// The report as a table.
pub fn print(plan: Plan, report: &Report) {
    let Plan { services, backends, .. } = plan;
    println!("\nThe API while {services} services with {backends} backends each are applied one at a time");
    println!("{:<32} {:>8} {:>10} {:>10} {:>10}", "ms", "answers", "median", "99th", "longest");
    for Row { name, count, median, most_of_99, longest, most } in &report.rows {
        let missed = most.filter(|most| most_of_99 > most);
        let mark = missed.map(|most| format!(" > {most}")).unwrap_or_default();
        println!("{name:<32} {count:>8} {median:>10.2} {most_of_99:>10.2} {longest:>10.2}{mark}");
    }
    println!(
        "{} routes of fans were put back; the largest answer has {} bytes",
        report.repairs, report.largest
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let times: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let row = Row::of("x", &times, None).expect("200 times");
        assert_eq!((row.count, row.median, row.most_of_99, row.longest), (200, 100.0, 198.0, 200.0));
        let row = Row::of("x", &[3.0], None).expect("one");
        assert_eq!((row.median, row.most_of_99, row.longest), (3.0, 3.0, 3.0));
        assert!(Row::of("x", &[], None).is_none());
    }
}
