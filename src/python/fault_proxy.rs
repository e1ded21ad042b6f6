//! `FaultProxy`: the faults of `Faults` in front of any other broker.

use std::hash::{BuildHasher, Hasher, RandomState};

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::{
    broker_config::seed_argument,
    clock::Clock,
    errors::{self, Kind},
    faults::{ConnectionTrace, Faults},
    operation::Operation,
    options::{int, number},
    runtime::{Local, Process},
    tls::ClientTls,
};
use crate::{
    client::{self, ServerUrl},
    clock,
    config::ListenerUrl,
    faults::{self, Proxy},
};

/// A proxy in front of any broker, with faults.
///
///     with ferromq.FaultProxy("mqtt://localhost:1883") as proxy:
///         proxy.faults.drop("PUBACK", nth=1)
///         ...  # clients connect to proxy.url
///
/// Args:
///     upstream: The broker: `mqtt://host:port` or `unix:///path`. `ws://host:port/path` works, too, with faults that
///         do not look into packets.
///     listen: Where clients connect: `tcp://host:port`; port 0 is any that is free.
///     trace: Packets of each connection to remember, at most 4096.
///     seed: Decides what is random.
///     clock: What delays go by; by default one of its own.
///     tls: Whom to believe if the broker is at `mqtts://` or `wss://`. Clients speak no TLS to the proxy.
///
/// Raises:
///     InvalidArgument: A URL is not one.
///     ConnectError: When started: it cannot listen there.
#[pyclass(frozen, module = "ferromq", subclass)]
pub(crate) struct FaultProxy {
    upstream: ServerUrl,
    host: String,
    port: u16,
    is_websocket: Option<String>,
    tls: client::ClientTls,
    faults: Local<faults::Faults>,
    running: Local<Mutex<Option<Proxy>>>,
}

#[pymethods]
impl FaultProxy {
    #[new]
    #[pyo3(signature = (upstream, *, listen = "tcp://127.0.0.1:0", trace = 32, seed = None, clock = None, tls = None))]
    fn new(
        py: Python<'_>,
        upstream: &str,
        listen: &str,
        #[pyo3(from_py_with = int)] trace: i64,
        #[pyo3(from_py_with = seed_argument)] seed: Option<u64>,
        clock: Option<Bound<'_, Clock>>,
        tls: Option<Bound<'_, ClientTls>>,
    ) -> PyResult<Self> {
        let upstream: ServerUrl =
            upstream.parse().map_err(|fault: crate::client::InvalidUrl| errors::invalid(py, &fault.to_string()))?;
        let (host, port) = match listen.parse::<ListenerUrl>() {
            Ok(ListenerUrl::Tcp { host, port, tls: false }) => (host, port),
            Ok(_) => return Err(errors::invalid(py, "a proxy listens at a URL as tcp://127.0.0.1:0")),
            Err(fault) => return Err(errors::invalid(py, &fault.to_string())),
        };
        let clock = clock.map_or_else(clock::Clock::adjustable, |clock| clock.get().inner().clone());
        let runtime = Process::get(py)?.runtime().handle().clone();
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        let faults = faults::Faults::new(&clock, runtime, seed, number(py, "trace", trace, 0..=4096)?);
        let is_websocket = match &upstream {
            ServerUrl::WebSocket { path, .. } => Some(path.clone()),
            _ => None,
        };
        Ok(Self {
            upstream,
            host,
            port,
            is_websocket,
            tls: tls.map(|tls| tls.get().inner().clone()).unwrap_or_default(),
            faults: Local::new(faults),
            running: Local::new(Mutex::new(None)),
        })
    }

    /// Start to listen; `with` and `async with` do it, too.
    fn start(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let (py, this) = (slf.py(), slf.get());
        if this.running.try_get(py)?.lock().is_some() {
            return Err(pyo3::exceptions::PyRuntimeError::new_err("the proxy runs already"));
        }
        let faults = this.faults.try_get(py)?.clone();
        let (host, port, upstream) = (this.host.clone(), this.port, this.upstream.clone());
        let tls = this.tls.clone();
        let starting = async move { Proxy::start(faults, &host, port, upstream, &tls).await };
        let proxy = Process::get(py)?.block_on(py, starting)?.map_err(|error| {
            let what = format!("cannot listen at {}:{}: {error}", this.host, this.port);
            errors::new(py, Kind::ConnectError, &what)
        })?;
        *this.running.try_get(py)?.lock() = Some(proxy);
        Ok(slf)
    }

    /// Listen no more, and reset all connections.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let Some(proxy) = self.running.try_get(py)?.lock().take() else { return Ok(()) };
        Process::get(py)?.block_on(py, proxy.stop())?;
        self.faults.try_get(py)?.stopped();
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

    /// Listening begins at once, so it is done here and now.
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
        self.stop(py)?;
        Operation::ready(py.None().into_bound(py))
    }

    /// Where clients connect.
    ///
    /// Raises:
    ///     Closed: It does not run.
    #[getter]
    fn url(&self, py: Python<'_>) -> PyResult<String> {
        let running = self.running.try_get(py)?.lock();
        let Some(proxy) = running.as_ref() else {
            return Err(errors::closed(py, "the proxy does not run: enter it with `with` or `async with`"));
        };
        let address = proxy.address();
        Ok(match &self.is_websocket {
            Some(path) => format!("ws://{address}{path}"),
            None => format!("mqtt://{address}"),
        })
    }

    /// What delays go by.
    #[getter]
    fn clock(&self, py: Python<'_>) -> PyResult<Clock> {
        Ok(Clock::of(self.faults.try_get(py)?.clock()))
    }

    /// What can be made to go wrong.
    #[getter]
    fn faults(&self, py: Python<'_>) -> PyResult<Faults> {
        Ok(Faults::new(self.faults.try_get(py)?, None))
    }

    /// The last packets of each connection, of those that have ended, too; the newest connection last.
    #[pyo3(signature = (client = None))]
    fn trace(&self, py: Python<'_>, client: Option<&str>) -> PyResult<Vec<ConnectionTrace>> {
        let faults = self.faults.try_get(py)?;
        Ok(ConnectionTrace::all(py.detach(|| faults.trace(client))))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let url = self.url(py).unwrap_or_else(|_| "stopped".to_owned());
        format!("FaultProxy({url} -> {})", self.upstream)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let proxy = self.running.get().and_then(|running| running.lock().take());
        // Its tasks hold locks for a moment, and never wait for the GIL.
        drop(proxy);
    }
}
