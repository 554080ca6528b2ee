//! `/metrics`: the node in numbers, as Prometheus and OpenMetrics read them. docs/metrics.md lists them.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use control::service::BackendLife;
use dataplane_common::outcome::Outcome;
use hyper::header::CONTENT_TYPE;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text::encode},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{App, Refusal, View, announce, counts::Counts};
use crate::{
    announce::PeerRow,
    cluster::{self, Numbers},
    health::{BOUNDS, Totals},
    kernel::bpf::{self, Counters, Datapath, MapMemory, Runs},
};

/// The content type of what is written.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label and its value.
type Label = [(&'static str, &'static str); 1];

/// States of members.
const STATES: [&str; 5] = ["alive", "suspect", "dead", "left", "maintenance"];

/// The numbers of one moment.
#[derive(Clone, Debug, Default)]
struct Sample {
    services: usize,
    up: usize,
    drained: usize,
    down: usize,
    /// Established flows.
    flows: u64,
    /// Checks of backends.
    checks: Totals,
    /// What is there only with a datapath.
    kernel: Option<Kernel>,
    /// What is there only with a cluster.
    cluster: Option<Cluster>,
    /// Peers of BGP.
    peers: Vec<PeerRow>,
}

/// What the cluster tells.
#[derive(Clone, Debug, Default)]
struct Cluster {
    /// Members by state.
    members: Vec<(&'static str, u64)>,
    numbers: Numbers,
}

/// What the kernel tells.
#[derive(Clone, Debug, Default)]
struct Kernel {
    packets: Counters,
    memory: MapMemory,
    /// By hook; nothing while the kernel does not count it.
    runs: Vec<(&'static str, Runs)>,
}

impl Sample {
    /// Takes one; on a thread that may block.
    ///
    /// # Errors
    /// The kernel refuses.
    fn take(view: &View, cluster: Option<Cluster>, counts: &Counts, checks: Totals) -> bpf::Result<Self> {
        let mut sample = Self { services: view.desired.len(), cluster, checks, ..Self::default() };
        for entry in view.desired.entries() {
            for backend in &entry.defined.backends {
                match entry.life(backend) {
                    BackendLife::Up => sample.up += 1,
                    BackendLife::Drained => sample.drained += 1,
                    BackendLife::Down => sample.down += 1,
                }
            }
        }
        if let Some(map) = &view.map {
            sample.flows = counts.of(map)?.values().sum();
        }
        if let Some(datapath) = Datapath::open_existing()? {
            let runs = bpf::runs(&datapath.attachments()?).unwrap_or_default();
            let (packets, memory) = (datapath.counters()?, datapath.memory()?);
            sample.kernel = Some(Kernel { packets, memory, runs: runs.into_iter().collect() });
        }
        Ok(sample)
    }

