//! `fanlight fan up | down | show | test`, in fanctl's words.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use control::{
    model::{FanSpec, Origin},
    observed::Mark,
};
use serde::Serialize;

use super::{
    args::{DownArgs, FanCommand, TestArgs, UpArgs},
    failure::{FAILED, Failure, causes},
    output::Output,
    runtime,
};
use crate::{
    kernel::bpf::IDLE_FLOWS,
    node::{
        endpoint,
        fan::{FanState, Node, Step, Up},
    },
    sources::config::{
        self, CONFIG_FILE, FANS_FILE, FileProblem, Problem, check,
        fans::wanted,
        operands::{self, FanLine},
    },
};

pub(super) fn run(command: &FanCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        FanCommand::Up(args) => up(args, output),
        FanCommand::Down(args) => down(args, output),
        FanCommand::Show => show(output),
        FanCommand::Test(args) => test(args, output),
    }
}

pub(super) fn up(args: &UpArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    if args.all {
        return up_all(Path::new(FANS_FILE), output);
    }
    let line = fan_line("fan up", &args.words())?;
    if line.off {
        return Ok(ExitCode::SUCCESS);
    }
    runtime::require_privileges("fan up")?;
    let origin = if line.auto { Origin::File } else { Origin::Manual };
    let up = runtime::block_on(async { bring_up(&node()?, &line.spec, origin).await.context("fan up") })?;
    tell_up(&[up], output)
}

/// Operands that make a fan.
fn fan_line(command: &str, words: &[String]) -> Result<FanLine, Failure> {
    let line = operands::parse_fan(words).map_err(|error| Failure::operands(command, error))?;
    check::check_fan(&line.spec).map_err(|error| Failure::operands(command, error))?;
    Ok(line)
}

/// The node, with the uplinks, what is asked for at them and about others' packet filters, and the flow table's size, as its
/// configuration names them.
pub(super) fn node() -> anyhow::Result<Node> {
    // A broken configuration is the agent's trouble: a fan by hand needs none.
    let sources = config::load(Path::new(CONFIG_FILE), Path::new(FANS_FILE)).unwrap_or_default();
    let config = sources.config;
    let flows = if config.services.is_empty() { Some(IDLE_FLOWS) } else { config.datapath.flows };
    let node = Node::open(config.node.uplink)?.with_flows(flows);
    let datapath = config.datapath;
    Ok(node.with_uplink_hook(datapath.uplink_hook).with_host_filters(datapath.host_filters))
}

async fn bring_up(node: &Node, spec: &FanSpec, origin: Origin) -> anyhow::Result<Up> {
    Ok(node.up(&node.lock()?, spec, origin).await?)
}

/// Brings up every line of the file; a failing one does not stop the others.
fn up_all(file: &Path, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let lines = config::load_fans(file)?;
    if lines.is_empty() {
        return tell_none(&format!("{} names no fan: nothing is brought up", file.display()), output);
    }
    runtime::require_privileges("fan up -a")?;
    let (ups, mut problems) = runtime::block_on(async {
        let node = node()?;
        let (mut ups, mut problems) = (Vec::new(), config::bad_lines(file, &lines));
        for (number, line) in wanted(&lines) {
            match bring_up(&node, &line.spec, Origin::File).await {
                Ok(up) => ups.push(up),
                Err(error) => problems.push(at(file, number, &error)),
            }
        }
        Ok((ups, problems))
    })?;
    tell_up(&ups, output)?;
    problems.sort_by_key(|problem| problem.problem.line);
    all_done(&problems)
}

pub(super) fn down(args: &DownArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let file = Path::new(FANS_FILE);
    if args.all {
        let lines = config::load_fans(file)?;
        let in_file = |mark: &Mark| wanted(&lines).any(|(_, line)| line.spec.overlay == mark.overlay());
        let is_ours = |mark: &Mark| match mark.origin {
            Origin::File => true,
            Origin::Manual => in_file(mark),
            Origin::Config => false,
        };
        return down_all("fan down -a", is_ours, output);
    }
    if args.every {
        return down_all("fan down -e", |_| true, output);
    }
    let line = fan_line("fan down", &args.words())?;
    runtime::require_privileges("fan down")?;
    let remarks = runtime::block_on(async {
        let node = node()?;
        node.down(&node.lock().context("fan down")?, &line.spec).await.context("fan down")
    })?;
    tell_down(&[line.spec], &remarks, output)
}

