//! `fanlight maintenance on | off`

use std::{io, process::ExitCode};

use clap::{Args, Subcommand};
use hyper::Method;

use super::{failure::Failure, node::ask, output::Output, runtime::encode};
use crate::serve::{Maintained, MaintainedGroup, paths};

#[derive(Debug, Subcommand)]
pub(super) enum MaintenanceCommand {
    /// Take this node out of rotation on all members: its backends keep their flows and get no new ones
    On(Group),
    /// Take it back
    Off(Group),
}

#[derive(Debug, Args)]
pub(super) struct Group {
    /// Instead, a group of announcements: all its members withdraw it, or announce it again
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

pub(super) fn run(command: &MaintenanceCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let (name, method, Group { group }) = match command {
        MaintenanceCommand::On(group) => ("maintenance on", Method::PUT, group),
        MaintenanceCommand::Off(group) => ("maintenance off", Method::DELETE, group),
    };
    if let Some(group) = group {
        let path = paths::GROUP_MAINTENANCE.replace("{name}", &encode(group));
        let maintained: MaintainedGroup = ask(name, method, &path)?;
        output.print(&maintained, print_group)?;
        return Ok(ExitCode::SUCCESS);
    }
    let maintained: Maintained = ask(name, method, paths::MAINTENANCE)?;
    output.print(&maintained, print_maintained)?;
    Ok(ExitCode::SUCCESS)
}

fn print_maintained(maintained: &Maintained, output: &mut Output<'_>) -> io::Result<()> {
    let Maintained { node, maintenance, changed } = maintained;
    let what = match (maintenance, changed) {
        (true, true) => "is in maintenance: its backends keep their flows and take no new ones",
        (true, false) => "is in maintenance as it is",
        (false, true) => "is in rotation again",
        (false, false) => "is in rotation as it is",
    };
    writeln!(output.writer, "node {node} {what}")
}

fn print_group(maintained: &MaintainedGroup, output: &mut Output<'_>) -> io::Result<()> {
    let MaintainedGroup { group, maintenance, changed } = maintained;
    let what = match (maintenance, changed) {
        (true, true) => "is in maintenance: no member announces it",
        (true, false) => "is in maintenance as it is",
        (false, true) => "is announced again",
        (false, false) => "is announced as it is",
    };
    writeln!(output.writer, "group {group} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_the_node_is_then() {
        let maintained = Maintained { node: "a".to_owned(), maintenance: true, changed: false };
        let mut out = Vec::new();
        print_maintained(&maintained, &mut Output::new(&mut out, false)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "node a is in maintenance as it is\n");
        let json = serde_json::to_value(&maintained).unwrap();
        assert_eq!(json, serde_json::json!({"node": "a", "maintenance": true, "changed": false}));
    }
}
