//! Requests that are not fulfilled: a status, and why.

use std::fmt;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{cluster::ServiceRefusal, sources::config::Problem};

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    problems: Vec<Problem>,
}

/// The body of a refusal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Body {
    /// At least one.
    pub(super) errors: Vec<Problem>,
}

impl Refusal {
    /// What was sent is wrong.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, problems }
    }

    /// What it is about is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// It contradicts what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// What was sent contradicts what is there.
    pub fn conflicts(problems: Vec<Problem>) -> Self {
        Self { status: StatusCode::CONFLICT, problems }
    }

    /// It can't be done now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The agent could not do it.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, problems: vec![Problem::general(message)] }
    }
}

impl From<ServiceRefusal> for Refusal {
    fn from(refusal: ServiceRefusal) -> Self {
        match refusal {
            ServiceRefusal::NotFound(why) => Self::not_found(why),
            ServiceRefusal::Refused(why) => Self::conflict(why),
            ServiceRefusal::Unavailable(why) => Self::unavailable(why),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&problems.join("; "))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(Body { errors: self.problems })).into_response()
    }
}
