//! The life of a connection as Python sees it: a stream of small objects.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use pyo3::{prelude::*, types::PyTuple};
use tokio::task::AbortHandle;

use super::{
    core::Core,
    errors,
    properties::user_properties_tuple,
    runtime::Local,
    stream::{Reader, Source, WakerSlot},
};
use crate::client::{self, ClientEvent, Error};

/// An attempt to connect begins.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Connecting {
    /// Address of the server.
    #[pyo3(get)]
    server: String,
}

#[pymethods]
impl Connecting {
    #[classattr]
    fn __match_args__(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, ["server"])
    }

    fn __repr__(&self) -> String {
        format!("Connecting({})", self.server)
    }
}

/// The server accepted the connection.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Connected {
    /// Address of the server.
    #[pyo3(get)]
    server: String,
    connected: Arc<client::Connected>,
}

#[pymethods]
impl Connected {
    #[classattr]
    fn __match_args__(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, ["session_present"])
    }

    /// Whether the server had kept the session. If not, subscriptions are made again by themselves.
    #[getter]
    fn session_present(&self) -> bool {
        self.connected.session_present
    }

    /// User properties of CONNACK.
    #[getter]
    fn user_properties<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        user_properties_tuple(py, &self.connected.properties)
    }

    fn __repr__(&self) -> String {
        let present = if self.session_present() { "True" } else { "False" };
        format!("Connected({}, session_present={present})", self.server)
    }
}

/// The connection ended, or an attempt failed.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Disconnected {
    /// Why; `None` if this client asked for it.
    #[pyo3(get)]
    reason: Option<Py<PyAny>>,
    /// Seconds to the next attempt; `None` if there is none.
    #[pyo3(get)]
    retry_in: Option<f64>,
}

#[pymethods]
impl Disconnected {
    #[classattr]
    fn __match_args__(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, ["reason", "retry_in"])
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let reason = self
            .reason
            .as_ref()
            .map_or(Ok("None".to_owned()), |reason| reason.bind(py).repr().map(|text| text.to_string()))?;
        let retry_in = self.retry_in.map_or("None".to_owned(), |seconds| format!("{seconds:.3}"));
        Ok(format!("Disconnected({reason}, retry_in={retry_in})"))
    }
}

/// Client and server have authenticated each other again.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Reauthenticated;

#[pymethods]
impl Reauthenticated {
    #[allow(clippy::unused_self)] // a method of Python's
    fn __repr__(&self) -> &'static str {
        "Reauthenticated()"
    }
}

/// The events of a client from now on, up to the end of its connection, or of the next one if there is none.
pub(crate) fn reader(py: Python<'_>, core: &Core) -> PyResult<Arc<Reader>> {
    let mut events = core.events();
    let queue = Arc::new(Events::default());
    let theirs = Arc::clone(&queue);
    let task = core.process(py)?.runtime().spawn(async move {
        while let Some(event) = events.recv().await {
            let is_last = matches!(event, ClientEvent::Disconnected { retry_in: None, .. });
            theirs.push(event);
            if is_last {
                break;
            }
        }
        theirs.end();
    });
    let slot = Arc::clone(&queue.slot);
    Ok(Reader::new(EventSource { queue: Local::new(queue), slot, task: task.abort_handle() }))
}

/// Events between the task that waits for them and Python.
#[derive(Default)]
struct Events {
    queue: Mutex<(VecDeque<ClientEvent>, bool)>,
    slot: Arc<WakerSlot>,
}

impl Events {
    fn push(&self, event: ClientEvent) {
        let mut queue = self.queue.lock();
        if queue.0.len() >= EVENTS_MAX {
            queue.0.pop_front();
        }
        queue.0.push_back(event);
        drop(queue);
        self.slot.wake();
    }

    fn end(&self) {
        self.queue.lock().1 = true;
        self.slot.wake();
    }
}

struct EventSource {
    queue: Local<Arc<Events>>,
    slot: Arc<WakerSlot>,
    task: AbortHandle,
}

impl Source for EventSource {
    fn fill(&mut self, _want: usize) -> usize {
        self.queue.get().map_or(0, |events| events.queue.lock().0.len())
    }

    fn pop<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let event = self.queue.try_get(py)?.queue.lock().0.pop_front();
        event.map(|event| event_object(py, event)).transpose()
    }

    fn has_news(&self) -> bool {
        self.queue.get().is_some_and(|events| !events.queue.lock().0.is_empty())
    }

    fn is_ended(&self) -> bool {
        self.queue.get().is_none_or(|events| events.queue.lock().1)
    }

    fn failure(&self, _py: Python<'_>) -> Option<PyErr> {
        None
    }

    fn waker(&self) -> &WakerSlot {
        &self.slot
    }
}

impl Drop for EventSource {
    fn drop(&mut self) {
        if self.queue.get().is_some() {
            self.task.abort();
        }
    }
}

fn event_object(py: Python<'_>, event: ClientEvent) -> PyResult<Bound<'_, PyAny>> {
    match event {
        ClientEvent::Connecting { server } => Ok(Bound::new(py, Connecting { server: server.to_string() })?.into_any()),
        ClientEvent::Connected { server, connected } => {
            Ok(Bound::new(py, Connected { server: server.to_string(), connected })?.into_any())
        }
        ClientEvent::Disconnected { reason, retry_in } => {
            let exception = |error: Error| errors::from_client(py, &error).into_value(py).into_any();
            let retry_in = retry_in.map(|wait| wait.as_secs_f64());
            Ok(Bound::new(py, Disconnected { reason: reason.map(exception), retry_in })?.into_any())
        }
        ClientEvent::Reauthenticated => Ok(Bound::new(py, Reauthenticated)?.into_any()),
    }
}

/// Events kept for a reader that lags; then the oldest go.
const EVENTS_MAX: usize = 256;
