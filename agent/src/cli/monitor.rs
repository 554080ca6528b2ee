//! `fanlight monitor`

use std::{io, process::ExitCode};

use anyhow::Context;
use serde::Deserialize;

use super::{args::MonitorArgs, failure::Failure, lines, output::Output, runtime};
use crate::{
    inspect::monitor::{Event, Kind},
    serve::paths,
};

/// What a line of the agent's says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Told {
    Event(Box<Event>),
    Lost { lost: u64 },
}

pub(super) fn run(args: &MonitorArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    if let Some(name) = &args.service {
        runtime::block_on(async { runtime::service(name).await.map(drop).context("monitor") })?;
    }
    lines::follow("monitor", paths::EVENTS, output, |told| is_wanted(told, args), print)
}

fn is_wanted(told: &Told, args: &MonitorArgs) -> bool {
    match told {
        Told::Lost { .. } => true,
        Told::Event(event) => {
            (!args.drops || matches!(event.event, Kind::Drop | Kind::Refused))
                && args.service.as_ref().is_none_or(|name| event.service.as_ref() == Some(name))
        }
    }
}

fn print(told: &Told, output: &mut Output<'_>) -> io::Result<()> {
    let event = match told {
        Told::Event(event) => event,
        Told::Lost { lost } => return writeln!(output.writer, "{lost} events not shown"),
    };
    let time = event.time.split_once('T').map_or(event.time.as_str(), |(_, time)| time);
    let kind = match event.event {
        Kind::NewFlow => "new-flow",
        Kind::Drop => "drop",
        Kind::Refused => "refused",
        Kind::CheckUp => "check-up",
        Kind::CheckDown => "check-down",
    };
    write!(output.writer, "{time}  {kind:<8}")?;
    let service = event.service.iter().map(|name| format!("  {name}"));
    let way = [event.client.clone(), event.destination.clone(), event.backend.map(|at| at.to_string())];
    let way: Vec<String> = way.into_iter().flatten().collect();
    let way = (!way.is_empty()).then(|| match &event.protocol {
        Some(protocol) => format!("  {protocol} {}", way.join(" > ")),
        None => format!("  {}", way.join(" > ")),
    });
    let why = event.reason.iter().map(|reason| match &event.hook {
        Some(hook) => format!("  {reason} at {hook}"),
        None => format!("  {reason}"),
    });
    service.chain(way).chain(why).try_for_each(|part| write!(output.writer, "{part}"))?;
    writeln!(output.writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"{"time":"2026-11-21T06:34:13.345Z","event":"new-flow","reason":null,"service":"web",
        "client":"250.0.28.2:40000","vip":"10.96.0.10:80","backend":"250.0.27.3:8080",
        "destination":"10.96.0.10:80","protocol":"tcp","hook":null}"#;
    const DROPPED: &str = r#"{"time":"2026-11-21T06:34:13.345Z","event":"drop","reason":"drop-no-fan","service":null,
        "client":null,"vip":null,"backend":null,"destination":null,"protocol":null,"hook":"host-egress"}"#;
    const FAILED: &str = r#"{"time":"2026-11-21T06:34:13.345Z","event":"check-down","reason":"connection refused",
        "service":"web","client":null,"vip":"10.96.0.10:80","backend":"250.0.27.3:8080","destination":null,
        "protocol":null,"hook":null}"#;
    const LOST: &str = r#"{"event":"lost","lost":12}"#;

    fn printed(line: &str) -> String {
        let mut out = Vec::new();
        print(&serde_json::from_str(line).unwrap(), &mut Output::new(&mut out, false)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_a_line_with_what_is_known() {
        assert_eq!(
            printed(NEW),
            "06:34:13.345Z  new-flow  web  tcp 250.0.28.2:40000 > 10.96.0.10:80 > 250.0.27.3:8080\n"
        );
        assert_eq!(printed(DROPPED), "06:34:13.345Z  drop      drop-no-fan at host-egress\n");
        assert_eq!(printed(FAILED), "06:34:13.345Z  check-down  web  250.0.27.3:8080  connection refused\n");
        assert_eq!(printed(LOST), "12 events not shown\n");
    }

    #[test]
    fn only_what_was_asked_for_is_shown_and_always_what_is_missing() {
        let wanted = |drops, service: Option<&str>| {
            let args = MonitorArgs { drops, service: service.map(str::to_owned) };
            [NEW, DROPPED, LOST].map(|line| is_wanted(&serde_json::from_str(line).unwrap(), &args))
        };
        assert_eq!(wanted(false, None), [true, true, true]);
        assert_eq!(wanted(true, None), [false, true, true]);
        assert_eq!(wanted(false, Some("web")), [true, false, true]);
        assert_eq!(wanted(false, Some("other")), [false, false, true]);
    }
}
