//! Messages to record batches: when, where from, and what was in them.
//!
//! Columns: `received_at`, `topic`, one for each named level of the filters, then the decoded fields or `payload`; and
//! where there is something to put in: `raw` for payloads that could not be decoded, `rest` for values that found no
//! column. A field that is called like one of those gets `payload_` in front.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use super::{
    DecodeError, Decoder, Kind, Pattern, TelemetryError,
    column::{Categories, Column, Context, Record, Scalar, finish_categories, level_field, write_json_text},
    delivery::{Deliveries, PROPERTIES, QOS, RETAIN},
    kind::{UTC, category_type},
};
use crate::client::Message;

/// Bounds of decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of lists and objects in a payload. Default 64.
    pub depth_max: usize,
    /// Values that one payload may have, nulls for absent fields included. Default 1,048,576.
    pub values_per_message_max: usize,
    /// Columns of a table; fields beyond go to `rest`. Default 4,096.
    pub columns_max: usize,
    /// Rows of a batch. Default 65,536.
    pub batch_rows_max: usize,
    /// Payload bytes of a batch. Default 32 MiB.
    pub batch_bytes_max: usize,
    /// Values of a batch, nulls included: a wide table has shorter batches. Default 4,194,304.
    pub batch_values_max: usize,
}

/// What becomes of a payload that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// Its fields are null, and it is counted.
    #[default]
    Null,
    /// Decoding ends with an error.
    Raise,
    /// As `Null`, and the payload is kept in the column `raw`.
    Raw,
}

/// How messages become rows.
#[derive(Debug, Clone)]
pub struct RowsOptions {
    /// The filters that were subscribed to.
    pub patterns: Vec<Pattern>,
    /// What payloads are.
    pub decoder: Decoder,
    /// The fields and their types; others are left out. `None`: they are learnt.
    pub schema: Option<Vec<(String, Kind)>>,
    /// What becomes of a payload that cannot be decoded, or does not have the given types.
    pub on_error: OnError,
    /// Also keep QoS, retain flag and properties, in columns of their own.
    pub keeps_delivery: bool,
    /// Bounds.
    pub limits: Limits,
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct Rows {
    options: RowsOptions,
    received_at: Vec<i64>,
    topics: Topics,
    deliveries: Option<Deliveries>,
    fields: Record,
    payload: Column,
    /// Payloads that could not be decoded.
    raw: Option<Column>,
    /// Values without a column.
    rest: Option<Column>,
    is_frozen: bool,
    /// Columns that were learnt, nested ones too.
    learnt: usize,
    /// Payload bytes of the batch.
    bytes: usize,
    /// Values of the batch.
    values: usize,
    counts: Counts,
}

/// What has been counted since the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Rows; more than messages if payloads hold several.
    pub rows: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Messages that could not be decoded, or have a value that is not of the given type.
    pub errors: u64,
    /// What was wrong with the first of them.
    pub first_error: Option<String>,
    /// Values that found no column and went to `rest`.
    pub rest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            values_per_message_max: 1 << 20,
            columns_max: 4096,
            batch_rows_max: 65_536,
            batch_bytes_max: 32 << 20,
            batch_values_max: 4 << 20,
        }
    }
}

impl RowsOptions {
    /// Rows of such payloads from messages of such filters, with learnt types.
    pub fn new(patterns: Vec<Pattern>, decoder: Decoder) -> Self {
        let (on_error, limits) = (OnError::default(), Limits::default());
        Self { patterns, decoder, schema: None, on_error, keeps_delivery: false, limits }
    }
}

impl Rows {
    /// An empty batch.
    pub fn new(options: RowsOptions) -> Self {
        let fields = options.schema.as_ref().map_or_else(Record::default, |schema| Record::closed(schema));
        let raw = (options.on_error == OnError::Raw).then(|| Column::new(Some(Kind::Binary)));
        Self {
            received_at: Vec::new(),
            topics: Topics::new(&options.patterns),
            deliveries: options.keeps_delivery.then(Deliveries::default),
            fields,
            payload: Column::new(Some(Kind::Binary)),
            raw,
            rest: None,
            is_frozen: false,
            learnt: 0,
            bytes: 0,
            values: 0,
            counts: Counts::default(),
            options,
        }
    }

