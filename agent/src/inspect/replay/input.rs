//! Packets from pcap, pcapng and JSON lines.

use std::time::Duration;

use pcap_file::{
    DataLink, PcapError,
    pcap::PcapReader,
    pcapng::{
        Block, PcapNgReader,
        blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
    },
};
use serde::Deserialize;

use super::{Error, Result};

const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const PCAP: [[u8; 4]; 4] =
    [[0xa1, 0xb2, 0xc3, 0xd4], [0xa1, 0xb2, 0x3c, 0x4d], [0xd4, 0xc3, 0xb2, 0xa1], [0x4d, 0x3c, 0xb2, 0xa1]];

/// A packet to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Its place in the input, from 1.
    pub number: u64,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// The kernel's packet mark.
    pub mark: u32,
    /// Interface that it arrives on or leaves by; the loopback device when absent.
    pub ifindex: Option<u32>,
    /// VLAN that it arrives in.
    pub vlan: Option<u16>,
    /// Payload bytes per segment of a super-packet; 0 for a single packet.
    pub gso_size: u32,
    /// When it was captured.
    pub time: Duration,
}

/// Reads the packets of a file's contents, whatever of the three formats it has.
pub fn packets(data: &[u8]) -> Result<Box<dyn Iterator<Item = Result<Packet>> + '_>> {
    match data.first_chunk() {
        Some(magic) if *magic == PCAPNG => pcapng(data),
        Some(magic) if PCAP.contains(magic) => pcap(data),
        _ => json(data),
    }
}

fn pcap(data: &[u8]) -> Result<Box<dyn Iterator<Item = Result<Packet>> + '_>> {
    let mut reader = PcapReader::new(data).map_err(|error| unreadable(&error))?;
    ethernet(reader.header().datalink).map_err(Error::Input)?;
    let mut number = 0;
    Ok(Box::new(
        std::iter::from_fn(move || {
            let next = reader.next_packet()?;
            number += 1;
            Some(match next {
                Ok(found) => Ok(Packet {
                    number,
                    frame: found.data.into_owned(),
                    time: found.timestamp,
                    ..Packet::default()
                }),
                Err(error) => Err(Error::Packet { number, reason: reason(&error) }),
            })
        })
        .fuse_after_error(),
    ))
}

fn pcapng(data: &[u8]) -> Result<Box<dyn Iterator<Item = Result<Packet>> + '_>> {
    let mut reader = PcapNgReader::new(data).map_err(|error| unreadable(&error))?;
    let mut number = 0;
    Ok(Box::new(
        std::iter::from_fn(move || {
            loop {
                let (interface, frame, ticks) = match reader.next_block()? {
                    Ok(Block::EnhancedPacket(block)) => {
                        (block.interface_id, block.data.into_owned(), block.timestamp.as_nanos())
                    }
                    Ok(Block::SimplePacket(block)) => {
                        let mut frame = block.data.into_owned();
                        frame.truncate(block.original_len as usize);
                        (0, frame, 0)
                    }
                    Ok(_) => continue,
                    Err(error) => {
                        return Some(Err(Error::Packet { number: number + 1, reason: reason(&error) }));
                    }
                };
                number += 1;
                let Some(interface) = reader.interfaces().get(interface as usize) else {
                    let reason = format!("the file describes no interface {interface}");
                    return Some(Err(Error::Packet { number, reason }));
                };
                if let Err(reason) = ethernet(interface.linktype) {
                    return Some(Err(Error::Packet { number, reason }));
                }
                return Some(Ok(Packet {
                    number,
                    frame,
                    time: timestamp(interface, ticks),
                    ..Packet::default()
                }));
            }
        })
        .fuse_after_error(),
    ))
}

