//! Which rows: `line = 'L1' and (value > 20.5 or unit is null)`, as the WHERE of SQL says it.
//!
//! A comparison with null is neither true nor false, and such a row is left out. Times compare with RFC 3339 text.

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_schema::DataType;

use super::{
    Table, TelemetryError,
    column::{is_present, key_at, render},
};

/// A condition on rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(Condition);

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    IsNull(String),
    Compare(String, Comparison, Literal),
    OneOf(String, Vec<Literal>),
    Like(String, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Filter {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Self, TelemetryError> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, text };
        let condition = parser.any()?;
        if parser.at < parser.tokens.len() {
            return Err(parser.fault("an end, AND or OR"));
        }
        Ok(Self(condition))
    }

    /// The rows for which it is true.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, TelemetryError> {
        self.0.check(batch)?;
        Ok(Table::filter(batch, |row| self.0.holds(batch, row) == Some(true))?)
    }
}

impl Condition {
    /// Refuses names that are no columns.
    fn check(&self, batch: &RecordBatch) -> Result<(), TelemetryError> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().try_for_each(|part| part.check(batch)),
            Self::Not(part) => part.check(batch),
            Self::IsNull(name) | Self::Compare(name, ..) | Self::OneOf(name, _) | Self::Like(name, _) => {
                if batch.column_by_name(name).is_some() {
                    return Ok(());
                }
                let schema = batch.schema();
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let message = format!("there is no column {name:?}; there are {}", names.join(", "));
                Err(TelemetryError::Settings(message))
            }
        }
    }

    /// Whether it is true; `None` if that cannot be said.
    fn holds(&self, batch: &RecordBatch, row: usize) -> Option<bool> {
        match self {
            Self::All(parts) => {
                let mut result = Some(true);
                for part in parts {
                    match part.holds(batch, row) {
                        Some(false) => return Some(false),
                        None => result = None,
                        Some(true) => {}
                    }
                }
                result
            }
            Self::Any(parts) => {
                let mut result = Some(false);
                for part in parts {
                    match part.holds(batch, row) {
                        Some(true) => return Some(true),
                        None => result = None,
                        Some(false) => {}
                    }
                }
                result
            }
            Self::Not(part) => part.holds(batch, row).map(|holds| !holds),
            Self::IsNull(name) => Some(batch.column_by_name(name).is_none_or(|column| !is_present(column, row))),
            Self::Compare(name, comparison, literal) => compare(&value(batch, name, row)?, *comparison, literal),
            Self::OneOf(name, literals) => {
                let value = value(batch, name, row)?;
                Some(literals.iter().any(|literal| compare(&value, Comparison::Equal, literal) == Some(true)))
            }
            Self::Like(name, pattern) => match value(batch, name, row)? {
                Literal::Text(text) => Some(is_like(text.as_bytes(), pattern.as_bytes())),
                _ => None,
            },
        }
    }
}

/// The value of a column, if there is one.
fn value(batch: &RecordBatch, name: &str, row: usize) -> Option<Literal> {
    let (at, field) = batch.schema_ref().column_with_name(name)?;
    let column: &ArrayRef = batch.column(at);
    if !is_present(column, row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Boolean => Literal::Bool(column.as_boolean().value(row)),
        DataType::Float64 => Literal::Number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Int64 => Literal::Number(column.as_primitive::<Int64Type>().value(row) as f64),
        DataType::Utf8 => Literal::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::Dictionary(_, values) if **values == DataType::Utf8 => {
            let dictionary = column.as_any_dictionary();
            let key = key_at(dictionary, row);
            Literal::Text(dictionary.values().as_string::<i32>().value(key).to_owned())
        }
        data_type => {
            let mut text = Vec::new();
            render(field, column, row, &mut text);
            let text = String::from_utf8_lossy(&text).into_owned();
            if data_type.is_numeric() {
                Literal::Number(text.parse().ok()?)
            } else {
                Literal::Text(text.trim_matches('"').to_owned())
            }
        }
    })
}

