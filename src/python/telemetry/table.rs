//! `Table` and `RecordBatch`: columns for others to take.

use arrow_schema::Schema;
use pyo3::{
    prelude::*,
    types::{PyCapsule, PyDict, PyTuple, PyType},
};

use super::{arrow, error};
use crate::{
    python::options::{int, number},
    telemetry::{self, Counts, Series, Summary},
};

/// Messages as columns. pandas, polars, pyarrow and DuckDB take it as it is, without a copy.
///
///     temps = ferromq.collect("mqtt://localhost", "plant/{line}/temp", seconds=10, decode="json")
///     polars.DataFrame(temps)
///     pyarrow.table(temps)
///     duckdb.sql("from temps")
///     temps.to_pandas()
///
/// Columns are `received_at`, `topic`, one for each named level, and the decoded fields or `payload`. Any object with
/// `__arrow_c_stream__` can be made one: `Table(frame)`.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Table {
    table: telemetry::Table,
    counts: Counts,
}

impl Table {
    pub(crate) fn of(table: telemetry::Table, counts: Counts) -> Self {
        Self { table, counts }
    }

    fn summary(&self) -> Summary {
        Summary::of(&self.table)
    }
}

#[pymethods]
impl Table {
    #[new]
    #[pyo3(signature = (data, /))]
    fn new(data: Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self::of(arrow::import(&data)?, Counts::default()))
    }

    /// One table of several objects with `__arrow_c_stream__`: absent columns are null, and types are widened.
    #[classmethod]
    fn concat(cls: &Bound<'_, PyType>, parts: Vec<Bound<'_, PyAny>>) -> PyResult<Self> {
        let py = cls.py();
        let mut batches = Vec::new();
        for part in &parts {
            batches.extend_from_slice(arrow::import(part)?.batches());
        }
        made(py, telemetry::Table::unify(batches).map_err(Into::into), Counts::default())
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The request is a wish; who has it casts what comes.
        let _ = requested_schema;
        arrow::stream_capsule(py, &self.table)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        arrow::schema_capsule(py, self.table.schema())
    }

    fn __len__(&self) -> usize {
        self.table.rows()
    }

    /// Names of the columns, and their types in words.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        describe(py, self.table.schema())
    }

    /// Names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.table.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Memory of the columns, bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.table.bytes()
    }

    /// Messages that could not be decoded, or had a value that is not of the given type.
    #[getter]
    fn errors(&self) -> u64 {
        self.counts.errors
    }

    /// What was wrong with the first of them.
    #[getter]
    fn first_error(&self) -> Option<&str> {
        self.counts.first_error.as_deref()
    }

    /// The rows in batches, as they came.
    fn batches(&self) -> Vec<RecordBatch> {
        self.table.batches().iter().map(|batch| RecordBatch(batch.clone())).collect()
    }

    /// The last values of the topics with most rows, for a chart, and a line that sums up the table.
    ///
    /// Each topic is a dictionary of `topic` and `points`: milliseconds and value, of which there are `points` at most.
    #[pyo3(signature = (points = 500))]
    fn series<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = int)] points: i64,
    ) -> PyResult<(Vec<Bound<'py, PyDict>>, String)> {
        let points = number(py, "points", points, 2..=i64::from(u32::MAX))?;
        let (series, headline) = py.detach(|| (Series::of(&self.table, points), self.summary().headline()));
        let line = |series: Series| {
            let line = PyDict::new(py);
            line.set_item("topic", series.topic)?;
            line.set_item("points", series.points)?;
            Ok(line)
        };
        Ok((series.into_iter().map(line).collect::<PyResult<_>>()?, headline))
    }

    /// A `pyarrow.Table` of the same memory.
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("pyarrow")?.call_method1("table", (slf,))
    }

    /// A `polars.DataFrame`.
    fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("polars")?.call_method1("DataFrame", (slf,))
    }

    /// A `pandas.DataFrame`.
    fn to_pandas<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        to_pandas(slf.as_any())
    }

    fn __repr__(&self) -> String {
        self.summary().text()
    }

    fn _repr_html_(&self) -> String {
        self.summary().html()
    }
}

/// Some rows of a table.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct RecordBatch(pub(crate) arrow_array::RecordBatch);

impl RecordBatch {
    fn table(&self) -> telemetry::Table {
        telemetry::Table::new(self.0.schema(), vec![self.0.clone()])
    }
}

#[pymethods]
impl RecordBatch {
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let _ = requested_schema;
        arrow::array_capsules(py, &self.0)
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        arrow::stream_capsule(py, &self.table())
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        arrow::schema_capsule(py, self.0.schema_ref())
    }

    fn __len__(&self) -> usize {
        self.0.num_rows()
    }

    /// Names of the columns, and their types in words.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        describe(py, self.0.schema_ref())
    }

    /// Memory of the columns, bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.get_array_memory_size()
    }

    /// A `pyarrow.RecordBatch` of the same memory.
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("pyarrow")?.call_method1("record_batch", (slf,))
    }

    /// A `polars.DataFrame`.
    fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("polars")?.call_method1("DataFrame", (slf,))
    }

    /// A `pandas.DataFrame`.
    fn to_pandas<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        to_pandas(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("RecordBatch({} rows, {} columns)", self.0.num_rows(), self.0.num_columns())
    }
}

fn to_pandas<'py>(columns: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = columns.py();
    let frame = py.import("pandas")?.getattr("DataFrame")?;
    if frame.hasattr("from_arrow")? {
        return frame.call_method1("from_arrow", (columns,));
    }
    py.import("pyarrow")?.call_method1("table", (columns,))?.call_method0("to_pandas")
}

fn describe<'py>(py: Python<'py>, schema: &Schema) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for field in schema.fields() {
        dict.set_item(field.name(), telemetry::type_name(field))?;
    }
    Ok(dict)
}

/// The failure of a table as an exception.
pub(crate) fn made(
    py: Python<'_>,
    table: Result<telemetry::Table, telemetry::TelemetryError>,
    counts: Counts,
) -> PyResult<Table> {
    table.map(|table| Table::of(table, counts)).map_err(|fault| error(py, fault))
}
