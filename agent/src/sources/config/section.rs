//! A table read key by key: every wrong type and unknown key is noted, and reading goes on.

use std::{fmt::Display, ops::Range};

use control::model::clipped;

use super::{
    problem::Problems,
    suggest,
    tree::{Key, Node, Table, Value},
};

/// One table of the file.
pub(super) struct Section<'a, 'i> {
    /// How it is named in messages; empty for the file itself.
    pub(super) name: String,
    /// Where it stands.
    pub(super) span: Range<usize>,
    table: &'a Table<'i>,
}

/// The keys that a table may have.
pub(super) struct Keys {
    /// Keys of this version.
    pub(super) known: &'static [&'static str],
    /// Keys of the documented format that this version lacks.
    pub(super) later: &'static [&'static str],
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn new(name: impl Into<String>, span: Range<usize>, table: &'a Table<'i>) -> Self {
        Self { name: name.into(), span, table }
    }

    fn is_nested(&self) -> bool {
        !self.name.is_empty()
    }

    /// The name of a key of this table in messages.
    pub(super) fn key(&self, key: &str) -> String {
        let key = clipped(key);
        if self.name.is_empty() { key.into_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Keys and values, in the order of the text.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'a (Key<'i>, Node<'i>)> + use<'a, 'i> {
        self.table.entries.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<(&'a Value<'i>, Range<usize>)> {
        self.table.get(key).map(|node| (&node.value, node.span.clone()))
    }

    /// Where a key's value stands; the table's place where there is none.
    pub(super) fn place(&self, key: &str) -> Range<usize> {
        self.get(key).map_or_else(|| self.span.clone(), |(_, span)| span)
    }

    /// Notes every key that is not one of `keys`.
    pub(super) fn check_keys(&self, keys: &Keys, problems: &mut Problems<'_>) {
        for (key, _) in &self.table.entries {
            let name = key.name.as_ref();
            if keys.known.contains(&name) {
                continue;
            }
            let message = if keys.later.contains(&name) {
                "not supported by this version; remove it".to_owned()
            } else {
                unknown(key, keys.known)
            };
            problems.add(&key.span, self.key(name), message);
        }
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str, problems: &mut Problems<'_>) -> Option<Section<'a, 'i>> {
        let (value, span) = self.get(key)?;
        match value {
            Value::Table(table) => Some(Section::new(self.key(key), span, table)),
            other => {
                let want = problems.format.table_of(key, self.is_nested());
                self.wrong_type(key, &span, other, &want, problems);
                None
            }
        }
    }

    /// A list of tables below this one.
    pub(super) fn tables(&self, key: &'static str, problems: &mut Problems<'_>) -> Vec<Section<'a, 'i>> {
        let Some((value, span)) = self.get(key) else { return Vec::new() };
        let want = problems.format.tables_of(key, self.is_nested());
        let Value::Array(items) = value else {
            self.wrong_type(key, &span, value, &want, problems);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            match &item.value {
                Value::Table(table) => sections.push(Section::new(self.key(key), item.span.clone(), table)),
                other => self.wrong_type(key, &item.span, other, &want, problems),
            }
        }
        sections
    }

    /// A string, made into a value by `parse`.
    pub(super) fn parsed<T, E: Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let (value, span) = self.get(key)?;
        let Value::String(text) = value else {
            self.wrong_type(key, &span, value, "a string in quotes", problems);
            return None;
        };
        parse(text).map_err(|error| problems.add(&span, self.key(key), error.to_string())).ok()
    }

    /// A whole number that is not negative.
    pub(super) fn count(&self, key: &str, problems: &mut Problems<'_>) -> Option<u32> {
        let (value, span) = self.get(key)?;
        self.whole(key, value, &span, problems)
    }

    /// A list of such numbers, which may be empty, each with its place.
    pub(super) fn counts(&self, key: &str, problems: &mut Problems<'_>) -> Vec<(u32, Range<usize>)> {
        let Some((value, span)) = self.get(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.wrong_type(key, &span, value, "a list of whole numbers", problems);
            return Vec::new();
        };
        let number =
            |item: &Node<'_>| Some((self.whole(key, &item.value, &item.span, problems)?, item.span.clone()));
        items.iter().filter_map(number).collect()
    }

    fn whole(
        &self,
        key: &str,
        value: &Value<'_>,
        span: &Range<usize>,
        problems: &mut Problems<'_>,
    ) -> Option<u32> {
        let Value::Integer { digits, radix } = value else {
            self.wrong_type(key, span, value, "a whole number, without quotes", problems);
            return None;
        };
        let parsed = u32::from_str_radix(digits, *radix).ok();
        if parsed.is_none() {
            let why = format!("{} is out of range; use 0 to {}", clipped(digits), u32::MAX);
            problems.add(span, self.key(key), why);
        }
        parsed
    }

    /// Yes or no.
    pub(super) fn switch(&self, key: &str, problems: &mut Problems<'_>) -> Option<bool> {
        let (value, span) = self.get(key)?;
        let Value::Boolean(value) = value else {
            self.wrong_type(key, &span, value, "true or false, without quotes", problems);
            return None;
        };
        Some(*value)
    }

    /// One string or a list of them, each with its place.
    pub(super) fn strings(&self, key: &str, problems: &mut Problems<'_>) -> Vec<(String, Range<usize>)> {
        const WANT: &str = "a string in quotes or a list of them";
        let Some((value, span)) = self.get(key) else { return Vec::new() };
        let mut strings = Vec::new();
        match value {
            Value::String(text) => strings.push((text.to_string(), span)),
            Value::Array(items) if items.is_empty() => {
                problems.add(&span, self.key(key), "is an empty list; put something in, or remove it");
            }
            Value::Array(items) => {
                for item in items.iter() {
                    match &item.value {
                        Value::String(text) => strings.push((text.to_string(), item.span.clone())),
                        other => self.wrong_type(key, &item.span, other, WANT, problems),
                    }
                }
            }
            other => self.wrong_type(key, &span, other, WANT, problems),
        }
        strings
    }

    fn wrong_type(
        &self,
        key: &str,
        span: &Range<usize>,
        is: &Value<'_>,
        want: &str,
        problems: &mut Problems<'_>,
    ) {
        problems.add(span, self.key(key), format!("is {}, must be {want}", is.kind(problems.format)));
    }
}

fn unknown(key: &Key<'_>, known: &[&str]) -> String {
    let remedy = suggest(&key.name, known).unwrap_or_else(|| format!("use one of {}", known.join(", ")));
    format!("unknown key; {remedy}")
}
