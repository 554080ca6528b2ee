//! Carries out a verdict: changes the packet, says where it goes, and names the outcome.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC,
    },
    programs::TcContext,
};
use dataplane_common::{
    abi::{Config, EndpointRecord, FanRecord},
    checksum,
    codegen::{cold_path, unknown},
    ct::Tuple,
    decide::{self, Context, Relayed, Tables},
    outcome::{Hook, Outcome, Stage},
    packet::Packet,
    tunnel,
    verdict::{Action, Out, Party, Verdict, Way, Words},
    wire::{ETH_LEN, IPV4_LEN, Ipv4, Ipv4Frame, Tunnelled, mac_words, without_options},
};
use network_types::ip::Ipv4Hdr;

use crate::{
    maps,
    packet::{Frame, Refused, Word},
    watch,
};

pub mod answer;
mod translate;
mod uplink;

/// The action for the kernel and the outcome to count.
#[inline(always)]
pub fn act(ctx: &TcContext, frame: &mut Frame, hook: Hook, verdict: Verdict) -> (i32, Outcome) {
    if verdict.action as u32 != Action::Forward as u32 {
        return leave(ctx, frame, hook, verdict);
    }
    let done = forward(frame, hook, verdict.rewrite, verdict.out);
    unless_refused(frame, hook, done)
}

/// The same for a verdict that forwards nothing.
#[inline(always)]
pub fn leave(ctx: &TcContext, frame: &mut Frame, hook: Hook, verdict: Verdict) -> (i32, Outcome) {
    let Verdict { action, outcome, words, .. } = verdict;
    if let Some(stage) = action.stage() {
        return go_on(ctx, frame, hook, stage, words);
    }
    match action {
        Action::Track => {
            let [fan, ..] = words;
            let done = have_tracked(frame, fan).map(|()| (TC_ACT_UNSPEC, outcome));
            unless_refused(frame, hook, done)
        }
        Action::Drop => {
            watch::end(frame, hook, outcome);
            (TC_ACT_SHOT, outcome)
        }
        Action::LearnPathMtu => {
            let [host, mtu, ..] = words;
            maps::learn_path_mtu(host, mtu);
            (TC_ACT_UNSPEC, outcome)
        }
        _ => (TC_ACT_UNSPEC, outcome),
    }
}

/// What was done, or the outcome of a helper's refusal.
#[inline(always)]
pub fn unless_refused(frame: &Frame, hook: Hook, done: Result<(i32, Outcome), Refused>) -> (i32, Outcome) {
    match done {
        Ok(done) => done,
        Err(Refused) => {
            cold_path();
            watch::end(frame, hook, Outcome::DropHelperFailed);
            (TC_ACT_SHOT, Outcome::DropHelperFailed)
        }
    }
}

/// Hands the packet over to a stage, which counts it. What is left to do here is only for the case that there is none.
#[inline(always)]
fn go_on(ctx: &TcContext, frame: &mut Frame, hook: Hook, stage: Stage, words: Words) -> (i32, Outcome) {
    cold_path();
    frame.hand_over(hook, words);
    maps::go_on(ctx, stage);
    watch::end(frame, hook, Outcome::DropStageMissing);
    (TC_ACT_SHOT, Outcome::DropStageMissing)
}

