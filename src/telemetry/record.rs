//! Batches to Parquet files. A file is complete or absent: it is written under another name and gets its own when its
//! end is on the disk.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{TelemetryError, table::widen_batch};

/// Where files go, and when the next one begins.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// The file; with rotation its name gets a number: `run.parquet` is `run-0001.parquet`, and so on.
    pub path: PathBuf,
    /// Begin another file after this time.
    pub rotate_after: Option<Duration>,
    /// Begin another file when one has about so many bytes.
    pub rotate_bytes: Option<u64>,
    /// Level of zstd, 1 to 22. `None`: no compression. Default 3.
    pub zstd_level: Option<i32>,
    /// Replace a file of the same name. Default false: refuse.
    pub overwrite: bool,
}

impl RecordOptions {
    /// One file, compressed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rotate_after: None, rotate_bytes: None, zstd_level: Some(3), overwrite: false }
    }

    fn rotates(&self) -> bool {
        self.rotate_after.is_some() || self.rotate_bytes.is_some()
    }
}

/// Writes batches to files.
#[derive(Debug)]
pub struct Recorder {
    options: RecordOptions,
    properties: WriterProperties,
    open: Option<Open>,
    files: Vec<PathBuf>,
    number: u32,
    bytes_done: u64,
}

/// A file that is being written.
#[derive(Debug)]
struct Open {
    writer: Option<ArrowWriter<File>>,
    schema: SchemaRef,
    temporary: PathBuf,
    path: PathBuf,
    opened_at: Instant,
}

impl Recorder {
    /// A recorder that has not written anything. Fails if the file may not be written, before the first message.
    pub fn new(options: RecordOptions) -> Result<Self, TelemetryError> {
        let compression = match options.zstd_level {
            None => Compression::UNCOMPRESSED,
            Some(level) => Compression::ZSTD(
                ZstdLevel::try_new(level).map_err(|error| TelemetryError::Settings(error.to_string()))?,
            ),
        };
        let folder = folder(&options.path);
        if !folder.is_dir() {
            let message = format!("{} is no folder: make it first", folder.display());
            return Err(TelemetryError::Settings(message));
        }
        if !options.rotates() && !options.overwrite && options.path.exists() {
            let message = format!("{} exists: choose another name, or overwrite", options.path.display());
            return Err(TelemetryError::Settings(message));
        }
        let properties =
            WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(GROUP_ROWS_MAX));
        let properties = properties.set_created_by(concat!("ferromq ", env!("CARGO_PKG_VERSION")).to_owned());
        let properties = properties.build();
        Ok(Self { options, properties, open: None, files: Vec::new(), number: 0, bytes_done: 0 })
    }

    /// Writes a batch. All batches of a file must have one schema; narrower ones are widened.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TelemetryError> {
        if self.open.is_none() {
            self.open = Some(self.begin(batch.schema())?);
        }
        let open = self.open.as_mut().expect("it was opened above");
        let batch = if batch.schema() == open.schema { batch.clone() } else { widen_batch(batch, &open.schema)? };
        let writer = open.writer.as_mut().expect("a file is open until it is finished");
        writer.write(&batch).map_err(TelemetryError::parquet(&open.path))?;
        if writer.in_progress_size() >= GROUP_BYTES_MAX {
            writer.flush().map_err(TelemetryError::parquet(&open.path))?;
        }
        Ok(())
    }

    /// Whether the file has reached its age or size.
    pub fn is_due(&self, now: Instant) -> bool {
        let Some(open) = &self.open else { return false };
        self.options.rotate_after.is_some_and(|age| now.saturating_duration_since(open.opened_at) >= age)
            || self.options.rotate_bytes.is_some_and(|bytes| open.bytes() >= bytes)
    }

    /// Whether a file is being written, whose schema is fixed.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Completes the file; the next batch begins another.
    pub fn finish(&mut self) -> Result<(), TelemetryError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let writer = open.writer.take().expect("a file is finished once");
        let file = writer.into_inner().map_err(TelemetryError::parquet(&open.path))?;
        file.sync_all().map_err(TelemetryError::io(&open.temporary))?;
        self.bytes_done += file.metadata().map_or(0, |metadata| metadata.len());
        drop(file);
        fs::rename(&open.temporary, &open.path).map_err(TelemetryError::io(&open.path))?;
        // The new name is lost in a power failure unless the folder is synced; not every system can.
        if let Ok(folder) = File::open(folder(&open.path)) {
            let _ = folder.sync_all();
        }
        self.files.push(open.path.clone());
        Ok(())
    }

    /// Files that are complete.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes written, and about so many that wait for the end of their row group.
    pub fn bytes(&self) -> u64 {
        self.bytes_done + self.open.as_ref().map_or(0, Open::bytes)
    }

    fn begin(&mut self, schema: SchemaRef) -> Result<Open, TelemetryError> {
        let path = self.next_path()?;
        let temporary = temporary(&path);
        let file = File::create(&temporary).map_err(TelemetryError::io(&temporary))?;
        let writer = ArrowWriter::try_new(file, SchemaRef::clone(&schema), Some(self.properties.clone()))
            .map_err(TelemetryError::parquet(&path))?;
        Ok(Open { writer: Some(writer), schema, temporary, path, opened_at: Instant::now() })
    }

    fn next_path(&mut self) -> Result<PathBuf, TelemetryError> {
        if !self.options.rotates() {
            return Ok(self.options.path.clone());
        }
        let stem = self.options.path.file_stem().unwrap_or_default().to_os_string();
        let extension = self.options.path.extension().map_or_else(|| "parquet".into(), OsString::from);
        while self.number < FILES_MAX {
            self.number += 1;
            let mut name = stem.clone();
            name.push(format!("-{:04}.", self.number));
            name.push(&extension);
            let path = self.options.path.with_file_name(name);
            if self.options.overwrite || !path.exists() {
                return Ok(path);
            }
        }
        Err(TelemetryError::Settings(format!("{} has {FILES_MAX} files already", self.options.path.display())))
    }
}

impl Open {
    fn bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| (writer.bytes_written() + writer.in_progress_size()) as u64)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // It was not finished: an incomplete file is no file. If it was, there is none of that name any more.
        if self.temporary.exists() {
            drop(self.writer.take());
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name in the same folder under which a file is written.
fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

/// Rows that are written together; readers skip or take them as a whole.
const GROUP_ROWS_MAX: usize = 1 << 18;

/// Encoded bytes that wait in memory for the end of their row group.
const GROUP_BYTES_MAX: usize = 32 << 20;

/// Files of one recording.
const FILES_MAX: u32 = 1_000_000;
