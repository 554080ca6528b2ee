//! How messages of SWIM are written: postcard, with the receiver as 64 bits. The sender stands in the envelope.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message};
use serde::{Deserialize, Serialize};

use super::{swim, table::Update};
use crate::cluster::{identity::Identity, wire};

/// Updates that one message carries at most: no datagram has room for more.
const MAX_UPDATES: u16 = 256;

/// The head of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SwimHeader {
    /// The sender's incarnation.
    pub(super) incarnation: u16,
    /// The digest of the receiver's identity.
    pub(super) to: u64,
    pub(super) kind: Kind,
}

/// The messages of a probe, straight and by way of others, and gossip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Ping(u8),
    Ack(u8),
    PingReq(Identity, u8),
    IndirectPing(Identity, u8),
    IndirectAck(Identity, u8),
    ForwardedAck(Identity, u8),
    Gossip,
    /// The receiver is down for the sender. It does not leave the node: the greeting's answers say so.
    Down,
}

/// What foca reads back: the sender and the receiver, then the head.
type Received = (Identity, Identity, SwimHeader);

/// A head as foca takes it.
pub(super) fn received(sender: &Identity, own: &Identity, header: &SwimHeader) -> Option<Vec<u8>> {
    postcard::to_allocvec(&(sender, own, header)).ok()
}

/// A message with its updates.
pub(super) fn written(header: &SwimHeader, updates: &[Update]) -> Option<Vec<u8>> {
    let mut data = postcard::to_allocvec(header).ok()?;
    data.extend_from_slice(&u16::try_from(updates.len()).ok()?.to_be_bytes());
    for update in updates {
        data = postcard::to_extend(update, data).ok()?;
    }
    Some(data)
}

/// Reads a message: its head and its updates.
pub(super) fn read(data: &[u8]) -> Option<(SwimHeader, Vec<Update>)> {
    let (header, rest) = postcard::take_from_bytes::<SwimHeader>(data).ok()?;
    let Some((count, mut rest)) = rest.split_first_chunk::<2>() else { return Some((header, Vec::new())) };
    let count = u16::from_be_bytes(*count);
    if count > MAX_UPDATES {
        return None;
    }
    let mut updates = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (update, after) = postcard::take_from_bytes::<Update>(rest).ok()?;
        updates.push(update);
        rest = after;
    }
    Some((header, updates))
}

/// Whether a message answers one that named its sender by the digest.
pub(super) fn answers(message: &wire::Message<'_>) -> bool {
    let wire::Message::Swim(data) = message else { return false };
    let kind = head(data).map(|head| head.kind);
    matches!(kind, Some(Kind::Ack(_) | Kind::IndirectAck(..) | Kind::ForwardedAck(..)))
}

/// The head of a message that foca wrote.
pub(super) fn head(data: &[u8]) -> Option<SwimHeader> {
    postcard::take_from_bytes(data).ok().map(|(header, _)| header)
}

pub(super) struct SwimCodec;

#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error("no room")]
    NoRoom,
    #[error("malformed")]
    Malformed,
}

fn write(value: &impl Serialize, mut buffer: impl BufMut) -> Result<(), CodecError> {
    let mut place = [0; 256];
    let written = postcard::to_slice(value, &mut place).ok().ok_or(CodecError::NoRoom)?;
    if written.len() > buffer.remaining_mut() {
        return Err(CodecError::NoRoom);
    }
    buffer.put_slice(written);
    Ok(())
}

fn kind(message: &Message<Identity>) -> Kind {
    match message.clone() {
        Message::Ping(number) => Kind::Ping(number),
        Message::Ack(number) => Kind::Ack(number),
        Message::PingReq { target, probe_number } => Kind::PingReq(target, probe_number),
        Message::IndirectPing { origin, probe_number } => Kind::IndirectPing(origin, probe_number),
        Message::IndirectAck { target, probe_number } => Kind::IndirectAck(target, probe_number),
        Message::ForwardedAck { origin, probe_number } => Kind::ForwardedAck(origin, probe_number),
        // Announcements, feeds and broadcasts are not in use.
        Message::Gossip | Message::Announce | Message::Feed | Message::Broadcast => Kind::Gossip,
        Message::TurnUndead => Kind::Down,
    }
}

fn message(kind: Kind) -> Result<Message<Identity>, CodecError> {
    Ok(match kind {
        Kind::Ping(number) => Message::Ping(number),
        Kind::Ack(number) => Message::Ack(number),
        Kind::PingReq(target, probe_number) => Message::PingReq { target, probe_number },
        Kind::IndirectPing(origin, probe_number) => Message::IndirectPing { origin, probe_number },
        Kind::IndirectAck(target, probe_number) => Message::IndirectAck { target, probe_number },
        Kind::ForwardedAck(origin, probe_number) => Message::ForwardedAck { origin, probe_number },
        Kind::Gossip => Message::Gossip,
        Kind::Down => return Err(CodecError::Malformed),
    })
}

impl Codec<Identity> for SwimCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buffer: impl BufMut) -> Result<(), CodecError> {
        let head = SwimHeader {
            incarnation: header.src_incarnation,
            to: header.dst.digest(),
            kind: kind(&header.message),
        };
        write(&head, buffer)
    }

    fn decode_header(&mut self, mut buffer: impl Buf) -> Result<Header<Identity>, CodecError> {
        let data = buffer.chunk();
        let ((src, dst, head), rest) =
            postcard::take_from_bytes::<Received>(data).ok().ok_or(CodecError::Malformed)?;
        let read = data.len() - rest.len();
        buffer.advance(read);
        Ok(Header { src, src_incarnation: head.incarnation, dst, message: message(head.kind)? })
    }

    fn encode_member(&mut self, member: &Member<Identity>, buffer: impl BufMut) -> Result<(), CodecError> {
        write(&swim::update(member), buffer)
    }

    fn decode_member(&mut self, mut buffer: impl Buf) -> Result<Member<Identity>, CodecError> {
        let data = buffer.chunk();
        let (update, rest) = postcard::take_from_bytes::<Update>(data).ok().ok_or(CodecError::Malformed)?;
        let read = data.len() - rest.len();
        buffer.advance(read);
        Ok(swim::member(&update))
    }
}