fn compare(value: &Literal, comparison: Comparison, literal: &Literal) -> Option<bool> {
    let order = match (value, literal) {
        (Literal::Bool(left), Literal::Bool(right)) => left.cmp(right),
        (Literal::Number(left), Literal::Number(right)) => left.partial_cmp(right)?,
        (Literal::Text(left), Literal::Text(right)) => left.as_str().cmp(right),
        _ => return None,
    };
    Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::Unequal => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

/// `%` stands for any bytes and `_` for one character. Time is bounded by the product of both lengths.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut next, mut retry) = (0, 0, None);
    while at < text.len() {
        match pattern.get(next) {
            Some(b'%') => {
                retry = Some((at, next + 1));
                next += 1;
            }
            Some(b'_') => {
                at += 1;
                while text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    at += 1;
                }
                next += 1;
            }
            Some(byte) if *byte == text[at] => (at, next) = (at + 1, next + 1),
            _ => match retry {
                Some((from, after)) => {
                    (at, next) = (from + 1, after);
                    retry = Some((from + 1, after));
                }
                None => return false,
            },
        }
    }
    pattern.get(next..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'%'))
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A name or a keyword.
    Word(String),
    /// A name in double quotes.
    Name(String),
    Literal(Literal),
    Sign(String),
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    text: &'a str,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Condition, TelemetryError> {
        let mut parts = vec![self.all()?];
        while self.take_word("or") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) })
    }

    fn all(&mut self) -> Result<Condition, TelemetryError> {
        let mut parts = vec![self.one()?];
        while self.take_word("and") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) })
    }

    fn one(&mut self) -> Result<Condition, TelemetryError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fault("fewer parentheses"));
        }
        let condition = if self.take_word("not") {
            Condition::Not(Box::new(self.one()?))
        } else if self.take_sign("(") {
            let inner = self.any()?;
            if !self.take_sign(")") {
                return Err(self.fault("a closing parenthesis"));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Condition, TelemetryError> {
        let name = match self.tokens.get(self.at) {
            Some(Token::Word(name) | Token::Name(name)) => name.clone(),
            _ => return Err(self.fault("the name of a column")),
        };
        self.at += 1;
        if self.take_word("is") {
            let is_not = self.take_word("not");
            if !self.take_word("null") {
                return Err(self.fault("NULL"));
            }
            return Ok(negated(is_not, Condition::IsNull(name)));
        }
        let is_not = self.take_word("not");
        if self.take_word("like") {
            let Literal::Text(pattern) = self.literal()? else { return Err(self.fault("a text after LIKE")) };
            return Ok(negated(is_not, Condition::Like(name, pattern)));
        }
        if self.take_word("in") {
            return Ok(negated(is_not, Condition::OneOf(name, self.literals()?)));
        }
        let comparison = match self.tokens.get(self.at) {
            _ if is_not => return Err(self.fault("LIKE or IN")),
            Some(Token::Sign(sign)) => match sign.as_str() {
                "=" | "==" => Comparison::Equal,
                "!=" | "<>" => Comparison::Unequal,
                "<" => Comparison::Less,
                "<=" => Comparison::LessOrEqual,
                ">" => Comparison::Greater,
                ">=" => Comparison::GreaterOrEqual,
                _ => return Ok(Condition::Compare(name, Comparison::Equal, Literal::Bool(true))),
            },
            // A column of truth values is a condition by itself.
            _ => return Ok(Condition::Compare(name, Comparison::Equal, Literal::Bool(true))),
        };
        self.at += 1;
        Ok(Condition::Compare(name, comparison, self.literal()?))
    }

    fn literals(&mut self) -> Result<Vec<Literal>, TelemetryError> {
        if !self.take_sign("(") {
            return Err(self.fault("a list in parentheses"));
        }
        let mut literals = vec![self.literal()?];
        while self.take_sign(",") {
            literals.push(self.literal()?);
        }
        if self.take_sign(")") { Ok(literals) } else { Err(self.fault("a comma or a closing parenthesis")) }
    }

    fn literal(&mut self) -> Result<Literal, TelemetryError> {
        let literal = match self.tokens.get(self.at) {
            Some(Token::Literal(literal)) => literal.clone(),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            _ => return Err(self.fault("a number, 'text', TRUE or FALSE")),
        };
        self.at += 1;
        Ok(literal)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.tokens.get(self.at), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(is_it);
        is_it
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.tokens.get(self.at), Some(Token::Sign(found)) if found == sign);
        self.at += usize::from(is_it);
        is_it
    }

    fn fault(&self, expected: &str) -> TelemetryError {
        let found = match self.tokens.get(self.at) {
            None => "the end".to_owned(),
            Some(Token::Word(text) | Token::Name(text) | Token::Sign(text)) => format!("{text:?}"),
            Some(Token::Literal(literal)) => format!("{literal:?}"),
        };
        TelemetryError::Settings(format!("condition {:?}: expected {expected}, found {found}", self.text))
    }
}

fn negated(is_not: bool, condition: Condition) -> Condition {
    if is_not { Condition::Not(Box::new(condition)) } else { condition }
}

