//! What is to be seen of a node and of single packets; nothing here changes anything.

pub mod explain;
pub mod flow;
pub mod monitor;
pub mod replay;
pub mod shadow;
pub mod status;
