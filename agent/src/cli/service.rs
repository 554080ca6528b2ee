//! `fanlight service list | show | apply | remove | drain | undrain`

use std::{
    fs,
    io::{self, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use control::service::{BackendLife, ServiceLife};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::{
    args::{ServiceApplyArgs, ServiceBackendArgs, ServiceCommand},
    failure::Failure,
    output::Output,
    runtime,
};
use crate::{
    serve::{Applied, BackendRow, Client, ClientError, Drained, OtherBackend, ServiceRow, paths},
    sources::config::{FileProblem, format::Format},
};

pub(super) fn run(command: &ServiceCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        ServiceCommand::List => {
            let rows: Vec<ServiceRow> = ask("service list", Method::GET, paths::SERVICES, None)?;
            output.print(rows.as_slice(), print_list)?;
        }
        ServiceCommand::Show(args) => {
            let row: ServiceRow = ask("service show", Method::GET, &path_of(&args.name), None)?;
            output.print(&row, print_service)?;
        }
        ServiceCommand::Apply(args) => output.print(&apply(args)?, print_applied)?,
        ServiceCommand::Remove(args) => {
            let removed: Applied = ask("service remove", Method::DELETE, &path_of(&args.name), None)?;
            output.print(&removed, print_applied)?;
        }
        ServiceCommand::Drain(args) => drain("service drain", Method::PUT, args, output)?,
        ServiceCommand::Undrain(args) => drain("service undrain", Method::DELETE, args, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is sent: a content type and bytes.
pub(super) type Body<'a> = (&'a str, Vec<u8>);

pub(super) fn ask<T: DeserializeOwned>(
    command: &'static str,
    method: Method,
    path: &str,
    body: Option<Body<'_>>,
) -> Result<T, Failure> {
    call(method, path, body)?.map_err(|error| anyhow::Error::from(error).context(command).into())
}

/// One call; the outer error is this process's own.
fn call<T: DeserializeOwned>(
    method: Method,
    path: &str,
    body: Option<Body<'_>>,
) -> Result<Result<T, ClientError>, Failure> {
    runtime::block_on(async {
        Ok(match Client::connect().await {
            Ok(mut client) => client.call(method, path, body).await,
            Err(error) => Err(error),
        })
    })
}

fn apply(args: &ServiceApplyArgs) -> Result<Applied, Failure> {
    let (text, name) = read(&args.file)?;
    let extension = args.file.extension().and_then(|extension| extension.to_str());
    let format = extension.and_then(Format::of_extension).unwrap_or_else(|| Format::guess(&text));
    match call(Method::POST, paths::SERVICES, Some((format.media_type(), text.into_bytes())))? {
        Ok(applied) => Ok(applied),
        Err(ClientError::Refused(problems)) => {
            let problems = problems.into_iter().map(|problem| FileProblem { file: name.clone(), problem });
            Err(Failure::Many(problems.map(|problem| format!("service apply: {problem}")).collect()))
        }
        Err(error) => Err(anyhow::Error::from(error).context("service apply").into()),
    }
}

/// A file's text and its name in messages; `-` is standard input.
fn read(file: &Path) -> Result<(String, PathBuf), Failure> {
    if file != Path::new("-") {
        let text = fs::read_to_string(file).with_context(|| format!("service apply: {}", file.display()));
        return Ok((text?, file.to_owned()));
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).context("service apply: standard input")?;
    Ok((text, PathBuf::from("stdin")))
}

fn drain(
    command: &'static str,
    method: Method,
    args: &ServiceBackendArgs,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let path = format!("{}/drained/{}", path_of(&args.name), runtime::encode(&args.backend.to_string()));
    let drained: Drained = ask(command, method, &path, None)?;
    Ok(output.print(&drained, print_drained)?)
}

/// The path of a service.
pub(super) fn path_of(name: &str) -> String {
    format!("{}/{}", paths::SERVICES, runtime::encode(name))
}

fn print_applied(applied: &Applied, output: &mut Output<'_>) -> io::Result<()> {
    let Applied { applied, unchanged, removed, ms, others } = applied;
    writeln!(output.writer, "{applied} applied, {unchanged} unchanged, {removed} removed in {ms} ms")?;
    for OtherBackend { service, address, node } in others {
        writeln!(output.writer, "service {service}: {address} stays, as node {node} contributes it")?;
    }
    Ok(())
}

fn print_drained(drained: &Drained, output: &mut Output<'_>) -> io::Result<()> {
    let Drained { service, backend, state, changed } = drained;
    let what = match (state, changed) {
        (BackendLife::Drained, true) => "is drained: it keeps its flows and takes no new ones",
        (BackendLife::Drained, false) => "takes no new flows as it is",
        (BackendLife::Down, _) => "takes no new flows until it is up again",
        (BackendLife::Up, true) => "takes new flows again",
        (BackendLife::Up, false) => "takes new flows as it is",
    };
    writeln!(output.writer, "service {service}: {backend} {what}")
}

fn print_list(rows: &[ServiceRow], output: &mut Output<'_>) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let flows: u64 = row.backends.iter().filter_map(|backend| backend.flows).sum();
        let states = row.backends.iter().map(|backend| backend.state);
        [
            row.name.clone(),
            row.vip.clone(),
            row.forward.to_string(),
            row.algorithm.to_string(),
            state(row.state).to_owned(),
            usable(states),
            flows.to_string(),
        ]
    });
    output.table(["NAME", "VIP", "FORWARD", "ALGORITHM", "STATE", "BACKENDS", "FLOWS"], cells)
}

fn print_service(row: &ServiceRow, output: &mut Output<'_>) -> io::Result<()> {
    writeln!(output.writer, "name       {}", row.name)?;
    let hashed = row.hashed.map(|hashed| format!(" ({hashed}, which its name hashes to, is another's)"));
    writeln!(output.writer, "vip        {}{}", row.vip, hashed.unwrap_or_default())?;
    writeln!(output.writer, "forward    {}", row.forward)?;
    writeln!(output.writer, "algorithm  {}", row.algorithm)?;
    writeln!(output.writer, "affinity   none")?;
    if let Some(check) = &row.check {
        writeln!(output.writer, "check      {}", check.escape_debug())?;
    }
    writeln!(output.writer, "state      {}", state(row.state))?;
    if row.backends.is_empty() {
        return Ok(());
    }
    writeln!(output.writer)?;
    let cells = row.backends.iter().map(|backend: &BackendRow| {
        [
            backend.address.to_string(),
            backend.weight.to_string(),
            life(backend),
            backend.node.clone().unwrap_or_else(|| "-".to_owned()),
            backend.flows.unwrap_or_default().to_string(),
        ]
    });
    if row.backends.iter().all(|backend| backend.contributors.is_empty()) {
        output.table(["BACKEND", "WEIGHT", "STATE", "NODE", "FLOWS"], cells)?;
    } else {
        let contributors = row.backends.iter().map(|backend| backend.contributors.join(","));
        let cells = cells.zip(contributors).map(|([address, weight, state, node, flows], contributors)| {
            [address, weight, state, node, contributors, flows]
        });
        output.table(["BACKEND", "WEIGHT", "STATE", "NODE", "CONTRIBUTED BY", "FLOWS"], cells)?;
    }
    print_checks(row, output)
}

/// What this node's checks have found.
fn print_checks(row: &ServiceRow, output: &mut Output<'_>) -> io::Result<()> {
    let checked = row.backends.iter().filter_map(|backend| Some((backend, backend.check.as_ref()?)));
    let cells: Vec<[String; 5]> = checked
        .map(|(backend, check)| {
            let ms = check.ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
            let reason = check.reason.as_deref().unwrap_or("not checked yet");
            let (address, state) = (backend.address.to_string(), check.state.to_string());
            [address, state, check.since.clone(), ms, reason.escape_debug().to_string()]
        })
        .collect();
    if cells.is_empty() {
        return Ok(());
    }
    writeln!(output.writer)?;
    output.table(["CHECKED HERE", "STATE", "SINCE", "TIME", "LAST RESULT"], cells)
}

fn life(backend: &BackendRow) -> String {
    let reason = backend.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    match backend.state {
        BackendLife::Up => "up".to_owned(),
        BackendLife::Drained => "drained".to_owned(),
        BackendLife::Down if backend.kept => format!("down{reason} (kept)"),
        BackendLife::Down => format!("down{reason}"),
    }
}

/// What a service's state is called.
pub(super) fn state(life: ServiceLife) -> &'static str {
    match life {
        ServiceLife::Up => "up",
        ServiceLife::Down => "down",
        ServiceLife::Kept => "kept",
        ServiceLife::AllDown => "all-down",
        ServiceLife::Conflict => "conflict",
        ServiceLife::Failed => "failed",
        ServiceLife::Missing => "missing",
    }
}

