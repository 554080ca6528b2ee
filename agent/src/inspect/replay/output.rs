use std::{io::Write, net::SocketAddrV4};

use dataplane_common::outcome::Hook;
use pcap_file::{
    DataLink, PcapError,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use serde::Serialize;

use super::{Action, Error, Packet, Result, Verdict};

/// A packet's line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    action: &'a str,
    outcome: &'a str,
    service: Option<&'a str>,
    backend: Option<SocketAddrV4>,
    output: Option<String>,
    ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ran_as: Option<&'a str>,
}

/// What became of a packet, as one line of JSON.
pub fn json_line(number: u64, verdict: &Verdict) -> Result<String> {
    let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = Line {
        n: number,
        action: verdict.action.name(),
        outcome: verdict.outcome.name(),
        service: verdict.served.service.as_deref(),
        backend: verdict.served.backend,
        output: verdict.output.as_ref().map(hex),
        ns: u64::try_from(verdict.duration.as_nanos()).unwrap_or(u64::MAX),
        hook: verdict.hook.map(Hook::name),
        ran_as: verdict.unsegmented.then_some("single-packet"),
    };
    serde_json::to_string(&line).map_err(|error| Error::Output(error.into()))
}

/// A pcap file of what came out.
pub struct Capture<W: Write> {
    writer: PcapWriter<W>,
}

impl<W: Write> Capture<W> {
    /// Starts a file.
    pub fn new(to: W) -> Result<Self> {
        let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        let writer = PcapWriter::with_header(to, header).map_err(unwritten)?;
        Ok(Self { writer })
    }

    /// Adds what became of a packet, unless it was dropped.
    pub fn write(&mut self, packet: &Packet, verdict: &Verdict) -> Result<()> {
        if verdict.action == Action::Drop {
            return Ok(());
        }
        let frame = verdict.output.as_deref().unwrap_or(&packet.frame);
        let packet = PcapPacket::new(packet.time, frame.len() as u32, frame);
        self.writer.write_packet(&packet).map(drop).map_err(unwritten)
    }

    /// Ends the file.
    pub fn finish(self) -> Result<W> {
        let mut inner = self.writer.into_writer();
        inner.flush().map_err(Error::Output)?;
        Ok(inner)
    }
}

fn unwritten(error: PcapError) -> Error {
    Error::Output(match error {
        PcapError::IoError(source) => source,
        other => std::io::Error::other(other),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane_common::outcome::Outcome;

    use super::*;
    use crate::inspect::replay::{Served, packets};

    fn verdict(action: Action, output: Option<Vec<u8>>) -> Verdict {
        let duration = Duration::from_nanos(123);
        let (outcome, served) = (Outcome::Encapsulated, Served::default());
        Verdict { action, outcome, served, output, duration, hook: None, unsegmented: false }
    }

    #[test]
    fn a_line_has_every_key_in_its_order_and_null_where_nothing_applies() {
        assert_eq!(
            json_line(3, &verdict(Action::Redirect, Some(vec![0x00, 0xff]))).unwrap(),
            r#"{"n":3,"action":"redirect","outcome":"encapsulated","service":null,"backend":null,"output":"00ff","ns":123}"#
        );
        assert!(json_line(1, &verdict(Action::Pass, None)).unwrap().contains(r#""output":null"#));
        let backend = Some(SocketAddrV4::new([250, 0, 27, 3].into(), 8080));
        let served = Served { service: Some("web".to_owned()), backend };
        let line = json_line(1, &Verdict { served, ..verdict(Action::Redirect, None) }).unwrap();
        assert!(line.contains(r#""service":"web","backend":"250.0.27.3:8080""#), "{line}");
        let early = Verdict { hook: Some(Hook::UplinkXdp), ..verdict(Action::Drop, None) };
        assert!(json_line(1, &early).unwrap().ends_with(r#""ns":123,"hook":"uplink-xdp"}"#));
        let single = Verdict { unsegmented: true, ..verdict(Action::Redirect, None) };
        assert!(json_line(1, &single).unwrap().ends_with(r#""ns":123,"ran_as":"single-packet"}"#));
    }

    #[test]
    fn the_capture_holds_what_came_out_and_no_drops() {
        let packet =
            Packet { number: 1, frame: vec![7; 20], time: Duration::from_secs(9), ..Packet::default() };
        let mut capture = Capture::new(Vec::new()).unwrap();
        capture.write(&packet, &verdict(Action::Pass, None)).unwrap();
        capture.write(&packet, &verdict(Action::Drop, None)).unwrap();
        capture.write(&packet, &verdict(Action::Redirect, Some(vec![8; 40]))).unwrap();
        let data = capture.finish().unwrap();
        let found: Vec<_> = packets(&data).unwrap().map(Result::unwrap).collect();
        let frames: Vec<_> = found.iter().map(|packet| packet.frame.clone()).collect();
        assert_eq!(frames, [vec![7; 20], vec![8; 40]]);
        assert_eq!(found[0].time, Duration::from_secs(9));
    }
}