/// Takes down the chosen fans; one that can't go does not stop the others.
fn down_all(
    command: &str,
    is_chosen: impl Fn(&Mark) -> bool,
    output: &mut Output<'_>,
) -> Result<ExitCode, Failure> {
    runtime::require_privileges(command)?;
    let (downs, remarks, failures) = runtime::block_on(async {
        let node = node()?;
        let observed = node.observe().await?;
        let (mut downs, mut remarks, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        let marks = observed.standing.iter().map(|standing| &standing.mark);
        for mark in marks.filter(|mark| !mark.stale && is_chosen(mark)) {
            let lock = node.lock().context(command.to_owned())?;
            match node.down(&lock, &mark.spec).await {
                Ok(more) => {
                    downs.push(mark.spec.clone());
                    remarks.extend(more);
                }
                Err(error) => failures.push(format!("{command}: {error}")),
            }
        }
        Ok((downs, remarks, failures))
    })?;
    if downs.is_empty() && failures.is_empty() {
        return tell_none("no such fan is up: nothing is taken down", output);
    }
    tell_down(&downs, &remarks, output)?;
    if failures.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::Many(failures)) }
}

/// Says that there was nothing to do; in JSON an empty list does.
fn tell_none(what: &str, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    output.print([""; 0].as_slice(), |_, output| writeln!(output.writer, "{what}"))?;
    Ok(ExitCode::SUCCESS)
}

fn at(file: &Path, line: usize, error: &anyhow::Error) -> FileProblem {
    let problem = Problem { line: Some(line), key: String::new(), message: causes(error) };
    FileProblem { file: PathBuf::from(file), problem }
}

fn all_done(problems: &[FileProblem]) -> Result<ExitCode, Failure> {
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::Many(problems.iter().map(ToString::to_string).collect()))
}

/// What `up` did for one fan, in JSON.
#[derive(Serialize)]
struct UpReport {
    overlay: String,
    slice: String,
    bridge: String,
    gateway: String,
    mtu: u32,
    changed: Vec<String>,
    warnings: Vec<String>,
}

