//! What rules of packet filters do to packets that are known in part: values of rules, and the way of packets through them.

mod crossing;
mod packet;
mod rule;
mod set;
mod walk;
mod ways;

pub use crossing::{Crossing, Filters, Holds, crossings, seen};
pub use packet::{Device, Field, Fit, Packet, Packets, Side, state};
pub use rule::{Action, Key, Rule, Test, Verdict};
pub use set::{Element, Set};
pub use walk::{Base, Dropped, ENOUGH, Table, dropped, filtered, translated};
pub use ways::{Findings, Hook, Kind, Owner, Way, at, bridged, ways, xtables};
