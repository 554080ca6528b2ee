//! A parsed document, whatever it was written in: values with their places.

use std::{borrow::Cow, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{format::Format, problem::Problems};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node<'i> {
    /// Bytes of the text.
    pub(super) span: Range<usize>,
    pub(super) value: Value<'i>,
}

/// A value, as far as documents of ours have such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'i> {
    String(Cow<'i, str>),
    Integer {
        digits: Cow<'i, str>,
        radix: u32,
    },
    Boolean(bool),
    Array(Vec<Node<'i>>),
    Table(Table<'i>),
    /// Of a type that no key has.
    Other(&'static str),
}

/// Keys with their places, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table<'i> {
    pub(super) entries: Vec<(Key<'i>, Node<'i>)>,
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key<'i> {
    pub(super) span: Range<usize>,
    pub(super) name: Cow<'i, str>,
}

/// Reads TOML; what is wrong is noted. What a broken text seems to say would only hide the first slip behind others.
pub(super) fn parse_toml<'i>(text: &'i str, problems: &mut Problems<'_>) -> Option<Node<'i>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
        problems.add(&error.span().unwrap_or_default(), "", format!("not TOML: {message}"));
    }
    let span = root.span();
    errors.is_empty().then(|| Node { span, value: Value::Table(root.into_inner().into()) })
}

impl Value<'_> {
    /// What the format calls it, with the article.
    pub(super) fn kind(&self, format: Format) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer { .. } if format == Format::Json => "a number",
            Self::Integer { .. } => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Array(_) if format == Format::Toml => "an array",
            Self::Array(_) => format.list(),
            Self::Table(_) => format.table(),
            Self::Other(kind) => kind,
        }
    }
}

impl<'i> Table<'i> {
    pub(super) fn get(&self, key: &str) -> Option<&Node<'i>> {
        self.entries.iter().find(|(own, _)| own.name == key).map(|(_, node)| node)
    }
}

impl<'i> From<DeTable<'i>> for Table<'i> {
    fn from(table: DeTable<'i>) -> Self {
        let mut entries: Vec<_> = table
            .into_iter()
            .map(|(key, value)| {
                let span = key.span();
                (Key { span, name: key.into_inner() }, Node::from(value))
            })
            .collect();
        entries.sort_by_key(|(key, _)| key.span.start);
        Self { entries }
    }
}

impl<'i> From<Spanned<DeValue<'i>>> for Node<'i> {
    fn from(spanned: Spanned<DeValue<'i>>) -> Self {
        let span = spanned.span();
        let value = match spanned.into_inner() {
            DeValue::String(text) => Value::String(text),
            DeValue::Integer(number) => {
                Value::Integer { digits: Cow::Owned(number.as_str().to_owned()), radix: number.radix() }
            }
            DeValue::Array(items) => Value::Array(items.into_iter().map(Self::from).collect()),
            DeValue::Table(table) => Value::Table(table.into()),
            DeValue::Float(_) => Value::Other("a float"),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Datetime(_) => Value::Other("a datetime"),
        };
        Self { span, value }
    }
}
