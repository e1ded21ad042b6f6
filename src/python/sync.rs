//! `SyncClient`: the blocking face of a [`Core`]. It needs no event loop and works inside one (Jupyter), because all
//! input and output is on FerroMQ's own runtime. Every wait lets go of the GIL and sees Ctrl-C.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyDict, PyTuple, PyType},
};

use super::{
    clock::Clock,
    core::Core,
    errors, events, html,
    message::Message,
    options::{
        ClientArguments, ReconnectArgument, Session, VersionArgument, Will, duration, int, number, optional_int, qos,
    },
    properties::Keywords,
    publish::{Publication, Publications},
    stream::Reader,
    subscription::{Items, SubscribeArguments, Subscribed, columns_max, generic_alias},
    tls::ClientTls,
};
use crate::{
    client::Error,
    codec::{ReasonCode, Version},
    telemetry::Rows,
};

/// An MQTT client that blocks. It needs no event loop and works inside one, as in Jupyter.
///
///     with ferromq.SyncClient("mqtt://localhost") as client:
///         client.publish("plant/1/temp", "21.5", qos=1)
///
/// Waiting lets other threads run, and Ctrl-C ends it. All arguments and exceptions are those of `Client`.
#[pyclass(frozen, module = "ferromq", subclass)]
pub(crate) struct SyncClient {
    core: Arc<Core>,
}