/// The file's ticks, whose length each interface declares: a power of ten, or of two with the top bit set.
fn timestamp(interface: &InterfaceDescriptionBlock<'_>, ticks: u128) -> Duration {
    const MICROSECONDS: u8 = 6;
    let declared = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let resolution = declared.unwrap_or(MICROSECONDS);
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    let per_second = base.checked_pow(exponent).unwrap_or(u128::MAX);
    let nanoseconds = ticks.saturating_mul(1_000_000_000) / per_second;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// One line of JSON input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    packet: String,
    #[serde(default)]
    mark: u32,
    ifindex: Option<u32>,
    vlan: Option<u16>,
    #[serde(default)]
    gso_size: u32,
}

fn json(data: &[u8]) -> Result<Box<dyn Iterator<Item = Result<Packet>> + '_>> {
    let text = std::str::from_utf8(data);
    let text = text.ok().filter(|text| text.trim_start().starts_with('{') || text.trim().is_empty());
    let Some(text) = text else {
        return Err(Error::Input("the file is neither pcap nor pcapng nor JSON lines".to_owned()));
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(Box::new(
        (1..).zip(lines).map(|(number, line)| {
            parse_line(number, line).map_err(|reason| Error::Packet { number, reason })
        }),
    ))
}

fn parse_line(number: u64, line: &str) -> Result<Packet, String> {
    const VLANS: u16 = 4096;
    let line: Line = serde_json::from_str(line)
        .map_err(|error| format!("{error}; expected {{\"packet\":\"<hex of the Ethernet frame>\"}}"))?;
    if let Some(vlan) = line.vlan.filter(|&vlan| vlan >= VLANS) {
        return Err(format!("vlan {vlan} is not in 0 to {}", VLANS - 1));
    }
    let frame = bytes(&line.packet)?;
    let (mark, ifindex, vlan, gso_size) = (line.mark, line.ifindex, line.vlan, line.gso_size);
    Ok(Packet { number, frame, mark, ifindex, vlan, gso_size, time: Duration::ZERO })
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = hex.as_bytes().chunks(2).map(|pair| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(|| "the packet is not written in pairs of hex digits".to_owned())
}

fn ethernet(link: DataLink) -> Result<(), String> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => {
            Err(format!("its link type is {other:?}, not Ethernet; capture on a device with Ethernet frames"))
        }
    }
}

fn unreadable(error: &PcapError) -> Error {
    Error::Input(format!("the capture file can't be read: {}", reason(error)))
}

fn reason(error: &PcapError) -> String {
    match error {
        PcapError::IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the file ends in the middle of it".to_owned()
        }
        other => other.to_string(),
    }
}

/// Ends an iterator with its first error: what follows in the file has no known start.
trait FuseAfterError: Iterator + Sized {
    fn fuse_after_error(self) -> impl Iterator<Item = Self::Item>;
}

