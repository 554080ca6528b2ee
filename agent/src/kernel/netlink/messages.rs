//! Netlink's framing: the messages of a datagram, and requests whose answer takes many of them.

use std::{cell::Cell, io, os::fd::AsFd as _, time::Duration};

use netlink_packet_core::{DecodeError, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike as _},
};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLM_F_REQUEST`, `NLM_F_DUMP` and `NLM_F_DUMP_INTR`.
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;
/// The kernel fills at most 32 KiB at once.
const BUFFER: usize = 1 << 16;
/// How long the kernel may take for a datagram of an answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How often a list is asked for that changes while it is read; the last one may lack what came meanwhile.
const ATTEMPTS: usize = 3;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Message<'d> {
    /// Its type.
    pub(in crate::kernel) kind: u16,
    flags: u16,
    sequence: u32,
    /// What follows the header.
    pub(in crate::kernel) payload: &'d [u8],
    /// All of it.
    pub(in crate::kernel) bytes: &'d [u8],
}

impl Message<'_> {
    /// Whether it carries a flag.
    pub(in crate::kernel) fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// The messages of a datagram. What follows a damaged header can't be found: it is the last item.
pub(in crate::kernel) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let buffer = match NetlinkBuffer::new_checked(rest) {
            Ok(buffer) => buffer,
            Err(error) => {
                rest = &[];
                return Some(Err(error));
            }
        };
        let length = buffer.length() as usize;
        let bytes = rest.get(..length)?;
        // Messages are aligned to four bytes.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            payload: bytes.get(HEADER..)?,
            bytes,
        }))
    })
}

/// A socket for requests, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(in crate::kernel) struct Requests {
    socket: Socket,
    sequence: Cell<u32>,
}

impl Requests {
    /// Opens a socket of a protocol; every wait on it has a time limit.
    ///
    /// # Errors
    /// The kernel gives none.
    pub(in crate::kernel) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(
            &socket.as_fd(),
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(LIMIT.as_millis() as i64),
        )?;
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// Makes the kernel apply the filters of a dump instead of ignoring those that it does not know.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(in crate::kernel) fn check_strictly(&self) -> io::Result<()> {
        self.socket.set_netlink_get_strict_chk(true)
    }

    /// Asks for a list; `take` gets each of its messages. One that changes while it is read is asked for again, after
    /// `restart`.
    ///
    /// # Errors
    /// The kernel refuses, does not answer in time, or its answer can't be read.
    pub(in crate::kernel) fn list<L: Default>(
        &self,
        kind: u16,
        payload: &[u8],
        mut take: impl FnMut(&mut L, Message<'_>) -> io::Result<()>,
    ) -> io::Result<L> {
        let mut list = L::default();
        for attempt in 1..=ATTEMPTS {
            let whole = self.ask(kind, DUMP, payload, |message| take(&mut list, message))?;
            if whole || attempt == ATTEMPTS {
                break;
            }
            list = L::default();
        }
        Ok(list)
    }

    /// Asks for one thing.
    ///
    /// # Errors
    /// The kernel refuses, which it also does where there is no such thing; or its answer can't be read.
    pub(in crate::kernel) fn one<T>(
        &self,
        kind: u16,
        payload: &[u8],
        take: impl Fn(Message<'_>) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let mut found = None;
        self.ask(kind, 0, payload, |message| {
            found = Some(take(message)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Sends a request and reads its answer; says whether that was of one moment.
    fn ask(
        &self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        mut take: impl FnMut(Message<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        self.socket.send(&request(kind, REQUEST | flags, sequence, payload), 0)?;
        let mut answer = Answer { sequence, is_list: flags & DUMP != 0, is_whole: true };
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.receive(&mut buffer)?;
            if answer.gather(&buffer, &mut take)? {
                return Ok(answer.is_whole);
            }
        }
    }

    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            match self.socket.recv(buffer, libc::MSG_TRUNC) {
                Ok(length) if length > buffer.len() => {
                    let message = format!("a netlink answer of {length} bytes was cut to {}", buffer.len());
                    return Err(io::Error::other(message));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let message = format!("the kernel did not answer a netlink request within {LIMIT:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was read of an answer.
struct Answer {
    sequence: u32,
    is_list: bool,
    /// Nothing changed meanwhile.
    is_whole: bool,
}

impl Answer {
    /// Takes the messages of a datagram; says whether the answer ends in it.
    fn gather(
        &mut self,
        datagram: &[u8],
        take: &mut impl FnMut(Message<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        for message in messages(datagram) {
            let message = message.map_err(unreadable)?;
            // What is left of an answer that was given up.
            if message.sequence != self.sequence {
                continue;
            }
            self.is_whole &= !message.is(INTERRUPTED);
            match message.kind {
                NLMSG_DONE | NLMSG_ERROR => return refusal(message.payload).map_or(Ok(true), Err),
                NLMSG_NOOP => {}
                NLMSG_OVERRUN => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                _ => take(message)?,
            }
            if !self.is_list {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The kernel's error number in the end of an answer, of a list that failed half-way too.
fn refusal(payload: &[u8]) -> Option<io::Error> {
    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

/// What a message that makes no sense is to its reader.
pub(in crate::kernel) fn unreadable(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a netlink message can't be read: {error}"))
}

fn request(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // The kernel's port.
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
pub(in crate::kernel) mod tests {
    use super::*;

    /// A message as the kernel sends it, padded for the next.
    pub(in crate::kernel) fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = request(kind, flags, sequence, payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn gather(datagram: &[u8]) -> (io::Result<bool>, Vec<Vec<u8>>, bool) {
        let mut found = Vec::new();
        let mut answer = Answer { sequence: 7, is_list: true, is_whole: true };
        let ended = answer.gather(datagram, &mut |message| {
            found.push(message.payload.to_vec());
            Ok(())
        });
        (ended, found, answer.is_whole)
    }

    #[test]
    fn an_answer_is_what_carries_its_number_up_to_its_end() {
        let datagram =
            [message(20, 2, 7, b"abcde"), message(20, 2, 6, b"old"), message(20, 2, 7, b"f")].concat();
        let (ended, found, _) = gather(&datagram);
        assert_eq!((ended.unwrap(), found), (false, vec![b"abcde".to_vec(), b"f".to_vec()]));
        let done = message(NLMSG_DONE, 2, 7, &[0; 4]);
        assert!(gather(&done).0.unwrap());
        assert!(!gather(&message(NLMSG_DONE, 2, 6, &[0; 4])).0.unwrap());
    }

    #[test]
    fn a_refusal_is_an_error_at_the_start_and_at_the_end_of_a_list() {
        let code = (-libc::EPERM).to_ne_bytes();
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let ended = gather(&message(kind, 2, 7, &code)).0;
            assert_eq!(ended.unwrap_err().raw_os_error(), Some(libc::EPERM), "{kind}");
        }
        let lost = gather(&message(NLMSG_OVERRUN, 0, 7, &[])).0;
        assert_eq!(lost.unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn a_list_that_changed_while_it_was_read_is_known() {
        assert!(!gather(&message(20, INTERRUPTED, 7, b"a")).2);
        assert!(gather(&message(20, 2, 7, b"a")).2);
    }

    #[test]
    fn a_damaged_header_is_an_error_after_what_stands_before_it() {
        let mut datagram = [message(20, 0, 7, b"abcd"), message(20, 0, 7, b"efgh")].concat();
        for length in [0, 15, 21, u32::MAX] {
            datagram[20..24].copy_from_slice(&length.to_ne_bytes());
            let found: Vec<_> = messages(&datagram).collect();
            assert_eq!(found.len(), 2, "{length}");
            assert_eq!(found[0].as_ref().unwrap().payload, b"abcd");
            assert!(found[1].is_err(), "{length}");
            assert!(gather(&datagram).0.is_err());
        }
    }

    #[test]
    fn the_kernel_answers_a_list_and_names_what_it_does_not_know() {
        let requests = Requests::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        // RTM_GETLINK with a `struct ifinfomsg`.
        let count: usize = requests
            .list(18, &[0; 16], |count, _| {
                *count += 1;
                Ok(())
            })
            .unwrap();
        assert!(count >= 1);
        let unknown = requests.one(u16::MAX, &[0; 16], |_| Ok(()));
        assert_eq!(unknown.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
