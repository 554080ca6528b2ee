//! Where results go: tables for people, JSON for scripts.

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::Context;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

/// Bytes that are written at a time.
const BUFFER: usize = 1 << 16;

/// Where and how a result is written.
pub(super) struct Output<'a> {
    pub(super) writer: &'a mut dyn Write,
    json: bool,
    style: Style,
}

/// What the reader can see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// Columns of the terminal; `None` when there is none to fit into.
    pub(super) width: Option<u16>,
    /// Whether text may be bold or coloured.
    pub(super) colour: bool,
}

impl<'a> Output<'a> {
    /// Standard output: coloured and fitted when it is a terminal (`NO_COLOR` is honoured).
    pub(super) fn standard(writer: &'a mut dyn Write, json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = Table::new().width();
        Self { writer, json, style: Style { width, colour: terminal && !plain } }
    }

    /// Text without styles, whatever it is written to.
    #[cfg(test)]
    pub(super) fn new(writer: &'a mut dyn Write, json: bool) -> Self {
        Self { writer, json, style: Style::default() }
    }

    /// Whether scripts read it.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes `value` as one JSON document, or as `people` like to read it.
    pub(super) fn print<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        people: impl FnOnce(&T, &mut Self) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        if self.json {
            // Standard output would write line by line.
            let mut buffer = BufWriter::with_capacity(BUFFER, &mut *self.writer);
            let written = serde_json::to_writer_pretty(&mut buffer, value).map_err(io::Error::from);
            written.and_then(|()| writeln!(buffer)).and_then(|()| buffer.flush())
        } else {
            people(value, self)
        }
        .context("writing the result")
    }

    /// Writes a table without frames: a header, and rows of as many cells.
    pub(super) fn table<const N: usize>(
        &mut self,
        header: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).force_no_tty();
        if self.style.colour {
            table.enforce_styling();
        }
        if let Some(width) = self.style.width {
            table.set_width(width);
        }
        table.set_header(header.map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        table.add_rows(rows.into_iter().map(|row| row.map(state_cell)));
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if index == 0 { 0 } else { 1 }, 1));
        }
        writeln!(self.writer, "{}", table.trim_fmt())
    }
}

/// A cell; words for a state that needs a person's eye stand out.
fn state_cell(text: String) -> Cell {
    let colour = match text.as_str() {
        "stale" | "degraded" | "dead" | "down" => Some(Color::Red),
        "up" => Some(Color::Green),
        _ => None,
    };
    let cell = Cell::new(text);
    match colour {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}
