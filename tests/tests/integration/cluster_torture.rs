//! 25 agents through partitions, kills and loss, with writes on all sides.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, Host, api,
    cluster::{JOINED, Weather, are_members, cluster, started},
    command::End,
    eventually,
    fleet::Fleet,
};
use fastrand::Rng;
use serde_json::Value;

const HOSTS: usize = 25;
/// How long it lasts by itself; `FANLIGHT_TORTURE` has other seconds.
const SECONDS: u64 = 60;
/// Packets lost all the time, in hundredths.
const LOSS: u32 = 20;
/// Agents that are dead at a time.
const DEAD: usize = 8;
/// What was missed is compared every few seconds.
const COMPARED: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// What was acknowledged of a key that one write made, and another one may have deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    /// It was to be deleted, and no answer came.
    Unknown,
    Deleted,
}

/// What writers have been told.
#[derive(Default)]
struct Told {
    next: AtomicUsize,
    keys: Mutex<BTreeMap<String, (usize, Fate)>>,
    is_over: AtomicBool,
}

fn is_acknowledged(host: &Host, method: &str, key: &str, value: &str) -> bool {
    let answer = api::ask(host, method, &format!("/v1/kv/{key}"), value);
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Writes keys of its own on any host, and deletes some of them where they were written, until it is over.
fn write(fleet: &Fleet, told: &Told, mut rng: Rng) {
    while !told.is_over.load(Ordering::Relaxed) {
        let number = told.next.fetch_add(1, Ordering::Relaxed);
        let (host, key) = (rng.usize(..HOSTS), format!("key-{number}"));
        if is_acknowledged(&fleet[host], "PUT", &key, &number.to_string()) {
            told.keys.lock().expect("no panic").insert(key.clone(), (host, Fate::Written));
            if rng.u8(..4) == 0 {
                thread::sleep(PAUSE);
                let is_deleted = is_acknowledged(&fleet[host], "DELETE", &key, "");
                let fate = if is_deleted { Fate::Deleted } else { Fate::Unknown };
                told.keys.lock().expect("no panic").insert(key, (host, fate));
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Some hosts in groups that reach only each other, and links that carry nothing in one direction.
fn weather(rng: &mut Rng) -> Weather {
    let mut hosts: Vec<usize> = (0..HOSTS).collect();
    rng.shuffle(&mut hosts);
    let groups = match rng.u8(..4) {
        0 => Vec::new(),
        1 => vec![hosts[..rng.usize(1..HOSTS / 2)].to_vec()],
        2 => vec![hosts[..8].to_vec(), hosts[8..16].to_vec()],
        _ => hosts[..5].iter().map(|host| vec![*host]).collect(),
    };
    let one_way = (0..rng.usize(..6)).map(|_| (rng.usize(..HOSTS), rng.usize(..HOSTS)));
    Weather { loss: LOSS, groups, one_way: one_way.filter(|(from, to)| from != to).collect() }
}

/// Changes the weather and kills and starts agents until the time is over.
fn torment(fleet: &Fleet, agents: &mut [Option<Agent>], rng: &mut Rng, until: Instant) {
    while Instant::now() < until {
        weather(rng).rule(&fleet.switch);
        let victim = rng.usize(..HOSTS);
        let dead = agents.iter().filter(|agent| agent.is_none()).count();
        match agents[victim].take() {
            Some(agent) if dead < DEAD => drop(agent.kill9()),
            Some(agent) => agents[victim] = Some(agent),
            None => agents[victim] = Some(fleet[victim].agent()),
        }
        thread::sleep(Duration::from_millis(rng.u64(500..3_000)));
    }
}

/// All keys that a host has.
fn keys(host: &Host) -> Option<BTreeSet<String>> {
    let answer = api::ask(host, "GET", "/v1/kv", "").ok().filter(|answer| answer.status == 200)?;
    let listed: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let names = listed.as_array().expect("a list").iter();
    Some(names.filter_map(|row| row["key"].as_str().map(str::to_owned)).collect())
}

#[test]
fn partitions_kills_and_loss_leave_no_split_and_lose_nothing_that_was_acknowledged() {
    let seconds =
        env::var("FANLIGHT_TORTURE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS);
    let mut rng = Rng::new();
    eprintln!("seed {}", rng.get_seed());
    let fleet = cluster(HOSTS);
    let mut agents: Vec<Option<Agent>> = started(&fleet).into_iter().map(Some).collect();
    let told = Told::default();
    thread::scope(|scope| {
        let _end = End(&told.is_over);
        for _ in 0..3 {
            let rng = rng.fork();
            scope.spawn(|| write(&fleet, &told, rng));
        }
        torment(&fleet, &mut agents, &mut rng, Instant::now() + Duration::from_secs(seconds));
    });
    Weather::default().rule(&fleet.switch);
    for (host, agent) in fleet.hosts().iter().zip(&mut agents).filter(|(_, agent)| agent.is_none()) {
        *agent = Some(host.agent());
    }
    are_members(&fleet, &(0..HOSTS).collect::<Vec<_>>(), JOINED);
    let acknowledged = told.keys.into_inner().expect("no panic");
    assert!(acknowledged.len() as u64 > seconds, "{} writes were acknowledged", acknowledged.len());
    let of = |wanted| acknowledged.iter().filter(move |(_, (_, fate))| *fate == wanted).map(|(key, _)| key);
    let first = eventually("all have the same", COMPARED, || {
        let mut all = fleet.hosts().iter().map(keys);
        let first = all.next()??;
        all.all(|other| other.as_ref() == Some(&first)).then_some(first)
    });
    let lost: Vec<_> = of(Fate::Written).filter(|key| !first.contains(*key)).collect();
    assert_eq!(lost, [""; 0], "of {}", acknowledged.len());
    let returned: Vec<_> = of(Fate::Deleted).filter(|key| first.contains(*key)).collect();
    assert_eq!(returned, [""; 0], "of {}", acknowledged.len());
    eprintln!("{} writes, {} of them deleted", acknowledged.len(), of(Fate::Deleted).count());
}
