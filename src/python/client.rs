//! `Client`: the asynchronous face of a [`Core`]. Extract, call, convert.

use std::sync::Arc;

use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::{
    clock::Clock,
    core::Core,
    events, html,
    message::Message,
    operation::Operation,
    options::{ClientArguments, ReconnectArgument, Session, VersionArgument, Will, duration, int, optional_int, qos},
    properties::Keywords,
    publish::{Publication, Publications},
    subscription::{Items, SubscribeArguments, Subscribed, Subscription},
    tls::ClientTls,
};
use crate::{
    client::PublishRequest,
    codec::{ReasonCode, Version},
};

/// An MQTT client for asyncio.
///
///     async with ferromq.Client("mqtt://localhost") as client:
///         await client.publish("plant/1/temp", "21.5", qos=1)
///
/// Entered means connected (CONNACK); left means everything is sent and acknowledged, and DISCONNECT is sent. It
/// reconnects by itself, and its subscriptions with it; `events()` tells. Needs a running asyncio loop, any kind, and
/// may be used from several.
///
/// Args:
///     server: `mqtt://host:port`, `mqtts://`, `ws://host:port/path`, `wss://` or `unix:///path`, several of them to be
///         tried in turn, or a `Broker` of this process. Default `mqtt://localhost:1883`.
///     client_id: Client identifier; empty lets the server choose one, and with MQTT 3.1 has one made up. Before MQTT 5
///         a session needs one.
///     version: 5 (5.0), 4 (3.1.1) or 3 (3.1).
///     username: User name.
///     password: Password.
///     keep_alive: Seconds after which a silent connection is probed; 0 never.
///     session: Keep the session at the server between connections; by default it ends with the connection.
///     will: What the server publishes should this client vanish.
///     reconnect: `False`, `True` for the defaults of `Reconnect`, or how.
///     timeout: For connecting, subscribing and leaving, and for the answer to a probe, which has 10 s at most.
///     receive_maximum: QoS 1 and 2 messages the server may have unacknowledged towards this client.
///     max_packet_size: Larger packets are not accepted, bytes.
///     max_queued: Publications that may wait for a connection or for acknowledgements.
///     max_queued_bytes: Their bytes.
///     queue_qos0: Whether QoS 0 publications wait while there is no connection, or raise.
///     user_properties: User properties of CONNECT (MQTT 5).
///     tls: Whom to believe at `mqtts://` and `wss://`; by default those whom the system trusts.
///     clock: For tests: a clock to live by that can be advanced, as `broker.clock`. A client of a `Broker` has its.
///
/// Raises:
///     InvalidArgument: A value cannot be.
#[pyclass(frozen, module = "ferromq", subclass)]
pub(crate) struct Client {
    core: Arc<Core>,
}

