//! Messages and their bytes. The format is `netgauze-bgp-pkt`'s; UPDATEs that arrive are counted alone ([`received`]).
//!
//! [`received`]: super::received

use ipnet::IpNet;
use netgauze_bgp_pkt::{
    BgpMessage,
    iana::BgpMessageType,
    notification::{BgpNotificationMessage, CeaseError, MessageHeaderError},
    open::BgpOpenMessage,
    route_refresh::BgpRouteRefreshMessage,
    wire::deserializer::BgpParsingContext,
};
use netgauze_parse_utils::{WritablePdu as _, reader::SliceReader, traits::ParseFromWithOneInput as _};

use super::received;

/// Bytes of a message at most: longer ones are not offered (RFC 8654).
pub(super) const MAX_MESSAGE: usize = 4_096;
const HEADER: usize = 19;
/// Bytes of a text at most (RFC 9003).
const MAX_TEXT: usize = 255;

/// What can't be written. The configuration refuses all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("{0} is no unicast prefix")]
    Prefix(IpNet),
    #[error("an attribute: {0}")]
    Attribute(String),
    #[error("a message: {0}")]
    Message(String),
}

/// A message's bytes.
pub(super) fn encode(message: &BgpMessage) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(message.len());
    message.write(&mut bytes).map_err(|why| EncodeError::Message(why.to_string()))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(EncodeError::Message(format!("{} bytes, more than {MAX_MESSAGE}", bytes.len())));
    }
    Ok(bytes)
}

/// A message that arrived.
#[derive(Debug)]
pub(super) enum Arrived {
    Open(BgpOpenMessage),
    /// So many prefixes were announced.
    Update(u64),
    /// Why the peer ends the session, in words.
    Notification(String),
    KeepAlive,
    RouteRefresh(BgpRouteRefreshMessage),
}

/// Takes the first message out of what has arrived; none as long as it is not whole.
///
/// # Errors
/// It is none: what the peer is to be told.
pub(super) fn take(input: &mut Vec<u8>) -> Result<Option<Arrived>, BgpNotificationMessage> {
    let marker = &input[..input.len().min(16)];
    if marker.iter().any(|byte| *byte != 0xff) {
        let value = Box::default();
        return Err(BgpNotificationMessage::MessageHeaderError(
            MessageHeaderError::ConnectionNotSynchronized { value },
        ));
    }
    let Some(&[high, low, kind]) = input.get(16..HEADER) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(HEADER..=MAX_MESSAGE).contains(&length) {
        return Err(bad_length([high, low]));
    }
    let Ok(kind) = BgpMessageType::try_from(kind) else {
        let value = Box::new([kind]);
        return Err(BgpNotificationMessage::MessageHeaderError(MessageHeaderError::BadMessageType { value }));
    };
    if input.len() < length {
        return Ok(None);
    }
    let message: Vec<u8> = input.drain(..length).collect();
    parse(kind, &message).map(Some)
}

fn bad_length(length: [u8; 2]) -> BgpNotificationMessage {
    BgpNotificationMessage::MessageHeaderError(MessageHeaderError::BadMessageLength {
        value: Box::new(length),
    })
}

fn parse(kind: BgpMessageType, message: &[u8]) -> Result<Arrived, BgpNotificationMessage> {
    match kind {
        BgpMessageType::Update => {
            return received::count(&message[HEADER..])
                .map(Arrived::Update)
                .map_err(BgpNotificationMessage::UpdateMessageError);
        }
        // Whatever it says, it ends the session.
        BgpMessageType::Notification => return Ok(Arrived::Notification(told(&message[HEADER..]))),
        BgpMessageType::KeepAlive if message.len() != HEADER => {
            return Err(bad_length([message[16], message[17]]));
        }
        BgpMessageType::Open | BgpMessageType::KeepAlive | BgpMessageType::RouteRefresh => {}
    }
    // Capabilities that can't be read are none (RFC 5492).
    let mut context =
        BgpParsingContext::new(true, Default::default(), Default::default(), true, true, false, true);
    match BgpMessage::parse(&mut SliceReader::new(message), &mut context)? {
        BgpMessage::Open(open) => Ok(Arrived::Open(open)),
        BgpMessage::RouteRefresh(refresh) => Ok(Arrived::RouteRefresh(refresh)),
        BgpMessage::KeepAlive | BgpMessage::Update(_) | BgpMessage::Notification(_) => Ok(Arrived::KeepAlive),
    }
}

/// A NOTIFICATION in words: code, subcode and what the peer wrote with it.
fn told(body: &[u8]) -> String {
    let (code, sub_code) = (body.first().copied().unwrap_or(0), body.get(1).copied().unwrap_or(0));
    let data = body.get(2..).unwrap_or_default();
    let words = words(code, sub_code);
    match shutdown_text(code, sub_code, data) {
        Some(text) => format!("the peer ended the session: {words}: {text}"),
        None => format!("the peer ended the session: {words}"),
    }
}

/// What an operator wrote with a shutdown or reset (RFC 9003), without control characters.
pub fn shutdown_text(code: u8, sub_code: u8, data: &[u8]) -> Option<String> {
    let (length, text) = data.split_first().filter(|_| code == 6 && matches!(sub_code, 2 | 4))?;
    let text = text.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
    Some(String::from_utf8_lossy(text).chars().filter(|letter| !letter.is_control()).collect())
}

/// The data of a shutdown with a text.
pub(super) fn shutdown(text: &str) -> BgpNotificationMessage {
    let end = text
        .char_indices()
        .map(|(at, letter)| at + letter.len_utf8())
        .take_while(|end| *end <= MAX_TEXT)
        .last();
    let text = &text.as_bytes()[..end.unwrap_or(0)];
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let value = std::iter::once(length).chain(text.iter().copied()).collect();
    BgpNotificationMessage::CeaseError(CeaseError::AdministrativeShutdown { value })
}

/// Names of errors (RFC 4271 section 4.5, RFC 4486, RFC 7313, RFC 9687).
fn words(code: u8, sub_code: u8) -> String {
    let name = match (code, sub_code) {
        (1, _) => "message header error",
        (2, 1) => "unsupported version",
        (2, 2) => "bad peer AS",
        (2, 3) => "bad BGP identifier",
        (2, 6) => "unacceptable hold time",
        (2, 7) => "unsupported capability",
        (2, _) => "OPEN message error",
        (3, _) => "UPDATE message error",
        (4, _) => "hold timer expired",
        (5, _) => "finite state machine error",
        (6, 1) => "maximum number of prefixes reached",
        (6, 2) => "administrative shutdown",
        (6, 3) => "peer de-configured",
        (6, 4) => "administrative reset",
        (6, 5) => "connection rejected",
        (6, 6) => "other configuration change",
        (6, 7) => "connection collision",
        (6, 8) => "out of resources",
        (6, _) => "cease",
        (7, _) => "ROUTE-REFRESH message error",
        (8, _) => "send hold timer expired",
        _ => "unknown error",
    };
    format!("{name} ({code}/{sub_code})")
}

/// A notification of ours in the same words.
pub(super) fn named(notification: &BgpNotificationMessage) -> String {
    let bytes = encode(&BgpMessage::Notification(notification.clone())).unwrap_or_default();
    words(bytes.get(HEADER).copied().unwrap_or(0), bytes.get(HEADER + 1).copied().unwrap_or(0))
}