/// Backends that take new flows, of all, and how many are drained or down.
pub(super) fn usable(states: impl Iterator<Item = BackendLife> + Clone) -> String {
    let count = |life| states.clone().filter(|&state| state == life).count();
    let mut usable = format!("{} of {}", count(BackendLife::Up), states.clone().count());
    for (life, name) in [(BackendLife::Drained, "drained"), (BackendLife::Down, "down")] {
        match count(life) {
            0 => {}
            some => usable.push_str(&format!(", {some} {name}")),
        }
    }
    usable
}

/// `ADDR:PORT` of a backend.
pub(super) fn parse_backend(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_other| "no ADDRESS:PORT such as 250.0.27.3:8080".to_owned())
}

#[cfg(test)]
mod tests {
    use control::service::{Algorithm, Forward};

    use super::*;
    use crate::serve::Affinity;

    fn row() -> ServiceRow {
        let backend = |last, state, flows| BackendRow {
            address: ([250, 0, 28, last], 80).into(),
            weight: 1,
            state,
            reason: None,
            kept: false,
            check: None,
            contributors: Vec::new(),
            node: (last == 2).then(|| "host-28".to_owned()),
            flows: Some(flows),
        };
        ServiceRow {
            name: "web".to_owned(),
            vip: "10.96.0.10:80/tcp".to_owned(),
            hashed: None,
            forward: Forward::Nat,
            algorithm: Algorithm::Maglev,
            affinity: Affinity::None,
            check: None,
            state: ServiceLife::Up,
            backends: vec![backend(2, BackendLife::Up, 3), backend(3, BackendLife::Drained, 4)],
        }
    }

