//! One payload into one row of columns, or into several if it holds several measurements.

mod cbor;
mod json;
mod msgpack;
mod number;
mod packed;
mod protobuf;
mod sparkplug;

pub use packed::Packed;

use super::{
    DecodeError, TelemetryError,
    column::{Context, Record, Scalar, VALUE},
};

/// What payloads are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Decoder {
    /// Bytes, kept as they are in the column `payload`.
    Raw,
    /// JSON. An object's fields become columns; anything else is the column `value`.
    Json,
    /// CBOR, likewise.
    Cbor,
    /// MessagePack, likewise.
    MsgPack,
    /// A number as text, in the column `value`.
    Number,
    /// UTF-8 text, in the column `value`.
    Text,
    /// Fields of fixed places; several of them are several rows.
    Packed(Packed),
    /// Sparkplug B: one column for each metric, one row for each time that a payload has measurements of.
    Sparkplug(Box<sparkplug::Births>),
}

impl Decoder {
    /// Reads the name of a decoder: `json`, `cbor`, `msgpack`, `number`, `text`, `sparkplug`, `raw`, or the format of a
    /// packed struct such as `<ffI`.
    pub fn parse(name: &str) -> Result<Self, TelemetryError> {
        Ok(match name {
            "raw" => Self::Raw,
            "json" => Self::Json,
            "cbor" => Self::Cbor,
            "msgpack" => Self::MsgPack,
            "number" => Self::Number,
            "text" => Self::Text,
            "sparkplug" => Self::Sparkplug(Box::default()),
            format if format.starts_with(['<', '>', '=', '!', '@']) => Self::Packed(Packed::parse(format, &[])?),
            other => {
                let message = format!(
                    "{other:?} is no decoder; use json, cbor, msgpack, number, text, sparkplug, raw or a packed struct \
                     such as \"<ffI\""
                );
                return Err(TelemetryError::Settings(message));
            }
        })
    }

    /// Appends the rows of a payload; how many. After a failure the columns may hold parts of a row.
    pub(crate) fn decode(
        &mut self,
        topic: &str,
        payload: &[u8],
        record: &mut Record,
        row: usize,
        context: &mut Context,
    ) -> Result<usize, DecodeError> {
        match self {
            Self::Raw => unreachable!("payloads that are kept have no columns of their own"),
            Self::Json => json::decode(payload, record, row, context),
            Self::Cbor => cbor::decode(payload, record, row, context),
            Self::MsgPack => msgpack::decode(payload, record, row, context),
            Self::Number => single(number::parse(payload)?, record, row, context),
            Self::Text => {
                let text = std::str::from_utf8(payload).map_err(DecodeError::new)?;
                single(Scalar::Text(text), record, row, context)
            }
            Self::Packed(packed) => packed.decode(payload, record, row, context),
            Self::Sparkplug(births) => births.decode(topic, payload, record, row, context),
        }
    }
}

/// One value as a row.
fn single(value: Scalar<'_>, record: &mut Record, row: usize, context: &mut Context) -> Result<usize, DecodeError> {
    record.push(VALUE, row, Some(value), context);
    end_row(record, row, context)
}

/// Completes a row.
fn end_row(record: &mut Record, row: usize, context: &mut Context) -> Result<usize, DecodeError> {
    if record.end_row(row, context) {
        Ok(1)
    } else {
        Err(DecodeError::new("it holds more values than one message may"))
    }
}
