//! The Arrow C data interface in capsules: what pandas, polars, pyarrow and DuckDB take without a copy, and give.
#![allow(unsafe_code)] // what is in a foreign capsule is a raw pointer

use std::{ffi::CStr, ptr::NonNull};

use arrow_array::{
    Array, RecordBatch, RecordBatchReader, StructArray,
    ffi::{FFI_ArrowArray, FFI_ArrowSchema, to_ffi},
    ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader},
};
use arrow_schema::Schema;
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyCapsule, PyTuple},
};

use crate::{python::errors, telemetry::Table};

// The capsules are to hold the structs of the specification, whose release callback is called when they go, unless the
// consumer has moved the contents out and cleared it. `new_with_value` keeps the value at the capsule's own address.

/// The columns of a table as a stream of batches.
pub(crate) fn stream_capsule<'py>(py: Python<'py>, table: &Table) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(table.reader())), STREAM)
}

/// Names and types of columns.
pub(crate) fn schema_capsule<'py>(py: Python<'py>, schema: &Schema) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(schema).map_err(|error| errors::invalid(py, &error.to_string()))?;
    PyCapsule::new_with_value(py, schema, SCHEMA)
}

/// A batch as a struct array, and its schema.
pub(crate) fn array_capsules<'py>(py: Python<'py>, batch: &RecordBatch) -> PyResult<Bound<'py, PyTuple>> {
    let data = StructArray::from(batch.clone()).into_data();
    let fault = |error: arrow_schema::ArrowError| errors::invalid(py, &error.to_string());
    let (array, _) = to_ffi(&data).map_err(fault)?;
    // The schema of the batch, and not of the struct, has its metadata.
    let schema = schema_capsule(py, batch.schema_ref())?;
    let array: FFI_ArrowArray = array;
    PyTuple::new(py, [schema, PyCapsule::new_with_value(py, array, ARRAY)?])
}

/// Whether an object gives its columns as a stream.
pub(crate) fn is_stream(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.hasattr(pyo3::intern!(object.py(), "__arrow_c_stream__"))
}

/// The batches of an object with `__arrow_c_stream__`, sharing its memory.
pub(crate) fn import(object: &Bound<'_, PyAny>) -> PyResult<Table> {
    let py = object.py();
    let capsule = object.call_method0(pyo3::intern!(py, "__arrow_c_stream__"))?;
    let capsule = capsule
        .cast::<PyCapsule>()
        .map_err(|_| PyTypeError::new_err(format!("__arrow_c_stream__ of {} gave no capsule", object.get_type())))?;
    let stream: NonNull<FFI_ArrowArrayStream> = capsule.pointer_checked(Some(STREAM))?.cast();
    // SAFETY: a capsule of this name holds a stream of the C data interface, and `from_raw` moves it out and marks the
    // original as released, as the specification asks of a consumer.
    let reader = unsafe { RecordBatchStreamReader::from_raw(stream.as_ptr()) };
    // Making the next batch may call back into Python, on this thread; nothing of ours is locked.
    let read = reader.and_then(|reader| {
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        Ok(Table::new(schema, batches))
    });
    read.map_err(|error| errors::invalid(py, &error.to_string()))
}

const STREAM: &CStr = c"arrow_array_stream";
const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
