//! `Capture`: a subscription that becomes a table or files, on a thread of its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::{
    arguments::{patterns, rows_options},
    error,
    table::{Table, made},
};
use crate::{
    client::{MailboxOptions, SubscribeRequest},
    codec::{RetainHandling, Subscription, SubscriptionOptions},
    python::{
        client::Client,
        core::Core,
        errors,
        options::{duration, int, number, optional_int, qos},
        runtime::{Local, SIGNAL_CHECK_INTERVAL},
        sync::SyncClient,
    },
    telemetry::{self, CaptureOptions, CaptureTarget, Decoder, Keep, Progress, RecordOptions, Recorder, Rows},
};

/// A subscription that is decoded in the background into a table in memory, or into Parquet files.
///
/// `collect`, `live` and `record` are made of it. Nothing of it needs Python while it runs.
///
/// Args:
///     client: A connected `Client` or `SyncClient`.
///     filters: Topic filters; each `{name}` is a column.
///     decode: `"json"`, `"cbor"`, `"msgpack"`, `"number"`, `"text"`, `"sparkplug"`, the format of a packed struct such
///         as `"<ffI"`, or that and names: `("<ffI", ["x", "y", "n"])`. `None`: the column `payload`.
///     schema: Names and types of the fields; others are left out. `None`: types are learnt, and widen as need be.
///     on_error: What becomes of a payload that cannot be decoded: `"null"`, `"raise"`, or `"raw"`: it is kept in the
///         column `raw`.
///     rows: End after so many.
///     max_bytes: Memory at most; at this the capture ends, or, with `keep` or `keep_rows`, the oldest rows go.
///     keep: Seconds after which rows go.
///     keep_rows: Rows at most; of more the oldest go.
///     path: A Parquet file to write instead of keeping rows.
///     rotate: Seconds after which another file is begun.
///     rotate_bytes: Size at which another file is begun.
///     compression: Level of zstd; 0 is none.
///     overwrite: Replace a file that is there.
///     qos: Quality of service to subscribe with.
///     retained: Also take what is retained.
///
/// Raises:
///     InvalidArgument: An argument cannot be, or the file is there already.
///     Refused: The server refused the subscription.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Capture {
    capture: Local<Arc<telemetry::Capture>>,
    path: Option<PathBuf>,
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Capture {
    #[new]
    #[pyo3(signature = (client, *filters, decode = None, schema = None, on_error = "null", rows = None,
        max_bytes = 2_147_483_648, keep = None, keep_rows = None, path = None, rotate = None, rotate_bytes = None,
        compression = 3, overwrite = false, qos = 0, retained = true))]
    fn new(
        py: Python<'_>,
        client: Bound<'_, PyAny>,
        filters: Bound<'_, PyTuple>,
        decode: Option<Bound<'_, PyAny>>,
        schema: Option<Bound<'_, PyAny>>,
        on_error: &str,
        #[pyo3(from_py_with = optional_int)] rows: Option<i64>,
        #[pyo3(from_py_with = int)] max_bytes: i64,
        keep: Option<f64>,
        #[pyo3(from_py_with = optional_int)] keep_rows: Option<i64>,
        path: Option<PathBuf>,
        rotate: Option<f64>,
        #[pyo3(from_py_with = optional_int)] rotate_bytes: Option<i64>,
        #[pyo3(from_py_with = int)] compression: i64,
        overwrite: bool,
        #[pyo3(from_py_with = int)] qos: i64,
        retained: bool,
    ) -> PyResult<Self> {
        let core = core_of(&client)?;
        let patterns = patterns(py, &filters)?;
        let retain_handling = if retained { RetainHandling::Send } else { RetainHandling::DoNotSend };
        let qos = self::qos(py, qos)?;
        // A recording is to tell what was published to be retained.
        let retain_as_published = path.is_some();
        let options =
            SubscriptionOptions { qos, retain_as_published, retain_handling, ..SubscriptionOptions::default() };
        let subscription = |pattern: &telemetry::Pattern| Subscription { filter: pattern.filter().clone(), options };
        let subscriptions = patterns.iter().map(subscription).collect();
        let request = SubscribeRequest { subscriptions, ..SubscribeRequest::default() };
        let target = match &path {
            None => CaptureTarget::Memory(Keep {
                age_max: keep.map(|keep| duration(py, "keep", keep)).transpose()?,
                rows_max: optional_number(py, "keep_rows", keep_rows)?,
                bytes_max: number(py, "max_bytes", max_bytes, 1..=i64::MAX)?,
                drops_oldest: keep.is_some() || keep_rows.is_some(),
            }),
            Some(path) => {
                let options = RecordOptions {
                    path: path.clone(),
                    rotate_after: rotate.map(|rotate| duration(py, "rotate", rotate)).transpose()?,
                    rotate_bytes: optional_number(py, "rotate_bytes", rotate_bytes)?,
                    zstd_level: Some(number(py, "compression", compression, 0..=22)?).filter(|level| *level > 0),
                    overwrite,
                };
                CaptureTarget::Files(Box::new(Recorder::new(options).map_err(|fault| error(py, fault))?))
            }
        };
        let rows_max = optional_number(py, "rows", rows)?;
        let mut rows = rows_options(py, patterns, decode.as_ref(), schema.as_ref(), on_error)?;
        rows.keeps_delivery = path.is_some() && matches!(rows.decoder, Decoder::Raw);
        let rows = Rows::new(rows);
        let (process, connection) = (core.process(py)?, core.client(py)?);
        let mailbox =
            MailboxOptions { messages_max: MAILBOX_MESSAGES, bytes_max: MAILBOX_BYTES, ..MailboxOptions::default() };
        let subscribed = process.block_on(py, async move { connection.subscribe(request, mailbox).await })?;
        let subscribed = subscribed.map_err(|error| errors::from_client(py, &error))?;
        let runtime = process.runtime().handle().clone();
        let capture = telemetry::Capture::start(runtime, subscribed, rows, CaptureOptions { rows_max, target });
        Ok(Self { capture: Local::new(capture), path })
    }

    /// Wait until it has ended, or so many seconds; whether it has.
    ///
    /// Raises:
    ///     DecodeError: A payload could not be decoded, and `on_error` is `"raise"`.
    ///     FerroMQError: The subscription ended, or a file could not be written.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let capture = self.capture.try_get(py)?;
        let mut left = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?.unwrap_or(Duration::MAX);
        loop {
            let slice = left.min(SIGNAL_CHECK_INTERVAL);
            let is_done = py.detach(|| capture.wait(slice));
            py.check_signals()?;
            left -= slice;
            if is_done {
                return self.check(py).map(|()| true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// End it. What came before is in the table, or in files that are complete.
    ///
    /// Raises:
    ///     DecodeError: A payload could not be decoded, and `on_error` is `"raise"`.
    ///     FerroMQError: The subscription had ended, or a file could not be written.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let capture = self.capture.try_get(py)?;
        py.detach(|| capture.stop());
        self.check(py)
    }

    /// The rows that are kept now. Columns are shared with what goes on, not copied.
    fn table(&self, py: Python<'_>) -> PyResult<Table> {
        let capture = self.capture.try_get(py)?;
        let (table, counts) = py.detach(|| (capture.table(), capture.progress().counts));
        made(py, table, counts)
    }

    /// Files that are complete.
    #[getter]
    fn files(&self, py: Python<'_>) -> PyResult<Vec<PathBuf>> {
        Ok(self.capture.try_get(py)?.files())
    }

    /// The file it was told to write.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// How far it is, in numbers.
    ///
    /// `messages`, `rows`, `bytes` of payload, `errors`, `first_error`, `rest` (values that found no column),
    /// `file_bytes`, `pending` and `dropped` messages, `forgotten` rows, `lag` (age of the last message when it was
    /// decoded, seconds), `done`, and `full`.
    #[getter]
    fn progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Progress { counts, file_bytes, pending, dropped, forgotten, lag, is_done, is_full } =
            self.capture.try_get(py)?.progress();
        let dict = PyDict::new(py);
        dict.set_item("messages", counts.messages)?;
        dict.set_item("rows", counts.rows)?;
        dict.set_item("bytes", counts.bytes)?;
        dict.set_item("errors", counts.errors)?;
        dict.set_item("first_error", counts.first_error)?;
        dict.set_item("rest", counts.rest)?;
        dict.set_item("file_bytes", file_bytes)?;
        dict.set_item("pending", pending)?;
        dict.set_item("dropped", dropped)?;
        dict.set_item("forgotten", forgotten)?;
        dict.set_item("lag", lag.as_secs_f64())?;
        dict.set_item("done", is_done)?;
        dict.set_item("full", is_full)?;
        Ok(dict)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let progress = self.capture.try_get(py)?.progress();
        let state = if progress.is_done { "ended" } else { "running" };
        Ok(format!("Capture({state}, {} rows, {} errors)", progress.counts.rows, progress.counts.errors))
    }
}

impl Capture {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.capture.try_get(py)?.take_failure().map_or(Ok(()), |fault| Err(error(py, fault)))
    }
}

pub(crate) fn core_of(client: &Bound<'_, PyAny>) -> PyResult<Arc<Core>> {
    if let Ok(client) = client.cast::<Client>() {
        return Ok(Arc::clone(client.get().core()));
    }
    match client.cast::<SyncClient>() {
        Ok(client) => Ok(Arc::clone(client.get().core())),
        Err(_) => Err(PyTypeError::new_err(format!("client is a Client or a SyncClient, not {}", client.get_type()))),
    }
}

fn optional_number(py: Python<'_>, name: &str, value: Option<i64>) -> PyResult<Option<u64>> {
    value.map(|value| number(py, name, value, 1..=i64::MAX)).transpose()
}

/// Messages that wait to be decoded; more stop the socket.
const MAILBOX_MESSAGES: usize = 16_384;

/// Bytes that wait to be decoded.
const MAILBOX_BYTES: usize = 32 << 20;
