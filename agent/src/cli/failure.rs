//! How a command fails: what is said in one line, and the exit status.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::sources::config::{ConfigError, operands::OperandError};

/// Status of a command that was understood but failed.
pub(super) const FAILED: u8 = 1;
/// Status of words that can't be parsed.
const USAGE: u8 = 2;

/// A command that did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// The words can't be parsed.
    Usage(String),
    /// They can be parsed, but it did not work.
    Failed(anyhow::Error),
    /// Several things are wrong, each with a line of its own.
    Many(Vec<String>),
}

impl Failure {
    /// Tells operands that can't be parsed from those that can't be had.
    pub(super) fn operands(command: &str, error: OperandError) -> Self {
        match error {
            OperandError::Words(why) => Self::Usage(format!("{command}: {why}")),
            OperandError::Contradiction(why) => Self::Failed(anyhow::anyhow!("{command}: {why}")),
        }
    }

    /// Writes the error and gives the exit status.
    pub(super) fn report(&self, errors: &mut dyn Write) -> ExitCode {
        let (lines, status) = match self {
            Self::Usage(line) => (vec![line.clone()], USAGE),
            // Whoever reads our output has enough of it: nothing to report.
            Self::Failed(error) if is_broken_pipe(error) => (Vec::new(), FAILED),
            Self::Failed(error) => (vec![causes(error)], FAILED),
            Self::Many(lines) => (lines.clone(), FAILED),
        };
        for line in lines {
            let line =
                line.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            // Without a standard error there is nobody left to tell.
            let _unwritable = writeln!(errors, "fanlight: {line}");
        }
        ExitCode::from(status)
    }
}

/// The error and its causes; a cause that is quoted already is not repeated.
pub(super) fn causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        if told.is_empty() {
            cause
        } else if told.contains(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        error.downcast::<ConfigError>().map_or_else(Self::Failed, Self::from)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Many(error.lines())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn reported(failure: &Failure) -> String {
        let mut errors = Vec::new();
        failure.report(&mut errors);
        String::from_utf8(errors).unwrap()
    }

    #[test]
    fn an_error_with_causes_and_line_breaks_is_one_line() {
        let failure = Failure::Failed(anyhow!("cause\n  with detail").context("what failed"));
        assert_eq!(reported(&failure), "fanlight: what failed: cause with detail\n");
    }

    #[test]
    fn a_cause_that_its_error_quotes_is_told_once() {
        let failure = Failure::Failed(anyhow!("no eth9").context("fan 250: no eth9").context("fan up"));
        assert_eq!(reported(&failure), "fanlight: fan up: fan 250: no eth9\n");
    }

    #[test]
    fn several_errors_have_a_line_each() {
        let failure = Failure::Many(vec!["first".to_owned(), "second".to_owned()]);
        assert_eq!(reported(&failure), "fanlight: first\nfanlight: second\n");
    }

    #[test]
    fn a_reader_that_went_away_is_told_nothing() {
        let failure = Failure::Failed(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert_eq!(reported(&failure), "");
    }
}
