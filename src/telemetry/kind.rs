//! The types a column can be asked to have, and how they are written: `"timestamp[ms]"`, `"float64"`, `"list[int]"`.

use std::{fmt, sync::Arc};

use arrow_schema::{DataType, Field, Fields, TimeUnit};

use super::TelemetryError;

/// The type of a column that was given and not inferred.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `int8` to `int64`; `int` is `int64`. Bits.
    Int(u8),
    /// `uint8` to `uint64`. Bits.
    UInt(u8),
    /// `float32` and `float64`; `float` is `float64`. Bits.
    Float(u8),
    /// `str`.
    Text,
    /// `category`: text that repeats.
    Category,
    /// `bytes`.
    Binary,
    /// `timestamp[s | ms | us | ns]`, in UTC: numbers count in that unit since 1970, text is read by RFC 3339.
    Timestamp(TimeUnit),
    /// `json`: any value, as JSON text.
    Json,
    /// `list[...]`.
    List(Box<Kind>),
    /// Named fields in a field.
    Struct(Vec<(String, Kind)>),
}

impl Kind {
    /// Reads the name of a type.
    pub fn parse(text: &str) -> Result<Self, TelemetryError> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix("list[").and_then(|rest| rest.strip_suffix(']')) {
            return Ok(Self::List(Box::new(Self::parse(inner)?)));
        }
        Ok(match text {
            "bool" | "boolean" => Self::Bool,
            "int8" => Self::Int(8),
            "int16" => Self::Int(16),
            "int32" => Self::Int(32),
            "int" | "int64" => Self::Int(64),
            "uint8" => Self::UInt(8),
            "uint16" => Self::UInt(16),
            "uint32" => Self::UInt(32),
            "uint64" => Self::UInt(64),
            "float32" => Self::Float(32),
            "float" | "float64" | "double" => Self::Float(64),
            "str" | "string" | "text" => Self::Text,
            "category" => Self::Category,
            "bytes" | "binary" => Self::Binary,
            "json" => Self::Json,
            "timestamp[s]" => Self::Timestamp(TimeUnit::Second),
            "timestamp" | "timestamp[ms]" => Self::Timestamp(TimeUnit::Millisecond),
            "timestamp[us]" => Self::Timestamp(TimeUnit::Microsecond),
            "timestamp[ns]" => Self::Timestamp(TimeUnit::Nanosecond),
            other => {
                let message = format!("{other:?} is no type of a column; use one of {KINDS}");
                return Err(TelemetryError::Settings(message));
            }
        })
    }

    /// The Arrow type of such a column.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int(8) => DataType::Int8,
            Self::Int(16) => DataType::Int16,
            Self::Int(32) => DataType::Int32,
            Self::Int(_) => DataType::Int64,
            Self::UInt(8) => DataType::UInt8,
            Self::UInt(16) => DataType::UInt16,
            Self::UInt(32) => DataType::UInt32,
            Self::UInt(_) => DataType::UInt64,
            Self::Float(32) => DataType::Float32,
            Self::Float(_) => DataType::Float64,
            Self::Text | Self::Json => DataType::Utf8,
            Self::Category => category_type(),
            Self::Binary => DataType::Binary,
            Self::Timestamp(unit) => DataType::Timestamp(*unit, Some(UTC.into())),
            Self::List(item) => DataType::List(Arc::new(Field::new(LIST_ITEM, item.data_type(), true))),
            Self::Struct(fields) => DataType::Struct(
                fields.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true)).collect::<Fields>(),
            ),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int(bits) => write!(f, "int{bits}"),
            Self::UInt(bits) => write!(f, "uint{bits}"),
            Self::Float(bits) => write!(f, "float{bits}"),
            Self::Text => f.write_str("str"),
            Self::Category => f.write_str("category"),
            Self::Binary => f.write_str("bytes"),
            Self::Timestamp(TimeUnit::Second) => f.write_str("timestamp[s]"),
            Self::Timestamp(TimeUnit::Millisecond) => f.write_str("timestamp[ms]"),
            Self::Timestamp(TimeUnit::Microsecond) => f.write_str("timestamp[us]"),
            Self::Timestamp(TimeUnit::Nanosecond) => f.write_str("timestamp[ns]"),
            Self::Json => f.write_str("json"),
            Self::List(item) => write!(f, "list[{item}]"),
            Self::Struct(_) => f.write_str("struct"),
        }
    }
}

/// Text that repeats: numbers of the distinct values.
pub(crate) fn category_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Name that Arrow gives to the items of a list.
pub(crate) const LIST_ITEM: &str = "item";

/// Zone of all times.
pub(crate) const UTC: &str = "UTC";

const KINDS: &str = "bool, int8 to int64, uint8 to uint64, float32, float64, str, category, bytes, json, \
    timestamp[s|ms|us|ns], list[...] or a dictionary of fields";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_from_what_it_is_written_as() {
        for text in ["bool", "int8", "uint64", "float32", "str", "category", "bytes", "json", "timestamp[us]"] {
            assert_eq!(Kind::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Kind::parse("list[list[int]]").unwrap().to_string(), "list[list[int64]]");
        let fault = Kind::parse("decimal").unwrap_err().to_string();
        assert!(fault.contains("\"decimal\"") && fault.contains("timestamp[s|ms|us|ns]"), "{fault}");
    }
}
