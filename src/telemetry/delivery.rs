//! How messages were sent: QoS, retain flag and properties, in columns of their own. A recording has them so that it can be
//! replayed as it was. Their fields say what they are, as those of named levels do, so nobody takes them for a payload's.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StructArray, UInt8Array,
    builder::{BinaryBuilder, StringBuilder, UInt8Builder, UInt32Builder},
    cast::AsArray,
    types::{UInt8Type, UInt32Type},
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields};
use bytes::Bytes;

use super::column::{CONTENT, is_present};
use crate::{
    client::Message,
    codec::{Properties, Property, QoS, Text},
};

/// The columns while they are filled.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    qos: Vec<u8>,
    retain: Vec<bool>,
    properties: PropertyColumns,
}

/// The properties that a publication can have; null where there are none.
#[derive(Debug, Default)]
struct PropertyColumns {
    present: Vec<bool>,
    payload_format: UInt8Builder,
    message_expiry: UInt32Builder,
    content_type: StringBuilder,
    response_topic: StringBuilder,
    correlation_data: BinaryBuilder,
    names: StringBuilder,
    values: StringBuilder,
    /// Where the user properties of each row end.
    ends: Vec<i32>,
}

/// The columns of a batch that was read.
#[derive(Debug, Default)]
pub(super) struct Delivered<'a> {
    qos: Option<&'a UInt8Array>,
    retain: Option<&'a BooleanArray>,
    properties: Option<&'a StructArray>,
}

impl Deliveries {
    /// How the rows up to `end` were sent.
    pub(super) fn push(&mut self, message: &Message, end: usize) {
        let rows = end.saturating_sub(self.qos.len());
        self.qos.resize(end, message.qos() as u8);
        self.retain.resize(end, message.retain());
        let properties = if message.has_properties() { message.properties() } else { Properties::new() };
        for _ in 0..rows {
            self.properties.push(&properties);
        }
    }

    /// Rows up to `end` of which it is not known: as with QoS 0.
    pub(super) fn pad(&mut self, end: usize) {
        while self.qos.len() < end {
            self.qos.push(0);
            self.retain.push(false);
            self.properties.push(&Properties::new());
        }
    }

    pub(super) fn finish(&mut self, fields: &mut Vec<Field>, columns: &mut Vec<ArrayRef>) {
        let properties = self.properties.finish();
        fields.push(field(QOS, DataType::UInt8, false));
        columns.push(Arc::new(UInt8Array::from(std::mem::take(&mut self.qos))));
        fields.push(field(RETAIN, DataType::Boolean, false));
        columns.push(Arc::new(BooleanArray::from(std::mem::take(&mut self.retain))));
        fields.push(field(PROPERTIES, properties.data_type().clone(), true));
        columns.push(Arc::new(properties));
    }
}

impl PropertyColumns {
    fn push(&mut self, properties: &Properties) {
        let mut end = self.ends.last().copied().unwrap_or(0);
        for (name, value) in properties.user_properties() {
            self.names.append_value(name.as_str());
            self.values.append_value(value.as_str());
            end += 1;
        }
        self.ends.push(end);
        self.payload_format.append_option(properties.payload_format_indicator());
        self.message_expiry.append_option(properties.message_expiry_interval());
        self.content_type.append_option(properties.content_type().map(Text::as_str));
        self.response_topic.append_option(properties.response_topic().map(Text::as_str));
        self.correlation_data.append_option(properties.correlation_data().map(|data| &data[..]));
        // Those that a server adds, as subscription identifiers, are none of the message's own.
        self.present.push(properties.iter().any(is_own));
    }

    fn finish(&mut self) -> StructArray {
        let pairs =
            Fields::from(vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Utf8, false)]);
        let items = StructArray::new(pairs, vec![Arc::new(self.names.finish()), Arc::new(self.values.finish())], None);
        let offsets: Vec<i32> = std::iter::once(0).chain(std::mem::take(&mut self.ends)).collect();
        let item = Arc::new(Field::new("item", items.data_type().clone(), false));
        let users = ListArray::new(item, OffsetBuffer::new(offsets.into()), Arc::new(items), None);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("payload_format", Arc::new(self.payload_format.finish())),
            ("message_expiry", Arc::new(self.message_expiry.finish())),
            ("content_type", Arc::new(self.content_type.finish())),
            ("response_topic", Arc::new(self.response_topic.finish())),
            ("correlation_data", Arc::new(self.correlation_data.finish())),
            ("user_properties", Arc::new(users)),
        ];
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        StructArray::new(fields, columns, Some(NullBuffer::from(std::mem::take(&mut self.present))))
    }
}

