//! Parquet files to tables.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::{
    Stop,
    arguments::rows_options,
    error,
    table::{Table, made},
};
use crate::telemetry::{self, Counts, Filter, Pattern, Rows};

/// Parquet files as one table: columns that a file does not have are null, and types are widened.
///
/// Args:
///     paths: The files.
///     where: Which rows, as SQL says it: `"line = 'L1' and value > 20"`.
///     decode: Decode the column `payload` of what was recorded without; as in `Capture`.
///     names: The filters with names of levels, for columns of them.
///     schema: As in `Capture`.
///     on_error: As in `Capture`.
///     progress: Is called with the rows that were looked at and all that there are, now and then.
///
/// Raises:
///     OSError: A file cannot be read.
///     InvalidArgument: It is no Parquet file, or `where` names a column that is not there.
#[pyfunction]
#[pyo3(signature = (paths, *, r#where = None, decode = None, names = None, schema = None, on_error = "null",
    progress = None))]
#[allow(clippy::too_many_arguments)] // keyword arguments
pub(crate) fn read_parquet(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    r#where: Option<&str>,
    decode: Option<Bound<'_, PyAny>>,
    names: Option<Vec<String>>,
    schema: Option<Bound<'_, PyAny>>,
    on_error: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<Table> {
    let filter = r#where.map(Filter::parse).transpose().map_err(|fault| error(py, fault))?;
    let patterns = names.unwrap_or_default().iter().map(|name| Pattern::parse(name)).collect::<Result<Vec<_>, _>>();
    let patterns = patterns.map_err(|fault| error(py, fault))?;
    // Ctrl-C ends it, however large the files.
    let mut watch = |done: u64, total: u64| {
        Python::attach(|py| {
            py.check_signals()?;
            progress.as_ref().map_or(Ok(()), |progress| progress.call1(py, (done, total)).map(drop))
        })
        .map_err(Stop::Python)
    };
    if decode.is_none() && schema.is_none() && patterns.is_empty() {
        let table = py.detach(|| telemetry::read(&paths, filter.as_ref(), &mut watch));
        return finished(py, table, Counts::default());
    }
    let mut rows = Rows::new(rows_options(py, patterns, decode.as_ref(), schema.as_ref(), on_error)?);
    let table = py.detach(|| telemetry::read_decoded(&paths, filter.as_ref(), &mut rows, &mut watch));
    finished(py, table, rows.counts().clone())
}

fn finished(py: Python<'_>, table: Result<telemetry::Table, Stop>, counts: Counts) -> PyResult<Table> {
    made(py, Ok(table.map_err(|stop| stop.into_exception(py))?), counts)
}
