//! `Broker`: an MQTT broker inside the process, for asyncio and for threads alike.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::{
    broker_auth::Gate,
    broker_config::{BrokerArguments, BrokerSettings, seed_argument},
    broker_hooks::{Hook, HookSet, Judge, Teller},
    broker_settled::{self, Guests},
    broker_view::{ClientInfo, Retained, stats_dict},
    core::Core,
    errors::{self, Kind},
    faults::{ConnectionTrace, disconnect_reason},
    html,
    operation::Operation,
    options::{duration, int, number, optional_int, qos},
    payload::Data,
    properties::Keywords,
    runtime::{Local, Process, register_hooks},
    subscription::{Items, SubscribeArguments, Subscribed, Subscription},
    topics::{text, validate_topic},
};
use crate::{
    broker::{Hooks, Message as BrokerMessage},
    client::{BoxStream, ClientOptions, Connecting, Connector},
    clock::Clock,
    codec::{Limits, Publish, TopicName},
    config::ListenerUrl,
    faults::Faults,
    server::{self, BrokerHandle, PublishError, StartError},
};

/// An MQTT broker inside this process, for 3.1, 3.1.1 and 5.0.
///
///     async with ferromq.Broker() as broker:      # or `with`
///         print(broker.url)                       # mqtt://127.0.0.1:40123
///
/// It runs on threads of its own and serves any MQTT client. Starting takes about a millisecond.
///
/// Args:
///     listeners: URLs to listen on, and `Tls`: `tcp://host:port`, `ws://host:port/path`, `unix:///path`; port 0 is any
///         that is free. Default `tcp://127.0.0.1:0`. An empty list leaves `Client(broker)` as the only way in.
///     config: Path of a TOML file (`ferromq broker --check` shows all keys), or a dictionary of the same shape.
///         The arguments below win over it.
///     users: Names and passwords; whoever is not among them is refused.
///     allow_anonymous: Whether clients may come without a user name. Default: unless there are `users`.
///     acl: Who may publish and subscribe to what: a list of rules, of which the first that fits decides, as
///         `[{"permission": "allow", "users": ["dev"], "filters": ["dev/%c/#"]}]`, or the table `[acl]`. What no rule
///         is about is refused. Default: everybody everything.
///     store: Directory that keeps persistent sessions, their messages and retained messages over a restart: nothing is
///         acknowledged before it is on the disk. `None`: all of it is in memory and goes with the broker.
///     shards: Threads that share the clients; 0 is one for each core. Default 1.
///     seed: Seeds what is random, for tests.
///     drain_timeout: How long stopping waits for what is unsent.
///     limits: Table `[limits]`, as `{"max_inflight": 100}`.
///     capabilities: Table `[capabilities]`, as `{"maximum_packet_size": "256 KiB"}`.
///     queue: Table `[queue]`.
///     slow_consumer: Table `[slow_consumer]`.
///     shared: Table `[shared]`.
///     sys: Table `[sys]`.
///     faults: Whether faults can be made to happen, with `faults`. All connections then go through a task that can
///         lose, delay and break what they carry; it costs speed, so it is for tests.
///     trace: Packets of each connection to remember for `trace()`, at most 4096. The cost is the same.
///     like: Behave like a weaker broker: `"aws-iot-core"`, `"azure-event-grid"`, `"minimal"` or `"impatient"`. What
///         each allows is in docs/faults.md; all other arguments, and `config`, win over it.
///     clock: Of another broker, `other.clock`, for tests: both then live by one time. By default it has its own.
///
/// Raises:
///     InvalidArgument: A setting is not known or cannot be.
///     ConnectError: When started: it cannot listen there.
///     StorageError: When started: the store cannot be used.
#[pyclass(frozen, module = "ferromq", subclass)]
pub(crate) struct Broker {
    settings: BrokerSettings,
    hooks: Arc<HookSet>,
    running: Local<Mutex<Option<Running>>>,
    place: Arc<Place>,
    clock: Clock,
    /// What stands between clients and broker, if anything does.
    faults: Option<Local<Faults>>,
    /// Whether more was asked for than a trace.
    has_faults: bool,
}

/// The broker, and whoever tells what happens in it.
struct Running {
    broker: server::Broker,
    teller: Option<Teller>,
    faults: Option<Faults>,
}

impl Running {
    /// Tells the clients first.
    fn shutdown(self) {
        self.broker.shutdown();
        Self::finish(self.teller, self.faults);
    }

    /// At once.
    fn end(self) {
        drop(self.broker);
        Self::finish(self.teller, self.faults);
    }