    fn printed(print: impl FnOnce(&mut Output<'_>)) -> String {
        let mut out = Vec::new();
        print(&mut Output::new(&mut out, false));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_counts_backends_and_flows() {
        assert_eq!(
            printed(|output| print_list(&[row()], output).unwrap()),
            "NAME  VIP                FORWARD  ALGORITHM  STATE  BACKENDS           FLOWS\n\
             web   10.96.0.10:80/tcp  nat      maglev     up     1 of 2, 1 drained  7\n"
        );
    }

    #[test]
    fn a_service_is_shown_with_its_backends() {
        assert_eq!(
            printed(|output| print_service(&row(), output).unwrap()),
            "name       web\n\
             vip        10.96.0.10:80/tcp\n\
             forward    nat\n\
             algorithm  maglev\n\
             affinity   none\n\
             state      up\n\
             \n\
             BACKEND        WEIGHT  STATE    NODE     FLOWS\n\
             250.0.28.2:80  1       up       host-28  3\n\
             250.0.28.3:80  1       drained  -        4\n"
        );
    }

    #[test]
    fn the_json_has_the_keys_that_scripts_rely_on() {
        let json = serde_json::to_value(row()).unwrap();
        let backend = serde_json::json!({
            "address": "250.0.28.2:80", "weight": 1, "state": "up", "node": "host-28", "flows": 3,
        });
        assert_eq!(json["backends"][0], backend);
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["affinity", "algorithm", "backends", "forward", "name", "state", "vip"]);
    }
}
