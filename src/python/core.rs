//! What `Client` and `SyncClient` share: settings, the connection if there is one, and who waits for publications.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    pybacked::PyBackedStr,
    sync::PyOnceLock,
    types::{PyDict, PyString, PyTuple},
};
use tokio::task::spawn_blocking;

use super::{
    broker::{Broker, MemoryConnector},
    errors,
    flush::Flusher,
    options::ClientArguments,
    publish::Sink,
    runtime::{Local, Process},
    topics::parse_filter,
};
use crate::{
    client::{
        Client, ClientOptions, ConnectionState, DisconnectOptions, DiskSpool, Error, EventSource, EventStream,
        ServerUrl, Spool,
    },
    codec::{ReasonCode, Text},
    disk::Durability,
};

/// A client, connected or not.
pub(crate) struct Core {
    options: ClientOptions,
    target: Target,
    /// The file that keeps publications, if one does; opened for each connection.
    spool: Option<PathBuf>,
    sink: Arc<Sink>,
    events: EventSource,
    client: Local<Mutex<Option<Client>>>,
    flusher: PyOnceLock<Py<Flusher>>,
    timeout: Duration,
}

/// Where to connect to.
enum Target {
    Servers,
    Memory(MemoryConnector),
}

impl Core {
    /// A client that is not connected.
    pub(crate) fn new(
        py: Python<'_>,
        server: Option<&Bound<'_, PyAny>>,
        arguments: &ClientArguments<'_, '_>,
    ) -> PyResult<Arc<Self>> {
        let mut options = arguments.to_options(py)?;
        let target = match server.map(|server| (server, server.cast::<Broker>())) {
            Some((_, Ok(broker))) => {
                if arguments.clock.is_some() {
                    return Err(errors::invalid(py, "a client of a Broker lives by its clock: leave `clock` out"));
                }
                options.clock = broker.get().shared_clock().clone();
                Target::Memory(broker.get().connector())
            }
            Some((server, Err(_))) => {
                options.servers = servers(server)?;
                Target::Servers
            }
            None => {
                options.servers = vec![ServerUrl::Tcp { host: "localhost".to_owned(), port: 1883, tls: false }];
                Target::Servers
            }
        };
        Ok(Self::with_target(options, target, arguments.spool()))
    }

    /// A client of a broker in this process.
    pub(crate) fn in_memory(connector: MemoryConnector, options: ClientOptions) -> Arc<Self> {
        Self::with_target(options, Target::Memory(connector), None)
    }

    fn with_target(mut options: ClientOptions, target: Target, spool: Option<PathBuf>) -> Arc<Self> {
        let timeout = options.connect_timeout;
        let sink = Arc::new(Sink::default());
        options.completions = Some(Arc::clone(&sink) as _);
        let events = EventSource::new(EVENTS_MAX);
        options.events = Some(events.clone());
        let (client, flusher) = (Local::new(Mutex::new(None)), PyOnceLock::new());
        let core = Arc::new(Self { options, target, spool, sink, events, client, flusher, timeout });
        if let Target::Memory(connector) = &core.target {
            connector.register(&core);
        }
        core
    }

    /// The connection.
    #[inline]
    pub(crate) fn client(&self, py: Python<'_>) -> PyResult<Client> {
        self.client.try_get(py)?.lock().clone().ok_or_else(|| not_open(py))
    }

    /// The events from now on, of this connection or the next.
    pub(crate) fn events(&self) -> EventStream {
        self.events.stream()
    }

    /// Refuses what only MQTT 5 can do.
    pub(crate) fn needs_v5(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        if self.options.session.version.is_v5() {
            return Ok(());
        }
        Err(errors::invalid(py, &format!("{what} needs MQTT 5: connect with version 5")))
    }