    fn finish(teller: Option<Teller>, faults: Option<Faults>) {
        if let Some(faults) = faults {
            faults.stopped();
        }
        if let Some(teller) = teller {
            teller.finish();
        }
    }
}

/// Where clients of this process find the broker.
pub(crate) struct Place {
    /// Empty while it does not run.
    handle: Local<Mutex<Option<BrokerHandle>>>,
    clients: Guests,
}

impl Place {
    /// The broker, if it runs.
    pub(crate) fn handle(&self, py: Python<'_>) -> PyResult<BrokerHandle> {
        let handle = self.handle.try_get(py)?.lock().clone();
        handle.ok_or_else(|| errors::closed(py, "the broker does not run: enter it with `with` or `async with`"))
    }
}

impl Broker {
    /// What a client of this process connects with, now or when the broker runs.
    pub(crate) fn connector(&self) -> MemoryConnector {
        MemoryConnector { place: Arc::clone(&self.place), is_observer: false }
    }

    fn handle(&self, py: Python<'_>) -> PyResult<BrokerHandle> {
        self.place.handle(py)
    }

    /// The clock that its clients in this process share.
    pub(crate) fn shared_clock(&self) -> &Clock {
        &self.clock
    }

    fn start_now(&self, py: Python<'_>) -> PyResult<()> {
        register_hooks(py)?;
        let mut running = self.running.try_get(py)?.lock();
        if running.is_some() {
            return Err(PyRuntimeError::new_err("the broker runs already"));
        }
        let teller = Teller::start(&self.hooks)?;
        let hooks = Hooks {
            authenticator: Gate::install(&self.settings.users, &self.hooks, self.settings.allow_anonymous),
            authorizer: Judge::install(self.settings.acl(), &self.hooks),
            events: teller.as_ref().map(Teller::sink),
            ..Hooks::default()
        };
        let mut builder = self.settings.builder().hooks(hooks).clock(self.clock.clone());
        if let Some(faults) = &self.faults {
            builder = builder.faults(faults.try_get(py)?);
        }
        let broker = py.detach(|| builder.start()).map_err(|error| {
            let kind = if matches!(error, StartError::Store(_)) { Kind::StorageError } else { Kind::ConnectError };
            errors::new(py, kind, &error.to_string())
        })?;
        if let Some(place) = self.place.handle.get() {
            *place.lock() = Some(broker.handle());
        }
        *running = Some(Running { broker, teller, faults: self.faults.as_ref().and_then(Local::get).cloned() });
        Ok(())
    }

