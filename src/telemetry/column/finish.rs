//! From builders to Arrow arrays. What was learnt stays, so that a batch has at least the types of the one before.

use std::{mem, sync::Arc};

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, ListArray, NullArray, PrimitiveArray, StringArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array, types::Int32Type,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields, TimeUnit};

use super::{Categories, Column, Strings, Values, render::json_field};
use crate::telemetry::kind::{Kind, LIST_ITEM, UTC, category_type};

impl Column {
    /// The column as a field of a table.
    pub(crate) fn field(&self, name: &str) -> Field {
        match &self.values {
            Values::Json(_) => json_field(name),
            _ => Field::new(name, self.data_type(), true),
        }
    }

    fn data_type(&self) -> DataType {
        if let Some(kind) = self.kind.as_ref().filter(|kind| !matches!(kind, Kind::List(_) | Kind::Struct(_))) {
            return kind.data_type();
        }
        match &self.values {
            Values::Null => DataType::Null,
            Values::Bool(_) => DataType::Boolean,
            Values::Int(_) => DataType::Int64,
            Values::UInt(_) => DataType::UInt64,
            Values::Float(_) => DataType::Float64,
            Values::Text(_) | Values::Json(_) => DataType::Utf8,
            Values::Category(_) => category_type(),
            Values::Binary(_) => DataType::Binary,
            Values::List(list) => DataType::List(Arc::new(list.items().field(LIST_ITEM))),
            // Arrow has objects without fields, and Parquet has not.
            Values::Struct(record) if record.names().is_empty() => DataType::Null,
            Values::Struct(record) => DataType::Struct(fields(record)),
        }
    }

    /// Takes all values out.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        let len = self.len();
        let valid = NullBuffer::new(self.valid.finish());
        let valid = (valid.null_count() > 0).then_some(valid);
        let data_type = self.data_type();
        match &mut self.values {
            Values::Null => Arc::new(NullArray::new(len)),
            Values::Bool(values) => Arc::new(BooleanArray::new(values.finish(), valid)),
            Values::Int(values) => ints(mem::take(values), valid, &data_type),
            Values::UInt(values) => uints(mem::take(values), valid, &data_type),
            Values::Float(values) => floats(mem::take(values), valid, &data_type),
            Values::Text(values) | Values::Json(values) => {
                let (offsets, bytes) = parts(mem::take(values));
                Arc::new(StringArray::try_new(offsets, bytes, valid).expect("only text was pushed"))
            }
            Values::Binary(values) => {
                let (offsets, bytes) = parts(mem::take(values));
                Arc::new(BinaryArray::new(offsets, bytes, valid))
            }
            Values::Category(values) => categories(values, valid),
            Values::List(list) => {
                let items = list.items_mut().finish();
                let field = Arc::new(list.items().field(LIST_ITEM));
                Arc::new(ListArray::new(field, offsets(mem::take(&mut list.ends)), items, valid))
            }
            Values::Struct(record) => {
                let fields = fields(record);
                let arrays: Vec<ArrayRef> = record.columns_mut().iter_mut().map(Self::finish).collect();
                if arrays.is_empty() {
                    return Arc::new(NullArray::new(len));
                }
                Arc::new(StructArray::new(fields, arrays, valid))
            }
        }
    }
}

/// Text by number as an array; what is known stays known.
pub(crate) fn categories(values: &mut Categories, valid: Option<NullBuffer>) -> ArrayRef {
    let texts = Arc::new(StringArray::from_iter_values(values.known.iter()));
    let keys = PrimitiveArray::<Int32Type>::new(mem::take(&mut values.keys).into(), valid);
    if values.known_len() > CATEGORIES_KEPT_MAX {
        values.forget();
    }
    Arc::new(DictionaryArray::new(keys, texts))
}

fn fields(record: &super::Record) -> Fields {
    record.names().iter().zip(record.columns()).map(|(name, column)| column.field(name)).collect()
}

fn ints(values: Vec<i64>, valid: Option<NullBuffer>, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Int8 => Arc::new(Int8Array::new(values.iter().map(|value| *value as i8).collect(), valid)),
        DataType::Int16 => Arc::new(Int16Array::new(values.iter().map(|value| *value as i16).collect(), valid)),
        DataType::Int32 => Arc::new(Int32Array::new(values.iter().map(|value| *value as i32).collect(), valid)),
        DataType::Timestamp(TimeUnit::Second, _) => {
            Arc::new(TimestampSecondArray::new(values.into(), valid).with_timezone(UTC))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Arc::new(TimestampMillisecondArray::new(values.into(), valid).with_timezone(UTC))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Arc::new(TimestampMicrosecondArray::new(values.into(), valid).with_timezone(UTC))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Arc::new(TimestampNanosecondArray::new(values.into(), valid).with_timezone(UTC))
        }
        _ => Arc::new(Int64Array::new(values.into(), valid)),
    }
}

fn uints(values: Vec<u64>, valid: Option<NullBuffer>, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::UInt8 => Arc::new(UInt8Array::new(values.iter().map(|value| *value as u8).collect(), valid)),
        DataType::UInt16 => Arc::new(UInt16Array::new(values.iter().map(|value| *value as u16).collect(), valid)),
        DataType::UInt32 => Arc::new(UInt32Array::new(values.iter().map(|value| *value as u32).collect(), valid)),
        _ => Arc::new(UInt64Array::new(values.into(), valid)),
    }
}

fn floats(values: Vec<f64>, valid: Option<NullBuffer>, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Float32 => Arc::new(Float32Array::new(values.iter().map(|value| *value as f32).collect(), valid)),
        _ => Arc::new(Float64Array::new(values.into(), valid)),
    }
}

fn parts(mut values: Strings) -> (OffsetBuffer<i32>, Buffer) {
    values.bytes.shrink_to_fit();
    (offsets(values.ends), Buffer::from_vec(values.bytes))
}

/// Arrow has where each value begins, and where the last one ends.
fn offsets(mut ends: Vec<i32>) -> OffsetBuffer<i32> {
    ends.insert(0, 0);
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

/// Texts that stay known from one batch to the next; with more of them the next batch begins anew.
const CATEGORIES_KEPT_MAX: usize = 65_536;
