//! Batches whose columns came and widened on the way, as one table.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, ListArray, RecordBatch, RecordBatchIterator, RecordBatchReader,
    StringArray, StructArray, cast::AsArray, new_null_array, types::Int64Type,
};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;

use super::column::{is_json, json_field, render, render_object};

/// Batches of one schema.
#[derive(Debug, Clone)]
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Table {
    /// One table of batches, whose columns may differ: absent ones are null, and types are widened.
    pub fn unify(batches: Vec<RecordBatch>) -> Result<Self, ArrowError> {
        let Some(first) = batches.first() else {
            return Ok(Self { schema: Arc::new(Schema::empty()), batches });
        };
        let schema = first.schema();
        if batches.iter().all(|batch| batch.schema_ref() == &schema) {
            return Ok(Self { schema, batches });
        }
        let mut fields = schema.fields().clone();
        for batch in &batches[1..] {
            fields = merge(&fields, batch.schema_ref().fields());
        }
        let schema = Arc::new(Schema::new(in_order(&fields)));
        let batches = batches.iter().map(|batch| widen_batch(batch, &schema)).collect::<Result<_, _>>()?;
        Ok(Self { schema, batches })
    }

    /// A table that is known to be of one schema.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        debug_assert!(batches.iter().all(|batch| batch.schema() == schema), "all batches have the schema");
        Self { schema, batches }
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Its rows, in batches.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Memory of its columns, bytes.
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// A row as a JSON object of the columns that have a value in it.
    pub fn row_json(&self, row: usize) -> Option<String> {
        let mut row = row;
        for batch in &self.batches {
            if row < batch.num_rows() {
                let mut text = Vec::new();
                let columns = self.schema.fields().iter().map(|field| &**field).zip(batch.columns());
                render_object(columns, row, &mut text);
                return String::from_utf8(text).ok();
            }
            row -= batch.num_rows();
        }
        None
    }

    /// The rows one after the other, for who takes them in batches. Sharing memory, not copying.
    pub fn reader(&self) -> impl RecordBatchReader + Send + use<> {
        RecordBatchIterator::new(self.batches.clone().into_iter().map(Ok), Arc::clone(&self.schema))
    }

    /// Only the rows for which `keep` says so.
    pub(crate) fn filter(batch: &RecordBatch, keep: impl Fn(usize) -> bool) -> Result<RecordBatch, ArrowError> {
        let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(keep(row))).collect();
        filter_record_batch(batch, &mask)
    }
}

/// The type of a column as a schema is written: `float64`, `list[str]`, `timestamp[us]`.
pub fn type_name(field: &Field) -> String {
    match field.data_type() {
        _ if is_json(field) => "json".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "str".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".to_owned(),
        DataType::Dictionary(..) => "category".to_owned(),
        DataType::Timestamp(TimeUnit::Second, _) => "timestamp[s]".to_owned(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => "timestamp[ms]".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => "timestamp[us]".to_owned(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "timestamp[ns]".to_owned(),
        DataType::List(item) => format!("list[{}]", type_name(item)),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{}: {}", field.name(), type_name(field))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}

/// The fields of both; of those that both have, the wider type.
fn merge(left: &Fields, right: &Fields) -> Fields {
    let places: HashMap<&str, usize> = left.iter().enumerate().map(|(at, field)| (field.name().as_str(), at)).collect();
    let mut merged: Vec<FieldRef> = left.to_vec();
    for field in right {
        match places.get(field.name().as_str()) {
            Some(at) => merged[*at] = Arc::new(wider(&left[*at], field)),
            None => merged.push(Arc::new(field.as_ref().clone().with_nullable(true))),
        }
    }
    merged.into()
}

/// The narrowest field that holds the values of both.
fn wider(left: &Field, right: &Field) -> Field {
    let is_nullable = left.is_nullable() || right.is_nullable();
    let name = left.name();
    match (left.data_type(), right.data_type()) {
        _ if is_json(left) || is_json(right) => json_field(name),
        (left_type, right_type) if left_type == right_type => left.clone().with_nullable(is_nullable),
        (DataType::Null, _) => right.clone().with_nullable(true),
        (_, DataType::Null) => left.clone().with_nullable(true),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => {
            Field::new(name, DataType::Float64, is_nullable)
        }
        (DataType::List(left), DataType::List(right)) => {
            Field::new(name, DataType::List(Arc::new(wider(left, right))), is_nullable)
        }
        (DataType::Struct(left), DataType::Struct(right)) => {
            Field::new(name, DataType::Struct(merge(left, right)), is_nullable)
        }
        _ => json_field(name),
    }
}

/// What is kept beside goes to the end.
fn in_order(fields: &Fields) -> Fields {
    let is_beside = |field: &FieldRef| field.name() == super::rows::RAW || field.name() == super::rows::REST;
    let (mut order, beside): (Vec<_>, Vec<_>) = fields.iter().cloned().partition(|field| !is_beside(field));
    order.extend(beside);
    order.into()
}

/// The batch with the columns of `schema`, which are at least as wide as its own.
pub(crate) fn widen_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.schema_ref().column_with_name(field.name()) {
        Some((at, from)) => widen(from, batch.column(at), field),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

fn widen(from: &Field, array: &ArrayRef, to: &Field) -> ArrayRef {
    match (from.data_type(), to.data_type()) {
        _ if is_json(to) && !is_json(from) => {
            let mut text = Vec::new();
            let texts = (0..array.len()).map(|row| {
                text.clear();
                array.is_valid(row).then(|| {
                    render(from, array, row, &mut text);
                    String::from_utf8_lossy(&text).into_owned()
                })
            });
            // A column of nothing but nulls says that it has none.
            if from.data_type() == &DataType::Null {
                new_null_array(to.data_type(), array.len())
            } else {
                Arc::new(texts.collect::<StringArray>())
            }
        }
        (from, to) if from == to => Arc::clone(array),
        (DataType::Null, to) => new_null_array(to, array.len()),
        (DataType::Int64, DataType::Float64) => Arc::new(
            array.as_primitive::<Int64Type>().unary::<_, arrow_array::types::Float64Type>(|value| value as f64),
        ) as Arc<Float64Array>,
        (DataType::List(from), DataType::List(to)) => {
            let list = array.as_list::<i32>();
            let items = widen(from, list.values(), to);
            Arc::new(ListArray::new(Arc::clone(to), list.offsets().clone(), items, list.nulls().cloned()))
        }
        (DataType::Struct(from), DataType::Struct(to)) => {
            let values = array.as_struct();
            let columns = to.iter().map(|field| match from.find(field.name()) {
                Some((at, from)) => widen(from, values.column(at), field),
                None => new_null_array(field.data_type(), values.len()),
            });
            Arc::new(StructArray::new(to.clone(), columns.collect(), values.nulls().cloned()))
        }
        (from, to) => unreachable!("{to} was found to be wider than {from}"),
    }
}
