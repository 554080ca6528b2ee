//! `fanlight announce list | show | disable | enable` and `fanlight bgp peers | routes`

use std::{io, net::IpAddr, process::ExitCode};

use clap::{Args, Subcommand};
use hyper::Method;

use super::{
    failure::Failure,
    import::{self, ImportArgs},
    node::ask,
    output::Output,
    runtime,
};
use crate::{
    announce::{AnnouncementRow, PeerRow, PrefixRow, RouteRow, Switched},
    serve::paths,
};

#[derive(Debug, Subcommand)]
pub(super) enum AnnounceCommand {
    /// List the announcements with their state and prefixes
    List,
    /// Show one of them
    Show(AnnouncementArgs),
    /// Have one announced as it is to be while disabled; kept over restarts
    Disable(AnnouncementArgs),
    /// Take that back
    Enable(AnnouncementArgs),
    /// Print the configuration of ExaBGP's healthcheck or of ExaZK as [[announce]]; what can't be said so is named
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(super) struct AnnouncementArgs {
    /// The announcement's name
    pub(super) name: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum BgpCommand {
    /// List the peers with the state of their sessions
    Peers,
    /// List the routes that peers have from this node
    Routes(RoutesArgs),
}

#[derive(Debug, Args)]
pub(super) struct RoutesArgs {
    /// Only this peer's
    #[arg(long, value_name = "A")]
    pub(super) peer: Option<IpAddr>,
}

pub(super) fn run(command: &AnnounceCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        AnnounceCommand::List => {
            let rows: Vec<AnnouncementRow> = ask("announce list", Method::GET, paths::ANNOUNCEMENTS)?;
            output.print(rows.as_slice(), print_list)?;
        }
        AnnounceCommand::Show(args) => {
            let row: AnnouncementRow = ask("announce show", Method::GET, &path_of(args))?;
            output.print(&row, print_one)?;
        }
        AnnounceCommand::Import(args) => import::run(args, output)?,
        AnnounceCommand::Disable(args) => switch("announce disable", Method::PUT, args, output)?,
        AnnounceCommand::Enable(args) => switch("announce enable", Method::DELETE, args, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run_bgp(command: &BgpCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        BgpCommand::Peers => {
            let rows: Vec<PeerRow> = ask("bgp peers", Method::GET, paths::BGP_PEERS)?;
            output.print(rows.as_slice(), print_peers)?;
        }
        BgpCommand::Routes(args) => {
            let of = args.peer.map(|peer| format!("?peer={peer}")).unwrap_or_default();
            let path = format!("{}{of}", paths::BGP_ROUTES);
            let rows: Vec<RouteRow> = ask("bgp routes", Method::GET, &path)?;
            output.print(rows.as_slice(), print_routes)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path_of(args: &AnnouncementArgs) -> String {
    format!("{}/{}", paths::ANNOUNCEMENTS, runtime::encode(&args.name))
}

fn switch(
    command: &'static str,
    method: Method,
    args: &AnnouncementArgs,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let path = format!("{}/disabled", path_of(args));
    let switched: Switched = ask(command, method, &path)?;
    output.print(&switched, print_switched)?;
    Ok(())
}

fn print_switched(switched: &Switched, output: &mut Output<'_>) -> io::Result<()> {
    let Switched { name, disabled, changed } = switched;
    let what = if *disabled { "is disabled" } else { "is enabled" };
    writeln!(output.writer, "announcement {name} {what}{}", if *changed { "" } else { " as it is" })
}

fn med(prefix: &PrefixRow) -> String {
    prefix.med.map_or_else(|| "-".to_owned(), |med| med.to_string())
}

fn print_list(rows: &[AnnouncementRow], output: &mut Output<'_>) -> io::Result<()> {
    let cells = rows.iter().flat_map(|row| {
        let none =
            row.prefixes.is_empty().then(|| [row.name.clone(), row.state.clone(), dash(), dash(), dash()]);
        let each = row.prefixes.iter().map(|prefix| {
            [row.name.clone(), row.state.clone(), prefix.prefix.clone(), prefix.state.clone(), med(prefix)]
        });
        each.chain(none)
    });
    output.table(["NAME", "STATE", "PREFIX", "", "MED"], cells)
}

fn dash() -> String {
    "-".to_owned()
}

fn print_one(row: &AnnouncementRow, output: &mut Output<'_>) -> io::Result<()> {
    writeln!(output.writer, "name        {}", row.name)?;
    writeln!(output.writer, "state       {} since {}", row.state, control::model::utc(row.since))?;
    if let Some(check) = &row.check {
        writeln!(output.writer, "check       {}", check.state)?;
    }
    for prefix in &row.prefixes {
        let PrefixRow { prefix: network, state, owner, .. } = prefix;
        writeln!(output.writer, "prefix      {network}  {state}  MED {}  of {owner}", med(prefix))?;
    }
    Ok(())
}

fn print_peers(rows: &[PeerRow], output: &mut Output<'_>) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        [
            row.address.clone(),
            row.asn.to_string(),
            row.state.clone(),
            row.routes.to_string(),
            row.received.to_string(),
            row.flaps.to_string(),
            row.last_error.clone().unwrap_or_else(dash),
        ]
    });
    output.table(["PEER", "ASN", "STATE", "ROUTES", "RECEIVED", "FLAPS", "LAST ERROR"], cells)
}

fn print_routes(rows: &[RouteRow], output: &mut Output<'_>) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let communities = [&row.communities, &row.large_communities, &row.extended_communities];
        let communities: Vec<&str> = communities.into_iter().flatten().map(String::as_str).collect();
        let path: Vec<String> = row.as_path.iter().map(ToString::to_string).collect();
        let row = [
            row.peer.clone(),
            row.prefix.clone(),
            row.next_hop.clone(),
            row.med.to_string(),
            path.join(" "),
            communities.join(" "),
        ];
        row.map(|cell| if cell.is_empty() { dash() } else { cell })
    });
    output.table(["PEER", "PREFIX", "NEXT HOP", "MED", "AS PATH", "COMMUNITIES"], cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(print: impl FnOnce(&mut Output<'_>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut Output::new(&mut out, false)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn row(med: Option<u32>) -> AnnouncementRow {
        let state = if med.is_some() { "announced" } else { "withdrawn" };
        let prefix = PrefixRow {
            prefix: "192.0.2.1/32".to_owned(),
            state: state.to_owned(),
            med,
            owner: "a".to_owned(),
        };
        let (name, state) = ("apex".to_owned(), "up".to_owned());
        AnnouncementRow { name, state, since: 0, prefixes: vec![prefix], check: None }
    }

    #[test]
    fn announcements_are_listed_a_prefix_a_line() {
        let empty = AnnouncementRow { prefixes: Vec::new(), ..row(None) };
        assert_eq!(
            printed(|output| print_list(&[row(Some(100)), row(None), empty], output)),
            "NAME  STATE  PREFIX                   MED\n\
             apex  up     192.0.2.1/32  announced  100\n\
             apex  up     192.0.2.1/32  withdrawn  -\n\
             apex  up     -             -          -\n"
        );
        assert_eq!(
            printed(|output| print_one(&row(Some(100)), output)),
            "name        apex\nstate       up since 1970-01-01 00:00:00Z\n\
             prefix      192.0.2.1/32  announced  MED 100  of a\n"
        );
    }

    #[test]
    fn the_json_has_the_keys_that_scripts_rely_on() {
        let json = serde_json::to_value(row(None)).unwrap();
        let prefix =
            serde_json::json!({"prefix": "192.0.2.1/32", "state": "withdrawn", "med": null, "owner": "a"});
        let want = serde_json::json!({"name": "apex", "state": "up", "since": 0, "prefixes": [prefix], "check": null});
        assert_eq!(json, want);
        let peer = PeerRow {
            address: "192.0.2.2".to_owned(),
            asn: 65_101,
            state: "established".to_owned(),
            since: 7,
            sent: 3,
            withdrawn: 1,
            received: 4,
            last_error: None,
            routes: 2,
            flaps: 0,
        };
        let json = serde_json::to_value(peer).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        for key in ["address", "asn", "state", "since", "sent", "withdrawn", "received", "last-error"] {
            assert!(keys.iter().any(|own| *own == key), "{keys:?}");
        }
        let route = RouteRow {
            peer: "192.0.2.2".to_owned(),
            prefix: "192.0.2.1/32".to_owned(),
            next_hop: "192.0.2.3".to_owned(),
            med: 100,
            communities: vec!["65001:100".to_owned()],
            large_communities: Vec::new(),
            extended_communities: Vec::new(),
            as_path: vec![65_147],
            local_preference: None,
        };
        let json = serde_json::to_value(&route).unwrap();
        assert!(json.get("next-hop").is_some() && json.get("as-path").is_some(), "{json}");
        let lines = printed(|output| print_routes(&[route], output));
        assert!(lines.ends_with("192.0.2.2  192.0.2.1/32  192.0.2.3  100  65147    65001:100\n"), "{lines}");
    }
}
