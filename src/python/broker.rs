//! `Broker`: an MQTT broker inside the process, for asyncio and for threads alike.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::{
    broker_auth::{Gate, Hook},
    broker_config::{BrokerArguments, BrokerSettings, seed_argument},
    broker_view::{ClientInfo, Retained, stats_dict},
    core::Core,
    errors::{self, Kind},
    html,
    operation::Operation,
    options::{duration, int, optional_int, qos},
    payload::Data,
    properties::Keywords,
    runtime::{Local, Process, register_hooks},
    subscription::{Items, SubscribeArguments, Subscribed, Subscription},
    topics::{text, validate_topic},
};
use crate::{
    broker::{Hooks, Message as BrokerMessage},
    client::{BoxStream, ClientOptions, Connecting, Connector},
    codec::{Limits, PacketType, Publish, ReasonCode, TopicName},
    config::ListenerUrl,
    server::{self, BrokerHandle, PublishError},
};

/// An MQTT broker inside this process, for 3.1, 3.1.1 and 5.0.
///
///     async with ferromq.Broker() as broker:      # or `with`
///         print(broker.url)                       # mqtt://127.0.0.1:40123
///
/// It runs on threads of its own and serves any MQTT client. Starting takes about a millisecond.
///
/// Args:
///     listeners: URLs to listen on: `tcp://host:port`, `ws://host:port/path`, `unix:///path`; port 0 is any that is
///         free. Default `tcp://127.0.0.1:0`. An empty list leaves `Client(broker)` as the only way in.
///     config: Path of a TOML file (`ferromq broker --check` shows all keys), or a dictionary of the same shape.
///         The arguments below win over it.
///     users: Names and passwords; whoever is not among them is refused.
///     allow_anonymous: Whether clients may come without a user name. Default: unless there are `users`.
///     shards: Threads that share the clients; 0 is one for each core. Default 1.
///     seed: Seeds what is random, for tests.
///     drain_timeout: How long stopping waits for what is unsent.
///     limits: Table `[limits]`, as `{"max_inflight": 100}`.
///     capabilities: Table `[capabilities]`, as `{"maximum_packet_size": "256 KiB"}`.
///     queue: Table `[queue]`.
///     slow_consumer: Table `[slow_consumer]`.
///     shared: Table `[shared]`.
///     sys: Table `[sys]`.
///
/// Raises:
///     InvalidArgument: A setting is not known or cannot be.
///     ConnectError: When started: it cannot listen there.
#[pyclass(frozen, module = "ferromq", subclass)]
pub(crate) struct Broker {
    settings: BrokerSettings,
    hook: Arc<Hook>,
    running: Local<Mutex<Option<server::Broker>>>,
    place: Arc<Place>,
}

/// Where clients of this process find the broker; empty while it does not run.
struct Place {
    handle: Local<Mutex<Option<BrokerHandle>>>,
}

impl Broker {
    /// What a client of this process connects with, now or when the broker runs.
    pub(crate) fn connector(&self) -> MemoryConnector {
        MemoryConnector(Arc::clone(&self.place))
    }

    fn handle(&self, py: Python<'_>) -> PyResult<BrokerHandle> {
        let handle = self.place.handle.try_get(py)?.lock().clone();
        handle.ok_or_else(|| errors::closed(py, "the broker does not run: enter it with `with` or `async with`"))
    }

    fn start_now(&self, py: Python<'_>) -> PyResult<()> {
        register_hooks(py)?;
        let mut running = self.running.try_get(py)?.lock();
        if running.is_some() {
            return Err(PyRuntimeError::new_err("the broker runs already"));
        }
        let hooks = Hooks {
            authenticator: Gate::install(&self.settings.users, &self.hook, self.settings.allow_anonymous),
            ..Hooks::default()
        };
        let builder = self.settings.builder().hooks(hooks);
        let broker =
            py.detach(|| builder.start()).map_err(|error| errors::new(py, Kind::ConnectError, &error.to_string()))?;
        if let Some(place) = self.place.handle.get() {
            *place.lock() = Some(broker.handle());
        }
        *running = Some(broker);
        Ok(())
    }