    /// Takes the broker out, to be shut down where that may take a while.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Running>> {
        self.place.handle.try_get(py)?.lock().take();
        Ok(self.running.try_get(py)?.lock().take())
    }

    fn listeners<T>(&self, py: Python<'_>, body: impl FnOnce(&[ListenerUrl]) -> PyResult<T>) -> PyResult<T> {
        match &*self.running.try_get(py)?.lock() {
            Some(running) => body(running.broker.listeners()),
            None => Err(errors::closed(py, "the broker does not run, so it listens nowhere")),
        }
    }
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Broker {
    #[new]
    #[pyo3(signature = (*, listeners = None, config = None, users = None, allow_anonymous = None, acl = None, store = None,
        shards = None, seed = None, drain_timeout = 5.0, limits = None, capabilities = None, queue = None, slow_consumer = None,
        shared = None, sys = None, faults = false, trace = 0, like = None, clock = None))]
    fn new(
        py: Python<'_>,
        listeners: Option<Bound<'_, PyAny>>,
        config: Option<Bound<'_, PyAny>>,
        users: Option<Bound<'_, PyDict>>,
        allow_anonymous: Option<bool>,
        acl: Option<Bound<'_, PyAny>>,
        store: Option<std::path::PathBuf>,
        #[pyo3(from_py_with = optional_int)] shards: Option<i64>,
        #[pyo3(from_py_with = seed_argument)] seed: Option<u64>,
        drain_timeout: f64,
        limits: Option<Bound<'_, PyDict>>,
        capabilities: Option<Bound<'_, PyDict>>,
        queue: Option<Bound<'_, PyDict>>,
        slow_consumer: Option<Bound<'_, PyDict>>,
        shared: Option<Bound<'_, PyDict>>,
        sys: Option<Bound<'_, PyDict>>,
        faults: bool,
        #[pyo3(from_py_with = int)] trace: i64,
        like: Option<&str>,
        clock: Option<Bound<'_, super::clock::Clock>>,
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
        let arguments = BrokerArguments {
            listeners,
            config,
            users,
            allow_anonymous,
            acl,
            store,
            shards,
            seed,
            drain_timeout,
            tables,
            like,
        };
        let settings = arguments.to_settings(py)?;
        let clock = clock.map_or_else(Clock::adjustable, |clock| clock.get().inner().clone());
        let trace: usize = number(py, "trace", trace, 0..=4096)?;
        let interposed = (faults || trace > 0).then(|| {
            let runtime = Process::get(py)?.runtime().handle().clone();
            let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
            Ok::<_, PyErr>(Local::new(Faults::new(&clock, runtime, seed, trace)))
        });
        Ok(Self {
            settings,
            clock,
            faults: interposed.transpose()?,
            has_faults: faults,
            hooks: Arc::default(),
            running: Local::new(Mutex::new(None)),
            place: Arc::new(Place { handle: Local::new(Mutex::new(None)), clients: Guests::default() }),
        })
    }

    /// Start; `with` and `async with` do it, too. A stopped broker may be started again, with what its store has.
    fn start(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().start_now(slf.py())?;
        Ok(slf)
    }

    /// Publish wills, tell the clients, send what is unsent, and stop.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let broker = self.take(py)?;
        py.detach(|| broker.map(Running::shutdown));
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
        let stopping = Process::get(py)?.runtime().spawn_blocking(move || broker.map(Running::shutdown));
        let work = async move {
            // A panic inside is reported by the thread itself.
            let _ = stopping.await;
            Ok(())
        };
        Operation::spawn(py, work, |py, ()| Ok(py.None()))
    }

    /// Where clients connect to: the first TCP listener without TLS, or else the first.
    ///
    /// Raises:
    ///     Closed: It does not run, or has no listeners.
    #[getter]
    fn url(&self, py: Python<'_>) -> PyResult<String> {
        self.listeners(py, |listeners| {
            let tcp = listeners.iter().find(|listener| matches!(listener, ListenerUrl::Tcp { tls: false, .. }));
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

    /// Certificate of the first listener with TLS, PEM; what `ClientTls(ca=...)` takes if it was made by `Tls`.
    #[getter]
    fn certificate(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.settings.certificate(py)
    }

    /// Whether it runs.
    #[getter]
    fn running(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.running.try_get(py)?.lock().is_some())
    }

    /// The time that it and its clients in this process live by.
    #[getter]
    fn clock(&self) -> super::clock::Clock {
        super::clock::Clock::of(&self.clock)
    }

    /// What can be made to go wrong.
    ///
    /// Raises:
    ///     InvalidArgument: It was made without `faults=True`.
    #[getter]
    fn faults(&self, py: Python<'_>) -> PyResult<super::faults::Faults> {
        match &self.faults {
            Some(faults) if self.has_faults => {
                Ok(super::faults::Faults::new(faults.try_get(py)?, Some(Arc::clone(&self.place))))
            }
            _ => {
                Err(errors::invalid(py, "faults are not in the path of this broker: make it with Broker(faults=True)"))
            }
        }
    }

    /// The last packets of each connection, of those that have ended, too; the newest connection last.
    ///
    /// Args:
    ///     client: Only of this client.
    ///
    /// Raises:
    ///     InvalidArgument: It was made without `trace`.
    #[pyo3(signature = (client = None))]
    fn trace(&self, py: Python<'_>, client: Option<&str>) -> PyResult<Vec<ConnectionTrace>> {
        let Some(faults) = &self.faults else {
            return Err(errors::invalid(py, "this broker remembers no packets: make it with Broker(trace=32)"));
        };
        let faults = faults.try_get(py)?;
        Ok(ConnectionTrace::all(py.detach(|| faults.trace(client))))
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
        self.handle(py)?.publish(BrokerMessage::from_publish(&publish, self.clock.now())).map_err(|error| {
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
        let reason = disconnect_reason(py, reason_code)?;
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
    ///
    /// It is no client: it needs neither credentials nor permission, is not counted, and faults do not strike it.
    #[pyo3(signature = (*filters, maxsize = 65_536, overflow = "drop_oldest"))]
    fn tap(
        &self,
        py: Python<'_>,
        filters: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = int)] maxsize: i64,
        overflow: &str,
    ) -> PyResult<Subscription> {
        self.handle(py)?;
        let clock = self.clock.clone();
        let options = ClientOptions { reconnect: None, clock, ..ClientOptions::default() };
        let connector = MemoryConnector { is_observer: true, ..self.connector() };
        let core = Core::in_memory(connector, options);
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
        self.install(&self.hooks.auth, hook)
    }

    /// Decorator: have a function decide what clients may do. Install it before the broker is started.
    ///
    /// It is called with a `ConnectInfo`, `"publish"` or `"subscribe"`, and the topic name or filter, as `on_auth`
    /// is; the client waits meanwhile, and others do not. False refuses with 0x87, and so does an exception. A
    /// topic that a client may publish to is remembered for its connection, and a will is asked about when its
    /// client connects. What `acl` refuses is not asked.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_acl<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.install(&self.hooks.acl, hook)
    }

    /// Decorator: have a function see, and perhaps refuse, every message that clients publish.
    ///
    /// It is called with a `ConnectInfo` and a `Message` before anybody has the message; False refuses it with
    /// 0x87. The publisher waits for each answer: fine in tests, slow in a fleet.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_publish<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.install(&self.hooks.publish, hook)
    }

    /// Decorator: have a function told of each client that is let in.
    ///
    /// It is called with a `ConnectInfo` and whether a session was resumed. This, and what follows, is told on a
    /// thread of its own, in the order of events; the broker does not wait. Up to 65,536 events wait for their
    /// turn, more are not told. What was told before `stop` is done when that returns.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_connect<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.install(&self.hooks.connect, hook)
    }

    /// Decorator: have a function told of each connection that ends: client identifier and the reason's name.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_disconnect<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.install(&self.hooks.disconnect, hook)
    }

    /// Decorator: have a function told of each subscription: client identifier, filter and QoS.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_subscribe<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.install(&self.hooks.subscribe, hook)
    }

    /// Decorator: have a function told of each subscription that ends: client identifier and filter.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_unsubscribe<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.install(&self.hooks.unsubscribe, hook)
    }

    /// Decorator: have a function told of each message that is dropped: client identifier, topic, the reason's name.
    ///
    /// The client is the subscriber that misses it, or the publisher from whom it was not accepted.
    ///
    /// Raises:
    ///     TypeError: It is no function, or an async one.
    ///     RuntimeError: The broker runs already.
    fn on_drop<'py>(&self, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.install(&self.hooks.drop, hook)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let urls = self.urls(py).map_or_else(|_| "stopped".to_owned(), |urls| urls.join(", "));
        format!("Broker({urls})")
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.stats(py).unwrap_or_else(|_| PyDict::new(py));
        let clients = self.handle(py).map(|handle| py.detach(|| handle.clients())).unwrap_or_default();
        html::broker(&self.__repr__(py), &stats, clients)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.hooks.traverse(&visit)
    }

    fn __clear__(&self) {
        self.hooks.clear();
    }
}

