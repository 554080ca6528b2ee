//! Tells when somebody takes rules, chains or tables out of the packet filter.

use std::io;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};

/// Bit of the multicast group `NFNLGRP_NFTABLES` (7) in an address.
const GROUP: u32 = 1 << 6;
/// Upper byte of a message's type: `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
/// Lower bytes: `NFT_MSG_NEWCHAIN` (a foreign chain may drop what we forward) and `NFT_MSG_DELTABLE`, `..DELCHAIN`,
/// `..DELRULE`. Elements of sets, which some tools change all the time, don't matter.
const RELEVANT: [u8; 4] = [3, 2, 5, 8];
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A subscription in the network namespace of the thread that opened it.
pub struct NftWatch(TokioSocket);

impl NftWatch {
    /// Subscribes.
    ///
    /// # Errors
    /// The kernel has no nftables, or gives no socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUP))?;
        Ok(Self(socket))
    }

    /// Waits for a change that may concern us. Dropping the future loses none.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match self.0.recv_from_full().await {
                Ok((datagram, _)) if is_relevant(&datagram) => return Ok(()),
                Ok(_) => {}
                // Messages were lost: they may have been relevant.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether any message of the datagram is one of [`RELEVANT`].
fn is_relevant(mut datagram: &[u8]) -> bool {
    while let Some(&[a, b, c, d, kind, subsystem, ..]) = datagram.get(..HEADER) {
        if subsystem == NFTABLES && RELEVANT.contains(&kind) {
            return true;
        }
        let length = (u32::from_ne_bytes([a, b, c, d]) as usize).max(HEADER).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, payload: usize) -> Vec<u8> {
        let length = HEADER + payload;
        let mut bytes = vec![0; length.next_multiple_of(4)];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&[kind, NFTABLES]);
        bytes
    }

    #[test]
    fn a_deleted_table_is_relevant_wherever_it_stands_in_the_datagram() {
        assert!(is_relevant(&message(2, 0)));
        assert!(is_relevant(&[message(12, 5), message(2, 8)].concat()));
    }

    #[test]
    fn set_elements_and_garbage_are_not_relevant() {
        assert!(!is_relevant(&message(12, 20)));
        assert!(!is_relevant(&[]));
        assert!(!is_relevant(&[2; 9]));
        let mut zero_length = message(12, 0);
        zero_length[..4].fill(0);
        assert!(!is_relevant(&zero_length));
    }
}