impl SyncClient {
    /// What it shares with `Client`.
    #[cfg(feature = "telemetry")]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn block_on<T: Send>(&self, py: Python<'_>, future: impl Future<Output = Result<T, Error>> + Send) -> PyResult<T> {
        self.core.block_on(py, future)
    }
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl SyncClient {
    #[new]
    #[pyo3(signature = (server = None, *, client_id = "", version = VersionArgument(Version::V5), username = None, password = None,
        keep_alive = 60, session = None, will = None, reconnect = ReconnectArgument::default(), timeout = 10.0, receive_maximum = 1024,
        max_packet_size = None, max_queued = 100_000, max_queued_bytes = 67_108_864, queue_qos0 = true,
        user_properties = None, tls = None, clock = None),
        text_signature = "(server=None, *, client_id='', version=5, username=None, password=None, keep_alive=60, \
            session=None, will=None, reconnect=True, timeout=10.0, receive_maximum=1024, max_packet_size=None, \
            max_queued=100000, max_queued_bytes=67108864, queue_qos0=True, user_properties=None, tls=None, clock=None)")]
    fn new(
        py: Python<'_>,
        server: Option<Bound<'_, PyAny>>,
        client_id: &str,
        version: VersionArgument,
        username: Option<&str>,
        password: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] keep_alive: i64,
        session: Option<Bound<'_, Session>>,
        will: Option<Bound<'_, Will>>,
        reconnect: ReconnectArgument,
        timeout: f64,
        #[pyo3(from_py_with = int)] receive_maximum: i64,
        #[pyo3(from_py_with = optional_int)] max_packet_size: Option<i64>,
        #[pyo3(from_py_with = int)] max_queued: i64,
        #[pyo3(from_py_with = int)] max_queued_bytes: i64,
        queue_qos0: bool,
        user_properties: Option<Bound<'_, PyAny>>,
        tls: Option<Bound<'_, ClientTls>>,
        clock: Option<Bound<'_, Clock>>,
    ) -> PyResult<Self> {
        let arguments = ClientArguments {
            client_id,
            version: version.0,
            username,
            password: password.as_ref(),
            keep_alive,
            session: session.as_ref(),
            will: will.as_ref(),
            reconnect: reconnect.0,
            timeout,
            receive_maximum,
            max_packet_size,
            max_queued,
            max_queued_bytes,
            queue_qos0,
            user_properties: user_properties.as_ref(),
            tls: tls.as_ref(),
            clock: clock.as_ref(),
        };
        Ok(Self { core: Core::new(py, server.as_ref(), &arguments)? })
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let this = slf.get();
        let client = this.block_on(slf.py(), this.core.connect(slf.py())?)?;
        this.core.connected(client);
        Ok(slf)
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, traceback = None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<Bound<'_, PyAny>>,
        exc_value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exc_value, traceback);
        self.block_on(py, self.core.disconnect(py, ReasonCode::Success, exc_type.is_some())?)
    }

    /// Connect; `with` does it, too.
    fn connect(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        Self::__enter__(slf)
    }

    /// Finish what is under way and disconnect.
    #[pyo3(signature = (*, with_will = false))]
    fn disconnect(&self, py: Python<'_>, with_will: bool) -> PyResult<()> {
        if with_will {
            self.core.needs_v5(py, "with_will")?;
        }
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        self.block_on(py, self.core.disconnect(py, reason, false)?)
    }

    /// Publish, and wait until it is handed over (QoS 0) or acknowledged (QoS 1 and 2). As `Client.publish`.
    #[pyo3(signature = (topic, payload = None, *, qos = 0, retain = false, encode = None, timeout = None,
        message_expiry = None, content_type = None, response_topic = None, correlation_data = None,
        user_properties = None, payload_format = None))]
    fn publish(
        &self,
        py: Python<'_>,
        topic: &str,
        payload: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] qos: i64,
        retain: bool,
        encode: Option<&str>,
        timeout: Option<f64>,
        message_expiry: Option<f64>,
        content_type: Option<&str>,
        response_topic: Option<&str>,
        correlation_data: Option<Bound<'_, PyAny>>,
        user_properties: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = optional_int)] payload_format: Option<i64>,
    ) -> PyResult<Py<PyAny>> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            response_topic,
            correlation_data: correlation_data.as_ref(),
            user_properties: user_properties.as_ref(),
            payload_format,
        };
        let timeout = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        let publication = Publication::extract(py, topic, payload.as_ref(), qos, retain, encode, &keywords)?;
        publication.publish_blocking(py, &self.core, timeout)
    }

    /// Publish without ever waiting. As `Client.publish_nowait`.
    #[pyo3(signature = (topic, payload = None, *, qos = 0, retain = false, encode = None, message_expiry = None,
        content_type = None, response_topic = None, correlation_data = None, user_properties = None,
        payload_format = None))]
    fn publish_nowait(
        &self,
        py: Python<'_>,
        topic: &str,
        payload: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] qos: i64,
        retain: bool,
        encode: Option<&str>,
        message_expiry: Option<f64>,
        content_type: Option<&str>,
        response_topic: Option<&str>,
        correlation_data: Option<Bound<'_, PyAny>>,
        user_properties: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = optional_int)] payload_format: Option<i64>,
    ) -> PyResult<()> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            response_topic,
            correlation_data: correlation_data.as_ref(),
            user_properties: user_properties.as_ref(),
            payload_format,
        };
        let publication = Publication::extract(py, topic, payload.as_ref(), qos, retain, encode, &keywords)?;
        publication.publish_nowait(py, &self.core)
    }

    /// Publish many, and wait for all; how many there were. As `Client.publish_many`.
    #[pyo3(signature = (messages, *, topic = None, payload = None, qos = 0, retain = false, encode = None, timeout = None))]
    fn publish_many(
        &self,
        py: Python<'_>,
        messages: Bound<'_, PyAny>,
        topic: Option<&str>,
        payload: Option<&str>,
        #[pyo3(from_py_with = int)] qos: i64,
        retain: bool,
        encode: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<usize> {
        let timeout = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        let publications = Publications::extract(&messages, topic, payload, encode, self::qos(py, qos)?, retain)?;
        publications.publish_blocking(py, &self.core, timeout)
    }

    /// Wait until everything accepted so far is in the session's spool. As `Client.flush`.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.block_on(py, self.core.flush(py)?)
    }

    /// Subscribe, and wait for SUBACK. As `Client.subscribe`.
    #[pyo3(signature = (*filters, qos = 0, maxsize = 65_536, max_bytes = 67_108_864, overflow = "block", ack = "auto",
        no_local = false, retain_as_published = false, retain_handling = "send", user_properties = None))]
    fn subscribe(
        &self,
        py: Python<'_>,
        filters: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = int)] qos: i64,
        #[pyo3(from_py_with = int)] maxsize: i64,
        #[pyo3(from_py_with = int)] max_bytes: i64,
        overflow: &str,
        ack: &str,
        no_local: bool,
        retain_as_published: bool,
        retain_handling: &str,
        user_properties: Option<Bound<'_, PyAny>>,
    ) -> PyResult<SyncSubscription> {
        let arguments = SubscribeArguments {
            filters: &filters,
            qos,
            maxsize,
            max_bytes,
            overflow,
            ack,
            no_local,
            retain_as_published,
            retain_handling,
            user_properties: user_properties.as_ref(),
        };
        SyncSubscription::open(py, &self.core, &arguments, Items::Messages)
    }

    /// Unsubscribe from filters of a resumed session, for which there is no subscription object.
    #[pyo3(signature = (*filters))]
    fn unsubscribe(&self, py: Python<'_>, filters: Bound<'_, PyTuple>) -> PyResult<()> {
        self.block_on(py, self.core.unsubscribe(py, &filters)?)
    }

    /// Send a request and wait for its answer (MQTT 5).
    #[pyo3(signature = (topic, payload = None, *, qos = 0, encode = None, timeout = 10.0, content_type = None,
        message_expiry = None, user_properties = None, payload_format = None))]
    fn request(
        &self,
        py: Python<'_>,
        topic: &str,
        payload: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] qos: i64,
        encode: Option<&str>,
        timeout: f64,
        content_type: Option<&str>,
        message_expiry: Option<f64>,
        user_properties: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = optional_int)] payload_format: Option<i64>,
    ) -> PyResult<Message> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            user_properties: user_properties.as_ref(),
            payload_format,
            ..Keywords::default()
        };
        let client = self.core.client(py)?;
        let publication = Publication::extract(py, topic, payload.as_ref(), qos, false, encode, &keywords)?;
        let (request, timeout) = (publication.to_request(), duration(py, "timeout", timeout)?);
        let response = self.block_on(py, client.request(request, timeout))?;
        Ok(Message::new(response, None))
    }

    /// Take requests, to be answered with `SyncRequest.respond`. As `Client.serve`.
    #[pyo3(signature = (*filters, qos = 1, maxsize = 65_536, max_bytes = 67_108_864))]
    fn serve(
        &self,
        py: Python<'_>,
        filters: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = int)] qos: i64,
        #[pyo3(from_py_with = int)] maxsize: i64,
        #[pyo3(from_py_with = int)] max_bytes: i64,
    ) -> PyResult<SyncSubscription> {
        let arguments = SubscribeArguments::requests(&filters, qos, maxsize, max_bytes);
        let items = Items::Requests { core: Arc::clone(&self.core), is_blocking: true };
        SyncSubscription::open(py, &self.core, &arguments, items)
    }

    /// What happens to the connection from now on, or to the next one if there is none.
    fn events(&self, py: Python<'_>) -> PyResult<SyncStream> {
        Ok(SyncStream(events::reader(py, &self.core)?))
    }

    /// The client identifier in use.
    #[getter]
    fn client_id(&self) -> String {
        self.core.client_id()
    }

    /// Publications with QoS 1 and 2 in the spool, those of earlier processes included; 0 without one.
    #[getter]
    fn spooled(&self) -> usize {
        self.core.spooled()
    }

    /// Whether there is a connection now.
    #[getter]
    fn connected(&self) -> bool {
        self.core.is_connected()
    }

    /// Whether the server had kept the session when this client connected last; `None` if it is not connected.
    #[getter]
    fn session_present(&self) -> Option<bool> {
        self.core.session_present()
    }

    /// Whether there is a connection, or one is sought.
    #[getter]
    fn state(&self) -> &'static str {
        self.core.state()
    }

    /// Counters: messages, connections, bytes.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.core.stats(py)
    }

    fn __repr__(&self) -> String {
        format!("SyncClient({}, {})", self.core.server(), self.core.state())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.core.stats(py).unwrap_or_else(|_| PyDict::new(py));
        html::counters(&self.__repr__(), &stats)
    }
}