#[inline(always)]
fn forward(frame: &mut Frame, hook: Hook, rewrite: Tuple, out: Out) -> Result<(i32, Outcome), Refused> {
    let Out { fan, host, endpoint, tos, is_routed, .. } = out;
    if !rewrite.is_kept() {
        cold_path();
        let offset = if out.way.is_carried() { tunnel::INNER } else { ETH_LEN };
        translate::apply(frame, offset, rewrite)?;
    }
    let way = decide::honoured(hook, &out, &frame.maps);
    let action = match way {
        Way::Tunnel => match encapsulate(frame, fan, host, is_routed)? {
            Some(action) => action,
            None if rewrite.is_kept() => return Ok((into_segments(frame, fan)?, Outcome::Segmented)),
            None => return Err(Refused),
        },
        Way::Endpoint => deliver_locally(frame, hook, (fan, &endpoint), is_routed)?,
        Way::Filtered if rewrite.is_kept() => TC_ACT_UNSPEC,
        Way::Filtered if host != 0 => from_gateway(frame, fan)?,
        Way::Stack | Way::Filtered => to_host(frame)?,
        Way::Decapsulated => {
            let fan = frame.maps.fan(fan).ok_or(Refused)?;
            let headers = take_out(frame, tos)?;
            address(headers, fan, &endpoint);
            deliver(frame, Hook::UplinkIngress, &endpoint)
        }
        Way::DecapsulatedToStack => {
            take_out(frame, tos)?;
            match into_bridge(frame, fan)? {
                Some(action) => action,
                None => to_host(frame)?,
            }
        }
        Way::DecapsulatedTracked | Way::DecapsulatedFiltered => {
            take_out(frame, tos)?;
            if way as u32 == Way::DecapsulatedTracked as u32 {
                frame.have_tracked();
            }
            to_host(frame)?
        }
        Way::DecapsulatedAndRouted => {
            take_out(frame, tos)?;
            let ip = Ipv4::new(frame.read(ETH_LEN).ok_or(Refused)?);
            let size = decide::largest_packet(frame, frame, &ip);
            let way = uplink::way(frame, (ip.src.to_be(), ip.dst.to_be()), size);
            return go(frame, hook, way);
        }
    };
    Ok((action, way.outcome()))
}

/// Removes the options of a packet that this host sends, and sends it once more.
#[inline(always)]
pub fn remove_options(frame: &mut Frame) -> Result<i32, Refused> {
    let header: Ipv4Hdr = frame.read(ETH_LEN).ok_or(Refused)?;
    frame.remove_behind_ipv4(Ipv4::new(header).header_len - IPV4_LEN as u32)?;
    frame.word(ETH_LEN)?.0 = without_options(&header);
    Ok(frame.redirect(frame.ifindex(), 0))
}

/// Translated, and out as the routing table says. It is asked first: where it says nothing, or leads where the packet is too
/// large, the sender gets its own packet quoted.
#[inline(always)]
pub fn send_off(
    frame: &mut Frame,
    hook: Hook,
    rewrite: Tuple,
    sender: Party,
) -> Result<(i32, Outcome), Refused> {
    let ip = Ipv4::new(frame.read(ETH_LEN).ok_or(Refused)?);
    let way = uplink::way(frame, (rewrite.src, rewrite.dst), decide::largest_packet(frame, frame, &ip));
    let answer = match way {
        None => decide::unrouted(frame, &frame.maps, sender, rewrite),
        Some(way) if way.exceeded != 0 => decide::outgrown(frame, &frame.maps, sender, way.exceeded),
        Some(_) => None,
    };
    if let Some(answer) = answer {
        return answer::send(frame, hook, answer).map(|action| (action, answer.outcome));
    }
    translate::apply(frame, ETH_LEN, rewrite)?;
    go(frame, hook, way)
}

/// Makes "host unreachable" for the sender of a packet inside a tunnel packet of an error about that.
#[inline(always)]
pub fn relay(frame: &mut Frame) -> Result<(i32, Outcome), Refused> {
    let Some(Relayed { source, answer, out }) = decide::relayed(frame, &frame.maps) else {
        return Ok((TC_ACT_UNSPEC, Outcome::PassNotOurs));
    };
    answer::relay(frame, source, answer)?;
    let action = if out.way as u32 == Way::Endpoint as u32 {
        let fan = frame.maps.fan(out.fan).ok_or(Refused)?;
        let headers = &mut frame.even::<Ipv4Frame>(0)?.0;
        address(headers, fan, &out.endpoint);
        deliver(frame, Hook::UplinkIngress, &out.endpoint)
    } else {
        to_host(frame)?
    };
    Ok((action, Outcome::RelayedUnreachable))
}

