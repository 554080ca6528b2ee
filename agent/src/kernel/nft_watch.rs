//! Tells when somebody changes the packet filter.

use std::io;

use futures_util::FutureExt as _;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};

use super::netlink::messages::messages;

/// Bit of the multicast group `NFNLGRP_NFTABLES` (7) in an address.
const GROUP: u32 = 1 << 6;
/// Upper byte of a message's type: `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
/// What takes rules away, or brings chains: lower bytes `NFT_MSG_NEWCHAIN` (a foreign chain may drop what we forward) and
/// `NFT_MSG_DELTABLE`, `..DELCHAIN`, `..DELRULE`. Elements of sets, which some tools change all the time, don't matter.
pub const TAKEN: &[u8] = &[3, 2, 5, 8];
/// All that changes what becomes of a packet: these, `NFT_MSG_NEWRULE`, `..NEWSETELEM` and `..DELSETELEM`.
pub const ANY: &[u8] = &[3, 2, 5, 8, 6, 12, 14];

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something of [`TAKEN`].
    Taken,
    /// Something else.
    Other,
}

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

    /// Waits for a change that may concern us, and says whether something was taken away. Dropping the future loses none.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn changed(&mut self) -> io::Result<Change> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) if is_relevant(&datagram, TAKEN) => return Ok(Change::Taken),
                Ok((datagram, _)) if is_relevant(&datagram, self.relevant) => return Ok(Change::Other),
                Ok(_) => {}
                // Messages were lost: they may have been relevant.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Change::Taken),
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

/// Whether any message of the datagram is of one of these types, or can't be read: it may have been.
fn is_relevant(datagram: &[u8], relevant: &[u8]) -> bool {
    messages(datagram).any(|message| {
        message.is_err()
            || message.is_ok_and(|message| {
                let [subsystem, kind] = message.kind.to_be_bytes();
                subsystem == NFTABLES && relevant.contains(&kind)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::messages::tests;

    fn message(kind: u8, payload: usize) -> Vec<u8> {
        tests::message(u16::from_be_bytes([NFTABLES, kind]), 0, 0, &vec![0; payload])
    }

    #[test]
    fn a_deleted_table_is_relevant_wherever_it_stands_in_the_datagram() {
        assert!(is_relevant(&message(2, 0), TAKEN));
        assert!(is_relevant(&[message(12, 5), message(2, 8)].concat(), TAKEN));
    }

    #[test]
    fn set_elements_are_relevant_only_to_who_asks_for_them() {
        assert!(is_relevant(&message(12, 20), ANY));
        assert!(!is_relevant(&message(12, 20), TAKEN));
        assert!(!is_relevant(&[], TAKEN));
    }

    #[test]
    fn what_cannot_be_read_may_have_been_relevant() {
        assert!(is_relevant(&[2; 9], TAKEN));
        let mut zero_length = [message(12, 0), message(12, 0)].concat();
        zero_length[16..20].fill(0);
        assert!(is_relevant(&zero_length, TAKEN));
    }
}
