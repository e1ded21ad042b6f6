//! From TOML to types, with the line and the path of every fault.
//!
//! The `toml` crate's own deserializer turns "unknown key" into prose; this one keeps it as data, so that the answer
//! can name the table, the line and the nearest known key.

use std::{fmt, ops::Range};

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor, value::StrDeserializer};
use serde::{Deserialize, forward_to_deserialize_any};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigFault, Hint};

/// Reads a `T` from `text`; `tables` are all tables with their keys, to say where a misplaced key belongs.
pub(super) fn read<'a, T: Deserialize<'a>>(
    text: &str,
    file: &str,
    tables: &[(&'static str, &'static [&'static str])],
) -> Result<T, ConfigError> {
    let line_at = |span: Option<Range<usize>>| span.map(|span| line(text, span.start));
    let table = DeTable::parse(text).map_err(|error| ConfigError {
        file: file.to_owned(),
        line: line_at(error.span()),
        fault: ConfigFault::Syntax(error.message().to_owned()),
    })?;
    let span = table.span();
    let root = Node { value: &DeValue::Table(table.into_inner()), span };
    T::deserialize(root).map_err(|error| ConfigError {
        file: file.to_owned(),
        line: line_at(error.span.clone()),
        fault: error.into_fault(tables),
    })
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

/// A fault on its way up: each level adds its part of the path.
#[derive(Debug)]
struct ReadError {
    kind: Kind,
    span: Option<Range<usize>>,
    /// From the innermost outwards.
    path: Vec<Part>,
}

#[derive(Debug)]
enum Kind {
    UnknownKey(String, &'static [&'static str]),
    UnknownValue(String, &'static [&'static str]),
    MissingKey(&'static str),
    Value(String),
}

#[derive(Debug)]
enum Part {
    Key(String),
    Index(usize),
}

impl ReadError {
    fn new(kind: Kind) -> Self {
        Self { kind, span: None, path: Vec::new() }
    }

    /// As seen from the table or array that holds it.
    fn under(mut self, part: Part, span: Range<usize>) -> Self {
        self.path.push(part);
        self.at(span)
    }

    fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }

    fn into_fault(self, tables: &[(&'static str, &'static [&'static str])]) -> ConfigFault {
        let key = dotted(&self.path);
        match self.kind {
            Kind::UnknownKey(name, known) => {
                let hint = match Hint::new(&name, known) {
                    Hint::Known(known) => tables
                        .iter()
                        .find(|(_, keys)| keys.contains(&name.as_str()))
                        .map_or(Hint::Known(known), |(table, _)| Hint::Elsewhere(table)),
                    near => near,
                };
                ConfigFault::UnknownKey { key: name, table: header(&self.path), hint }
            }
            Kind::UnknownValue(value, known) => {
                let hint = Hint::new(&value, known);
                ConfigFault::UnknownValue { key, value, hint }
            }
            Kind::MissingKey(name) => ConfigFault::MissingKey { key: name, table: header(&self.path) },
            Kind::Value(what) => ConfigFault::Value { key, what },
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Value(message.to_string()))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey(field.to_owned(), expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownValue(variant.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::MissingKey(field))
    }
}

/// `listeners[0].url`.
fn dotted(path: &[Part]) -> String {
    let mut text = String::new();
    for part in path.iter().rev() {
        match part {
            Part::Key(key) if text.is_empty() => text.push_str(key),
            Part::Key(key) => text.extend([".", key]),
            Part::Index(at) => text.extend(["[", &at.to_string(), "]"]),
        }
    }
    text
}

/// `[limits]` or `[[listeners]]`: as the table's header is written; nothing for the top.
fn header(path: &[Part]) -> String {
    match path {
        [] => String::new(),
        [Part::Index(_), outer @ ..] => format!("[[{}]]", dotted(outer)),
        path => format!("[{}]", dotted(path)),
    }
}

/// A value and where it stands.
struct Node<'a, 'i> {
    value: &'a DeValue<'i>,
    span: Range<usize>,
}

impl<'a, 'i> Node<'a, 'i> {
    fn new(spanned: &'a Spanned<DeValue<'i>>) -> Self {
        Self { value: spanned.get_ref(), span: spanned.span() }
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.value {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => Err(de::Error::custom(format!("{} does not fit into 64 bits", number.as_str()))),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::custom(format!("{} is not a number", number.as_str()))),
            },
            DeValue::Datetime(_) => Err(de::Error::invalid_type(de::Unexpected::Other("date"), &visitor)),
            DeValue::Array(items) => visitor.visit_seq(Items { items: items.iter(), at: 0 }),
            DeValue::Table(table) => visitor.visit_map(Entries { entries: table.iter(), current: None }),
        }
    }
}

impl<'de> de::Deserializer<'de> for Node<'_, '_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let span = self.span.clone();
        self.visit(visitor).map_err(|error| error.at(span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.value {
            DeValue::String(text) => {
                let text: StrDeserializer<'_, ReadError> = text.as_ref().into_deserializer();
                visitor.visit_enum(text).map_err(|error| error.at(self.span))
            }
            other => {
                let found = de::Unexpected::Other(other.type_str());
                Err(<ReadError as de::Error>::invalid_type(found, &format!("one of {}", words.join(", ")).as_str())
                    .at(self.span))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a, 'i> {
    items: std::slice::Iter<'a, Spanned<DeValue<'i>>>,
    at: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(Node::new(item)).map(Some).map_err(|error| error.under(Part::Index(at), item.span()))
    }
}

struct Entries<'a, 'i, I> {
    entries: I,
    current: Option<Entry<'a, 'i>>,
}

type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

impl<'a, 'i: 'a, 'de, I: Iterator<Item = Entry<'a, 'i>>> de::MapAccess<'de> for Entries<'a, 'i, I> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.current = self.entries.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        let name: StrDeserializer<'_, ReadError> = key.get_ref().as_ref().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| error.at(key.span()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let (key, value) = self.current.take().expect("serde asks for a value after its key");
        let part = || Part::Key(key.get_ref().to_string());
        seed.deserialize(Node::new(value)).map_err(|error| error.under(part(), value.span()))
    }
}