impl Broker {
    fn install<'py>(&self, place: &Hook, hook: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if self.running(hook.py())? {
            return Err(PyRuntimeError::new_err("install hooks before the broker is started"));
        }
        place.set(&hook)?;
        Ok(hook)
    }

    fn wait_until_settled(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
    ) -> PyResult<impl Future<Output = Result<(), crate::client::Error>> + Send + use<>> {
        let handle = self.handle(py)?;
        let timeout: Option<Duration> = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        let place = Arc::clone(&self.place);
        Ok(broker_settled::settled(handle, move || place.clients.connected(), timeout))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(broker) = self.running.get().and_then(|running| running.lock().take()) else { return };
        // Its threads end here, and one of them may wait for the GIL in a hook.
        let mut broker = Some(broker);
        Python::try_attach(|py| py.detach(|| broker.take().map(Running::end)));
        // Without an interpreter to let go of, there is nothing to wait for.
        std::mem::forget(broker);
    }
}

/// Connects inside the process, to the broker that runs at the time.
#[derive(Clone)]
pub(crate) struct MemoryConnector {
    place: Arc<Place>,
    /// It only looks on: faults are not for it.
    is_observer: bool,
}

impl MemoryConnector {
    /// Counts a client among those that the broker waits for to be settled.
    pub(crate) fn register(&self, core: &Arc<Core>) {
        self.place.clients.add(core);
    }
}

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
            let handle = self.place.handle.get().and_then(|handle| handle.lock().clone());
            let Some(handle) = handle else {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the broker does not run"));
            };
            let stream = if self.is_observer { handle.connect_observer()? } else { handle.connect_memory()? };
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn has_sockets(&self) -> bool {
        false
    }
}

/// A listener as the URL that clients connect to.
fn client_url(listener: &ListenerUrl) -> String {
    match listener {
        ListenerUrl::Tcp { tls: false, .. } => listener.to_string().replacen("tcp://", "mqtt://", 1),
        ListenerUrl::Tcp { tls: true, .. } => listener.to_string().replacen("tls://", "mqtts://", 1),
        _ => listener.to_string(),
    }
}
