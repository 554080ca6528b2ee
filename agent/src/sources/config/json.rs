//! JSON → [`Table`].
//!
//! `serde_json` says whether a text is JSON (RFC 8259) and what is wrong with it; places come from a second reader.

use std::ops::Range;

use control::model::quoted;
use jsonc_parser::{CollectOptions, ParseOptions, ast, common::Ranged as _, parse_to_ast};

use super::{
    problem::Problems,
    tree::{Key, Node, Table, Value},
};

/// Nothing beyond JSON.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Reads one document; what is wrong is noted.
pub(super) fn parse<'i>(text: &'i str, problems: &mut Problems<'_>) -> Option<Node<'i>> {
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let place = problems.start_of(error.line());
        let message = error.to_string();
        // The line stands before the message already.
        let message = message.split(" at line ").next().unwrap_or_default();
        problems.add(&place, "", format!("not JSON: {message}"));
        return None;
    }
    match parse_to_ast(text, &CollectOptions::default(), &STRICT) {
        Ok(found) => node(found.value?, problems),
        Err(error) => {
            problems.add(&place(error.range()), "", format!("not JSON: {}", error.kind()));
            None
        }
    }
}

fn place(range: jsonc_parser::common::Range) -> Range<usize> {
    range.start..range.end
}

/// A value as one of ours; `None` where a key stands twice.
fn node<'i>(value: ast::Value<'i>, problems: &mut Problems<'_>) -> Option<Node<'i>> {
    let span = place(value.range());
    let value = match value {
        ast::Value::StringLit(text) => Value::String(text.value),
        ast::Value::NumberLit(number) => self::number(number.value),
        ast::Value::BooleanLit(value) => Value::Boolean(value.value),
        ast::Value::NullKeyword(_) => Value::Other("null"),
        ast::Value::Array(array) => {
            let items = array.elements.into_iter().map(|item| node(item, problems));
            Value::Array(items.collect::<Option<_>>()?)
        }
        ast::Value::Object(object) => {
            let mut table = Table::default();
            for property in object.properties {
                let span = place(property.name.range());
                let name = match property.name {
                    ast::ObjectPropName::String(name) => name.value,
                    ast::ObjectPropName::Word(name) => name.value.into(),
                };
                if table.get(&name).is_some() {
                    let message = format!("the key {} stands twice; write it once", quoted(&name));
                    problems.add(&span, "", message);
                    return None;
                }
                table.entries.push((Key { span, name }, node(property.value, problems)?));
            }
            Value::Table(table)
        }
    };
    Some(Node { span, value })
}

fn number(text: &str) -> Value<'_> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|digit| digit.is_ascii_digit()) {
        Value::Integer { digits: text.into(), radix: 10 }
    } else {
        Value::Other("a number with a fraction or an exponent")
    }
}
