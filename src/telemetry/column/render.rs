//! One value of an Arrow array as JSON text.

use std::{collections::HashMap, io::Write as _};

use arrow_array::{
    AnyDictionaryArray, Array, ArrayRef,
    cast::AsArray,
    types::{
        Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    },
};
use arrow_schema::{DataType, Field, TimeUnit};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat};

use super::Scalar;
use crate::telemetry::kind::category_type;

/// A field of JSON text. The type is that of text, so the name of the content is in the metadata.
pub(crate) fn json_field(name: &str) -> Field {
    let metadata = HashMap::from([(CONTENT.to_owned(), JSON.to_owned())]);
    Field::new(name, DataType::Utf8, true).with_metadata(metadata)
}

/// A field of what stands in the topic at a named level.
pub(crate) fn level_field(name: &str) -> Field {
    let metadata = HashMap::from([(CONTENT.to_owned(), LEVEL.to_owned())]);
    Field::new(name, category_type(), true).with_metadata(metadata)
}

/// Whether a field is one of those.
pub(crate) fn is_level(field: &Field) -> bool {
    field.metadata().get(CONTENT).is_some_and(|content| content == LEVEL)
}

/// Whether a field holds JSON text.
pub(crate) fn is_json(field: &Field) -> bool {
    field.metadata().get(CONTENT).is_some_and(|content| content == JSON)
}

/// Whether there is a value in `row`. (Arrow does not count the nulls of a column of nothing else.)
pub(crate) fn is_present(array: &ArrayRef, row: usize) -> bool {
    array.data_type() != &DataType::Null && array.is_valid(row)
}

/// Appends the value in `row` as JSON text. Bytes become base64, times RFC 3339 in UTC, numbers that are none text.
pub(crate) fn render(field: &Field, array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    if !is_present(array, row) {
        return out.extend_from_slice(b"null");
    }
    macro_rules! number {
        ($type:ty) => {
            write!(out, "{}", array.as_primitive::<$type>().value(row)).expect("a vector takes all")
        };
    }
    match field.data_type() {
        DataType::Boolean => write_scalar(Scalar::Bool(array.as_boolean().value(row)), out),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => {
            // The shortest text of the narrow number, not of the wide one that it equals.
            let value = array.as_primitive::<Float32Type>().value(row);
            let text = value.to_string().parse().unwrap_or(f64::from(value));
            write_scalar(Scalar::Float(text), out);
        }
        DataType::Float64 => write_scalar(Scalar::Float(array.as_primitive::<Float64Type>().value(row)), out),
        DataType::Utf8 if is_json(field) => out.extend_from_slice(array.as_string::<i32>().value(row).as_bytes()),
        DataType::Utf8 => write_json_text(array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => write_json_text(array.as_string::<i64>().value(row), out),
        DataType::Utf8View => write_json_text(array.as_string_view().value(row), out),
        DataType::Binary => write_scalar(Scalar::Binary(array.as_binary::<i32>().value(row)), out),
        DataType::LargeBinary => write_scalar(Scalar::Binary(array.as_binary::<i64>().value(row)), out),
        DataType::BinaryView => write_scalar(Scalar::Binary(array.as_binary_view().value(row)), out),
        DataType::Timestamp(unit, _) => render_moment(array, *unit, row, out),
        DataType::Dictionary(_, value) => {
            let dictionary = array.as_any_dictionary();
            let key = key_at(dictionary, row);
            render(&Field::new("", (**value).clone(), true), dictionary.values(), key, out);
        }
        DataType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            out.push(b'[');
            for at in 0..items.len() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                render(item, &items, at, out);
            }
            out.push(b']');
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            render_object(fields.iter().zip(columns).map(|(field, column)| (&**field, column)), row, out);
        }
        other => write_json_text(&format!("<{other}>"), out),
    }
}

/// The number of the value in `row` of a dictionary.
pub(crate) fn key_at(dictionary: &dyn AnyDictionaryArray, row: usize) -> usize {
    match dictionary.keys().as_primitive_opt::<Int32Type>() {
        Some(keys) => keys.value(row).cast_unsigned() as usize,
        // Ours have no others, but files of other programs may.
        None => dictionary.normalized_keys().get(row).copied().unwrap_or_default(),
    }
}

/// Appends an object of the columns that have a value in `row`.
pub(crate) fn render_object<'a>(
    columns: impl Iterator<Item = (&'a Field, &'a ArrayRef)>,
    row: usize,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    let mut is_first = true;
    for (field, column) in columns.filter(|(_, column)| is_present(column, row)) {
        if !is_first {
            out.push(b',');
        }
        is_first = false;
        write_json_text(field.name(), out);
        out.push(b':');
        render(field, column, row, out);
    }
    out.push(b'}');
}

/// Appends a scalar as JSON text.
pub(super) fn write_scalar(value: Scalar<'_>, out: &mut Vec<u8>) {
    match value {
        Scalar::Float(value) if value.is_finite() => serde_json::to_writer(out, &value).expect("a vector takes all"),
        Scalar::Float(value) if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
        Scalar::Float(value) => write_json_text(if value > 0.0 { "Infinity" } else { "-Infinity" }, out),
        Scalar::Text(text) => write_json_text(text, out),
        Scalar::Binary(bytes) => write_json_text(&BASE64_STANDARD.encode(bytes), out),
        other => out.extend_from_slice(other.to_json().as_bytes()),
    }
}

/// Appends text in quotes.
pub(crate) fn write_json_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a vector takes all");
}

fn render_moment(array: &ArrayRef, unit: TimeUnit, row: usize, out: &mut Vec<u8>) {
    let time = match unit {
        TimeUnit::Second => DateTime::from_timestamp(array.as_primitive::<TimestampSecondType>().value(row), 0),
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        TimeUnit::Nanosecond => {
            Some(DateTime::from_timestamp_nanos(array.as_primitive::<TimestampNanosecondType>().value(row)))
        }
    };
    match time {
        Some(time) => write_json_text(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true), out),
        None => out.extend_from_slice(b"null"),
    }
}

/// Metadata that says what a column of text is.
pub(crate) const CONTENT: &str = "ferromq:content";
const JSON: &str = "json";
const LEVEL: &str = "level";
