//! Command lines as clap reads them: words in their places, not yet what they mean.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use dataplane_common::wire::{PROTO_ICMP, PROTO_TCP, PROTO_UDP};

use super::{
    announce::{AnnounceCommand, BgpCommand},
    check::CheckArgs,
    event::EventCommand,
    kv::KvCommand,
    maintenance::MaintenanceCommand,
    replay::ReplayArgs,
    service::parse_backend,
};
use crate::sources::config::CONFIG_FILE;

/// Container addresses that compute their host, carried in the kernel
#[derive(Debug, Parser)]
#[command(name = "fanlight", version, disable_help_subcommand = true)]
pub(super) struct Cli {
    /// Print JSON with stable keys instead of tables
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent: bring up what the configuration asks for and keep it in repair
    Agent(AgentArgs),
    /// Bring fans up and down, show and test them
    #[command(subcommand)]
    Fan(FanCommand),
    /// The same as 'fan up'
    Up(UpArgs),
    /// The same as 'fan down'
    Down(DownArgs),
    /// Wire network namespaces into fans
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Apply, show, drain and remove services on the running agent
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Add, remove and list the backends that this node contributes
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Check the backends of a service now, and say what is seen; exits with 1 when one fails
    Check(CheckArgs),
    /// Show the members of the cluster, and forget those that are no more
    #[command(subcommand)]
    Node(NodeCommand),
    /// Take this node out of rotation, gracefully, and back
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Show, disable and enable what is announced to routers
    #[command(subcommand)]
    Announce(AnnounceCommand),
    /// Show the peers of BGP, and the routes that they have
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// Read and write keys that all members of the cluster share
    #[command(subcommand)]
    Kv(KvCommand),
    /// Send messages to all members of the cluster, and show them
    #[command(subcommand)]
    Event(EventCommand),
    /// Look at the flows of services
    #[command(subcommand)]
    Flow(FlowCommand),
    /// Have the agent read its configuration again: all of it is taken over, or nothing
    Reload,
    /// Show the node on one screen; exits with 1 when it is degraded
    Status,
    /// Show new flows, drops and refusals as they happen
    Monitor(MonitorArgs),
    /// Say what would become of a packet here, and why
    Explain(ExplainArgs),
    /// Run packets through the kernel programs without touching any interface
    Replay(ReplayArgs),
    /// Check the configuration without touching the host
    CheckConfig(CheckConfigArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Manual,
}

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) config: PathBuf,
    /// Take programs and maps out of the kernel on exit
    #[arg(long)]
    pub(super) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum FanCommand {
    /// Bring up a fan, or all of the file of fans
    Up(UpArgs),
    /// Take down a fan, or all that 'up -a' brought up
    Down(DownArgs),
    /// Show the fans of this node
    Show,
    /// Say whether the encapsulation gets through to a host
    Test(TestArgs),
}

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// All fans of /etc/fanlight/fans; a bad line does not stop the others
    #[arg(short = 'a', long, conflicts_with_all = ["operands", "overlay", "underlay", "bridge", "dhcp"])]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) networks: NetworkArgs,
    /// The same as the operands 'bridge NAME'
    #[arg(long, value_name = "NAME")]
    pub(super) bridge: Option<String>,
    /// The same as the operand 'dhcp'
    #[arg(long)]
    pub(super) dhcp: bool,
    /// OVERLAY (N is N.0.0.0/8), UNDERLAY (network, own address, device or 'default', with /LENGTH), then any of:
    /// dhcp, dns ADDRESS, host-reserve N, bridge NAME, encap KIND, egress KIND, auto, off
    #[arg(value_name = "OVERLAY UNDERLAY FLAGS", allow_negative_numbers = true)]
    pub(super) operands: Vec<String>,
}

/// The networks as fanctl 0.12 takes them.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// OVERLAY, together with --underlay instead of the first two operands
    #[arg(short = 'o', long, value_name = "OVERLAY", requires = "underlay")]
    pub(super) overlay: Option<String>,
    /// UNDERLAY, together with --overlay
    #[arg(short = 'u', long, value_name = "UNDERLAY", requires = "overlay")]
    pub(super) underlay: Option<String>,
}

impl NetworkArgs {
    /// The networks, wherever they stand, and what follows.
    fn words(&self, operands: &[String]) -> Vec<String> {
        self.overlay.iter().chain(&self.underlay).chain(operands).cloned().collect()
    }
}

impl UpArgs {
    /// All of it as operands.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = self.networks.words(&self.operands);
        words.extend(self.dhcp.then(|| "dhcp".to_owned()));
        words.extend(self.bridge.iter().flat_map(|name| ["bridge".to_owned(), name.clone()]));
        words
    }
}

#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// All fans that 'up -a' brought up
    #[arg(short = 'a', long, conflicts_with_all = ["operands", "overlay", "underlay"])]
    pub(super) all: bool,
    /// Every fan of this host, those brought up by hand too
    #[arg(short = 'e', long, conflicts_with_all = ["all", "operands", "overlay", "underlay"])]
    pub(super) every: bool,
    #[command(flatten)]
    pub(super) networks: NetworkArgs,
    /// The fan, with the operands that brought it up
    #[arg(value_name = "OVERLAY UNDERLAY", allow_negative_numbers = true)]
    pub(super) operands: Vec<String>,
}

