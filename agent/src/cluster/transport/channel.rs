//! A stream between two members: a preamble, a handshake where there are keys, then messages in records.
//!
//! The preamble is a version (1 byte) and the id of a key (4 bytes), zeros without keys. With keys follow the two messages of
//! Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s (Noise revision 34, section 9) over the preamble and the cluster's name as prologue;
//! without, the length of the name (1 byte) and the name, which the other side returns. A record is a length (2 bytes, big
//! endian) and as many bytes, sealed where there are keys. The first record of a message holds its kind (1 byte) and length (4
//! bytes), further ones its bytes.

use std::{io, sync::Arc};

use control::cluster::keyring::Keyring;
use snow::{Builder, HandshakeState, TransportState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const VERSION: u8 = 1;
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Bytes of either handshake message: a public key and a tag.
const HANDSHAKE: usize = 48;
const TAG: usize = 16;
/// Most plain bytes of a record.
const RECORD: usize = u16::MAX as usize - TAG;
/// Bytes of a message's head.
const HEAD: usize = 5;

/// What both sides must have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) cluster: Arc<str>,
    pub(super) ring: Option<Arc<Keyring>>,
}

/// A message: which protocol it is of, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) bytes: Vec<u8>,
}

/// An established stream.
pub(super) struct Channel<S> {
    stream: S,
    noise: Option<Box<TransportState>>,
}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn noise_failed(error: snow::Error) -> io::Error {
    refused(format!("handshake: {error}"))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// The side that has connected.
    ///
    /// # Errors
    /// The connection breaks, or the other side has other keys or another cluster's name.
    pub(super) async fn open(mut stream: S, common: &Common) -> io::Result<Self> {
        let Some((id, secret)) = common.ring.as_ref().and_then(|ring| ring.stream_key()) else {
            let name = common.cluster.as_bytes();
            let hello = [&preamble([0; 4])[..], &[name.len() as u8], name].concat();
            stream.write_all(&hello).await?;
            let mut answer = vec![0; hello.len()];
            stream.read_exact(&mut answer).await?;
            return if answer == hello {
                Ok(Self { stream, noise: None })
            } else {
                Err(refused("another cluster"))
            };
        };
        let preamble = preamble(id);
        let prologue = prologue(&preamble, common);
        let mut noise = builder(&secret, &prologue)?.build_initiator().map_err(noise_failed)?;
        let mut message = [0; HANDSHAKE];
        let length = noise.write_message(&[], &mut message).map_err(noise_failed)?;
        stream.write_all(&[&preamble[..], &message[..length]].concat()).await?;
        read_handshake(&mut stream, &mut noise).await?;
        let noise = noise.into_transport_mode().map_err(noise_failed)?;
        Ok(Self { stream, noise: Some(Box::new(noise)) })
    }

    /// The side that was connected to. It says nothing before the other one has shown that it has a key.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(super) async fn accept(mut stream: S, common: &Common) -> io::Result<Self> {
        let mut start = [0; 5];
        stream.read_exact(&mut start).await?;
        let [version, id @ ..] = start;
        if version != VERSION {
            return Err(refused("another version"));
        }
        let Some(ring) = &common.ring else {
            let name = common.cluster.as_bytes();
            let mut other = vec![0; name.len() + 1];
            stream.read_exact(&mut other).await?;
            if id != [0; 4] || usize::from(other[0]) != name.len() || other[1..] != *name {
                return Err(refused("keys, or another cluster"));
            }
            stream.write_all(&[&start[..], &other].concat()).await?;
            return Ok(Self { stream, noise: None });
        };
        let secret = ring.stream_key_of(id).ok_or_else(|| refused("an unknown key"))?;
        let prologue = prologue(&start, common);
        let mut noise = builder(&secret, &prologue)?.build_responder().map_err(noise_failed)?;
        read_handshake(&mut stream, &mut noise).await?;
        let mut message = [0; HANDSHAKE];
        let length = noise.write_message(&[], &mut message).map_err(noise_failed)?;
        stream.write_all(&message[..length]).await?;
        let noise = noise.into_transport_mode().map_err(noise_failed)?;
        Ok(Self { stream, noise: Some(Box::new(noise)) })
    }

    /// # Errors
    /// The connection breaks, or the message has 4 GiB.
    pub(super) async fn send(&mut self, message: &Message) -> io::Result<()> {
        let length = u32::try_from(message.bytes.len()).map_err(|_long| refused("a message of 4 GiB"))?;
        let mut head = [message.kind; HEAD];
        head[1..].copy_from_slice(&length.to_be_bytes());
        self.send_record(&head).await?;
        for part in message.bytes.chunks(RECORD) {
            self.send_record(part).await?;
        }
        self.stream.flush().await
    }

    /// # Errors
    /// The connection breaks, or what comes is altered, malformed or longer than `limit`.
    pub(super) async fn receive(&mut self, limit: usize) -> io::Result<Message> {
        let head = self.receive_record().await?;
        let [kind, length @ ..] =
            <[u8; HEAD]>::try_from(head).map_err(|_other| refused("no head of a message"))?;
        let length = u32::from_be_bytes(length) as usize;
        if length > limit {
            return Err(refused(format!("a message of {length} bytes, where {limit} is the limit")));
        }
        // Room is made for what has come, not for what was announced.
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let record = self.receive_record().await?;
            if record.is_empty() || bytes.len() + record.len() > length {
                return Err(refused("records that are no message"));
            }
            bytes.extend_from_slice(&record);
        }
        Ok(Message { kind, bytes })
    }

    /// Says that nothing more is sent, once all has left.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    async fn send_record(&mut self, plain: &[u8]) -> io::Result<()> {
        let mut record = vec![0; 2 + plain.len() + TAG];
        let length = match &mut self.noise {
            Some(noise) => noise.write_message(plain, &mut record[2..]).map_err(noise_failed)?,
            None => {
                record[2..2 + plain.len()].copy_from_slice(plain);
                plain.len()
            }
        };
        record[..2].copy_from_slice(&(length as u16).to_be_bytes());
        self.stream.write_all(&record[..2 + length]).await
    }

    async fn receive_record(&mut self) -> io::Result<Vec<u8>> {
        let length = self.stream.read_u16().await?;
        let mut record = vec![0; usize::from(length)];
        self.stream.read_exact(&mut record).await?;
        let Some(noise) = &mut self.noise else { return Ok(record) };
        let mut plain = vec![0; record.len()];
        let length =
            noise.read_message(&record, &mut plain).map_err(|_altered| refused("an altered record"))?;
        plain.truncate(length);
        Ok(plain)
    }
}

