//! What the cluster's logs say, as typed records, and all logs brought together.
//!
//! | record | key | who writes it | of several |
//! |---|---|---|---|
//! | definition | service | any node | the latest stamp holds |
//! | backend | service, address | the node that contributes it | all hold |
//! | drain mark | service, address | any node | the latest stamp holds |
//! | facts | | the node | one |
//! | forgotten | node | any other node | the latest stamp holds |
//! | user key | key | any node | the latest stamp holds |
//! | claim | service, file | the node whose file it is | all hold |
//! | verdict | service, address | the node that checks it | all hold |
//! | standing | group of announcements | the node that is in it | one |
//! | group mark | group of announcements | any node | the latest stamp holds |
//!
//! A log keeps and passes on what it does not know, so that nodes of two versions live in one cluster: a kind that is
//! unknown is no record of the view, and so is a value in a format that is unknown. A value may grow at its end.

mod added;
mod groups;
mod key;
mod mark;
mod owner;
mod provenance;
mod record;
mod register;
mod request;
mod service;
mod standing;
mod tidy;
mod user;
mod value;
mod verdict;
mod view;
mod watch;

pub use self::{
    groups::Group,
    key::RecordKey,
    mark::{forget, owned, taken_over},
    owner::{checkers, owner_of},
    provenance::{APPLIED, Conflict, Said, claimed, conflict, offered, overruled, state},
    record::{Record, puts},
    register::Found,
    request::{Former, RequestError, adopt, apply, drain, offer, remove, withdraw},
    service::{Offer, Parts},
    standing::standings,
    tidy::{Tidy, ended},
    user::{MAX_USER_BYTES, MAX_USER_KEY, MAX_USER_VALUE, UserError, delete, put},
    value::{BackendRecord, Claim, Definition, Facts, Forgotten, Standing, Verdict},
    verdict::verdicts,
    view::{Touched, UserValue, View},
    watch::{Event, Watcher},
};

#[cfg(test)]
mod tests;
