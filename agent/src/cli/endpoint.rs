//! `fanlight endpoint add | remove | list`

use std::{net::Ipv4Addr, process::ExitCode};

use anyhow::Context;
use control::observed::Wired;
use serde::Serialize;

use super::{
    args::{EndpointAddArgs, EndpointCommand},
    failure::Failure,
    output::Output,
    runtime,
};
use crate::{
    node::endpoint::{self, Request, Row, Source},
    sources::config::operands,
};

pub(super) fn run(command: &EndpointCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        EndpointCommand::Add(args) => add(args, output),
        EndpointCommand::Remove(args) => {
            runtime::require_privileges("endpoint remove")?;
            let wired =
                runtime::block_on(async { endpoint::remove(&args.name).await.context("endpoint remove") })?;
            tell(&wired, true, "removed", output)
        }
        EndpointCommand::List => {
            runtime::require_privileges("endpoint list")?;
            let rows = runtime::block_on(async { endpoint::list().await.context("endpoint list") })?;
            output.print(rows.as_slice(), print_rows)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn add(args: &EndpointAddArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let request = request(args)?;
    runtime::require_privileges("endpoint add")?;
    let added = runtime::block_on(async { endpoint::add(&request).await.context("endpoint add") })?;
    tell(&added.wired, added.changed, if added.changed { "added" } else { "is there already" }, output)
}

/// Words → what is asked for.
fn request(args: &EndpointAddArgs) -> Result<Request, Failure> {
    let wrong = |error| Failure::operands("endpoint add", error);
    let fans = args.fans.iter().map(|overlay| operands::parse_overlay(overlay)).collect::<Result<_, _>>();
    Ok(Request {
        netns: args.netns.clone(),
        fans: fans.map_err(wrong)?,
        addresses: args.addresses.clone(),
        name: args.name.clone(),
        routed: args.routed,
    })
}

/// What a command did to an endpoint.
#[derive(Serialize)]
struct Change<'a> {
    name: &'a str,
    netns: &'a str,
    addresses: &'a [Ipv4Addr],
    device: &'a str,
    changed: bool,
}

fn tell(wired: &Wired, changed: bool, what: &str, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let record = &wired.record;
    let change = Change {
        name: &record.name,
        netns: &record.netns,
        addresses: &record.addresses,
        device: &wired.device,
        changed,
    };
    output.print(&change, |change, output| {
        let addresses: Vec<_> = change.addresses.iter().map(ToString::to_string).collect();
        writeln!(
            output.writer,
            "endpoint {} {what}: {} on {}",
            change.name,
            addresses.join(", "),
            change.device
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print_rows(rows: &[Row], output: &mut Output<'_>) -> std::io::Result<()> {
    let cells = rows.iter().map(|row| {
        let fan = row.fan.map_or_else(|| "down".to_owned(), |fan| fan.to_string());
        let way = if row.routed { "routed" } else { "bridged" };
        let source = match row.source {
            Source::Added => "added",
            Source::Learnt => "learnt",
        };
        let known = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
        [
            known(&row.name),
            known(&row.netns),
            row.address.to_string(),
            row.device.clone(),
            fan,
            way.to_owned(),
            source.to_owned(),
        ]
    });
    output.table(["NAME", "NETNS", "ADDRESS", "DEVICE", "FAN", "WAY", "SOURCE"], cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, fan: Option<&str>) -> Row {
        Row {
            name: Some(name.to_owned()),
            netns: Some("blue".to_owned()),
            address: Ipv4Addr::new(250, 0, 28, 2),
            device: "flfa001c02".to_owned(),
            fan: fan.map(|fan| fan.parse().unwrap()),
            routed: false,
            source: Source::Added,
        }
    }

    fn learnt() -> Row {
        let device = "vethe1f2a3".to_owned();
        Row { name: None, netns: None, device, source: Source::Learnt, ..row("", Some("250.0.0.0/8")) }
    }

    fn printed(rows: &[Row], json: bool) -> String {
        let mut out = Vec::new();
        Output::new(&mut out, json).print(rows, print_rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn endpoints_are_listed_with_their_fan() {
        assert_eq!(
            printed(&[row("web", Some("250.0.0.0/8")), row("db", None), learnt()], false),
            "NAME  NETNS  ADDRESS     DEVICE      FAN          WAY      SOURCE\n\
             web   blue   250.0.28.2  flfa001c02  250.0.0.0/8  bridged  added\n\
             db    blue   250.0.28.2  flfa001c02  down         bridged  added\n\
             -     -      250.0.28.2  vethe1f2a3  250.0.0.0/8  bridged  learnt\n"
        );
    }

    #[test]
    fn the_list_in_json_has_the_keys_that_scripts_rely_on() {
        let json: serde_json::Value =
            serde_json::from_str(&printed(&[row("web", None), learnt()], true)).unwrap();
        assert_eq!(
            json,
            serde_json::json!([{
                "name": "web", "netns": "blue", "address": "250.0.28.2", "device": "flfa001c02", "fan": null,
                "routed": false, "source": "added",
            }, {
                "name": null, "netns": null, "address": "250.0.28.2", "device": "vethe1f2a3",
                "fan": "250.0.0.0/8", "routed": false, "source": "learnt",
            }])
        );
    }
}
