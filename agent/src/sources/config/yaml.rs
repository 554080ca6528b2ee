//! YAML → [`Table`].

use std::{borrow::Cow, ops::Range};

use control::model::quoted;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{
    problem::Problems,
    tree::{Key, Node, Table, Value},
};

/// Deeper than any document of ours.
const MAX_DEPTH: usize = 16;

/// A list or table that is not complete yet.
struct Open<'i> {
    span: Range<usize>,
    kind: Kind<'i>,
}

enum Kind<'i> {
    List(Vec<Node<'i>>),
    /// With the key whose value comes next.
    Table(Table<'i>, Option<Key<'i>>),
}

/// Reads one document; what is wrong is noted.
pub(super) fn parse<'i>(text: &'i str, problems: &mut Problems<'_>) -> Option<Node<'i>> {
    let mut reader = Reader { open: Vec::new(), root: None, problems };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => reader.take(event, &span)?,
            Err(error) => {
                let place = reader.problems.start_of(error.marker().line());
                reader.problems.add(&place, "", format!("not YAML: {}", error.info()));
                return None;
            }
        }
    }
    let Reader { root, problems, .. } = reader;
    if root.is_none() {
        problems.add(&(0..0), "", "is empty; write a list 'service'");
    }
    root
}

struct Reader<'i, 'p, 't> {
    open: Vec<Open<'i>>,
    root: Option<Node<'i>>,
    problems: &'p mut Problems<'t>,
}

impl<'i> Reader<'i, '_, '_> {
    /// Takes the next event; `None` when there is no sense in going on.
    fn take(&mut self, event: Event<'i>, span: &Span) -> Option<()> {
        let span = self.problems.start_of(span.start.line());
        match event {
            Event::Alias(_) => return self.refuse(&span, "aliases are not supported; write the value again"),
            Event::DocumentStart(_) if self.root.is_some() => {
                return self.refuse(&span, "a second document; keep one");
            }
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    return self.refuse(&span, "tags are not supported; leave it out");
                }
                return self.scalar(text, style, span);
            }
            Event::SequenceStart(..) => return self.begin(span, Kind::List(Vec::new())),
            Event::MappingStart(..) => return self.begin(span, Kind::Table(Table::default(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { span, kind } = self.open.pop()?;
                let value = match kind {
                    Kind::List(items) => Value::Array(items),
                    Kind::Table(table, _) => Value::Table(table),
                };
                return self.add(Node { span, value });
            }
            _ => {}
        }
        Some(())
    }

    fn begin(&mut self, span: Range<usize>, kind: Kind<'i>) -> Option<()> {
        if self.open.len() == MAX_DEPTH {
            return self.refuse(&span, "is nested too deeply; write a list 'service'");
        }
        if let Some(Open { kind: Kind::Table(_, None), .. }) = self.open.last() {
            return self.refuse(&span, "a key must be a word");
        }
        self.open.push(Open { span, kind });
        Some(())
    }

    fn scalar(&mut self, text: Cow<'i, str>, style: ScalarStyle, span: Range<usize>) -> Option<()> {
        if let Some(Open { kind: Kind::Table(table, key @ None), .. }) = self.open.last_mut() {
            if table.get(&text).is_some() {
                let message = format!("the key {} stands twice; write it once", quoted(&text));
                return self.refuse(&span, &message);
            }
            *key = Some(Key { span, name: text });
            return Some(());
        }
        let value = if style == ScalarStyle::Plain { plain(text) } else { Value::String(text) };
        self.add(Node { span, value })
    }

    fn add(&mut self, node: Node<'i>) -> Option<()> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Table(table, key)) => table.entries.push((key.take()?, node)),
            None => self.root = Some(node),
        }
        Some(())
    }

    fn refuse(&mut self, place: &Range<usize>, message: &str) -> Option<()> {
        self.problems.add(place, "", message);
        None
    }
}

/// What a word without quotes means (YAML 1.2, core schema).
fn plain(text: Cow<'_, str>) -> Value<'_> {
    let (digits, radix) = match text.split_at_checked(2) {
        Some(("0x", digits)) => (digits, 16),
        Some(("0o", digits)) => (digits, 8),
        _ => (text.strip_prefix(['+', '-']).unwrap_or(&text), 10),
    };
    let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Other("null"),
        "true" | "True" | "TRUE" => Value::Boolean(true),
        "false" | "False" | "FALSE" => Value::Boolean(false),
        _ if is_number && radix == 10 => Value::Integer { digits: text, radix },
        _ if is_number => Value::Integer { digits: Cow::Owned(digits.to_owned()), radix },
        _ if digits.starts_with(|first: char| first.is_ascii_digit()) && digits.parse::<f64>().is_ok() => {
            Value::Other("a float")
        }
        _ => Value::String(text),
    }
}