fn tell_up(ups: &[Up], output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let reports: Vec<_> = ups
        .iter()
        .map(|up| UpReport {
            overlay: up.fan.spec.overlay.to_string(),
            slice: up.fan.slice.to_string(),
            bridge: up.fan.bridge.clone(),
            gateway: up.fan.gateway.to_string(),
            mtu: up.fan.mtu,
            changed: up.changed.clone(),
            warnings: up.warnings.clone(),
        })
        .collect();
    output.print(reports.as_slice(), |reports, output| {
        for report in reports {
            let UpReport { overlay, slice, bridge, gateway, mtu, changed, warnings } = report;
            let what = if changed.is_empty() { "was up already" } else { "is up" };
            writeln!(
                output.writer,
                "fan {overlay} {what}: slice {slice}, gateway {gateway} on {bridge}, mtu {mtu}"
            )?;
            for warning in warnings {
                writeln!(output.writer, "warning: {warning}")?;
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn tell_down(specs: &[FanSpec], remarks: &[String], output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let overlays: Vec<_> = specs.iter().map(|spec| spec.overlay.to_string()).collect();
    output.print(overlays.as_slice(), |overlays, output| {
        overlays.iter().try_for_each(|overlay| writeln!(output.writer, "fan {overlay} is down"))?;
        remarks.iter().try_for_each(|remark| writeln!(output.writer, "note: {remark}"))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn show(output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    runtime::require_privileges("fan show")?;
    let fans = runtime::block_on(async {
        let node = node()?;
        endpoint::forget_dead(node.netlink()).await;
        node.show().await.context("fan show")
    })?;
    output.print(fans.as_slice(), fan_table)?;
    Ok(ExitCode::SUCCESS)
}

/// Fans as a table: fanctl's columns first.
pub(super) fn fan_table(fans: &[FanState], output: &mut Output<'_>) -> io::Result<()> {
    let rows = fans.iter().map(|fan| {
        [
            fan.bridge.clone(),
            fan.overlay.to_string(),
            format!("{}/{}", fan.address, fan.underlay.prefix_len()),
            format!("{}/{}", fan.gateway, fan.slice.prefix_len()),
            fan.mtu.to_string(),
            fan.state.to_owned(),
            fan.flags.join(" "),
        ]
    });
    output.table(["BRIDGE", "OVERLAY", "UNDERLAY", "GATEWAY", "MTU", "STATE", "FLAGS"], rows)
}

fn test(args: &TestArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    runtime::require_privileges("fan test")?;
    let steps = runtime::block_on(async { node()?.test(args.host).await.context("fan test") })?;
    output.print(steps.as_slice(), print_steps)?;
    Ok(if steps.iter().all(|step| step.passed) { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn print_steps(steps: &[Step], output: &mut Output<'_>) -> io::Result<()> {
    let rows = steps.iter().map(|step| {
        let verdict = if step.passed { "pass" } else { "FAIL" };
        let [from, to, size] = [step.from.to_string(), step.to.to_string(), step.size.to_string()];
        [step.name.to_owned(), from, to, size, verdict.to_owned(), step.detail.clone()]
    });
    output.table(["STEP", "FROM", "TO", "BYTES", "RESULT", "DETAIL"], rows)?;
    let mut failed = steps.iter().filter(|step| !step.passed);
    failed.try_for_each(|step| writeln!(output.writer, "{}: {}", step.name, step.remedy))
}

#[cfg(test)]
mod tests {
    use control::model::{Egress, Encapsulation};

    use super::*;

    fn state() -> FanState {
        FanState {
            overlay: "250.0.0.0/8".parse().unwrap(),
            underlay: "172.30.0.0/16".parse().unwrap(),
            address: [172, 30, 0, 28].into(),
            slice: "250.0.28.0/24".parse().unwrap(),
            bridge: "fan-250-0-28".to_owned(),
            gateway: [250, 0, 28, 1].into(),
            encapsulation: Encapsulation::Ipip,
            mtu: 1480,
            state: "up",
            flags: vec!["manual".to_owned(), "dhcp".to_owned()],
            missing: Vec::new(),
            origin: Origin::Manual,
            egress: Egress::Masquerade,
        }
    }

    fn shown(fans: &[FanState], json: bool) -> String {
        let mut out = Vec::new();
        Output::new(&mut out, json).print(fans, fan_table).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fans_are_shown_with_fanctls_columns_first() {
        assert_eq!(
            shown(&[state()], false),
            "BRIDGE        OVERLAY      UNDERLAY        GATEWAY        MTU   STATE  FLAGS\n\
             fan-250-0-28  250.0.0.0/8  172.30.0.28/16  250.0.28.1/24  1480  up     manual dhcp\n"
        );
    }

    #[test]
    fn without_fans_there_is_the_header_only() {
        assert_eq!(shown(&[], false).lines().count(), 1);
        assert_eq!(shown(&[], true), "[]\n");
    }

    #[test]
    fn the_json_has_the_keys_that_scripts_rely_on() {
        let json: serde_json::Value = serde_json::from_str(&shown(&[state()], true)).unwrap();
        let want = [
            ("overlay", "250.0.0.0/8"),
            ("underlay", "172.30.0.0/16"),
            ("address", "172.30.0.28"),
            ("slice", "250.0.28.0/24"),
            ("bridge", "fan-250-0-28"),
            ("gateway", "250.0.28.1"),
            ("encapsulation", "ipip"),
            ("state", "up"),
        ];
        for (key, value) in want {
            assert_eq!(json[0][key], value, "{key}");
        }
        assert_eq!(
            (&json[0]["mtu"], &json[0]["flags"]),
            (&1480.into(), &serde_json::json!(["manual", "dhcp"]))
        );
    }

    #[test]
    fn a_failed_step_of_a_test_is_followed_by_what_to_do() {
        let step = Step {
            name: "tunnel",
            from: [250, 0, 28, 1].into(),
            to: [250, 0, 27, 1].into(),
            size: 84,
            passed: false,
            micros: None,
            detail: "no answer".to_owned(),
            remedy: "open protocol 4".to_owned(),
        };
        let mut out = Vec::new();
        print_steps(&[step], &mut Output::new(&mut out, false)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "STEP    FROM        TO          BYTES  RESULT  DETAIL\n\
             tunnel  250.0.28.1  250.0.27.1  84     FAIL    no answer\n\
             tunnel: open protocol 4\n"
        );
    }

    #[test]
    fn operands_that_cant_be_parsed_and_those_that_contradict_each_other_differ_in_status() {
        let fails = |words: &str| {
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            match fan_line("fan up", &words) {
                Err(Failure::Usage(line)) => (2, line),
                Err(Failure::Failed(error)) => (1, causes(&error)),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            fails("250 eth0 egres drop"),
            (2, "fan up: 'egres' is no flag of a fan; did you mean 'egress'?".to_owned())
        );
        assert_eq!(
            fails("250 eth0 encap gre"),
            (1, "fan up: encapsulation 'gre' is not supported by this version; use ipip".to_owned())
        );
        assert_eq!(
            fails("250.1.0.0/8 eth0"),
            (1, "fan up: overlay 250.1.0.0/8 has host bits set; use 250.0.0.0/8".to_owned())
        );
    }
}