    /// Takes the broker out, to be shut down where that may take a while.
    fn take(&self, py: Python<'_>) -> PyResult<Option<server::Broker>> {
        self.place.handle.try_get(py)?.lock().take();
        Ok(self.running.try_get(py)?.lock().take())
    }

    fn listeners<T>(&self, py: Python<'_>, body: impl FnOnce(&[ListenerUrl]) -> PyResult<T>) -> PyResult<T> {
        match &*self.running.try_get(py)?.lock() {
            Some(broker) => body(broker.listeners()),
            None => Err(errors::closed(py, "the broker does not run, so it listens nowhere")),
        }
    }
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Broker {
    #[new]
    #[pyo3(signature = (*, listeners = None, config = None, users = None, allow_anonymous = None, shards = None,
        seed = None, drain_timeout = 5.0, limits = None, capabilities = None, queue = None, slow_consumer = None,
        shared = None, sys = None))]
    fn new(
        py: Python<'_>,
        listeners: Option<Bound<'_, PyAny>>,
        config: Option<Bound<'_, PyAny>>,
        users: Option<Bound<'_, PyDict>>,
        allow_anonymous: Option<bool>,
        #[pyo3(from_py_with = optional_int)] shards: Option<i64>,
        #[pyo3(from_py_with = seed_argument)] seed: Option<u64>,
        drain_timeout: f64,
        limits: Option<Bound<'_, PyDict>>,
        capabilities: Option<Bound<'_, PyDict>>,
        queue: Option<Bound<'_, PyDict>>,
        slow_consumer: Option<Bound<'_, PyDict>>,
        shared: Option<Bound<'_, PyDict>>,
        sys: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let tables = [
            ("limits", limits),
            ("capabilities", capabilities),
            ("queue", queue),
            ("slow_consumer", slow_consumer),
            ("shared", shared),
            ("sys", sys),
        ];
        let drain_timeout = duration(py, "drain_timeout", drain_timeout)?;
        let arguments =
            BrokerArguments { listeners, config, users, allow_anonymous, shards, seed, drain_timeout, tables };
        Ok(Self {
            settings: arguments.to_settings(py)?,
            hook: Arc::default(),
            running: Local::new(Mutex::new(None)),
            place: Arc::new(Place { handle: Local::new(Mutex::new(None)) }),
        })
    }

    /// Start; `with` and `async with` do it, too. A stopped broker may be started again, without its messages.
    fn start(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().start_now(slf.py())?;
        Ok(slf)
    }

    /// Publish wills, tell the clients, send what is unsent, and stop.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let broker = self.take(py)?;
        py.detach(|| broker.map(server::Broker::shutdown));
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        Self::start(slf)
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, traceback = None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<Bound<'_, PyAny>>,
        exc_value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc_value, traceback);
        self.stop(py)
    }

    /// Starting takes a millisecond, so it is done here and now.
    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Operation::ready(Self::start(slf)?.into_any())
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, traceback = None))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        exc_type: Option<Bound<'py, PyAny>>,
        exc_value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (exc_type, exc_value, traceback);
        let broker = self.take(py)?;
        // It waits for what is unsent; on a thread that may be blocked.
        let stopping = Process::get(py)?.runtime().spawn_blocking(move || broker.map(server::Broker::shutdown));
        let work = async move {
            // A panic inside is reported by the thread itself.
            let _ = stopping.await;
            Ok(())
        };
        Operation::spawn(py, work, |py, ()| Ok(py.None()))
    }

    /// Where clients connect to: the first TCP listener, or else the first.
    ///
    /// Raises:
    ///     Closed: It does not run, or has no listeners.
    #[getter]
    fn url(&self, py: Python<'_>) -> PyResult<String> {
        self.listeners(py, |listeners| {
            let tcp = listeners.iter().find(|listener| matches!(listener, ListenerUrl::Tcp { .. }));
            let first = tcp.or(listeners.first()).map(client_url);
            first.ok_or_else(|| errors::closed(py, "the broker has no listeners: connect with Client(broker)"))
        })
    }

    /// All of them.
    #[getter]
    fn urls(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.listeners(py, |listeners| Ok(listeners.iter().map(client_url).collect()))
    }

    /// Port of the first listener that has one.
    #[getter]
    fn port(&self, py: Python<'_>) -> PyResult<u16> {
        self.listeners(py, |listeners| {
            let port = listeners.iter().find_map(ListenerUrl::port);
            port.ok_or_else(|| errors::closed(py, "the broker has no listener with a port"))
        })
    }

    /// Whether it runs.
    #[getter]
    fn running(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.running.try_get(py)?.lock().is_some())
    }

    /// Publish to all who want it, without a client. Arguments are those of `Client.publish`.
    ///
    /// Raises:
    ///     QueueFull: Too many messages of this process wait already.
    #[pyo3(signature = (topic, payload = None, *, qos = 0, retain = false, encode = None, message_expiry = None,
        content_type = None, response_topic = None, correlation_data = None, user_properties = None,
        payload_format = None))]
    fn publish(
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
        validate_topic(py, topic)?;
        let topic = TopicName::parse(text(py, topic)?, &Limits::default())
            .map_err(|fault| errors::invalid(py, &fault.to_string()))?;
        let payload = payload.map_or(Ok(Data::Empty), |payload| Data::extract(&payload, encode))?.to_bytes();
        let properties = keywords.to_properties(py)?;
        let qos = self::qos(py, qos)?;
        let publish = Publish { dup: false, qos, retain, topic, packet_id: None, properties, payload };
        self.handle(py)?.publish(BrokerMessage::from_publish(&publish, Instant::now())).map_err(|error| {
            let kind = if error == PublishError::Busy { Kind::QueueFull } else { Kind::Closed };
            errors::new(py, kind, &error.to_string())
        })
    }

    /// Clients that are connected or have a session, as of now.
    #[getter]
    fn clients(&self, py: Python<'_>) -> PyResult<Vec<ClientInfo>> {
        let handle = self.handle(py)?;
        Ok(py.detach(|| handle.clients()).into_iter().map(ClientInfo::new).collect())
    }

    /// End the connection of a client; whether there was one.
    ///
    /// A client that reconnects by itself is back within milliseconds. 0x87 (not authorized) and 0x8E (session taken
    /// over) keep clients of FerroMQ away; what others do is up to them.
    ///
    /// Args:
    ///     client_id: Client identifier.
    ///     reason_code: What to tell the client (MQTT 5), from 0x80. Default 0x98, administrative action.
    ///
    /// Raises:
    ///     InvalidArgument: No such reason code, or not one of DISCONNECT.
    #[pyo3(signature = (client_id, reason_code = 0x98))]
    fn kick(&self, py: Python<'_>, client_id: &str, #[pyo3(from_py_with = int)] reason_code: i64) -> PyResult<bool> {
        let reason = u8::try_from(reason_code).ok().and_then(ReasonCode::from_u8);
        // What DISCONNECT cannot carry would be left out, and the client not know why.
        let reason = reason.filter(|reason| reason.is_error() && reason.is_legal_in(PacketType::Disconnect));
        let wrong = "reason_code is an MQTT reason code from 0x80 that DISCONNECT may have, not";
        let reason = reason.ok_or_else(|| errors::invalid(py, &format!("{wrong} {reason_code:#x}")))?;
        let handle = self.handle(py)?;
        Ok(py.detach(|| handle.kick(client_id, reason)))
    }

    /// The retained messages.
    #[getter]
    fn retained(&self, py: Python<'_>) -> PyResult<Retained> {
        Ok(Retained::new(self.handle(py)?))
    }

    /// Counters; `dropped` and `ended` count messages and connections by reason.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let handle = self.handle(py)?;
        stats_dict(py, &py.detach(|| handle.stats()))
    }

    /// Wait until every message that has reached the broker is delivered, and acknowledged, to whoever is connected.
    ///
    /// Raises:
    ///     Timeout: It took longer.
    #[pyo3(signature = (timeout = None))]
    fn settled<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        Operation::spawn(py, self.wait_until_settled(py, timeout)?, |py, ()| Ok(py.None()))
    }

    /// The same, blocking.
    #[pyo3(signature = (timeout = None))]
    fn wait_settled(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let settled = self.wait_until_settled(py, timeout)?;
        Process::get(py)?.block_on(py, settled)?.map_err(|error| errors::from_client(py, &error))
    }

    /// See traffic without a client of your own; as `Client.subscribe` gives it, retained messages left out.
    #[pyo3(signature = (*filters, maxsize = 65_536, overflow = "drop_oldest"))]
    fn tap(
        &self,
        py: Python<'_>,
        filters: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = int)] maxsize: i64,
        overflow: &str,
    ) -> PyResult<Subscription> {
        self.handle(py)?;
        let core = Core::in_memory(self.connector(), ClientOptions { reconnect: None, ..ClientOptions::default() });
        core.start(py)?;
        let arguments = SubscribeArguments {
            qos: 2,
            overflow,
            retain_handling: "none",
            retain_as_published: true,
            ..SubscribeArguments::requests(&filters, 0, maxsize, i64::MAX)
        };
        Subscription::new(py, Subscribed::new(py, &core, &arguments, Items::Messages)?)
    }

    /// Decorator: have a function decide who may connect. Install it before the broker is started.
    ///
    /// It is called on a thread of its own, so it may block, with a `ConnectInfo`; it returns whether to let the client
    /// in, or the reason code of a refusal. If there are `users`, it is asked only for those. If it raises, the client
    /// is refused with 0x83 and the exception goes to `sys.unraisablehook`.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_auth<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = hook.py();
        if self.running(py)? {
            return Err(PyRuntimeError::new_err("install hooks before the broker is started"));
        }
        self.hook.set(&hook)?;
        Ok(hook)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let urls = self.urls(py).map_or_else(|_| "stopped".to_owned(), |urls| urls.join(", "));
        format!("Broker({urls})")
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.stats(py).unwrap_or_else(|_| PyDict::new(py));
        html::counters(&self.__repr__(py), &stats)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.hook.traverse(&visit)
    }

    fn __clear__(&self) {
        self.hook.clear();
    }
}