fn preamble(id: [u8; 4]) -> [u8; 5] {
    [VERSION, id[0], id[1], id[2], id[3]]
}

fn prologue(preamble: &[u8; 5], common: &Common) -> Vec<u8> {
    [&preamble[..], common.cluster.as_bytes()].concat()
}

fn builder<'b>(secret: &'b [u8; 32], prologue: &'b [u8]) -> io::Result<Builder<'b>> {
    let pattern = PATTERN.parse().map_err(noise_failed)?;
    Builder::new(pattern).psk(0, secret).and_then(|builder| builder.prologue(prologue)).map_err(noise_failed)
}

async fn read_handshake(stream: &mut (impl AsyncRead + Unpin), noise: &mut HandshakeState) -> io::Result<()> {
    let mut message = [0; HANDSHAKE];
    stream.read_exact(&mut message).await?;
    noise.read_message(&message, &mut [0; HANDSHAKE]).map(|_empty| ()).map_err(noise_failed)
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// Bytes that are on their way at most.
    const ROOM: usize = 1 << 16;

    fn common(cluster: &str, letters: &str) -> Common {
        let lines: Vec<String> =
            letters.chars().map(|letter| format!("{}=", letter.to_string().repeat(43))).collect();
        let ring = (!lines.is_empty()).then(|| Arc::new(Keyring::parse(&lines.join("\n")).unwrap()));
        Common { cluster: cluster.into(), ring }
    }

    async fn channels(
        one: &Common,
        other: &Common,
    ) -> (io::Result<Channel<DuplexStream>>, io::Result<Channel<DuplexStream>>) {
        let (opened, accepted) = duplex(ROOM);
        // A refusal ends the connection, and with it the other side's wait.
        tokio::join!(Channel::open(opened, one), Channel::accept(accepted, other))
    }

    #[tokio::test]
    async fn messages_of_any_length_come_as_they_were_sent() {
        for letters in ["A", ""] {
            let common = common("prod", letters);
            let (one, other) = channels(&common, &common).await;
            let (mut one, mut other) = (one.unwrap(), other.unwrap());
            for length in [0, 1, RECORD, RECORD + 1, 300_000] {
                let message = Message { kind: 7, bytes: (0..length).map(|at| at as u8).collect() };
                let (sent, received) = tokio::join!(one.send(&message), other.receive(length));
                sent.unwrap();
                assert_eq!(received.unwrap(), message);
            }
            let long = Message { kind: 1, bytes: vec![0; 11] };
            one.send(&long).await.unwrap();
            assert!(
                other.receive(10).await.unwrap_err().to_string().contains("11 bytes, where 10 is the limit")
            );
        }
    }

    #[tokio::test]
    async fn a_key_that_the_other_side_knows_opens_a_stream_and_no_other_does() {
        let of = common;
        for (one, other, fits) in [
            (of("prod", "A"), of("prod", "QA"), true),
            (of("prod", "QA"), of("prod", "A"), false),
            (of("prod", "A"), of("test", "A"), false),
            (of("prod", "A"), of("prod", ""), false),
            (of("prod", ""), of("prod", "A"), false),
            (of("prod", ""), of("test", ""), false),
        ] {
            let (opened, accepted) = channels(&one, &other).await;
            assert_eq!((opened.is_ok(), accepted.is_ok()), (fits, fits), "{one:?} {other:?}");
        }
    }

    #[tokio::test]
    async fn a_client_without_a_key_hears_nothing() {
        let (mut client, accepted) = duplex(ROOM);
        let accept =
            tokio::spawn(async move { Channel::accept(accepted, &common("prod", "A")).await.map(|_| ()) });
        let (id, _) = common("prod", "A").ring.unwrap().stream_key().unwrap();
        client.write_all(&[&preamble(id)[..], &[1; HANDSHAKE]].concat()).await.unwrap();
        assert!(accept.await.unwrap().is_err());
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [0; 0]);
    }

    #[tokio::test]
    async fn an_altered_record_ends_the_stream() {
        let common = common("prod", "A");
        let (one, other) = channels(&common, &common).await;
        let (mut one, mut other) = (one.unwrap(), other.unwrap());
        one.stream.write_all(&[0, 21]).await.unwrap();
        one.stream.write_all(&[9; 21]).await.unwrap();
        assert_eq!(other.receive(100).await.unwrap_err().to_string(), "an altered record");
    }
}
