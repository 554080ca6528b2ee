//! `fanlight explain`

use std::{collections::HashMap, io, process::ExitCode};

use anyhow::{Context, anyhow, bail};
use dataplane_common::wire::{PROTO_ICMP, PROTO_TCP, PROTO_UDP};

use super::{args::ExplainArgs, failure::Failure, fan::node, output::Output, runtime};
use crate::{
    inspect::{
        explain::{Explanation, Host, Question, explain},
        status,
    },
    kernel::bpf::Datapath,
};

pub(super) fn run(args: &ExplainArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let question = question(args).context("explain")?;
    runtime::require_privileges("explain")?;
    let explanation = runtime::block_on(async { answer(&question).await.context("explain") })?;
    output.print(&explanation, screen)?;
    Ok(ExitCode::SUCCESS)
}

/// Words → what is asked.
fn question(args: &ExplainArgs) -> anyhow::Result<Question> {
    let protocol = args.protocol.unwrap_or(if args.dport.is_some() { PROTO_TCP } else { PROTO_ICMP });
    let has_ports = [PROTO_TCP, PROTO_UDP].contains(&protocol);
    if has_ports && args.dport.is_none() {
        bail!("a packet of TCP or UDP has a port to go to; give it with --dport");
    }
    if !has_ports && (args.dport.is_some() || args.sport.is_some()) {
        bail!("a packet of this protocol has no ports; leave --dport and --sport out, or use --proto tcp");
    }
    Ok(Question { src: args.src, dst: args.dst, protocol, sport: args.sport, dport: args.dport })
}

async fn answer(question: &Question) -> anyhow::Result<Explanation> {
    let datapath = Datapath::open_existing()?;
    let datapath =
        datapath.ok_or_else(|| anyhow!("no fan is up here; bring one up with 'fanlight fan up'"))?;
    let node = node()?;
    let services = status::services().await?;
    let names = services.into_iter().filter_map(|service| Some((service.vip.parse().ok()?, service.name)));
    let host = Host {
        addresses: node.netlink().addresses().await?,
        links: node.netlink().links().await?,
        names: names.collect::<HashMap<_, _>>(),
    };
    Ok(explain(question, &datapath, &host, node.netlink()).await?)
}

fn screen(explanation: &Explanation, output: &mut Output<'_>) -> io::Result<()> {
    explanation.steps.iter().try_for_each(|step| writeln!(output.writer, "{step}"))
}