    /// As text.
    ///
    /// # Errors
    /// A number can't be written.
    fn text(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("fanlight");
        registry.register("services", "Services that this node is to serve", gauge(self.services as u64));
        let states = [("up", self.up), ("drained", self.drained), ("down", self.down)];
        let backends = states.map(|(state, number)| ([("state", state)], number as u64));
        registry.register(
            "backends",
            "Backends of services, by whether they take new flows",
            gauges(backends),
        );
        let help = "Established flows of this node's clients, at most a second ago";
        registry.register("flows", help, gauge(self.flows));
        register_checks(&self.checks, &mut registry);
        if let Some(kernel) = &self.kernel {
            kernel.register(&mut registry);
        }
        if let Some(cluster) = &self.cluster {
            cluster.register(&mut registry);
        }
        if !self.peers.is_empty() {
            announce::register(&self.peers, &mut registry);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Cluster {
    /// Takes the numbers of one; none, when it gives no answer.
    async fn take(reader: &cluster::Reader) -> Option<Self> {
        let numbers = reader.numbers().await?;
        let counts = reader.view().counts();
        let count = |state: &str| counts.get(state).copied().unwrap_or_default() as u64;
        Some(Self { members: STATES.map(|state| (state, count(state))).to_vec(), numbers })
    }

    fn register(&self, registry: &mut Registry) {
        let Self { members, numbers: Numbers { sent, received, refused, stored } } = self;
        let members = members.iter().map(|(state, count)| ([("state", *state)], *count));
        registry.register("members", "Members of the cluster, this node included", gauges(members));
        let bytes = counters("direction", [("sent", *sent), ("received", *received)]);
        let help = "Between members, by datagrams and streams, without headers of IP, UDP and TCP";
        registry.register_with_unit("gossip", help, Unit::Bytes, bytes);
        let help = "Datagrams that were refused, by reason";
        registry.register("refused_datagrams", help, counters("reason", refused.iter().copied()));
        let Some(stored) = stored else { return };
        let records = [("written", stored.records), ("removed", stored.removals)];
        let help = "Records of all nodes, and removals that some member has not heard of";
        registry.register("records", help, gauges(records.map(|(kind, count)| ([("kind", kind)], count))));
        let help = "Memory of the records";
        registry.register_with_unit("records_memory", help, Unit::Bytes, gauge(stored.memory));
        registry.register_with_unit("store", "The store on disk", Unit::Bytes, gauge(stored.file));
        let lag = Gauge::<f64, AtomicU64>::default();
        lag.set(stored.lag.as_secs_f64());
        let help =
            "The longest time within the last minute from a record's writing elsewhere to its arrival here";
        registry.register_with_unit("convergence_lag", help, Unit::Seconds, lag);
    }
}

/// The numbers of now.
pub(super) async fn show(State(app): State<App>) -> Result<Response, Refusal> {
    let counts = app.counts.clone();
    let cluster = app.cluster.borrow().clone();
    let cluster = match cluster {
        Some(reader) => Cluster::take(&reader).await,
        None => None,
    };
    // One that gives no answer is told among the reasons to be degraded.
    let peers = app.announcer.peers().await.unwrap_or_default();
    let checks = app.checks.results.totals();
    let sample = move |view: &View| Ok(Sample { peers, ..Sample::take(view, cluster, &counts, checks)? }.text());
    let text = app.read(sample).await?;
    let text = text.map_err(|error| Refusal::failed(error.to_string()))?;
    Ok(([(CONTENT_TYPE, TYPE)], text).into_response())
}

fn register_checks(checks: &Totals, registry: &mut Registry) {
    let help = "Backends that this node checks";
    registry.register("checked_backends", help, gauge(checks.targets));
    let help = "Checks of backends that ended, by result";
    let results = counters("result", [("passed", checks.passed), ("failed", checks.failed)]);
    registry.register("checks", help, results);
    let help = "How long checks of backends took";
    registry.register_with_unit("check_duration", help, Unit::Seconds, CheckTimes(checks.clone()));
    let late = Gauge::<f64, AtomicU64>::default();
    late.set(checks.late.as_secs_f64());
    let help = "By how much checks of the last 10 to 20 seconds began late at most";
    registry.register_with_unit("check_lateness", help, Unit::Seconds, late);
}

/// A histogram of what was counted elsewhere.
#[derive(Debug)]
struct CheckTimes(Totals);

impl EncodeMetric for CheckTimes {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Totals { times, took, .. } = &self.0;
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(times.iter().copied()).collect();
        encoder.encode_histogram::<NoLabelSet>(took.as_secs_f64(), times.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl Kernel {
    fn register(&self, registry: &mut Registry) {
        let packets = Family::<Label, Counter>::default();
        for outcome in Outcome::ALL {
            packets.get_or_create(&[("outcome", outcome.name())]).inc_by(self.packets.total(*outcome));
        }
        let help = "Packets that a program has seen, by what became of them";
        registry.register("packets", help, packets);

        let MapMemory { maps, flows, services } = self.memory;
        let parts =
            [("flows", flows), ("services", services), ("other", maps.saturating_sub(flows + services))];
        let memory = gauges(parts.map(|(part, bytes)| ([("tables", part)], bytes)));
        registry.register_with_unit("map_memory", "Kernel memory of the tables", Unit::Bytes, memory);

        if self.runs.is_empty() {
            return;
        }
        let counts = Family::<Label, Counter>::default();
        let times = Family::<Label, Counter<f64, AtomicU64>>::default();
        for (hook, runs) in &self.runs {
            counts.get_or_create(&[("hook", *hook)]).inc_by(runs.count);
            times.get_or_create(&[("hook", *hook)]).inc_by(runs.time.as_secs_f64());
        }
        let help = "Runs of the programs, while kernel.bpf_stats_enabled is 1";
        registry.register("program_runs", help, counts);
        let help = "Time that the programs ran for, while kernel.bpf_stats_enabled is 1";
        registry.register_with_unit("program_run", help, Unit::Seconds, times);
    }
}

fn counters(
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> Family<Label, Counter> {
    let family = Family::<Label, Counter>::default();
    for (value, count) in values {
        family.get_or_create(&[(label, value)]).inc_by(count);
    }
    family
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value.try_into().unwrap_or(i64::MAX));
    gauge
}

fn gauges(values: impl IntoIterator<Item = (Label, u64)>) -> Family<Label, Gauge> {
    let family = Family::default();
    for (label, value) in values {
        let one: &Gauge = &family.get_or_create(&label);
        one.set(value.try_into().unwrap_or(i64::MAX));
    }
    family
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;
    use crate::cluster::Stored;

    fn full() -> Sample {
        let runs = Runs { count: 7, time: Duration::from_millis(1500) };
        let memory = MapMemory { maps: 100, flows: 50, services: 20 };
        let kernel = Kernel { memory, runs: vec![("uplink-ingress", runs)], ..Kernel::default() };
        let stored =
            Stored { records: 12, file: 1 << 20, lag: Duration::from_millis(70), ..Stored::default() };
        let numbers =
            Numbers { sent: 300, refused: vec![("replayed", 4)], stored: Some(stored), ..Numbers::default() };
        let cluster = Some(Cluster { members: vec![("alive", 3)], numbers });
        let peer = PeerRow {
            address: "192.0.2.2".to_owned(),
            asn: 65_101,
            state: "established".to_owned(),
            since: 0,
            sent: 3,
            withdrawn: 1,
            received: 4,
            last_error: None,
            routes: 2,
            flaps: 1,
        };
        let peers = vec![peer];
        let times = [0, 4, 0, 0, 0, 0, 0, 0, 0, 1];
        let (took, late) = (Duration::from_secs(12), Duration::from_millis(3));
        let checks = Totals { targets: 2, passed: 4, failed: 1, took, times, late };
        Sample { services: 3, up: 5, drained: 2, down: 1, flows: 9, checks, kernel: Some(kernel), cluster, peers }
    }

    #[test]
    fn numbers_have_base_units_and_labels() {
        let text = full().text().unwrap();
        for line in [
            "fanlight_services 3",
            "fanlight_backends{state=\"drained\"} 2",
            "fanlight_flows 9",
            "fanlight_packets_total{outcome=\"encapsulated\"} 0",
            "fanlight_map_memory_bytes{tables=\"other\"} 30",
            "fanlight_program_runs_total{hook=\"uplink-ingress\"} 7",
            "fanlight_program_run_seconds_total{hook=\"uplink-ingress\"} 1.5",
            "fanlight_checked_backends 2",
            "fanlight_checks_total{result=\"failed\"} 1",
            "fanlight_check_duration_seconds_bucket{le=\"0.0025\"} 4",
            "fanlight_check_duration_seconds_bucket{le=\"+Inf\"} 5",
            "fanlight_check_duration_seconds_sum 12.0",
            "fanlight_check_lateness_seconds 0.003",
            "fanlight_members{state=\"alive\"} 3",
            "fanlight_gossip_bytes_total{direction=\"sent\"} 300",
            "fanlight_refused_datagrams_total{reason=\"replayed\"} 4",
            "fanlight_records{kind=\"written\"} 12",
            "fanlight_store_bytes 1048576",
            "fanlight_convergence_lag_seconds 0.07",
            "fanlight_bgp_established{peer=\"192.0.2.2\"} 1",
            "fanlight_bgp_sent_total{peer=\"192.0.2.2\"} 3",
            "# EOF",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing:\n{text}");
        }
        let bare = Sample::default().text().unwrap();
        assert!(!["packets", "program", "members", "bgp"].iter().any(|name| bare.contains(name)), "{bare}");
    }

    /// Metrics of a text: name, with the end of counters, and labels → type and help.
    fn described(text: &str) -> BTreeMap<String, (String, String)> {
        let mut found = BTreeMap::new();
        let (mut help, mut kind) = ("", "");
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["#", "HELP", _, ..] => help = line.splitn(4, ' ').nth(3).unwrap_or_default(),
                ["#", "TYPE", _, own] => kind = *own,
                ["#", ..] => {}
                [value, ..] => {
                    let (name, labels) = value.split_once('{').unwrap_or((value, ""));
                    let label =
                        labels.split_once('=').map(|(label, _)| format!("{{{label}}}")).unwrap_or_default();
                    let help = help.trim_end_matches('.').to_owned();
                    found.insert(format!("{name}{label}"), (kind.to_owned(), help));
                }
                [] => {}
            }
        }
        found
    }

    #[test]
    fn the_page_of_metrics_has_every_metric_and_no_other() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let page = fs::read_to_string(path).expect("docs/metrics.md");
        let rows = page.lines().skip_while(|line| !line.starts_with("| metric |")).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|')).map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), cells[2].to_owned()))
        });
        assert_eq!(rows.collect::<BTreeMap<_, _>>(), described(&full().text().unwrap()));
    }
}