fn tokens(text: &str) -> Result<Vec<Token>, TelemetryError> {
    let fault = |what: &str| TelemetryError::Settings(format!("condition {text:?}: {what}"));
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => {
                let (inner, length) = quoted(rest, first).ok_or_else(|| fault("a quote is not closed"))?;
                tokens.push(if first == '"' { Token::Name(inner) } else { Token::Literal(Literal::Text(inner)) });
                length
            }
            '0'..='9' | '-' | '+' | '.' => {
                let end = |at: char| !(at.is_ascii_alphanumeric() || matches!(at, '.' | '-' | '+'));
                let length = rest.find(end).unwrap_or(rest.len());
                let number = rest[..length].parse().map_err(|_| fault("a number cannot be read"))?;
                tokens.push(Token::Literal(Literal::Number(number)));
                length
            }
            '=' | '!' | '<' | '>' => {
                let length = if matches!(rest.as_bytes().get(1), Some(b'=' | b'>')) { 2 } else { 1 };
                tokens.push(Token::Sign(rest[..length].to_owned()));
                length
            }
            '(' | ')' | ',' => {
                tokens.push(Token::Sign(first.to_string()));
                1
            }
            _ if first == '_' || first.is_alphabetic() => {
                let end = |at: char| !(at == '_' || at.is_alphanumeric());
                let length = rest.find(end).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..length].to_owned()));
                length
            }
            _ => return Err(fault(&format!("{first:?} has no meaning here"))),
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// What is between quotes, of which two stand for one, and the length with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let (mut inner, mut at) = (String::new(), 1);
    loop {
        let end = at + text.get(at..)?.find(quote)?;
        inner.push_str(&text[at..end]);
        at = end + 1;
        if !text[at..].starts_with(quote) {
            return Some((inner, at));
        }
        inner.push(quote);
        at += 1;
    }
}

/// Parentheses and NOTs in each other.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Decoder, Pattern, Rows, RowsOptions};

    fn batch() -> RecordBatch {
        let patterns = vec![Pattern::parse("{line}/temp").unwrap()];
        let mut rows = Rows::new(RowsOptions::new(patterns, Decoder::Json));
        rows.push(1_000_000, "L1/temp", br#"{"value": 20.5, "unit": "C", "ok": true, "n": 1}"#).unwrap();
        rows.push(2_000_000, "L2/temp", br#"{"value": 30, "ok": false, "n": 2}"#).unwrap();
        rows.push(3_000_000, "L1/temp", br#"{"unit": "it's", "n": 3}"#).unwrap();
        rows.finish()
    }

    #[test]
    fn conditions_are_true_where_sql_says_so() {
        let batch = batch();
        for (text, expected) in [
            ("line = 'L1'", "1 3"),
            ("line = 'L1' and value > 20", "1"),
            ("value < 25 or unit is null", "1 2"),
            ("not value < 25", "2"),
            ("unit = 'it''s'", "3"),
            ("unit IS NOT NULL AND NOT (n IN (1, 2))", "3"),
            ("ok", "1"),
            ("ok = false", "2"),
            ("topic like 'L_/t%p'", "1 2 3"),
            ("topic not like '%2%'", "1 3"),
            ("\"received_at\" >= '1970-01-01T00:00:02Z'", "2 3"),
            ("value <> 30 or value = 30", "1 2"),
            ("n = -1e0", ""),
        ] {
            let rows = Filter::parse(text).unwrap().apply(&batch).unwrap();
            let found: Vec<String> = rows
                .column_by_name("n")
                .unwrap()
                .as_primitive::<Int64Type>()
                .iter()
                .flatten()
                .map(|n| n.to_string())
                .collect();
            assert_eq!(found.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn conditions_that_cannot_be_are_refused_with_what_was_expected() {
        for (text, fault) in [
            ("line =", "found the end"),
            ("= 3", "name of a column"),
            ("(a = 1", "closing parenthesis"),
            ("a = 1 b", "an end, AND or OR"),
            ("a like 3", "a text after LIKE"),
            ("a = 'x", "not closed"),
            ("a = 1.2.3", "cannot be read"),
            ("a ; b", "no meaning"),
        ] {
            let error = Filter::parse(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
        assert!(Filter::parse(&"(".repeat(1000)).is_err());
        let error = Filter::parse("lin = 'L1'").unwrap().apply(&batch()).unwrap_err().to_string();
        assert_eq!(error, "there is no column \"lin\"; there are received_at, topic, line, value, unit, ok, n");
    }
}
