//! The rows of a batch as the messages that they were: for replaying them, publishing a table, decoding it later.

use std::borrow::Cow;

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray, types::TimestampMicrosecondType};
use arrow_schema::{DataType, Field, TimeUnit};

use super::{
    TelemetryError,
    column::{is_json, is_level, is_present, key_at, render, render_object},
    delivery::{Delivered, is_delivery},
    rows::{PAYLOAD, RAW, RECEIVED_AT, REST, TOPIC},
};
use crate::codec::{Properties, QoS};

/// A batch seen as messages.
#[derive(Debug)]
pub struct Messages<'a> {
    batch: &'a RecordBatch,
    topic: Option<&'a ArrayRef>,
    payload: Option<(&'a Field, &'a ArrayRef)>,
    times: Option<&'a ArrayRef>,
    raw: Option<&'a ArrayRef>,
    rest: Option<&'a ArrayRef>,
    delivered: Delivered<'a>,
    /// The columns of which a payload is made if there is none.
    fields: Vec<(&'a Field, &'a ArrayRef)>,
}

impl<'a> Messages<'a> {
    /// Messages as `collect` and `record` write them.
    pub fn of(batch: &'a RecordBatch) -> Result<Self, TelemetryError> {
        let payload = batch.schema_ref().column_with_name(PAYLOAD).is_some().then_some(PAYLOAD);
        Self::with(batch, Some(TOPIC), payload)
    }

    /// Messages whose topics and payloads are in these columns. Without a column of payloads, they are JSON objects of
    /// all others.
    pub fn with(batch: &'a RecordBatch, topic: Option<&str>, payload: Option<&str>) -> Result<Self, TelemetryError> {
        let column = |name: &str| {
            let found = batch.schema_ref().column_with_name(name).map(|(at, field)| (field, batch.column(at)));
            found.ok_or_else(|| {
                let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
                TelemetryError::Settings(format!("there is no column {name:?}; there are {}", names.join(", ")))
            })
        };
        let topics = topic.map(column).transpose()?;
        if let Some((field, array)) = topics
            && text_at(array, 0).is_none()
            && !array.is_empty()
        {
            let message = format!("column {:?} holds {}, and topics are text", field.name(), field.data_type());
            return Err(TelemetryError::Settings(message));
        }
        let times = batch
            .column_by_name(RECEIVED_AT)
            .filter(|times| matches!(times.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)));
        let is_own = |name: &str| Some(name) == topic || [RECEIVED_AT, RAW, REST].contains(&name);
        let is_field = |field: &Field| !is_own(field.name()) && !is_level(field) && !is_delivery(field);
        let fields = batch.schema_ref().fields().iter().map(|field| &**field).zip(batch.columns());
        Ok(Self {
            batch,
            topic: topics.map(|(_, array)| array),
            payload: payload.map(column).transpose()?,
            times,
            raw: batch.column_by_name(RAW).filter(|raw| raw.data_type() == &DataType::Binary),
            rest: batch
                .schema_ref()
                .column_with_name(REST)
                .filter(|(_, rest)| is_json(rest))
                .map(|(at, _)| batch.column(at)),
            delivered: Delivered::of(batch),
            fields: fields.filter(|(field, _)| is_field(field)).collect(),
        })
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When it was received, Unix time in microseconds; 0 if that is not known.
    pub fn received_at_us(&self, row: usize) -> u64 {
        let time = self.times.map_or(0, |times| times.as_primitive::<TimestampMicrosecondType>().value(row));
        u64::try_from(time).unwrap_or_default()
    }

    /// The topic; empty if there is none.
    pub fn topic(&self, row: usize) -> &'a str {
        self.topic.and_then(|topics| text_at(topics, row)).unwrap_or_default()
    }

    /// Quality of service it came with, if that was recorded.
    pub fn qos(&self, row: usize) -> Option<QoS> {
        self.delivered.qos(row)
    }

    /// Whether it was retained, if that was recorded.
    pub fn retain(&self, row: usize) -> Option<bool> {
        self.delivered.retain(row)
    }

    /// The properties it was published with, as far as they were recorded.
    pub fn properties(&self, row: usize) -> Properties {
        self.delivered.properties(row)
    }

    /// The payload: bytes and text as they are, other values as JSON text, nothing for null. Where there is no column
    /// of payloads, what could not be decoded as it came, and else an object of the columns and of `rest`.
    pub fn payload(&self, row: usize) -> Cow<'a, [u8]> {
        if let Some((field, array)) = self.payload {
            return bytes_at(field, array, row);
        }
        if let Some(raw) = self.raw.filter(|raw| raw.is_valid(row)) {
            return raw.as_binary::<i32>().value(row).into();
        }
        let mut text = Vec::new();
        render_object(self.fields.iter().copied(), row, &mut text);
        if let Some(rest) = self.rest.and_then(|rest| text_at(rest, row)) {
            // Both are objects: `{...}` and `{...}`.
            text.pop();
            text.extend_from_slice(if text.len() > 1 { b"," } else { b"" });
            text.extend_from_slice(rest.trim_start_matches('{').as_bytes());
        }
        text.into()
    }
}

/// Text, if the column has any.
fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    match array.data_type() {
        _ if row >= array.len() || !is_present(array, row) => None,
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            text_at(dictionary.values(), key_at(dictionary, row))
        }
        _ => None,
    }
}

fn bytes_at<'a>(field: &Field, array: &'a ArrayRef, row: usize) -> Cow<'a, [u8]> {
    if !is_present(array, row) {
        return Cow::Borrowed(&[]);
    }
    match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row).into(),
        DataType::LargeBinary => array.as_binary::<i64>().value(row).into(),
        DataType::BinaryView => array.as_binary_view().value(row).into(),
        _ => {
            if let Some(text) = text_at(array, row) {
                return text.as_bytes().into();
            }
            let mut text = Vec::new();
            render(field, array, row, &mut text);
            text.into()
        }
    }
}