impl DownArgs {
    /// The fan as operands.
    pub(super) fn words(&self) -> Vec<String> {
        self.networks.words(&self.operands)
    }
}

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Underlay or overlay address of a host
    #[arg(value_name = "HOST")]
    pub(super) host: Ipv4Addr,
}

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// Wire a namespace into this node's fans
    Add(EndpointAddArgs),
    /// Take an endpoint out again
    Remove(EndpointRemoveArgs),
    /// List this node's endpoints
    List,
}

#[derive(Debug, Args)]
pub(super) struct EndpointAddArgs {
    /// The namespace: a name under /run/netns, a path, or pid:N
    #[arg(long, value_name = "NS")]
    pub(super) netns: String,
    /// Only this fan (may be repeated); without it, those of the addresses, or else all of this node
    #[arg(long = "fan", value_name = "OVERLAY")]
    pub(super) fans: Vec<String>,
    /// The address to give, at most one per fan; without it, a free one of each
    #[arg(long = "address", value_name = "A")]
    pub(super) addresses: Vec<Ipv4Addr>,
    /// The endpoint's name; without it, the namespace's
    #[arg(long, value_name = "N")]
    pub(super) name: Option<String>,
    /// A route of its own instead of a port of the bridge
    #[arg(long)]
    pub(super) routed: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndpointRemoveArgs {
    /// The endpoint's name
    pub(super) name: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// List all services, those of the configuration too
    List,
    /// Show one service with its backends
    Show(ServiceNameArgs),
    /// Add services or replace those of the same names; all of the file or none
    Apply(ServiceApplyArgs),
    /// Remove an applied service
    Remove(ServiceNameArgs),
    /// Have a backend keep its flows and take no new ones
    Drain(ServiceBackendArgs),
    /// Have a drained backend take new flows again
    Undrain(ServiceBackendArgs),
}

#[derive(Debug, Args)]
pub(super) struct ServiceNameArgs {
    /// The service's name
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct ServiceApplyArgs {
    /// The services: TOML with [[service]], or YAML or JSON with a list 'service'; '-' is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ServiceBackendArgs {
    /// The service's name
    pub(super) name: String,
    /// The backend, ADDRESS:PORT as the service lists it
    #[arg(value_parser = parse_backend)]
    pub(super) backend: SocketAddr,
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// Add a backend to a service, wherever that is defined; kept over restarts
    Add(BackendAddArgs),
    /// Remove a backend that was added or applied
    Remove(BackendArgs),
    /// List the backends that this node contributes, those of its files too
    List(BackendListArgs),
}

#[derive(Debug, Args)]
pub(super) struct BackendArgs {
    /// The service's name
    pub(super) service: String,
    /// The backend's address and port
    #[arg(value_name = "ADDRESS:PORT", value_parser = parse_backend)]
    pub(super) address: SocketAddr,
}

#[derive(Debug, Args)]
pub(super) struct BackendAddArgs {
    #[command(flatten)]
    pub(super) backend: BackendArgs,
    /// Its share of new flows; without it a new backend has 1, and one that is there keeps its own
    #[arg(long, value_name = "N")]
    pub(super) weight: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct BackendListArgs {
    /// Only this service's
    pub(super) service: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// List the members with their state; without a cluster this node alone
    List,
    /// Show one of them
    Show(NodeNameArgs),
    /// Forget a member that is dead or has left, with the key kept for its name
    Forget(NodeNameArgs),
}

#[derive(Debug, Args)]
pub(super) struct NodeNameArgs {
    /// The member's name
    pub(super) name: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum FlowCommand {
    /// List the flows of this node's clients
    List(FlowListArgs),
}

#[derive(Debug, Args)]
pub(super) struct FlowListArgs {
    /// Only this service's
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
    /// Only those that this address has opened
    #[arg(long, value_name = "A")]
    pub(super) client: Option<Ipv4Addr>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Who sends it
    pub(super) src: Ipv4Addr,
    /// Where to
    pub(super) dst: Ipv4Addr,
    /// tcp, udp, icmp or a number; without it tcp where --dport is given, else icmp
    #[arg(long = "proto", value_name = "P", value_parser = parse_protocol)]
    pub(super) protocol: Option<u8>,
    /// The port it goes to
    #[arg(long, value_name = "N")]
    pub(super) dport: Option<u16>,
    /// The port it comes from
    #[arg(long, value_name = "N")]
    pub(super) sport: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct MonitorArgs {
    /// Only drops and refusals
    #[arg(long)]
    pub(super) drops: bool,
    /// Only what concerns this service
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CheckConfigArgs {
    /// The configuration to check, together with the file of fans
    #[arg(value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: Shell,
}

/// A protocol by its name or number.
fn parse_protocol(word: &str) -> Result<u8, String> {
    match word {
        "icmp" => Ok(PROTO_ICMP),
        "tcp" => Ok(PROTO_TCP),
        "udp" => Ok(PROTO_UDP),
        _ => {
            word.parse().map_err(|_not_a_number| "no protocol such as tcp, udp, icmp or a number".to_owned())
        }
    }
}
