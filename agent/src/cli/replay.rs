//! `fanlight replay`

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use clap::Args;
use control::{
    reconcile::{Host, fan_record},
    service::ServiceState,
};
use dataplane_common::{abi::FanRecord, outcome::Hook};

use super::{failure::Failure, output::Output, runtime};
use crate::{
    inspect::{
        replay::{self, Capture, Engine, Packet, Served, Setup, Verdict},
        status,
    },
    kernel::bpf::Datapath,
    node::fan::Node,
    sources::config::{self, CONFIG_FILE, FANS_FILE, Sources},
};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The packets: pcap, pcapng or JSON lines; '-' is standard input
    #[arg(long = "in", value_name = "FILE")]
    pub(super) input: PathBuf,
    /// Where the packets arrive
    #[arg(long, value_name = "HOOK", value_parser = parse_hook())]
    pub(super) hook: Hook,
    /// Take the fans of this configuration instead of this node's
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Write what came out as a pcap file
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

/// The hooks by name, so that help, completions and errors list them.
fn parse_hook() -> impl clap::builder::TypedValueParser<Value = Hook> {
    use clap::builder::TypedValueParser;
    let names: Vec<_> = Hook::ALL.iter().map(|hook| hook.name()).collect();
    clap::builder::PossibleValuesParser::new(names)
        .try_map(|name| Hook::from_name(&name).ok_or_else(|| format!("no hook '{name}'")))
}

pub(super) fn run(args: &ReplayArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let input = format!("replay: {}", args.input.display());
    let data = read(&args.input).with_context(|| input.clone())?;
    let packets = replay::packets(&data).with_context(|| input.clone())?;
    let sources =
        config::load(args.config.as_deref().unwrap_or(Path::new(CONFIG_FILE)), Path::new(FANS_FILE))?;
    runtime::require_privileges("replay")?;
    let setup = runtime::block_on(async { setup(&sources, args.config.is_some()).await.context("replay") })?;
    let mut engine = Engine::new(&setup, &[args.hook]).context("replay")?;
    let mut capture = args.out.as_deref().map(create).transpose()?;
    for packet in packets {
        let mut packet = packet.with_context(|| input.clone())?;
        packet.ifindex = packet.ifindex.or_else(|| setup.device(args.hook, &packet.frame));
        let verdict = engine.run(args.hook, &packet).with_context(|| input.clone())?;
        print(&packet, &verdict, output)?;
        if let Some(capture) = &mut capture {
            capture.write(&packet, &verdict).context("replay")?;
        }
    }
    if let Some(capture) = capture {
        capture.finish().context("replay")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut data = Vec::new();
        io::stdin().lock().read_to_end(&mut data)?;
        return Ok(data);
    }
    fs::read(path).map_err(|error| anyhow!("{error}; give a pcap, pcapng or JSON lines file"))
}

fn create(path: &Path) -> anyhow::Result<Capture<BufWriter<File>>> {
    let file = File::create(path).with_context(|| format!("replay: {}", path.display()))?;
    Capture::new(BufWriter::new(file)).context("replay")
}

/// One line per packet, in JSON or for people, as soon as it has run.
fn print(packet: &Packet, verdict: &Verdict, output: &mut Output<'_>) -> Result<(), Failure> {
    let line = if output.is_json() {
        replay::json_line(packet.number, verdict).context("replay")?
    } else {
        let length = verdict.output.as_ref().map_or(packet.frame.len(), Vec::len);
        let (action, outcome) = (verdict.action.name(), verdict.outcome.name());
        format!(
            "{:>6}  {action:<8}  {outcome:<22}  {length:>5} bytes  {:>6} ns{}{}",
            packet.number,
            verdict.duration.as_nanos(),
            served(&verdict.served),
            if verdict.unsegmented { "  (run as a single packet)" } else { "" }
        )
    };
    writeln!(output.writer, "{line}").context("writing the result")?;
    Ok(())
}

/// The service of a packet and its backend, where there are such.
fn served(served: &Served) -> String {
    match (&served.service, served.backend) {
        (Some(service), Some(backend)) => format!("  {service} {backend}"),
        (Some(service), None) => format!("  {service}"),
        (None, _) => String::new(),
    }
}

/// What the programs shall find in their maps: this node's fans and services as they are, unless a configuration was named or
/// no fan is up; then those that the configuration asks for, as they would be here.
async fn setup(sources: &Sources, named: bool) -> anyhow::Result<Setup> {
    let live = match Datapath::open_existing()? {
        Some(datapath) => Setup {
            fans: datapath.config().fans(),
            filtered: datapath.config().filtered(),
            endpoints: datapath.endpoints().list()?.into_iter().map(|(_, endpoint)| endpoint).collect(),
            helper: datapath.config().helper(),
            services: sources.config.resolved(),
        },
        None => Setup { services: sources.config.resolved(), ..Setup::default() },
    };
    if !named && !live.fans.is_empty() {
        let services: Vec<_> = status::services().await?.iter().filter_map(ServiceState::held).collect();
        // Without any, an agent may never have run here.
        return Ok(if services.is_empty() { live } else { Setup { services, ..live } });
    }
    Ok(Setup { fans: resolved(sources).await?, ..live })
}

async fn resolved(sources: &Sources) -> anyhow::Result<Vec<FanRecord>> {
    let uplinks = &sources.config.node.uplink;
    let overlays: Vec<_> = sources.fans().iter().map(|(spec, _)| spec.overlay).collect();
    let observed = Node::open(uplinks.clone())?.observe_for(&overlays).await?;
    let host = Host::of(&observed, uplinks);
    let mut records = Vec::new();
    for (spec, origin) in sources.fans() {
        let fan = host.resolve(&spec, origin).with_context(|| format!("fan {}", spec.overlay))?;
        // A fan that is not up has no bridge yet.
        let bridge = observed.link(&fan.bridge).cloned().unwrap_or_default();
        records.push(fan_record(&fan, &bridge, [0; 2], &observed.routes, &observed.rules));
    }
    Ok(records)
}