/// Messages of some filters, for one thread at a time. Iterating waits for messages, for ever.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct SyncSubscription {
    core: Arc<Core>,
    subscribed: Arc<Subscribed>,
}

impl SyncSubscription {
    fn open(py: Python<'_>, core: &Arc<Core>, arguments: &SubscribeArguments<'_, '_>, items: Items) -> PyResult<Self> {
        let subscribed = Subscribed::new(py, core, arguments, items)?;
        subscribed.start(py)?;
        core.block_on(py, subscribed.opened())?;
        Ok(Self { core: Arc::clone(core), subscribed })
    }
}

impl Drop for SyncSubscription {
    fn drop(&mut self) {
        // Others than its own are those of iterators.
        self.subscribed.abandon(Arc::strong_count(self.subscribed.reader()) > 1);
    }
}

#[pymethods]
impl SyncSubscription {
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, traceback = None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<Bound<'_, PyAny>>,
        exc_value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exc_value, traceback);
        self.core.block_on(py, self.subscribed.close(py, exc_type.is_some())?)
    }

    /// End it; what waits is dropped.
    fn unsubscribe(&self, py: Python<'_>) -> PyResult<()> {
        self.__exit__(py, None, None, None)
    }

    /// The next message.
    ///
    /// Args:
    ///     timeout: How long to wait; 0 does not, `None` does for ever.
    ///
    /// Raises:
    ///     Timeout: None came.
    ///     Closed: None will come.
    #[pyo3(signature = (timeout = None))]
    fn get<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        get(py, self.subscribed.reader(), timeout)
    }

    /// Iterate over the next `count` messages, or over what comes in `seconds`.
    #[pyo3(signature = (count, seconds = None))]
    fn take(&self, py: Python<'_>, #[pyo3(from_py_with = int)] count: i64, seconds: Option<f64>) -> PyResult<Take> {
        let count = number(py, "count", count, 0..=i64::MAX)?;
        Take::new(py, self.subscribed.reader(), count, seconds)
    }

    /// Up to `max` messages; what came `within` so many seconds, perhaps nothing.
    #[pyo3(signature = (max = 1000, within = 0.1))]
    fn batch<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = int)] max: i64,
        within: f64,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let max: usize = number(py, "max", max, 1..=i64::MAX)?;
        let deadline = Instant::now() + duration(py, "within", within)?;
        let mut batch = Vec::new();
        while batch.len() < max {
            match self.subscribed.reader().take_blocking(py, max - batch.len(), Some(deadline))? {
                Some(more) if !more.is_empty() => batch.extend(more),
                _ => break,
            }
        }
        Ok(batch)
    }

    /// Iterate over batches of columns, given out when they have `max` messages, or `within` seconds of the first.
    ///
    /// Columns and arguments are those of `ferromq.collect`. Types that were learnt stay: a batch has at least the
    /// columns of the one before. `max` is to be no more than `maxsize` of the subscription.
    #[pyo3(signature = (max = 65_536, within = 0.5, *, decode = None, schema = None, on_error = "null"))]
    fn arrow(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = int)] max: i64,
        within: f64,
        decode: Option<Bound<'_, PyAny>>,
        schema: Option<Bound<'_, PyAny>>,
        on_error: &str,
    ) -> PyResult<Columns> {
        let max = columns_max(py, max)?;
        let within = duration(py, "within", within)?;
        let rows = self.subscribed.rows(py, decode.as_ref(), schema.as_ref(), on_error)?;
        Ok(Columns { reader: Arc::clone(self.subscribed.reader()), max, within, rows: Mutex::new(rows) })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        next(py, self.subscribed.reader(), None)
    }

    /// The filters, with plain wildcards.
    #[getter]
    fn filters(&self) -> Vec<String> {
        self.subscribed.filters()
    }

    /// Granted QoS, or the reason code of a refusal, for each filter.
    #[getter]
    fn granted(&self) -> Vec<u16> {
        self.subscribed.granted()
    }

    /// Messages that wait: up to `maxsize` in the queue, and as many, but 256 at most, on their way out of it.
    #[getter]
    fn pending(&self) -> usize {
        self.subscribed.pending()
    }

    /// How long the oldest message that waits has waited, seconds; 0 if none does.
    #[getter]
    fn lag(&self) -> f64 {
        self.subscribed.lag()
    }

    /// Messages that `overflow` has dropped, and those of `serve` that were no requests.
    #[getter]
    fn dropped(&self) -> u64 {
        self.subscribed.dropped()
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        generic_alias(cls, item)
    }

    fn __repr__(&self) -> String {
        self.subscribed.describe("SyncSubscription")
    }
}

