//! Health checks: what a check is ([`Check`]), what its results make of a target ([`Machine`]), and when each of many checks
//! is due ([`Schedule`]).
//!
//! Nothing here knows what is checked: a target is a backend of a service or what an announcement stands for. Results and
//! times come in; checks that are due, changes of state and the next deadline go out.

mod expect;
mod machine;
mod schedule;
mod spec;
mod spread;

pub use self::{
    expect::{Expect, ExpectError},
    machine::{Machine, State},
    schedule::{Due, Run, Schedule, Step},
    spec::{Check, Checking, Http, OnDown, Probe, Tls},
};

#[cfg(test)]
mod tests;
