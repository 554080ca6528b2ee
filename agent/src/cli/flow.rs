//! `fanlight flow list`

use std::{
    collections::HashMap,
    io::{self, BufWriter, Write},
    net::SocketAddrV4,
    process::ExitCode,
};

use anyhow::Context;
use control::service::{ServiceState, Vip};
use serde::{Serialize, Serializer};

use super::{
    args::{FlowCommand, FlowListArgs},
    failure::Failure,
    output::Output,
    runtime,
};
use crate::{
    inspect::flow::{Flow, FlowState, Joiner},
    kernel::bpf::{Datapath, FlowTable, coarse_now},
};

/// Bytes that are written at a time.
const BUFFER: usize = 1 << 18;

pub(super) fn run(command: &FlowCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let FlowCommand::List(args) = command;
    runtime::require_privileges("flow list")?;
    let services = runtime::block_on(async {
        let services = match &args.service {
            Some(name) => runtime::service(name).await.map(|service| vec![service]),
            None => runtime::services().await,
        };
        services.context("flow list")
    })?;
    let datapath = Datapath::open_existing().context("flow list")?;
    let json = output.is_json();
    let mut list = List::new(BufWriter::with_capacity(BUFFER, &mut *output.writer), json);
    list.start().context("writing the result")?;
    if let Some(datapath) = &datapath {
        walk(datapath, &services, args, &mut list)?;
    }
    list.end().context("writing the result")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes every flow that is asked for as soon as it is known.
fn walk(
    datapath: &Datapath,
    services: &[ServiceState],
    args: &FlowListArgs,
    list: &mut List<impl Write>,
) -> anyhow::Result<()> {
    let map = datapath.services();
    let named =
        services.iter().filter_map(|service| Some((service.vip.parse().ok()?, service.name.as_str())));
    let mut names = Names { vips: named.collect(), known: HashMap::new() };
    let mut joiner = Joiner::new(coarse_now().context("flow list")?, args.client);
    let mut written = Ok(());
    let mut write = |flow: Flow| {
        let service = names.of(flow.service, |index| map.vip_of(index));
        // The reader has closed the pipe.
        if written.is_ok() && (args.service.is_none() || service.is_some()) {
            written = list.write(&Line::new(&flow, service));
        }
    };
    // A flow that is promoted meanwhile stays in `unconfirmed`: read first, it is seen at least once.
    for table in FlowTable::ALL.into_iter().rev() {
        let walked = map.each_flow(table, |key, record| {
            if let Some(flow) = joiner.add(table, key, record) {
                write(flow);
            }
        });
        walked.context("flow list")?;
    }
    joiner.rest().for_each(&mut write);
    written.context("writing the result")
}

/// Names of services by their index.
struct Names<'s> {
    vips: HashMap<Vip, &'s str>,
    known: HashMap<u32, Option<&'s str>>,
}

impl<'s> Names<'s> {
    fn of(&mut self, index: u32, vip_of: impl Fn(u32) -> Option<Vip>) -> Option<&'s str> {
        let vips = &self.vips;
        *self.known.entry(index).or_insert_with(|| vip_of(index).and_then(|vip| vips.get(&vip).copied()))
    }
}

/// A flow; the field names are the stable keys of the JSON.
#[derive(Serialize)]
struct Line<'s> {
    protocol: &'static str,
    client: SocketAddrV4,
    vip: SocketAddrV4,
    backend: SocketAddrV4,
    state: FlowState,
    #[serde(serialize_with = "as_seconds")]
    age: u64,
    packets: u64,
    bytes: u64,
    service: Option<&'s str>,
}

impl<'s> Line<'s> {
    fn new(flow: &Flow, service: Option<&'s str>) -> Self {
        Self {
            protocol: flow.protocol.name(),
            client: flow.client,
            vip: flow.vip,
            backend: flow.backend,
            state: flow.state,
            age: flow.age,
            packets: flow.packets,
            bytes: flow.bytes,
            service,
        }
    }
}

/// Milliseconds as seconds.
fn as_seconds<S: Serializer>(millis: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*millis as f64 / 1_000.0)
}

/// A list that is written while it is made: columns of fixed width, or a JSON document.
struct List<W: Write> {
    writer: W,
    json: bool,
    is_empty: bool,
}

impl<W: Write> List<W> {
    fn new(writer: W, json: bool) -> Self {
        Self { writer, json, is_empty: true }
    }

    fn start(&mut self) -> io::Result<()> {
        if self.json {
            return write!(self.writer, "[");
        }
        writeln!(
            self.writer,
            "{:<8}  {:<21}  {:<21}  {:<21}  {:<11}  {:>7}  {:>9}  {:>12}  SERVICE",
            "PROTOCOL", "CLIENT", "VIP", "BACKEND", "STATE", "AGE", "PACKETS", "BYTES"
        )
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        if !self.json {
            return self.row(line);
        }
        self.writer.write_all(if self.is_empty { b"\n" } else { b",\n" })?;
        self.is_empty = false;
        serde_json::to_writer(&mut self.writer, line).map_err(io::Error::from)
    }

    fn row(&mut self, line: &Line<'_>) -> io::Result<()> {
        let &Line { protocol, client, vip, backend, state, age, packets, bytes, service } = line;
        let (state, seconds, service) = (state.name(), age / 1_000, service.unwrap_or("-"));
        writeln!(
            self.writer,
            "{protocol:<8}  {client:<21}  {vip:<21}  {backend:<21}  {state:<11}  {seconds:>5} s  {packets:>9}  \
             {bytes:>12}  {service}"
        )
    }

    fn end(&mut self) -> io::Result<()> {
        if self.json {
            writeln!(self.writer, "{}]", if self.is_empty { "" } else { "\n" })?;
        }
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use control::service::Protocol;

    use super::*;

    fn flow(port: u16) -> Flow {
        Flow {
            protocol: Protocol::Tcp,
            client: format!("250.0.28.2:{port}").parse().unwrap(),
            vip: "10.96.0.10:80".parse().unwrap(),
            backend: "250.0.27.3:8080".parse().unwrap(),
            service: 1,
            state: FlowState::Established,
            age: 1_234,
            packets: 10,
            bytes: 1_000,
        }
    }

    fn written(json: bool, flows: &[Flow]) -> String {
        let mut out = Vec::new();
        let mut list = List::new(&mut out, json);
        list.start().unwrap();
        flows.iter().for_each(|flow| list.write(&Line::new(flow, Some("web"))).unwrap());
        list.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_list_in_json_has_the_keys_that_scripts_rely_on() {
        assert_eq!(written(true, &[]), "[]\n");
        let text = written(true, &[flow(1), flow(2)]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            json[0],
            serde_json::json!({
                "protocol": "tcp", "client": "250.0.28.2:1", "vip": "10.96.0.10:80", "backend": "250.0.27.3:8080",
                "state": "established", "age": 1.234, "packets": 10, "bytes": 1000, "service": "web",
            })
        );
        assert_eq!((json[1]["client"].as_str(), text.lines().count()), (Some("250.0.28.2:2"), 4));
    }

    #[test]
    fn people_get_columns() {
        let text = written(false, &[flow(40_000)]);
        assert_eq!(
            text.lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>(),
            [
                "PROTOCOL CLIENT VIP BACKEND STATE AGE PACKETS BYTES SERVICE",
                "tcp 250.0.28.2:40000 10.96.0.10:80 250.0.27.3:8080 established 1 s 10 1000 web",
            ]
        );
    }
}
