//! Programs as filters of the clsact queueing discipline (kernels before 6.6).
//!
//! Our filter has a fixed priority and handle, so that it is found again and replaced in place; the discipline is
//! shared with others and never removed.

use std::io;

use dataplane_common::outcome::Hook;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_nameindex;

use super::{
    Attached, Attachment, ForeignProgram, Wanted,
    error::{Context as _, Result},
    sys,
};

/// First of all filters.
const PRIORITY: u16 = 1;
/// Plus the hook's number. Unlike the handle 1 that others take: theirs at the same priority is never replaced.
const HANDLE: u32 = 0xfa10;
/// Prefix of our filters' names.
const OWNER: &str = "fanlight:";

/// A filter as the kernel lists it.
struct Filter {
    handle: u32,
    name: String,
    program_id: u32,
}

const fn parent(hook: Hook) -> TcHandle {
    let minor = match hook {
        Hook::HostEgress | Hook::EndpointEgress => TcHandle::MIN_EGRESS,
        _ => TcHandle::MIN_INGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

fn handle(hook: Hook) -> u32 {
    HANDLE + hook as u32
}

fn filter_name(hook: Hook) -> String {
    format!("{OWNER}{}", hook.name())
}

/// Attaches a program, or replaces ours that is there.
pub(super) fn attach(wanted: &Wanted<'_>, ifindex: u32, name: &str) -> Result<Attached> {
    let hook = wanted.program.hook;
    let what = || format!("attaching {} to {name}", hook.name());
    let socket = connect().during(what)?;
    let present = ours(&socket, hook, ifindex).during(what)?;
    if let Some(filter) = &present
        && sys::program_info_by_id(filter.program_id).is_ok_and(|running| wanted.is(&running))
    {
        return Ok(Attached::Unchanged);
    }
    if present.is_none() {
        add_clsact(&socket, ifindex).during(what)?;
    }
    let mut message = filter_message(hook, ifindex);
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(wanted.program.fd_number())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(filter_name(hook))),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    let exclusive = if present.is_some() { 0 } else { NLM_F_EXCL };
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    request(&socket, message, NLM_F_ACK | NLM_F_CREATE | exclusive).during(what)?;
    Ok(if present.is_some() { Attached::Replaced } else { Attached::New })
}

/// Takes our filter off an interface.
pub(super) fn detach(hook: Hook, ifindex: u32) -> Result<()> {
    let what = || format!("detaching {} from interface {ifindex}", hook.name());
    let socket = connect().during(what)?;
    if ours(&socket, hook, ifindex).during(what)?.is_none() {
        return Ok(());
    }
    let message = RouteNetlinkMessage::DelTrafficFilter(filter_message(hook, ifindex));
    request(&socket, message, NLM_F_ACK).during(what).map(drop)
}

/// Where our programs run.
pub(super) fn attachments() -> Result<Vec<Attachment>> {
    let what = || "listing tc filters".to_owned();
    let socket = connect().during(what)?;
    let mut found = Vec::new();
    for interface in &if_nameindex().during(what)? {
        let ifindex = interface.index();
        for &hook in Hook::ALL.iter().filter(|&&hook| hook != Hook::UplinkXdp) {
            if let Some(filter) = ours(&socket, hook, ifindex).during(what)? {
                found.push(Attachment { hook, ifindex, program_id: filter.program_id });
            }
        }
    }
    Ok(found)
}

/// Programs that run before ours: of the filters of one priority the latest runs first.
pub(super) fn before(ours: Attachment) -> Result<Vec<ForeignProgram>> {
    let what = || format!("listing tc filters of interface {}", ours.ifindex);
    let socket = connect().during(what)?;
    let filters = filters(&socket, ours.hook, ours.ifindex).during(what)?;
    let position = filters.iter().position(|filter| is_ours(filter, ours.hook)).unwrap_or_default();
    let before = filters.into_iter().take(position).filter(|filter| !filter.name.starts_with(OWNER));
    Ok(before.map(|filter| ForeignProgram { id: filter.program_id, name: filter.name }).collect())
}

fn ours(socket: &Socket, hook: Hook, ifindex: u32) -> io::Result<Option<Filter>> {
    Ok(filters(socket, hook, ifindex)?.into_iter().find(|filter| is_ours(filter, hook)))
}

fn is_ours(filter: &Filter, hook: Hook) -> bool {
    filter.handle == handle(hook) && filter.name == filter_name(hook)
}

/// The filters of a hook's direction, in the order in which they run.
fn filters(socket: &Socket, hook: Hook, ifindex: u32) -> io::Result<Vec<Filter>> {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = parent(hook);
    let answers = match request(socket, RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP) {
        // No clsact here, or no such interface.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV | libc::ENOENT)) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    Ok(answers.into_iter().filter_map(read_filter).collect())
}

/// `None` for the entry that stands for a priority as a whole.
fn read_filter(message: TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    let mut filter = Filter { handle, name: String::new(), program_id: 0 };
    for attribute in message.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = name,
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program_id = id,
                _ => {}
            }
        }
    }
    (handle != 0).then_some(filter)
}

fn filter_message(hook: Hook, ifindex: u32) -> TcMessage {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let header = TcHeader {
        index: ifindex as i32,
        handle: TcHandle::from(handle(hook)),
        parent: parent(hook),
        info: u32::from(PRIORITY) << 16 | u32::from(protocol),
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())])
}

fn add_clsact(socket: &Socket, ifindex: u32) -> io::Result<()> {
    let header = TcHeader {
        index: ifindex as i32,
        handle: TcHandle { major: u16::MAX, minor: 0 },
        parent: TcHandle::CLSACT,
        ..TcHeader::default()
    };
    let message = TcMessage::from_parts(header, vec![TcAttribute::Kind("clsact".to_owned())]);
    let message = RouteNetlinkMessage::NewQueueDiscipline(message);
    match request(socket, message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

pub(super) fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends one request.
pub(super) fn send(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// Sends one request and gathers the filters of its answer.
fn request(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<TcMessage>> {
    send(socket, message, flags)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if gather(&datagram, &mut found)? {
            return Ok(found);
        }
    }
}

/// Takes the messages of one datagram; whether the answer ends in it.
fn gather(mut datagram: &[u8], found: &mut Vec<TcMessage>) -> io::Result<bool> {
    while let Some(length) = datagram.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
        let Some(message) = datagram.get(..length).filter(|message| !message.is_empty()) else {
            return Err(io::Error::other("malformed netlink answer"));
        };
        // Another owner's filter that can't be parsed is not ours, and runs where it stands.
        if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) => return Ok(true),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
                    found.push(filter);
                }
                _ => {}
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}
