//! What the demo says.

use std::{
    cell::Cell,
    io::{IsTerminal, Write},
};

/// Calm output: a heading for each step and, below it, what happens as it happens.
pub(crate) struct Narrator {
    colour: bool,
    steps: Cell<u32>,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, steps: Cell::new(0) }
    }

    pub(crate) fn title(&self, text: &str) {
        self.put(&self.styled("1", text));
    }

    pub(crate) fn step(&self, text: &str) {
        self.steps.set(self.steps.get() + 1);
        let number = self.styled("2", &format!("{:>2}", self.steps.get()));
        self.put(&format!("\n{number}  {}", self.styled("1", text)));
    }

    pub(crate) fn line(&self, text: &str) {
        self.put(format!("    {text}").trim_end());
    }

    pub(crate) fn note(&self, text: &str) {
        self.line(&self.styled("2", text));
    }

    /// Another program's words.
    pub(crate) fn quote(&self, text: &str) {
        if !text.trim().is_empty() {
            self.line(&format!("{} {text}", self.styled("2", "|")));
        }
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn put(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // Where nobody listens any more, the demo still goes on to clean up.
        let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    }
}
