//! What this node announces: from announcements as they are configured and the state of what they stand for to the routes
//! of each peer. One function of values: nothing of what was announced before goes in.

mod decide;
mod spec;
mod table;
mod takeover;

pub use self::{
    decide::{
        Condition, Decided, Decision, Facts, Health, Life, ServiceFact, decide, graceful, routes, table,
    },
    spec::{Announcement, Checking, Fallback, Group, Hooks, Look, OnTable, Via, What, When},
    table::{Placement, TableOp, TableRoute, Tables, table_ops},
    takeover::{Away, Member, Members, Taken, Takeover},
};

#[cfg(test)]
mod tests;
