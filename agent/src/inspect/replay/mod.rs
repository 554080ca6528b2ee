//! Packets through the real programs, without touching an interface.
//!
//! The kernel runs each packet through the compiled program (BPF_PROG_TEST_RUN) with maps of its own, so what one
//! packet teaches (a path MTU) the next one meets. Everything happens in the current network namespace: a packet's
//! `ifindex` is an interface of it. By default the command takes the one by which such a packet comes to the hook here, and the
//! engine the loopback device.
//!
//! Two things differ from a packet that arrives on a wire. The kernel takes a frame as "to this host" only when its
//! destination MAC address is the interface's own, and the loopback device's is `00:00:00:00:00:00`. And a test run
//! has no tag beside the frame: a priority tag is taken out beforehand, as receiving does; any other stays inside
//! the frame, where the programs leave it alone just the same.
//!
//! At `uplink-xdp` a packet meets XDP first, with its tag in the frame, and tc after that unless it was refused, as on an uplink.
//! XDP's test run takes place on the loopback device, with the address of the packet's `ifindex`.
//!
//! A test run takes frames of up to about 16,000 bytes. A super-packet (`gso_size`) may have 3,500; it is judged by
//! the size of its segments and shown as one packet.
//!
//! A redirection shows as an action only: the frame is as the program left it, before the kernel fills in the
//! link-layer addresses of the next hop.

mod engine;
mod input;
mod output;
mod served;

use crate::kernel::bpf;

pub use self::{
    engine::{Action, Engine, Setup, Verdict},
    input::{Packet, packets},
    output::{Capture, json_line},
    served::Served,
};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input can't be read as packets.
    #[error("{0}")]
    Input(String),
    /// One packet can't be read or run.
    #[error("packet {number}: {reason}")]
    Packet {
        /// Which one, from 1.
        number: u64,
        /// Why.
        reason: String,
    },
    /// The programs could not be loaded.
    #[error(transparent)]
    Datapath(#[from] bpf::Error),
    /// The output could not be written.
    #[error("writing the packets that came out: {0}")]
    Output(#[source] std::io::Error),
}

/// A result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;