impl<T, I: Iterator<Item = Result<T>>> FuseAfterError for I {
    fn fuse_after_error(self) -> impl Iterator<Item = Self::Item> {
        let mut failed = false;
        self.map_while(
            move |item| {
                if std::mem::replace(&mut failed, item.is_err()) { None } else { Some(item) }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::{
        Endianness,
        pcap::{PcapHeader, PcapPacket, PcapWriter},
        pcapng::{
            PcapNgWriter,
            blocks::{enhanced_packet::EnhancedPacketBlock, simple_packet::SimplePacketBlock},
        },
    };
    use proptest::prelude::*;

    use super::*;

    fn all(data: &[u8]) -> Result<Vec<Packet>> {
        packets(data)?.collect()
    }

    fn pcap_of(link: DataLink, frames: &[&[u8]]) -> Vec<u8> {
        let header = PcapHeader { datalink: link, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for frame in frames {
            let packet = PcapPacket::new(Duration::from_millis(1500), frame.len() as u32, frame);
            writer.write_packet(&packet).unwrap();
        }
        writer.into_writer()
    }

    #[test]
    fn json_lines_carry_a_frame_and_what_the_kernel_knows_beside_it() {
        let text = "{\"packet\":\"00fF\",\"mark\":7,\"ifindex\":3,\"vlan\":5,\"gso_size\":1448}\n\n{\"packet\":\"\"}\n";
        let found = all(text.as_bytes()).unwrap();
        let [first, second] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((first.number, &first.frame[..]), (1, &[0x00, 0xff][..]));
        assert_eq!((first.mark, first.ifindex, first.vlan, first.gso_size), (7, Some(3), Some(5), 1448));
        assert_eq!((second.number, second.frame.len(), second.ifindex), (2, 0, None));
    }

    #[test]
    fn a_bad_json_line_is_an_error_with_the_packets_number() {
        for (line, part) in [
            ("{\"packet\":\"0\"}", "pairs of hex digits"),
            ("{\"packet\":\"zz\"}", "pairs of hex digits"),
            ("{\"packet\":\"00\",\"vlan\":4096}", "vlan 4096"),
            ("{\"packet\":\"00\",\"length\":1}", "unknown field `length`"),
            ("{\"mark\":1}", "missing field `packet`"),
        ] {
            let text = format!("{{\"packet\":\"00\"}}\n{line}\n");
            let error = all(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("packet 2: ") && error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_file_of_no_known_format_is_refused() {
        let error = all(b"\x7fELF").unwrap_err().to_string();
        assert!(error.contains("neither pcap nor pcapng nor JSON lines"), "{error}");
        assert!(all(b"").unwrap().is_empty());
    }

    #[test]
    fn a_pcap_file_gives_its_frames_and_times() {
        let found = all(&pcap_of(DataLink::ETHERNET, &[&[1; 20], &[2; 30]])).unwrap();
        assert_eq!(found.iter().map(|p| (p.number, p.frame.len())).collect::<Vec<_>>(), [(1, 20), (2, 30)]);
        assert_eq!(found[1].time, Duration::from_millis(1500));
    }

    #[test]
    fn a_capture_of_other_than_ethernet_is_refused() {
        let error = all(&pcap_of(DataLink::RAW, &[&[1; 20]])).unwrap_err().to_string();
        assert!(error.contains("not Ethernet"), "{error}");
    }

    #[test]
    fn a_capture_that_ends_in_a_packet_names_that_packet() {
        let mut data = pcap_of(DataLink::ETHERNET, &[&[1; 20], &[2; 30]]);
        data.truncate(data.len() - 1);
        let mut found = packets(&data).unwrap();
        assert!(found.next().unwrap().is_ok());
        assert_eq!(
            found.next().unwrap().unwrap_err().to_string(),
            "packet 2: the file ends in the middle of it"
        );
        assert!(found.next().is_none());
    }

    #[test]
    fn a_pcapng_file_gives_its_frames_with_times_in_its_interfaces_resolution() {
        let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Little).unwrap();
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![InterfaceDescriptionOption::IfTsResol(3)],
        };
        writer.write_pcapng_block(interface).unwrap();
        let enhanced = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(2500),
            original_len: 21,
            data: vec![1; 21].into(),
            options: Vec::new(),
        };
        writer.write_pcapng_block(enhanced).unwrap();
        let simple = SimplePacketBlock { original_len: 15, data: vec![2; 15].into() };
        writer.write_pcapng_block(simple).unwrap();
        let found = all(&writer.into_inner()).unwrap();
        assert_eq!(found.iter().map(|p| p.frame.len()).collect::<Vec<_>>(), [21, 15]);
        assert_eq!(found[0].time, Duration::from_millis(2500));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic_or_run_forever(kind in 0usize..6, body: Vec<u8>) {
            let mut data = match kind {
                0 => PCAPNG.to_vec(),
                1..=4 => PCAP[kind - 1].to_vec(),
                _ => b"{\"packet\":".to_vec(),
            };
            data.extend_from_slice(&body);
            if let Ok(found) = packets(&data) {
                prop_assert!(found.count() <= data.len());
            }
        }
    }
}
