//! Parquet files to tables.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::{
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
///
/// Raises:
///     OSError: A file cannot be read.
///     InvalidArgument: It is no Parquet file, or `where` names a column that is not there.
#[pyfunction]
#[pyo3(signature = (paths, *, r#where = None, decode = None, names = None, schema = None, on_error = "null"))]
pub(crate) fn read_parquet(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    r#where: Option<&str>,
    decode: Option<Bound<'_, PyAny>>,
    names: Option<Vec<String>>,
    schema: Option<Bound<'_, PyAny>>,
    on_error: &str,
) -> PyResult<Table> {
    let filter = r#where.map(Filter::parse).transpose().map_err(|fault| error(py, fault))?;
    let patterns = names.unwrap_or_default().iter().map(|name| Pattern::parse(name)).collect::<Result<Vec<_>, _>>();
    let patterns = patterns.map_err(|fault| error(py, fault))?;
    let Some(decode) = decode else {
        let table = py.detach(|| telemetry::read(&paths, filter.as_ref()));
        return made(py, table, Counts::default());
    };
    let mut rows = Rows::new(rows_options(py, patterns, Some(&decode), schema.as_ref(), on_error)?);
    let table = py.detach(|| telemetry::read_decoded(&paths, filter.as_ref(), &mut rows));
    made(py, table, rows.counts().clone())
}
