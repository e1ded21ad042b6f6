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

/// All rows of some files for which `filter` says so, as one table. `watch` is told how many rows were looked at, of how
/// many, and may end it.
pub fn read<E: From<TelemetryError>>(
    paths: &[impl AsRef<Path>],
    filter: Option<&Filter>,
    watch: &mut impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Table, E> {
    let mut batches = Vec::new();
    let files = open_all(paths)?;
    // A file without rows has columns nevertheless.
    batches.extend(files.iter().map(|file| RecordBatch::new_empty(file.reader.schema())));
    each_batch(files, watch, |batch| {
        batches.push(match filter {
            Some(filter) => filter.apply(&batch)?,
            None => batch,
        });
        Ok(())
    })?;
    Ok(Table::unify(batches).map_err(TelemetryError::from)?)
}

/// The same, with the column `payload` decoded by `rows`. The filter sees the file's own columns.
pub fn read_decoded<E: From<TelemetryError>>(
    paths: &[impl AsRef<Path>],
    filter: Option<&Filter>,
    rows: &mut Rows,
    watch: &mut impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Table, E> {
    let mut batches = Vec::new();
    each_batch(open_all(paths)?, watch, |batch| {
        let batch = filter.map_or_else(|| Ok(batch.clone()), |filter| filter.apply(&batch))?;
        let messages = Messages::of(&batch)?;
        for row in 0..messages.len() {
            let payload = messages.payload(row);
            rows.push(messages.received_at_us(row), messages.topic(row), &payload)?;
            if rows.is_full() {
                batches.push(rows.finish());
            }
        }
        Ok(())
    })?;
    batches.push(rows.finish());
    Ok(Table::unify(batches).map_err(TelemetryError::from)?)
}

fn open_all(paths: &[impl AsRef<Path>]) -> Result<Vec<FileBatches>, TelemetryError> {
    paths.iter().map(|path| FileBatches::open(path.as_ref())).collect()
}

fn each_batch<E: From<TelemetryError>>(
    files: Vec<FileBatches>,
    watch: &mut impl FnMut(u64, u64) -> Result<(), E>,
    mut then: impl FnMut(RecordBatch) -> Result<(), TelemetryError>,
) -> Result<(), E> {
    let (total, mut done) = (files.iter().map(FileBatches::rows).sum(), 0);
    for file in files {
        for batch in file {
            let batch = batch?;
            done += batch.num_rows() as u64;
            then(batch)?;
            watch(done, total)?;
        }
    }
    Ok(())
}

/// Rows of a batch.
const BATCH_ROWS: usize = 65_536;