    /// What is called when a turn of a loop is over.
    pub(crate) fn flusher(self: &Arc<Self>, py: Python<'_>) -> PyResult<&Py<Flusher>> {
        self.flusher.get_or_try_init(py, || Flusher::new(py, self))
    }

    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    pub(crate) fn process(&self, py: Python<'_>) -> PyResult<&'static Process> {
        self.client.try_get(py)?;
        Process::get(py)
    }

    /// Waits on this thread, without holding the GIL.
    pub(crate) fn block_on<T: Send>(
        &self,
        py: Python<'_>,
        future: impl Future<Output = Result<T, Error>> + Send,
    ) -> PyResult<T> {
        self.process(py)?.block_on(py, future)?.map_err(|error| errors::from_client(py, &error))
    }

    /// Connects; the result is to be given to [`Self::connected`].
    pub(crate) fn connect(
        self: &Arc<Self>,
        py: Python<'_>,
    ) -> PyResult<impl Future<Output = Result<Client, Error>> + use<>> {
        if self.client.try_get(py)?.lock().is_some() {
            return Err(errors::closed(py, "the client is connected already; one `with` block at a time"));
        }
        let core = Arc::clone(self);
        Ok(async move {
            let client = match core.spool.clone() {
                None => core.begin(None)?,
                Some(path) => {
                    // It reads all of the file, and may have to repair it.
                    let client_id = core.options.session.client_id.clone();
                    let opened = spawn_blocking(move || open_spool(&path, &client_id)).await;
                    core.begin(Some(opened.map_err(|_| Error::Closed)??))?
                }
            };
            client.ready().await?;
            Ok(client)
        })
    }

    /// Begins to connect, without waiting.
    pub(crate) fn start(&self, py: Python<'_>) -> PyResult<()> {
        let _guard = self.process(py)?.runtime().enter();
        let begun = py.detach(|| {
            let client_id = &self.options.session.client_id;
            let spool = self.spool.as_ref().map(|path| open_spool(path, client_id)).transpose()?;
            self.begin(spool)
        });
        self.connected(begun.map_err(|error| errors::from_client(py, &error))?);
        Ok(())
    }

    fn begin(&self, spool: Option<Arc<dyn Spool>>) -> Result<Client, Error> {
        let options = ClientOptions { spool, ..self.options.clone() };
        match &self.target {
            Target::Servers => Client::start(options),
            Target::Memory(connector) => Client::start_with(options, connector.clone()),
        }
    }

    pub(crate) fn connected(&self, client: Client) {
        if let Some(place) = self.client.get() {
            *place.lock() = Some(client);
        }
    }

    /// Disconnects, if connected. After an exception nobody waits long for what is unfinished.
    pub(crate) fn disconnect(
        &self,
        py: Python<'_>,
        reason: ReasonCode,
        after_exception: bool,
    ) -> PyResult<impl Future<Output = Result<(), Error>> + use<>> {
        let client = self.client.try_get(py)?.lock().take();
        let timeout = if after_exception { HASTY_TIMEOUT.min(self.timeout) } else { self.timeout };
        Ok(async move {
            let Some(client) = client else { return Ok(()) };
            let options = DisconnectOptions { reason, timeout, ..DisconnectOptions::default() };
            match client.disconnect(options).await {
                // The end was asked for; that the connection had ended before is no news here.
                Err(Error::Closed | Error::ConnectionLost { .. } | Error::Connection { .. } | Error::Io { .. }) => {
                    Ok(())
                }
                result => result,
            }
        })
    }

    /// Unsubscribes from filters that no subscription object stands for.
    pub(crate) fn unsubscribe(
        &self,
        py: Python<'_>,
        filters: &Bound<'_, PyTuple>,
    ) -> PyResult<impl Future<Output = Result<(), Error>> + Send + use<>> {
        let client = self.client(py)?;
        let parse = |filter: Bound<'_, PyAny>| parse_filter(py, &filter.extract::<PyBackedStr>()?);
        let filters = filters.iter().map(parse).collect::<PyResult<Vec<_>>>()?;
        Ok(async move { client.unsubscribe(filters).await })
    }

    /// Counters.
    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.client(py)?.stats();
        let dict = PyDict::new(py);
        dict.set_item("received", stats.received)?;
        dict.set_item("unmatched", stats.unmatched)?;
        dict.set_item("published", stats.published)?;
        dict.set_item("connections", stats.connections)?;
        dict.set_item("bytes_in", stats.bytes_in)?;
        dict.set_item("bytes_out", stats.bytes_out)?;
        dict.set_item("unfinished", stats.unfinished)?;
        dict.set_item("spooled", stats.spooled)?;
        dict.set_item("given_up", stats.given_up)?;
        Ok(dict)
    }

