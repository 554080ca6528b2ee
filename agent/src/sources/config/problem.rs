//! What is wrong with a file: each problem with its line and key, all of a file at once.

use std::{fmt, ops::Range, path::PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::format::Format;

/// One thing wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where: the first line is 1; `None` when the file as a whole is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The key, such as `fan.overlay`; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Why it is wrong, and what to do.
    pub message: String,
}

impl Problem {
    /// One that has no place.
    pub fn general(message: impl Into<String>) -> Self {
        Self { line: None, key: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A problem and the file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong in it.
    pub problem: Problem,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.problem.line.is_some() { ":" } else { ": " };
        write!(f, "{}{separator}{}", self.file.display(), self.problem)
    }
}

/// A configuration that can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}", self.lines().join("\n"))]
pub struct ConfigError {
    /// Everything that was found, in the order of files and lines; never empty.
    pub problems: Vec<FileProblem>,
}

impl ConfigError {
    /// One line per problem.
    pub fn lines(&self) -> Vec<String> {
        self.problems.iter().map(ToString::to_string).collect()
    }
}

/// Gathers the problems of one text.
pub(super) struct Problems<'a> {
    text: &'a str,
    /// What the text is written in: messages use its words.
    pub(super) format: Format,
    /// Where each line but the first starts.
    lines: Vec<usize>,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(text: &'a str, format: Format) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self { text, format, lines: ends.map(|(end, _)| end + 1).collect(), found: Vec::new() }
    }

    /// The line that a byte range of the text starts in.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let start = span.start.min(self.text.len());
        self.lines.partition_point(|&line| line <= start) + 1
    }

    /// The place of a line's start; the first line is 1.
    pub(super) fn start_of(&self, line: usize) -> Range<usize> {
        let start = line.checked_sub(2).and_then(|before| self.lines.get(before)).copied();
        let start = start.unwrap_or_default();
        start..start
    }

    pub(super) fn add(&mut self, span: &Range<usize>, key: impl Into<String>, message: impl Into<String>) {
        let line = Some(self.line(span));
        self.found.push(Problem { line, key: key.into(), message: message.into() });
    }

    pub(super) fn none(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems in the order of lines.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.line);
        self.found
    }
}