impl<'a> Delivered<'a> {
    /// Those of a batch that has them.
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        let column = |name: &str| {
            let (at, field) = batch.schema_ref().column_with_name(name)?;
            is_delivery(field).then(|| batch.column(at))
        };
        Self {
            qos: column(QOS).and_then(|column| column.as_primitive_opt::<UInt8Type>()),
            retain: column(RETAIN).and_then(|column| column.as_boolean_opt()),
            properties: column(PROPERTIES).and_then(|column| column.as_struct_opt()),
        }
    }

    pub(super) fn qos(&self, row: usize) -> Option<QoS> {
        self.qos.filter(|column| column.is_valid(row)).and_then(|column| QoS::from_bits(column.value(row)))
    }

    pub(super) fn retain(&self, row: usize) -> Option<bool> {
        self.retain.filter(|column| column.is_valid(row)).map(|column| column.value(row))
    }

    /// What cannot be of MQTT, in a file that something else has changed, is left out.
    pub(super) fn properties(&self, row: usize) -> Properties {
        let Some(columns) = self.properties.filter(|columns| columns.is_valid(row)) else { return Properties::new() };
        let column = |name: &str| columns.column_by_name(name).filter(|column| is_present(column, row));
        let text = |name: &str| {
            let text = column(name)?.as_string_opt::<i32>()?.value(row);
            Text::try_from(text).ok()
        };
        let format = column("payload_format").and_then(|column| column.as_primitive_opt::<UInt8Type>());
        let expiry = column("message_expiry").and_then(|column| column.as_primitive_opt::<UInt32Type>());
        let data = column("correlation_data").and_then(|column| column.as_binary_opt::<i32>());
        let found = [
            format.map(|column| Property::PayloadFormatIndicator(column.value(row).min(1))),
            expiry.map(|column| Property::MessageExpiryInterval(column.value(row))),
            text("content_type").map(Property::ContentType),
            text("response_topic").map(Property::ResponseTopic),
            data.map(|column| Property::CorrelationData(Bytes::copy_from_slice(column.value(row)))),
        ];
        let users = column("user_properties").and_then(|column| column.as_list_opt::<i32>());
        let users = users.map(|users| pairs(&users.value(row))).unwrap_or_default();
        found.into_iter().flatten().chain(users.into_iter().map(Property::UserProperty)).collect()
    }
}

fn pairs(users: &ArrayRef) -> Vec<(Text, Text)> {
    let texts = |name: &str| users.as_struct_opt()?.column_by_name(name)?.as_string_opt::<i32>();
    let (Some(names), Some(values)) = (texts("name"), texts("value")) else { return Vec::new() };
    let text = |text: Option<&str>| Text::try_from(text?).ok();
    names.iter().zip(values).filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// Whether a column tells how messages were sent.
pub(super) fn is_delivery(field: &Field) -> bool {
    field.metadata().get(CONTENT).is_some_and(|content| content == DELIVERY)
}

fn field(name: &str, data_type: DataType, is_nullable: bool) -> Field {
    let metadata = HashMap::from([(CONTENT.to_owned(), DELIVERY.to_owned())]);
    Field::new(name, data_type, is_nullable).with_metadata(metadata)
}

/// Whether a publisher gave it.
const fn is_own(property: &Property) -> bool {
    matches!(
        property,
        Property::PayloadFormatIndicator(_)
            | Property::MessageExpiryInterval(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(_)
    )
}

/// Quality of service the message came with.
pub(super) const QOS: &str = "qos";
/// Whether it was published to be retained, or came from what is retained.
pub(super) const RETAIN: &str = "retain";
/// Its properties (MQTT 5).
pub(super) const PROPERTIES: &str = "properties";

const DELIVERY: &str = "delivery";
