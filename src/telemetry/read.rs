//! Parquet files to batches.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow_array::{RecordBatch, RecordBatchReader as _};
use arrow_schema::ArrowError;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Rows, Table, TelemetryError, filter::Filter, messages::Messages};

/// The batches of a file, one after the other.
#[derive(Debug)]
pub struct FileBatches {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    rows: u64,
}

impl FileBatches {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, TelemetryError> {
        let file = File::open(path).map_err(TelemetryError::io(path))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(TelemetryError::parquet(path))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(TelemetryError::parquet(path))?;
        Ok(Self { path: path.to_owned(), reader, rows })
    }

    /// Rows of the whole file.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl Iterator for FileBatches {
    type Item = Result<RecordBatch, TelemetryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let fault = |error: ArrowError| TelemetryError::Parquet { path: self.path.clone(), source: error.into() };
        self.reader.next().map(|batch| batch.map_err(fault))
    }
}

/// All rows of some files for which `filter` says so, as one table.
pub fn read(paths: &[impl AsRef<Path>], filter: Option<&Filter>) -> Result<Table, TelemetryError> {
    let mut batches = Vec::new();
    for path in paths {
        let file = FileBatches::open(path.as_ref())?;
        // A file without rows has columns nevertheless.
        batches.push(RecordBatch::new_empty(file.reader.schema()));
        for batch in file {
            let batch = batch?;
            batches.push(match filter {
                Some(filter) => filter.apply(&batch)?,
                None => batch,
            });
        }
    }
    Ok(Table::unify(batches)?)
}

/// The same, with the column `payload` decoded by `rows`. The filter sees the file's own columns.
pub fn read_decoded(
    paths: &[impl AsRef<Path>],
    filter: Option<&Filter>,
    rows: &mut Rows,
) -> Result<Table, TelemetryError> {
    let mut batches = Vec::new();
    for path in paths {
        for batch in FileBatches::open(path.as_ref())? {
            let batch = batch?;
            let batch = filter.map_or_else(|| Ok(batch.clone()), |filter| filter.apply(&batch))?;
            let messages = Messages::of(&batch)?;
            for row in 0..messages.len() {
                let payload = messages.payload(row);
                rows.push(messages.received_at_us(row), messages.topic(row), &payload)?;
                if rows.is_full() {
                    batches.push(rows.finish());
                }
            }
        }
    }
    batches.push(rows.finish());
    Ok(Table::unify(batches)?)
}

/// Rows of a batch.
const BATCH_ROWS: usize = 65_536;
