//! `fanlight node list | show | forget`

use std::{io, process::ExitCode};

use hyper::Method;
use serde::de::DeserializeOwned;

use super::{
    args::{NodeCommand, NodeNameArgs},
    failure::Failure,
    output::Output,
    runtime,
};
use crate::serve::{Client, Forgotten, NodeDetail, NodeRow, paths};

pub(super) fn run(command: &NodeCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        NodeCommand::List => {
            let rows: Vec<NodeRow> = ask("node list", Method::GET, paths::NODES)?;
            output.print(rows.as_slice(), print_list)?;
        }
        NodeCommand::Show(args) => {
            let node: NodeDetail = ask("node show", Method::GET, &path_of(args))?;
            output.print(&node, print_node)?;
        }
        NodeCommand::Forget(args) => {
            let forgotten: Forgotten = ask("node forget", Method::DELETE, &path_of(args))?;
            output.print(&forgotten, |forgotten, out| {
                writeln!(out.writer, "node {} is forgotten", forgotten.forgotten)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path_of(args: &NodeNameArgs) -> String {
    format!("{}/{}", paths::NODES, runtime::encode(&args.name))
}

pub(super) fn ask<T: DeserializeOwned>(
    command: &'static str,
    method: Method,
    path: &str,
) -> Result<T, Failure> {
    let answer = async {
        let mut client = Client::connect().await?;
        client.call(method, path, None).await
    };
    runtime::block_on(async { answer.await.map_err(|error| anyhow::Error::from(error).context(command)) })
}

fn cells(row: &NodeRow) -> [String; 4] {
    let address = row.address.clone().unwrap_or_else(|| "-".to_owned());
    [row.name.clone(), address, row.state.clone(), age(row.age)]
}

fn print_list(rows: &[NodeRow], output: &mut Output<'_>) -> io::Result<()> {
    output.table(["NAME", "ADDRESS", "STATE", "AGE"], rows.iter().map(cells))
}

fn print_node(node: &NodeDetail, output: &mut Output<'_>) -> io::Result<()> {
    let NodeDetail { row, is_own, cluster, generation, key } = node;
    let [name, address, state, age] = cells(row);
    let own = if *is_own { " (this node)" } else { "" };
    writeln!(output.writer, "name        {name}{own}")?;
    writeln!(output.writer, "cluster     {}", cluster.as_deref().unwrap_or("none"))?;
    writeln!(output.writer, "address     {address}")?;
    writeln!(output.writer, "state       {state}")?;
    writeln!(output.writer, "age         {age}")?;
    if let Some(generation) = generation {
        writeln!(output.writer, "generation  {generation}")?;
    }
    if let Some(key) = key {
        writeln!(output.writer, "key         {key}")?;
    }
    Ok(())
}

/// Seconds in the two largest units that they fill.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> NodeRow {
        let address = Some("172.30.0.27:7481".to_owned());
        NodeRow { name: "host-27".to_owned(), address, state: "suspect".to_owned(), age: 3_725 }
    }

    fn printed(print: impl FnOnce(&mut Output<'_>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut Output::new(&mut out, false)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_are_listed_with_address_state_and_age() {
        assert_eq!(
            printed(|output| print_list(&[row()], output)),
            "NAME     ADDRESS           STATE    AGE\n\
             host-27  172.30.0.27:7481  suspect  1h2m\n"
        );
    }

    #[test]
    fn a_node_without_a_cluster_is_shown_with_what_there_is() {
        let row = NodeRow { address: None, state: "alive".to_owned(), age: 59, ..row() };
        let node = NodeDetail { row, is_own: true, cluster: None, generation: None, key: None };
        assert_eq!(
            printed(|output| print_node(&node, output)),
            "name        host-27 (this node)\n\
             cluster     none\n\
             address     -\n\
             state       alive\n\
             age         59s\n"
        );
    }

    #[test]
    fn an_age_has_its_two_largest_units() {
        assert_eq!([5, 65, 7_260, 180_000].map(age), ["5s", "1m5s", "2h1m", "2d2h"]);
    }
}
