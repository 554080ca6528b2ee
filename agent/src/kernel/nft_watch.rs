//! Tells when somebody changes the packet filter.

use std::io;

use futures_util::FutureExt as _;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};

/// Bit of the multicast group `NFNLGRP_NFTABLES` (7) in an address.
const GROUP: u32 = 1 << 6;
/// Upper byte of a message's type: `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
/// What takes rules away, or brings chains: lower bytes `NFT_MSG_NEWCHAIN` (a foreign chain may drop what we forward) and
/// `NFT_MSG_DELTABLE`, `..DELCHAIN`, `..DELRULE`. Elements of sets, which some tools change all the time, don't matter.
pub const TAKEN: &[u8] = &[3, 2, 5, 8];
/// All that changes what becomes of a packet: these, `NFT_MSG_NEWRULE`, `..NEWSETELEM` and `..DELSETELEM`.
pub const ANY: &[u8] = &[3, 2, 5, 8, 6, 12, 14];
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A subscription in the network namespace of the thread that opened it.
pub struct NftWatch {
    socket: TokioSocket,
    relevant: &'static [u8],
}

impl NftWatch {
    /// Subscribes to messages of these types.
    ///
    /// # Errors
    /// The kernel has no nftables, or gives no socket.
    pub fn open(relevant: &'static [u8]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUP))?;
        Ok(Self { socket, relevant })
    }

    /// Waits for a change that may concern us. Dropping the future loses none.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) if is_relevant(&datagram, self.relevant) => return Ok(()),
                Ok(_) => {}
                // Messages were lost: they may have been relevant.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Forgets changes that have been told of by now.
    ///
    /// # Errors
    /// The socket broke.
    pub fn forget(&mut self) -> io::Result<()> {
        while let Some(changed) = self.changed().now_or_never() {
            changed?;
        }
        Ok(())
    }
}

/// Whether any message of the datagram is of one of these types.
fn is_relevant(mut datagram: &[u8], relevant: &[u8]) -> bool {
    while let Some(&[a, b, c, d, kind, subsystem, ..]) = datagram.get(..HEADER) {
        if subsystem == NFTABLES && relevant.contains(&kind) {
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
        assert!(is_relevant(&message(2, 0), TAKEN));
        assert!(is_relevant(&[message(12, 5), message(2, 8)].concat(), TAKEN));
    }

    #[test]
    fn set_elements_are_relevant_only_to_who_asks_for_them_and_garbage_to_nobody() {
        assert!(is_relevant(&message(12, 20), ANY));
        assert!(!is_relevant(&message(12, 20), TAKEN));
        assert!(!is_relevant(&[], TAKEN));
        assert!(!is_relevant(&[2; 9], TAKEN));
        let mut zero_length = message(12, 0);
        zero_length[..4].fill(0);
        assert!(!is_relevant(&zero_length, TAKEN));
    }
}
