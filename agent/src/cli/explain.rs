//! `fanlight explain`

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use dataplane_common::wire::{PROTO_ICMP, PROTO_TCP, PROTO_UDP};
use ipnet::IpNet;

use super::{args::ExplainArgs, failure::Failure, fan::node, output::Output, runtime};
use crate::{
    announce::AnnouncementRow,
    inspect::{
        explain::{Announced, Explanation, Host, Question, explain},
        status,
    },
    kernel::bpf::Datapath,
    serve::{Client, paths},
};

pub(super) fn run(args: &ExplainArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let question = question(args).context("explain")?;
    runtime::require_privileges("explain")?;
    let mut explanation = runtime::block_on(async { answer(&question).await.context("explain") })?;
    // Without an agent nothing is announced.
    let rows = runtime::block_on(async { Ok(announcements().await.unwrap_or_default()) })?;
    add_announced(&mut explanation, question.dst, &rows);
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

async fn announcements() -> anyhow::Result<Vec<AnnouncementRow>> {
    Ok(Client::connect().await?.get(paths::ANNOUNCEMENTS).await?)
}

/// Says whether and how the destination is announced: always of a VIP, and of what else some announcement covers.
fn add_announced(explanation: &mut Explanation, destination: Ipv4Addr, rows: &[AnnouncementRow]) {
    let covers = |prefix: &str| prefix.parse().is_ok_and(|net: IpNet| net.contains(&IpAddr::V4(destination)));
    for row in rows {
        for prefix in row.prefixes.iter().filter(|prefix| covers(&prefix.prefix)) {
            let (name, state, net) = (row.name.clone(), row.state.clone(), prefix.prefix.clone());
            explanation.steps.push(match prefix.med {
                Some(med) => format!("{net} is announced by '{name}' ({state}), MED {med}"),
                None => format!("{net} is withdrawn by '{name}' ({state})"),
            });
            explanation.announced.push(Announced { name, state, prefix: net, med: prefix.med });
        }
    }
    if explanation.vip.is_some() && explanation.announced.is_empty() && !rows.is_empty() {
        explanation.steps.push("no announcement has this VIP".to_owned());
    }
}

fn screen(explanation: &Explanation, output: &mut Output<'_>) -> io::Result<()> {
    explanation.steps.iter().try_for_each(|step| writeln!(output.writer, "{step}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::PrefixRow;

    #[test]
    fn a_vip_is_said_to_be_announced_withdrawn_or_neither() {
        let row = |prefix: &str, med| {
            let prefix =
                PrefixRow { prefix: prefix.to_owned(), state: String::new(), med, owner: "a".to_owned() };
            let (name, state) = ("vips".to_owned(), "up".to_owned());
            AnnouncementRow { name, state, since: 0, prefixes: vec![prefix], check: None }
        };
        let said = |rows: &[AnnouncementRow]| {
            let mut explanation =
                Explanation { vip: Some("10.96.0.1:80/tcp".to_owned()), ..Default::default() };
            add_announced(&mut explanation, Ipv4Addr::new(10, 96, 0, 1), rows);
            explanation.steps
        };
        assert_eq!(said(&[]), [""; 0]);
        assert_eq!(said(&[row("10.96.0.2/32", Some(1))]), ["no announcement has this VIP"]);
        let rows = [row("10.96.0.1/32", Some(100)), row("10.96.0.0/16", None)];
        let steps =
            ["10.96.0.1/32 is announced by 'vips' (up), MED 100", "10.96.0.0/16 is withdrawn by 'vips' (up)"];
        assert_eq!(said(&rows), steps);
    }
}