/// A blocking iterator.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct SyncStream(Arc<Reader>);

#[pymethods]
impl SyncStream {
    /// The next item.
    ///
    /// Raises:
    ///     Timeout: None came in time.
    ///     Closed: None will come.
    #[pyo3(signature = (timeout = None))]
    fn get<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        get(py, &self.0, timeout)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        next(py, &self.0, None)
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        generic_alias(cls, item)
    }
}

/// A blocking iterator over batches of columns.
#[pyclass(frozen, module = "ferromq", name = "_Columns")]
pub(crate) struct Columns {
    reader: Arc<Reader>,
    max: usize,
    within: Duration,
    rows: Mutex<Rows>,
}

#[pymethods]
impl Columns {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // Whoever else iterates over it waits without holding up the interpreter.
        let Some(mut rows) = self.rows.try_lock() else {
            return Err(PyRuntimeError::new_err("another thread waits for the next batch: one consumer per iterator"));
        };
        self.reader.columns_blocking(py, self.max, self.within, &mut rows)
    }
}

/// A blocking iterator over so many messages, or over so much time.
#[pyclass(frozen, module = "ferromq", name = "_Take")]
pub(crate) struct Take {
    reader: Arc<Reader>,
    left: Mutex<usize>,
    /// The time begins with the first call, not with the making.
    seconds: Option<Duration>,
    deadline: Mutex<Option<Instant>>,
}

