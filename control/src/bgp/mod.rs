//! A BGP speaker that announces and accepts nothing (RFC 4271): one [`Session`] a peer.
//!
//! A session takes what TCP says (opened, bytes, closed), the routes that its peer is to have, and the time; it gives
//! [`Action`]s and the time of its next one. The Adj-RIB-Out lives in the session and goes with its connection: what a
//! peer has is never remembered beside the connection that it was sent on.
//!
//! ```text
//!   Idle/Active --time--> Connect --open--> OpenSent --OPEN--> OpenConfirm --KEEPALIVE--> Established
//!       ^                    |                  |                   |                          |
//!       +---- back-off ------+------------------+-------------------+      at once <-----------+
//! ```
//!
//! What peers send is bounded: a message has at most 4,096 bytes, an UPDATE is counted and forgotten, and anything that
//! is no BGP ends the connection with a NOTIFICATION. Times are the caller's, from any start.

mod community;
mod connection;
mod message;
mod open;
mod received;
mod rib;
mod route;
mod session;
mod update;
mod values;

pub use self::{
    community::{Community, CommunityError, ExtendedCommunity, LargeCommunity},
    message::shutdown_text,
    rib::Advertised,
    route::{Attributes, Family, NextHop, Route, Routes},
    session::{Action, Link, Session, Status, Stop},
    values::{Counts, Local, Peer, State, Ttl},
};

#[cfg(test)]
mod tests;
