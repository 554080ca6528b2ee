//! What people wrote, in messages about it.

use std::borrow::Cow;

/// Characters that a message repeats of one word.
const SHOWN: usize = 64;

/// A word in quotes, as [`clipped`] shows it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", clipped(text))
}

/// A word as a message of one line can show it: cut where it is long, and control characters escaped.
pub fn clipped(text: &str) -> Cow<'_, str> {
    let mut rest = text.chars();
    let shown: String = rest.by_ref().take(SHOWN).collect();
    let is_plain = !shown.contains(char::is_control);
    match rest.count() {
        0 if is_plain => Cow::Borrowed(text),
        0 => escaped(&shown).into(),
        more => format!("{}.. ({} characters)", escaped(&shown), SHOWN + more).into(),
    }
}

fn escaped(text: &str) -> String {
    let one = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_word_is_cut_and_its_length_told() {
        let word = "ü".repeat(5000);
        assert_eq!(quoted(&word), format!("'{}.. (5000 characters)'", "ü".repeat(64)));
        assert_eq!(quoted(&"a".repeat(64)), format!("'{}'", "a".repeat(64)));
    }

    #[test]
    fn a_message_stays_one_line_without_control_sequences() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), "'a\\nb\\u{1b}[31m'");
    }
}