/// The way that the routing table says; to the stack, which knows the rest, where it names no other host, and which makes
/// fragments where the packet is too large.
#[inline(always)]
fn go(frame: &mut Frame, hook: Hook, way: Option<uplink::Way>) -> Result<(i32, Outcome), Refused> {
    let routed = hook as u32 != Hook::HostEgress as u32;
    let Some(way) = way else { return Ok((to_host(frame)?, Outcome::DeliveredToHost)) };
    if way.exceeded != 0 {
        return Ok((to_host(frame)?, Outcome::PassSlowPath));
    }
    if routed {
        one_hop_less(&mut frame.even::<Ipv4Frame>(0)?.0.ip);
    }
    Ok((way.go(routed), Outcome::Routed))
}

/// Outer header in front, then out of the uplink; `None` for a super-packet that holds another tunnel, of which the kernel keeps no
/// more than one.
#[inline(always)]
fn encapsulate(frame: &mut Frame, fan: u32, host: u32, routed: bool) -> Result<Option<i32>, Refused> {
    // FIXED_GSO: the segments' size is right already, the decision compared it with the path.
    const FLAGS: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
    if frame.adjust_room(tunnel::OVERHEAD as i32, FLAGS).is_err() {
        cold_path();
        if frame.gso_size() != 0 {
            return Ok(None);
        }
        // `skb->encapsulation` is set, and stays so: of a single packet it says where a checksum is to be put, which does not move.
        frame.adjust_room(tunnel::OVERHEAD as i32, BPF_F_ADJ_ROOM_FIXED_GSO as u64)?;
        frame.unmark_segment();
    }
    let fan = frame.maps.fan(fan).ok_or(Refused)?;
    // Rule 8 of `codegen`.
    let Word(Tunnelled { outer, inner }) = frame.word(ETH_LEN)?;
    *outer = tunnel::header(fan.address, host, inner);
    if routed {
        inner.ttl = inner.ttl.wrapping_sub(1);
        inner.check = u16::from_ne_bytes(checksum::one_hop_less(inner.check.to_ne_bytes()));
    }
    uplink::send(frame, fan, host, routed).map(Some)
}

/// Through a device that takes no super-packets, and by that to the bridge.
#[inline(always)]
fn into_segments(frame: &mut Frame, fan: u32) -> Result<i32, Refused> {
    let fan = frame.maps.fan(fan).ok_or(Refused)?;
    if fan.outlet == 0 || frame.mark_as_segment() {
        return Err(Refused);
    }
    let [to, _] = &mut frame.even::<Ipv4Frame>(0)?.0.macs;
    *to = mac_words(&fan.bridge_mac);
    Ok(frame.redirect(fan.outlet, 0))
}

/// TTL one less, the checksum along with it.
#[inline(always)]
fn one_hop_less(header: &mut Ipv4Hdr) {
    header.ttl = header.ttl.wrapping_sub(1);
    header.check = checksum::one_hop_less(header.check);
}

/// Outer header off.
#[inline(always)]
fn take_out(frame: &mut Frame, tos: u8) -> Result<&mut Ipv4Frame, Refused> {
    frame.adjust_room(-(tunnel::OVERHEAD as i32), BPF_F_ADJ_ROOM_FIXED_GSO as u64 | maps::decap_flags())?;
    frame.pop_priority_tag()?;
    let headers = &mut frame.even::<Ipv4Frame>(0)?.0;
    if tos != headers.ip.tos {
        let vihl = headers.ip.vihl;
        headers.ip.check = checksum::update(headers.ip.check, [vihl, headers.ip.tos], [vihl, tos]);
        headers.ip.tos = tos;
    }
    Ok(headers)
}

