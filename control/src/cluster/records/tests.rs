//! Nodes that write records, and what all of them make of it.

mod nodes;
mod requests;
mod returned;
mod services;
mod users;
mod whole;
