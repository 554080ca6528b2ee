//! The cluster's place in the agent: when it starts, the address that it advertises, what it is told of other files.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::Path,
    sync::Arc,
};

use control::model::network;
use dataplane_common::abi::FanRecord;
use tokio::sync::watch;

use super::report::{Report, Topic};
use crate::{
    cluster::{Around, Cluster, Reader, ServiceNews, Stating, View},
    inspect::status::ClusterState,
    kernel::{own_address, tasks::Faults},
    node::writer::Applied,
    sources::config::{self, ClusterConfig},
};

/// An address beyond the host and its networks (RFC 5737): what leads there is the default route.
const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);

/// This node's part of a cluster, if it is to have one.
pub(super) struct Clustered {
    files: Arc<config::Sources>,
    node: Arc<str>,
    cluster: Option<Cluster>,
    readers: watch::Sender<Option<Reader>>,
    faults: Faults,
}

impl Clustered {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            files: Arc::default(),
            node: Arc::default(),
            cluster: None,
            readers: watch::Sender::default(),
            faults,
        }
    }

    /// Says what of other files can't be followed while the agent runs.
    pub(super) fn check(&self, path: &Path, files: &config::Sources, node: &str) -> Result<(), Vec<String>> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let (former, refuse) = (cluster.config(), |key: &str, what: &str| {
            let message = format!("{what} while the agent runs; restart it");
            Err(vec![files.problem(path, key, message).to_string()])
        });
        let Some(config) = &files.config.cluster else {
            return refuse("cluster", "can't go");
        };
        if node != cluster.node().as_str() {
            return refuse("node.name", "can't change");
        }
        let kept = [
            ("cluster.name", config.name == former.name),
            ("cluster.listen", config.listen == former.listen),
            ("cluster.data", config.data == former.data),
        ];
        kept.into_iter().find(|(_, is_kept)| !is_kept).map_or(Ok(()), |(key, _)| refuse(key, "can't change"))
    }

    /// Follows files that were checked.
    pub(super) fn set_files(&mut self, files: &Arc<config::Sources>, node: &Arc<str>) {
        (self.files, self.node) = (Arc::clone(files), Arc::clone(node));
        if let (Some(cluster), Some(config)) = (&mut self.cluster, &files.config.cluster) {
            cluster.reconfigure(config);
        }
    }

    /// Starts it where it is to run, and follows where the node is. Gives it when it has just started.
    pub(super) fn follow(&mut self, applied: &Applied, report: &mut Report) -> Option<(Reader, Stating)> {
        let config = self.files.config.cluster.clone()?;
        let had_none = self.cluster.is_none();
        let advertise = self.advertise(&config, &applied.fans);
        match (&mut self.cluster, advertise) {
            (Some(cluster), Some(address)) => cluster.advertise(address),
            // It goes on with the former one.
            (Some(_), None) => {}
            (None, Some(address)) => match Cluster::start(&config, &self.node, address, &self.faults) {
                Ok(cluster) => {
                    self.readers.send_replace(Some(cluster.reader()));
                    self.cluster = Some(cluster);
                }
                Err(error) => report.set(Topic::Cluster, vec![format!("cluster: {error}")]),
            },
            (None, None) => {
                let why = "no-address: the uplink has no address that members could send to; give it one, or set \
                           cluster.advertise";
                report.set(Topic::Cluster, vec![why.to_owned()]);
            }
        }
        self.tell(report);
        let uplinks = &self.files.config.node.uplink;
        let cluster = self.cluster.as_mut()?;
        cluster.set_around(around(applied, uplinks));
        had_none.then(|| (cluster.reader(), cluster.stating()))
    }

    /// Whether a cluster is configured and can't begin.
    pub(super) fn is_lost(&self) -> bool {
        self.files.config.cluster.is_some() && self.cluster.is_none()
    }

    /// Waits for what the cluster says of services at first; `None` where there is none.
    pub(super) async fn first_word(&mut self) -> Option<ServiceNews> {
        let outbox = self.cluster.as_ref()?.outbox();
        Some(outbox.next().await)
    }

    /// What it has said of services by now.
    pub(super) fn take_services(&self) -> Option<ServiceNews> {
        self.cluster.as_ref()?.take_services()
    }

    fn advertise(&self, config: &ClusterConfig, fans: &[FanRecord]) -> Option<SocketAddrV4> {
        let port = config.listen.port();
        let listen = Some(config.listen).filter(|listen| !listen.ip().is_unspecified());
        config.advertise.or(listen).or_else(|| {
            let fan = fans.iter().find(|fan| fan.in_use()).map(|fan| Ipv4Addr::from_bits(fan.address));
            let device =
                || self.files.config.node.uplink.iter().find_map(|name| own_address::of_device(name));
            let seed = || config.join.iter().find_map(|seed| own_address::towards(seed.parse().ok()?));
            let address = fan.or_else(device).or_else(seed).or_else(|| own_address::towards(ELSEWHERE));
            address.map(|address| SocketAddrV4::new(address, port))
        })
    }

    /// Waits until there is something to tell, or something said of services. Dropping this loses nothing.
    pub(super) async fn changed(&mut self) -> Option<ServiceNews> {
        let Some(cluster) = &mut self.cluster else { return std::future::pending().await };
        let outbox = cluster.outbox();
        tokio::select! {
            biased;
            news = outbox.next() => Some(news),
            () = cluster.changed() => None,
        }
    }

    /// Tells what is known of the cluster.
    pub(super) fn tell(&mut self, report: &mut Report) {
        let Some(cluster) = &mut self.cluster else { return };
        let view = cluster.view();
        let View { reasons, cluster: name, .. } = &*view;
        report.set(Topic::Cluster, reasons.clone());
        report.set_cluster(ClusterState { name: name.to_string(), members: view.counts() });
    }

    /// For the API; none while there is no cluster.
    pub(super) fn readers(&self) -> watch::Receiver<Option<Reader>> {
        self.readers.subscribe()
    }

    /// Tells members that this node stops.
    pub(super) async fn leave(&mut self) {
        // Nothing starts it again.
        self.files = Arc::default();
        if let Some(cluster) = self.cluster.take() {
            cluster.leave().await;
        }
    }
}

/// Where this node is: its addresses on the uplinks, and its part of the fans.
fn around(applied: &Applied, uplinks: &[String]) -> Around {
    let fans = || applied.fans.iter().filter(|fan| fan.in_use());
    let underlays: Vec<Ipv4Addr> = fans().map(|fan| Ipv4Addr::from_bits(fan.address)).collect();
    let own = &applied.taken.own;
    let devices: BTreeSet<&String> =
        underlays.iter().filter_map(|address| own.get(address)).chain(uplinks).collect();
    let on_uplinks = own.iter().filter(|(_, device)| devices.contains(device)).map(|(address, _)| *address);
    let gateways = fans().map(|fan| Ipv4Addr::from_bits(fan.gateway));
    let slices = fans().map(|fan| network(fan.slice, fan.slice_mask));
    Around {
        addresses: on_uplinks.chain(gateways).chain(underlays.iter().copied()).map(IpAddr::V4).collect(),
        slices: slices.collect(),
    }
}