    /// Waits until what was accepted is in the spool.
    pub(crate) fn flush(&self, py: Python<'_>) -> PyResult<impl Future<Output = Result<(), Error>> + Send + use<>> {
        let client = self.client(py)?;
        Ok(async move { client.flush().await })
    }

    /// Publications in the spool.
    pub(crate) fn spooled(&self) -> usize {
        self.peek().map_or(0, |client| client.stats().spooled)
    }

    /// Where it connects to.
    pub(crate) fn server(&self) -> String {
        match &self.target {
            Target::Servers => self.options.servers.iter().map(ServerUrl::to_string).collect::<Vec<_>>().join(", "),
            Target::Memory(_) => "memory".to_owned(),
        }
    }

    pub(crate) fn client_id(&self) -> String {
        match self.peek() {
            Some(client) => client.client_id().to_string(),
            None => self.options.session.client_id.to_string(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.peek().is_some_and(|client| client.state() == ConnectionState::Connected)
    }

    /// Whether the server had kept the session, as the last CONNACK said.
    pub(crate) fn session_present(&self) -> Option<bool> {
        Some(self.peek()?.connack()?.session_present)
    }

    /// The state in words.
    pub(crate) fn state(&self) -> &'static str {
        match self.peek().map(|client| client.state()) {
            None | Some(ConnectionState::Disconnected) => "disconnected",
            Some(ConnectionState::Connecting) => "connecting",
            Some(ConnectionState::Connected) => "connected",
            Some(ConnectionState::Reconnecting) => "reconnecting",
        }
    }

    /// The connection, without complaint if there is none.
    pub(crate) fn peek(&self) -> Option<Client> {
        self.client.get()?.lock().clone()
    }
}

fn open_spool(path: &Path, client_id: &Text) -> Result<Arc<dyn Spool>, Error> {
    let spool = DiskSpool::open(path, client_id, Durability::Fsync).map_err(Error::Spool)?;
    Ok(Arc::new(spool))
}

fn servers(server: &Bound<'_, PyAny>) -> PyResult<Vec<ServerUrl>> {
    let parse = |url: &Bound<'_, PyAny>| {
        let url = url.cast::<PyString>().map_err(|_| {
            let class = url.get_type();
            PyTypeError::new_err(format!("a server is a URL, a list of URLs or a ferromq.Broker, not {class}"))
        })?;
        let url = url.to_str()?;
        url.parse().map_err(|fault: crate::client::InvalidUrl| errors::invalid(server.py(), &fault.to_string()))
    };
    if server.is_instance_of::<PyString>() {
        return Ok(vec![parse(server)?]);
    }
    let Ok(urls) = server.try_iter() else { return Ok(vec![parse(server)?]) };
    let servers = urls.map(|url| parse(&url?)).collect::<PyResult<Vec<_>>>()?;
    if servers.is_empty() {
        return Err(errors::invalid(server.py(), "the list of servers is empty"));
    }
    Ok(servers)
}

fn not_open(py: Python<'_>) -> PyErr {
    errors::closed(py, "the client is not connected: enter it with `async with` (or `with`), or call connect()")
}

/// How long unfinished publications may hold up an exception.
const HASTY_TIMEOUT: Duration = Duration::from_secs(1);

/// Events kept for a reader whose task is late.
const EVENTS_MAX: usize = 256;