    /// Appends a message.
    pub fn push(&mut self, received_at_us: u64, topic: &str, payload: &[u8]) -> Result<(), TelemetryError> {
        let row = self.received_at.len();
        let rows = match self.options.decoder {
            Decoder::Raw => {
                self.payload.push(Scalar::Binary(payload), &mut Context::unbounded());
                1
            }
            _ => self.decode(topic, payload, row)?,
        };
        let received_at = i64::try_from(received_at_us).unwrap_or(i64::MAX);
        self.received_at.resize(row + rows, received_at);
        self.topics.push(topic, rows, &self.options.patterns);
        for column in [&mut self.raw, &mut self.rest].into_iter().flatten() {
            column.pad(row + rows);
        }
        self.bytes += payload.len();
        self.counts.messages += 1;
        self.counts.rows += rows as u64;
        self.counts.bytes += payload.len() as u64;
        Ok(())
    }

    /// Appends a message, and how it was sent if that is to be kept.
    pub fn push_message(&mut self, message: &Message) -> Result<(), TelemetryError> {
        self.push(message.received_at_us(), message.topic(), message.payload())?;
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.push(message, self.received_at.len());
        }
        Ok(())
    }

    /// Rows in the batch.
    pub fn len(&self) -> usize {
        self.received_at.len()
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.received_at.is_empty()
    }

    /// Whether the batch has reached one of its bounds and should be finished.
    pub fn is_full(&self) -> bool {
        let limits = &self.options.limits;
        self.len() >= limits.batch_rows_max
            || self.bytes >= limits.batch_bytes_max
            || self.values >= limits.batch_values_max
    }

    /// Payload bytes in the batch.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// From now on no column is added and none widens: what does not fit goes to `rest`.
    pub fn freeze(&mut self) {
        self.is_frozen = true;
        if !matches!(self.options.decoder, Decoder::Raw) {
            self.rest_column();
        }
    }

    /// Columns may be added and widen again.
    pub fn thaw(&mut self) {
        self.is_frozen = false;
    }

    /// Takes the batch out, and begins the next one with the same columns.
    pub fn finish(&mut self) -> RecordBatch {
        let len = self.received_at.len();
        let times = TimestampMicrosecondArray::new(std::mem::take(&mut self.received_at).into(), None);
        let time_type = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        let mut fields = vec![Field::new(RECEIVED_AT, time_type, false)];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(times.with_timezone(UTC))];
        self.topics.finish(&mut fields, &mut columns);
        if matches!(self.options.decoder, Decoder::Raw) {
            fields.push(self.payload.field(PAYLOAD));
            columns.push(self.payload.finish());
        }
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.pad(len);
            deliveries.finish(&mut fields, &mut columns);
        }
        let names = self.titles();
        for (name, column) in names.iter().zip(self.fields.columns_mut()) {
            fields.push(column.field(name));
            columns.push(column.finish());
        }
        for (name, column) in [(RAW, &mut self.raw), (REST, &mut self.rest)] {
            if let Some(column) = column {
                fields.push(column.field(name));
                columns.push(column.finish());
            }
        }
        debug_assert!(columns.iter().all(|column| column.len() == len), "all columns have all rows");
        (self.bytes, self.values) = (0, 0);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("fields are those of the columns")
    }

    fn decode(&mut self, topic: &str, payload: &[u8], row: usize) -> Result<usize, TelemetryError> {
        let limits = self.options.limits;
        let columns_left = limits.columns_max.saturating_sub(self.learnt);
        let mut context = Context {
            depth_left: limits.depth_max,
            cells_left: limits.values_per_message_max,
            columns_left,
            is_frozen: self.is_frozen,
            fault: None,
            misfits: Vec::new(),
        };
        let decoded = self.options.decoder.decode(topic, payload, &mut self.fields, row, &mut context);
        self.learnt += columns_left - context.columns_left;
        self.values += limits.values_per_message_max - context.cells_left;
        let rows = match decoded {
            Ok(rows) => rows,
            Err(fault) => {
                self.fields.truncate(row);
                self.fields.end_row(row, &mut Context::unbounded());
                self.failed(topic, payload, row, fault)?;
                return Ok(1);
            }
        };
        if let Some(fault) = context.fault.take() {
            self.failed(topic, payload, row, DecodeError(fault))?;
        }
        if !context.misfits.is_empty() {
            self.keep_rest(&context.misfits, row);
        }
        Ok(rows)
    }

    fn failed(&mut self, topic: &str, payload: &[u8], row: usize, fault: DecodeError) -> Result<(), TelemetryError> {
        let number = self.counts.messages;
        if self.options.on_error == OnError::Raise {
            self.fields.truncate(row);
            return Err(TelemetryError::Decode { topic: topic.to_owned(), row: number, fault });
        }
        self.counts.errors += 1;
        self.counts.first_error.get_or_insert_with(|| format!("message {number} on {topic:?}: {fault}"));
        if let Some(raw) = &mut self.raw {
            raw.push(Scalar::Binary(payload), &mut Context::unbounded());
        }
        Ok(())
    }

    /// Writes values without a column as one object. They are of the first row, if the message has several.
    fn keep_rest(&mut self, misfits: &[(String, String)], row: usize) {
        let mut text = Vec::new();
        for (path, value) in misfits {
            text.push(if text.is_empty() { b'{' } else { b',' });
            write_json_text(path, &mut text);
            text.push(b':');
            text.extend_from_slice(value.as_bytes());
        }
        text.push(b'}');
        let text = String::from_utf8(text).expect("JSON text is UTF-8");
        let rest = self.rest_column();
        rest.pad(row);
        rest.push(Scalar::Json(&text), &mut Context::unbounded());
        self.counts.rest += misfits.len() as u64;
    }

    fn rest_column(&mut self) -> &mut Column {
        let len = self.received_at.len();
        self.rest.get_or_insert_with(|| {
            let mut column = Column::new(Some(Kind::Json));
            column.pad(len);
            column
        })
    }

    /// Names of the columns of fields: those of the fields, unless they are taken.
    fn titles(&self) -> Vec<String> {
        let mut taken: Vec<String> = [RECEIVED_AT, TOPIC, RAW, REST].map(str::to_owned).into();
        taken.extend(self.topics.names.iter().cloned());
        if self.deliveries.is_some() {
            taken.extend([QOS, RETAIN, PROPERTIES].map(str::to_owned));
        }
        let mut titles = Vec::with_capacity(self.fields.names().len());
        for name in self.fields.names() {
            let mut title = name.to_string();
            while taken.contains(&title) || (title != **name && self.fields.has(&title)) {
                title.insert_str(0, "payload_");
            }
            titles.push(title);
        }
        titles
    }
}