impl Take {
    fn new(py: Python<'_>, reader: &Arc<Reader>, count: usize, seconds: Option<f64>) -> PyResult<Self> {
        let seconds = seconds.map(|seconds| duration(py, "seconds", seconds)).transpose()?;
        Ok(Self { reader: Arc::clone(reader), left: Mutex::new(count), seconds, deadline: Mutex::new(None) })
    }
}

#[pymethods]
impl Take {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if *self.left.lock() == 0 {
            return Ok(None);
        }
        let deadline =
            self.seconds.map(|seconds| *self.deadline.lock().get_or_insert_with(|| Instant::now() + seconds));
        let item = next(py, &self.reader, deadline)?;
        let mut left = self.left.lock();
        *left = if item.is_some() { left.saturating_sub(1) } else { 0 };
        Ok(item)
    }
}

fn get<'py>(py: Python<'py>, reader: &Reader, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(item) = reader.try_next(py)? {
        return Ok(item);
    }
    let deadline = match timeout {
        Some(seconds) => Some(Instant::now() + duration(py, "timeout", seconds)?),
        None => None,
    };
    match reader.take_blocking(py, 1, deadline)? {
        Some(mut items) => {
            items.pop().ok_or_else(|| errors::timeout(py, "waiting for a message", timeout.unwrap_or_default()))
        }
        None => Err(errors::closed(py, "the subscription has ended")),
    }
}

/// The next item; `None` at the deadline, and when there will be no more.
fn next<'py>(py: Python<'py>, reader: &Reader, deadline: Option<Instant>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(item) = reader.try_next(py)? {
        return Ok(Some(item));
    }
    Ok(reader.take_blocking(py, 1, deadline)?.and_then(|mut items| items.pop()))
}