impl Broker {
    fn wait_until_settled(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
    ) -> PyResult<impl Future<Output = Result<(), crate::client::Error>> + Send + use<>> {
        let handle = self.handle(py)?;
        let timeout: Option<Duration> = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        Ok(async move {
            let settled = async {
                handle.settled().await;
                Ok(())
            };
            super::publish::within(timeout, "settling", settled).await
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(broker) = self.running.get().and_then(|running| running.lock().take()) else { return };
        // Its threads end here, and one of them may wait for the GIL in a hook.
        let mut broker = Some(broker);
        Python::try_attach(|py| py.detach(|| drop(broker.take())));
        // Without an interpreter to let go of, there is nothing to wait for.
        std::mem::forget(broker);
    }
}

/// Connects inside the process, to the broker that runs at the time.
#[derive(Clone)]
pub(crate) struct MemoryConnector(Arc<Place>);

impl std::fmt::Debug for MemoryConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryConnector")
    }
}

impl Connector for MemoryConnector {
    fn name(&self, _target: usize) -> String {
        "memory".to_owned()
    }

    fn connect(&self, _target: usize) -> Connecting<'_> {
        Box::pin(async move {
            let handle = self.0.handle.get().and_then(|handle| handle.lock().clone());
            let Some(handle) = handle else {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the broker does not run"));
            };
            Ok(Box::new(handle.connect_memory()?) as BoxStream)
        })
    }
}

/// A listener as the URL that clients connect to.
fn client_url(listener: &ListenerUrl) -> String {
    match listener {
        ListenerUrl::Tcp { .. } => listener.to_string().replacen("tcp://", "mqtt://", 1),
        _ => listener.to_string(),
    }
}
