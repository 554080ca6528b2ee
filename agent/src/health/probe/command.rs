//! A program that ends with status 0.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use super::{Seen, Subject, shown};
use crate::kernel::child::awaited::{self, End};

/// Runs a program to its end, at most for `limit`; what it writes is given only where `keeps`.
pub(super) async fn ends_well(
    words: &[String],
    subject: &Subject,
    limit: Duration,
    keeps: bool,
) -> (Seen, Option<String>) {
    let Some((program, arguments)) = words.split_first() else { return (Err("no program".to_owned()), None) };
    let (end, output) = awaited::run((program, arguments), &subject.environment, limit, keeps).await;
    let seen = match end {
        End::Status(status) if status.success() => Ok(said(status)),
        End::Status(status) => Err(said(status)),
        End::Late => Err(format!("did not end within {} and was killed", shown(limit))),
        End::Failed(error) => Err(format!("{program}: {error}")),
    };
    (seen, output)
}

fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