impl Context {
    /// For values that are no part of a payload's fields.
    pub(crate) fn unbounded() -> Self {
        Self {
            depth_left: usize::MAX,
            cells_left: usize::MAX,
            columns_left: usize::MAX,
            is_frozen: false,
            fault: None,
            misfits: Vec::new(),
        }
    }
}

/// The topic column, and a column for each named level.
#[derive(Debug)]
struct Topics {
    known: Categories,
    names: Vec<String>,
    levels: Vec<Level>,
}

/// A named level: its texts, and which of them each known topic has.
#[derive(Debug, Default)]
struct Level {
    texts: Categories,
    /// By number of topic; -1 if it has none.
    of_topic: Vec<i32>,
    valid: Vec<bool>,
}

impl Topics {
    fn new(patterns: &[Pattern]) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in patterns.iter().flat_map(Pattern::names) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let levels = names.iter().map(|_| Level::default()).collect();
        Self { known: Categories::default(), names, levels }
    }

    #[inline]
    fn push(&mut self, topic: &str, rows: usize, patterns: &[Pattern]) {
        let number = self.known.number(topic);
        let place = number.cast_unsigned() as usize;
        if !self.names.is_empty() && self.levels[0].of_topic.len() <= place {
            self.learn(topic, patterns);
        }
        for _ in 0..rows {
            self.known.push_number(number);
            for level in &mut self.levels {
                let text = level.of_topic[place];
                level.texts.push_number(text.max(0));
                level.valid.push(text >= 0);
            }
        }
    }

    #[cold]
    fn learn(&mut self, topic: &str, patterns: &[Pattern]) {
        let pattern = patterns.iter().find(|pattern| pattern.matches(topic));
        for (name, level) in self.names.iter().zip(&mut self.levels) {
            let text = pattern.and_then(|pattern| pattern.value(topic, name));
            level.of_topic.push(text.map_or(-1, |text| level.texts.number(text)));
        }
    }

    fn finish(&mut self, fields: &mut Vec<Field>, columns: &mut Vec<ArrayRef>) {
        fields.push(Field::new(TOPIC, category_type(), false));
        columns.push(finish_categories(&mut self.known, None));
        for (name, level) in self.names.iter().zip(&mut self.levels) {
            let valid = std::mem::take(&mut level.valid);
            fields.push(level_field(name));
            columns.push(finish_categories(&mut level.texts, Some(valid.into())));
        }
        if self.known.known_len() == 0 {
            // Numbers of topics begin anew, so those of levels have to.
            for level in &mut self.levels {
                level.of_topic.clear();
                level.texts.forget();
            }
        }
    }
}

/// When the message was read from the socket.
pub(crate) const RECEIVED_AT: &str = "received_at";
/// Where it was published to.
pub(crate) const TOPIC: &str = "topic";
/// What was in it, if it was not decoded.
pub(crate) const PAYLOAD: &str = "payload";
/// What was in it, if it could not be decoded.
pub(crate) const RAW: &str = "raw";
/// Values without a column, as a JSON object.
pub(crate) const REST: &str = "rest";