/// A super-packet into the bridge by its inlet, where the neighbour's MAC address is known. What was a tunnel packet keeps a
/// mark of that (`skb->encapsulation`) which nothing takes off: a device whose `hw_enc_features` lack segmentation gets it in
/// pieces. Before Linux 6.19 all bridges are such devices, while a veth is none.
#[inline(always)]
fn into_bridge(frame: &mut Frame, fan: u32) -> Result<Option<i32>, Refused> {
    let fan = frame.maps.fan(fan).ok_or(Refused)?;
    if fan.inlet == 0 || frame.gso_size() == 0 {
        return Ok(None);
    }
    let ip: Ipv4Hdr = frame.read(ETH_LEN).ok_or(Refused)?;
    let (src, dst) = (u32::from_ne_bytes(ip.src_addr), u32::from_ne_bytes(ip.dst_addr));
    let Some(macs) = uplink::neighbour(frame, fan.bridge, src, dst) else { return Ok(None) };
    frame.even(0)?.0 = macs;
    Ok(Some(frame.redirect(fan.inlet, BPF_F_INGRESS as u64)))
}

/// To the stack by the bridge, which would switch a frame to another port's MAC address, and to connection tracking.
#[inline(always)]
fn have_tracked(frame: &mut Frame, fan: u32) -> Result<(), Refused> {
    frame.have_tracked();
    if !frame.to_us() {
        let fan = frame.maps.fan(fan).ok_or(Refused)?;
        let [to, _] = &mut frame.even::<Ipv4Frame>(0)?.0.macs;
        *to = mac_words(&fan.bridge_mac);
    }
    Ok(())
}

/// To the stack as from an endpoint, translated, and past the bridge's own program, which would take it for a packet straight to the
/// backend. From the helper device what goes to other hosts would be fragmented for any path.
#[inline(always)]
fn from_gateway(frame: &mut Frame, fan: u32) -> Result<i32, Refused> {
    if frame.to_us() {
        return Ok(TC_ACT_UNSPEC);
    }
    have_tracked(frame, fan)?;
    let fan = frame.maps.fan(fan).ok_or(Refused)?;
    Ok(frame.redirect(fan.bridge, BPF_F_INGRESS as u64))
}

/// To an endpoint: from another one that is a hop, though both are here; from the host's stack it is not.
#[inline(always)]
fn deliver_locally(
    frame: &mut Frame,
    hook: Hook,
    (fan, endpoint): (u32, &EndpointRecord),
    routed: bool,
) -> Result<i32, Refused> {
    let fan = frame.maps.fan(fan).ok_or(Refused)?;
    let headers = &mut frame.even::<Ipv4Frame>(0)?.0;
    if routed {
        one_hop_less(&mut headers.ip);
    }
    address(headers, fan, endpoint);
    if !frame.to_us() {
        // A frame to the bridge's MAC is another host's on the port; the peer would refuse it as that.
        frame.set_to_us()?;
    }
    Ok(deliver(frame, hook, endpoint))
}

/// Addresses the frame to the endpoint.
#[inline(always)]
fn address(headers: &mut Ipv4Frame, fan: &FanRecord, endpoint: &EndpointRecord) {
    headers.macs = [mac_words(&endpoint.mac), mac_words(&fan.bridge_mac)];
}

/// Puts the frame to the endpoint by the way that its interface allows. The way past a veth's queue starts at an
/// ingress.
#[inline(always)]
fn deliver(frame: &Frame, hook: Hook, endpoint: &EndpointRecord) -> i32 {
    if endpoint.flags & EndpointRecord::PEER != 0 && hook as u32 != Hook::HostEgress as u32 {
        return frame.redirect_peer(endpoint.ifindex);
    }
    frame.redirect(endpoint.ifindex, 0)
}

/// Into the host's stack as if it had arrived on the helper device, whose route back passes strict `rp_filter`.
#[inline(always)]
fn to_host(frame: &mut Frame) -> Result<i32, Refused> {
    let maps = frame.maps;
    let config: &Config = maps.config().ok_or(Refused)?;
    // Rule 6 of `codegen`.
    let nobody = [unknown(0); 3];
    frame.even(0)?.0 = [mac_words(&config.helper_mac), nobody];
    Ok(frame.redirect(config.helper, BPF_F_INGRESS as u64))
}
