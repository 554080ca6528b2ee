//! Answers made of the packet that is answered: ICMP errors and TCP resets.

use dataplane_common::{
    checksum,
    ct::Tuple,
    decide::{Context, RELAYED},
    icmp,
    outcome::Hook,
    packet::Packet,
    tcp,
    verdict::{Answer, With},
    wire::{ETH_LEN, IPV4_LEN, IcmpHdr, Ipv4, Ipv4Ports, TcpHdr},
};
use network_types::ip::Ipv4Hdr;

use super::to_host;
use crate::{
    packet::{Frame, Macs, Refused},
    watch,
};

/// More than the largest distance from the start of the IPv4 header to `csum_start`: removing so much takes a pending
/// partial checksum out of the packet, which the kernel would otherwise write into the answer.
const CUT: usize = 36;

/// Turns the packet into the answer and sends it back where it came from.
#[inline(always)]
pub fn send(frame: &mut Frame, hook: Hook, answer: Answer) -> Result<i32, Refused> {
    if answer.outcome.is_refusal() {
        watch::end(frame, hook, answer.outcome);
    }
    match answer.with.error() {
        Some(kind) => error(frame, hook, kind, answer),
        None if answer.with as u32 == With::Reset as u32 => reset(frame, hook),
        None => echo(frame, hook),
    }
}

/// An ICMP error.
#[inline(always)]
fn error(frame: &mut Frame, hook: Hook, error: icmp::Error, answer: Answer) -> Result<i32, Refused> {
    const LEN: usize = ETH_LEN + icmp::HEADERS_LEN + icmp::QUOTE_LEN;
    let quote: [u8; icmp::QUOTE_LEN] = frame.read(ETH_LEN).ok_or(Refused)?;
    let headers = error.headers(answer.mtu as u16, answer.source, &quote);
    let macs = cut(frame, LEN)?;
    frame.store(ETH_LEN, &headers)?;
    frame.store(ETH_LEN + icmp::HEADERS_LEN, &quote)?;
    back(frame, hook, macs)
}

/// Makes "host unreachable" about the packet inside a quoted tunnel packet, quoted as `answered` turned round says.
#[inline(always)]
pub fn relay(frame: &mut Frame, source: u32, answered: Tuple) -> Result<(), Refused> {
    const LEN: usize = ETH_LEN + icmp::HEADERS_LEN + icmp::QUOTE_LEN;
    let mut quote: [u8; icmp::QUOTE_LEN] = frame.copy(RELAYED).ok_or(Refused)?;
    if !answered.is_kept() {
        let Tuple { src, dst, sport, dport } = answered;
        let [c0, c1, s0, s1, s2, s3, d0, d1, d2, d3] = [
            quote[10], quote[11], quote[12], quote[13], quote[14], quote[15], quote[16], quote[17],
            quote[18], quote[19],
        ];
        let check = checksum::update_word([c0, c1], u32::from_ne_bytes([s0, s1, s2, s3]), dst);
        let check = checksum::update_word(check, u32::from_ne_bytes([d0, d1, d2, d3]), src);
        [quote[10], quote[11]] = check;
        [quote[12], quote[13], quote[14], quote[15]] = dst.to_ne_bytes();
        [quote[16], quote[17], quote[18], quote[19]] = src.to_ne_bytes();
        [quote[20], quote[21]] = dport.to_ne_bytes();
        [quote[22], quote[23]] = sport.to_ne_bytes();
    }
    let headers = icmp::Error::HostUnreachable.headers(0, source, &quote);
    cut(frame, LEN)?;
    frame.store(ETH_LEN, &headers)?;
    frame.store(ETH_LEN + icmp::HEADERS_LEN, &quote)
}

/// A TCP reset.
#[inline(always)]
fn reset(frame: &mut Frame, hook: Hook) -> Result<i32, Refused> {
    let ip: Ipv4Hdr = frame.read(ETH_LEN).ok_or(Refused)?;
    let tcp: TcpHdr = frame.read(ETH_LEN + IPV4_LEN).ok_or(Refused)?;
    let reset = tcp::reset(&Ipv4::new(ip), &tcp);
    let macs = cut(frame, ETH_LEN + tcp::RESET_LEN)?;
    frame.store(ETH_LEN, &reset)?;
    back(frame, hook, macs)
}

/// An echo reply (RFC 792).
#[inline(always)]
fn echo(frame: &mut Frame, hook: Hook) -> Result<i32, Refused> {
    const REQUEST: [u8; 2] = [icmp::ECHO_REQUEST, 0];
    let macs: Macs = frame.read(0).ok_or(Refused)?;
    let message: IcmpHdr = frame.read(ETH_LEN + IPV4_LEN).ok_or(Refused)?;
    let ip = &mut frame.word::<Ipv4Ports>(ETH_LEN)?.0;
    // Neither checksum cares for the order of the addresses.
    (ip.src, ip.dst) = (ip.dst, ip.src);
    let check = checksum::update(message.check, REQUEST, [0, 0]);
    frame.store(ETH_LEN + IPV4_LEN, &[0, 0, check[0], check[1]])?;
    back(frame, hook, macs)
}

/// Brings the frame to a length, without its segmentation state and pending checksum; returns its MAC addresses.
#[inline(always)]
fn cut(frame: &mut Frame, len: usize) -> Result<Macs, Refused> {
    let macs: Macs = frame.read(0).ok_or(Refused)?;
    frame.change_tail((len + CUT) as u32)?;
    frame.adjust_room(-(CUT as i32), 0)?;
    Ok(macs)
}

#[inline(always)]
fn back(frame: &mut Frame, hook: Hook, macs: Macs) -> Result<i32, Refused> {
    if hook as u32 == Hook::HostEgress as u32 {
        return to_host(frame);
    }
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = macs;
    frame.store(0, &[s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5])?;
    Ok(frame.redirect(frame.ifindex(), 0))
}
