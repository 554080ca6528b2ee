//! `bench health`: many checks in one agent: whether they stay on schedule, and the processor time that they take.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{Backlog, listen};

use super::{
    routes::seconds,
    services::{Row, print_rows},
};
use crate::{
    Host, api,
    fleet::{Fleet, OUTSIDE},
    services::{configure, service},
    site::Site,
};

/// The backends: every address from here on, all of one host.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const PORT: u16 = 8080;
const FIRST_VIP: u32 = u32::from_be_bytes([10, 97, 0, 0]);
/// Backends of a service.
const EACH: u32 = 10;
/// Until all are up and only what is measured goes on.
const SETTLED: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plan {
    /// How many
    #[arg(long, default_value_t = 10_000)]
    pub checks: u32,
    /// Seconds from one check of a backend to the next
    #[arg(long, default_value_t = 5)]
    pub interval: u64,
    /// Seconds that they are watched
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
}

/// Checks of each kind, one after the other.
pub fn measure(plan: Plan) -> Result<Vec<Row>> {
    let mut rows = of_kind(plan, "tcp", ["tcp: checks of those due", "tcp: latest start", "tcp: processor"])?;
    rows.extend(of_kind(
        plan,
        "http",
        ["http: checks of those due", "http: latest start", "http: processor"],
    )?);
    Ok(rows)
}

fn of_kind(plan: Plan, kind: &str, [done, late, used]: [&'static str; 3]) -> Result<Vec<Row>> {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    let backends = fleet.stranger("backends", OUTSIDE);
    backends.ip("route add local 198.18.0.0/15 dev lo");
    host.ip(&format!("route add 198.18.0.0/15 via {OUTSIDE}"));
    let listener = listener(&backends)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &is_over));
        let rows = watched(plan, kind, host);
        is_over.store(true, Ordering::Relaxed);
        let [part, lateness, percent] = rows?;
        Ok(vec![
            Row { name: done, unit: "%", value: part, most: None },
            Row { name: late, unit: "ms late", value: lateness, most: Some(plan.interval as f64 * 100.0) },
            Row { name: used, unit: "% of one", value: percent, most: Some(20.0) },
        ])
    })
}

/// Checks that were made, in per cent of those that were due; the latest start in ms; processor time in per cent of one.
fn watched(plan: Plan, kind: &str, host: &Host) -> Result<[f64; 3]> {
    let check = format!("check = {{ kind = '{kind}', interval = '{}s' }}\n", plan.interval);
    let table = |number: u32| {
        let backend = |place| format!("{}:{PORT}", Ipv4Addr::from_bits(FIRST + number * EACH + place));
        let vip = format!("{}:80/tcp", Ipv4Addr::from_bits(FIRST_VIP + number));
        let backends: Vec<String> = (0..EACH).map(backend).collect();
        format!("{}{check}", service(&format!("s{number}"), vip, &backends))
    };
    configure(host, &(0..plan.checks / EACH).map(table).collect::<Vec<_>>());
    let agent = host.agent();
    let start = Instant::now();
    while metric(host, "fanlight_backends{state=\"up\"}")? < f64::from(plan.checks) {
        ensure!(start.elapsed() < SETTLED, "not all backends came up");
        thread::sleep(Duration::from_millis(500));
    }
    // The window of lateness before is over.
    thread::sleep(Duration::from_secs(20));
    let passed = || metric(host, "fanlight_checks_total{result=\"passed\"}");
    let (start, before, used) = (Instant::now(), passed()?, seconds(&agent)?);
    thread::sleep(Duration::from_secs(plan.seconds));
    let (made, used, length) = (passed()? - before, seconds(&agent)? - used, start.elapsed().as_secs_f64());
    ensure!(metric(host, "fanlight_checks_total{result=\"failed\"}")? == 0.0, "checks have failed");
    let due = f64::from(plan.checks) * length / plan.interval as f64;
    let late = metric(host, "fanlight_check_lateness_seconds")?;
    Ok([made / due * 100.0, late * 1e3, used / length * 100.0])
}

fn metric(host: &Host, name: &str) -> Result<f64> {
    let answer = api::ask(host, "GET", "/metrics", "")?;
    let text = String::from_utf8(answer.body).context("metrics are text")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("{name} is missing"))?
        .parse()
        .with_context(|| format!("{name} is no number"))
}

fn listener(site: &Site) -> Result<TcpListener> {
    let listener = site.bound(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
    site.sysctl("net.core.somaxconn", "4096");
    listen(&listener.as_fd(), Backlog::new(4096).context("a backlog")?)?;
    Ok(listener)
}

/// Answers whoever asks for something.
fn serve(listener: &TcpListener, is_over: &AtomicBool) {
    listener.set_nonblocking(true).expect("a listener can be asked");
    let mut head = [0; 1024];
    while !is_over.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        // Whoever only connects has reset the connection.
        let asked = stream.set_nonblocking(false).and_then(|()| stream.read(&mut head));
        if asked.is_ok_and(|length| length > 0) {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        }
    }
}

/// The rows as a table.
pub fn print(plan: Plan, rows: &[Row]) {
    println!("\n{} checks every {} s", plan.checks, plan.interval);
    print_rows(rows);
}
