//! Where results go: tables for people, JSON for scripts.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Where and how a result is written.
pub(super) struct Output<'a> {
    pub(super) writer: &'a mut dyn Write,
    json: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(writer: &'a mut dyn Write, json: bool) -> Self {
        Self { writer, json }
    }

    /// Writes `value` as one JSON document, or as `people` like to read it.
    pub(super) fn print<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        people: impl FnOnce(&T, &mut Self) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        if self.json {
            serde_json::to_writer_pretty(&mut *self.writer, value).map_err(io::Error::from)?;
            writeln!(self.writer)
        } else {
            people(value, self)
        }
        .context("writing the result")
    }
}