impl Client {
    /// What it shares with `SyncClient`.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Client {
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

    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let (py, core) = (slf.py(), Arc::clone(&slf.get().core));
        let this = slf.clone().into_any().unbind();
        Operation::spawn(py, core.connect(py)?, move |_, client| {
            core.connected(client);
            Ok(this)
        })
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, traceback = None))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        exc_type: Option<Bound<'py, PyAny>>,
        exc_value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (exc_value, traceback);
        let ending = self.core.disconnect(py, ReasonCode::Success, exc_type.is_some())?;
        Operation::spawn(py, ending, |py, ()| Ok(py.None()))
    }

    /// Connect; `async with` does it, too.
    ///
    /// With `Reconnect(first=True)` it tries again until it is connected, or `attempts` have failed: `timeout` limits
    /// each attempt, and `asyncio.timeout` all of them.
    ///
    /// Raises:
    ///     ConnectError: No server could be reached.
    ///     ConnectionLost: The server closed the connection without an answer.
    ///     ProtocolError: What it answered is not MQTT.
    ///     Refused: The server refused; `NotAuthorized` for bad credentials.
    ///     Timeout: It took longer than `timeout`.
    ///     Closed: It is connected already. As with wrong arguments of all verbs, the call raises and not the await.
    fn connect(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Self::__aenter__(slf)
    }

    /// Connects on this thread, without an event loop: fixtures are made before there is one. The client belongs to no
    /// loop until something of it is awaited.
    fn _connect_blocking(&self, py: Python<'_>) -> PyResult<()> {
        let client = self.core.block_on(py, self.core.connect(py)?)?;
        self.core.connected(client);
        Ok(())
    }

    /// Disconnects on this thread; `is_hasty` after a failure, when nobody waits long for what is unfinished.
    fn _disconnect_blocking(&self, py: Python<'_>, is_hasty: bool) -> PyResult<()> {
        self.core.block_on(py, self.core.disconnect(py, ReasonCode::Success, is_hasty)?)
    }

    /// Finish what is under way and disconnect.
    ///
    /// Args:
    ///     with_will: Have the server publish the will nevertheless (MQTT 5).
    ///
    /// Raises:
    ///     InvalidArgument: `with_will` before MQTT 5.
    #[pyo3(signature = (*, with_will = false))]
    fn disconnect<'py>(&self, py: Python<'py>, with_will: bool) -> PyResult<Bound<'py, PyAny>> {
        if with_will {
            self.core.needs_v5(py, "with_will")?;
        }
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        let ending = self.core.disconnect(py, reason, false)?;
        Operation::spawn(py, ending, |py, ()| Ok(py.None()))
    }

    /// Publish. Awaited means: handed over (QoS 0), or acknowledged by the server (QoS 1 and 2).
    ///
    /// The message is on its way when this returns, awaited or not. While there is no connection it waits in a queue;
    /// if there is no room, the await waits.
    ///
    /// Args:
    ///     topic: Topic name.
    ///     payload: Payload; any object with `encode`.
    ///     qos: Quality of service.
    ///     retain: Keep it as the retained message of the topic.
    ///     encode: `"json"` (compact; infinite numbers and NaN are not JSON and refused), or `"text"` for
    ///         `str(payload)`.
    ///     timeout: How long the acknowledgement may take; `None` does not limit it. The message stays on its way.
    ///     message_expiry: Seconds after which it need not be delivered any more (MQTT 5, and so for the rest).
    ///     content_type: By convention a MIME type.
    ///     response_topic: Where an answer is expected.
    ///     correlation_data: What an answer has to carry.
    ///     user_properties: A mapping, or pairs if names repeat.
    ///     payload_format: 1 says that the payload is UTF-8.
    ///
    /// Raises:
    ///     InvalidTopic: The topic is not valid.
    ///     InvalidArgument: The server, or the version of MQTT, does not support it.
    ///     Refused: The server refused it; `NotAuthorized` for lack of permission.
    ///     ConnectionLost: No connection, and `queue_qos0=False`.
    ///     Timeout: It took longer than `timeout`.
    ///     Closed: The client is not connected and will not be.
    #[pyo3(signature = (topic, payload = None, *, qos = 0, retain = false, encode = None, timeout = None,
        message_expiry = None, content_type = None, response_topic = None, correlation_data = None,
        user_properties = None, payload_format = None))]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        payload: Option<Bound<'py, PyAny>>,
        #[pyo3(from_py_with = int)] qos: i64,
        retain: bool,
        encode: Option<&str>,
        timeout: Option<f64>,
        message_expiry: Option<f64>,
        content_type: Option<&str>,
        response_topic: Option<&str>,
        correlation_data: Option<Bound<'py, PyAny>>,
        user_properties: Option<Bound<'py, PyAny>>,
        #[pyo3(from_py_with = optional_int)] payload_format: Option<i64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            response_topic,
            correlation_data: correlation_data.as_ref(),
            user_properties: user_properties.as_ref(),
            payload_format,
        };
        let timeout = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        Publication::extract(py, topic, payload.as_ref(), qos, retain, encode, &keywords)?
            .publish(py, &self.core, timeout)
    }

    /// Publish without ever waiting. What becomes of it, nobody hears; QoS 1 and 2 are kept up nevertheless.
    ///
    /// Raises:
    ///     QueueFull: There is no room now.
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

    /// Publish `(topic, payload)` pairs, or payloads for one topic, with one await for all; how many there were.
    ///
    /// Or the rows of a table: any object with `__arrow_c_stream__`, such as a frame of polars or pandas. `topic` and
    /// `payload` name columns then, by default `topic` and `payload`; a `topic` that is no column is that of all rows.
    /// With `encode="json"` a row is an object of all columns but the topic.
    ///
    /// Raises:
    ///     Refused: The server refused one of them. The others were sent nevertheless.
    #[pyo3(signature = (messages, *, topic = None, payload = None, qos = 0, retain = false, encode = None, timeout = None))]
    fn publish_many<'py>(
        &self,
        py: Python<'py>,
        messages: Bound<'py, PyAny>,
        topic: Option<&str>,
        payload: Option<&str>,
        #[pyo3(from_py_with = int)] qos: i64,
        retain: bool,
        encode: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeout = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        let publications = Publications::extract(&messages, topic, payload, encode, self::qos(py, qos)?, retain)?;
        publications.publish(py, &self.core, timeout)
    }

    /// Wait until everything accepted so far is in the session's spool, where a crash cannot reach it.
    ///
    /// Publishing waits for the server, and not for the disk.
    ///
    /// Raises:
    ///     InvalidArgument: There is no spool.
    ///     StorageError: It cannot be written.
    fn flush<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Operation::spawn(py, self.core.flush(py)?, |py, ()| Ok(py.None()))
    }

    /// Subscribe. SUBSCRIBE is sent by `async with`, by `await`, or by beginning to iterate.
    ///
    /// Args:
    ///     filters: Topic filters. A level may be a named wildcard, as in `"plant/{line}/temp"` (the same as
    ///         `plant/+/temp`), and the last one the rest, as in `"plant/{rest:#}"`; `Message.params` has the values.
    ///     qos: Greatest quality of service to deliver with.
    ///     maxsize: Messages that may wait here.
    ///     max_bytes: Their bytes.
    ///     overflow: What happens when more come: `"block"` stops reading the socket until there is room, so the
    ///         server holds them; `"drop_oldest"`; `"drop_new"`; `"latest_per_topic"` keeps one for each topic;
    ///         `"error"` ends the subscription with `QueueFull`. While it blocks, nothing else of this client is read
    ///         either: a queue that nobody empties holds up its other subscriptions. Only while an answer to the
    ///         client itself is awaited (an acknowledgement, SUBACK, a response), reading goes on, and up to 64 MiB
    ///         wait beside the queue.
    ///     ack: When QoS 1 and 2 messages are acknowledged: `"auto"` as they come in; `"processed"` when the next one
    ///         is asked for, or the block is left without an exception: at least once, without more code;
    ///         `"manual"` by `Message.ack`.
    ///     no_local: Not what this client publishes itself (MQTT 5).
    ///     retain_as_published: Leave the retain flag as it was published (MQTT 5).
    ///     retain_handling: Which retained messages to send at once: `"send"` all, `"new"` all if the subscription did
    ///         not exist, or `"none"` (MQTT 5).
    ///     user_properties: User properties of SUBSCRIBE (MQTT 5).
    ///
    /// Raises:
    ///     InvalidTopic: A filter is not valid.
    ///     Closed: The client is not connected.
    ///     Refused: When entered: the server refused all filters.
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
    ) -> PyResult<Subscription> {
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
        Subscription::new(py, Subscribed::new(py, &self.core, &arguments, Items::Messages)?)
    }

    /// Unsubscribe from filters of a resumed session, for which there is no `Subscription` object.
    #[pyo3(signature = (*filters))]
    fn unsubscribe<'py>(&self, py: Python<'py>, filters: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let ending = self.core.unsubscribe(py, &filters)?;
        Operation::spawn(py, ending, |py, ()| Ok(py.None()))
    }

    /// Send a request and wait for its answer (MQTT 5).
    ///
    /// Raises:
    ///     Timeout: No answer in time.
    ///     InvalidArgument: The version is not 5.
    #[pyo3(signature = (topic, payload = None, *, qos = 0, encode = None, timeout = 10.0, content_type = None,
        message_expiry = None, user_properties = None, payload_format = None))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        payload: Option<Bound<'py, PyAny>>,
        #[pyo3(from_py_with = int)] qos: i64,
        encode: Option<&str>,
        timeout: f64,
        content_type: Option<&str>,
        message_expiry: Option<f64>,
        user_properties: Option<Bound<'py, PyAny>>,
        #[pyo3(from_py_with = optional_int)] payload_format: Option<i64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            user_properties: user_properties.as_ref(),
            payload_format,
            ..Keywords::default()
        };
        let client = self.core.client(py)?;
        let request: PublishRequest =
            Publication::extract(py, topic, payload.as_ref(), qos, false, encode, &keywords)?.to_request();
        let timeout = duration(py, "timeout", timeout)?;
        let work = async move { client.request(request, timeout).await };
        Operation::spawn(py, work, |py, response| Ok(Py::new(py, Message::new(response, None))?.into_any()))
    }

    /// Take requests, to be answered with `Request.respond` (MQTT 5).
    ///
    /// A message without a valid response topic is no request: it is acknowledged, counted in `dropped`, and not given
    /// out.
    ///
    /// Raises:
    ///     InvalidArgument: The version is not 5.
    #[pyo3(signature = (*filters, qos = 1, maxsize = 65_536, max_bytes = 67_108_864))]
    fn serve(
        &self,
        py: Python<'_>,
        filters: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = int)] qos: i64,
        #[pyo3(from_py_with = int)] maxsize: i64,
        #[pyo3(from_py_with = int)] max_bytes: i64,
    ) -> PyResult<Subscription> {
        let arguments = SubscribeArguments::requests(&filters, qos, maxsize, max_bytes);
        let items = Items::Requests { core: Arc::clone(&self.core), is_blocking: false };
        Subscription::new(py, Subscribed::new(py, &self.core, &arguments, items)?)
    }

    /// What happens to the connection from now on, or to the next one if there is none.
    ///
    /// Asked for before `connect()`, it has the first CONNACK, too. It ends with the connection's last event, when
    /// the client does not try again. Who lags loses the oldest of 256.
    fn events(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        events::reader(py, &self.core)?.items(py)
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
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyDict>> {
        self.core.stats(py)
    }

    fn __repr__(&self) -> String {
        format!("Client({}, {})", self.core.server(), self.core.state())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.core.stats(py).unwrap_or_else(|_| PyDict::new(py));
        html::counters(&self.__repr__(), &stats)
    }
}
