//! Says that a turn of the loop is over: what was published in it leaves in one piece.
//!
//! A client's task that is woken for each message of a series writes each by itself, and has the server answer each by
//! itself. So it lets itself be told ([`Client::submit_lazily`](crate::client::Client::submit_lazily)), by a callback of
//! the loop's next turn, which comes before the loop sleeps. Should the loop be held up, the task looks itself.

use std::sync::{Arc, Weak};

use pyo3::prelude::*;

use super::{bridge::find_loop, core::Core};

/// What the loop calls.
#[pyclass(frozen, module = "ferromq._ferromq", name = "_Flusher")]
pub(crate) struct Flusher {
    core: Weak<Core>,
}

#[pymethods]
impl Flusher {
    fn __call__(&self, py: Python<'_>) {
        // A client that is gone, or not connected, has nothing to write.
        if let Some(Ok(client)) = self.core.upgrade().map(|core| core.client(py)) {
            client.write_submitted();
        }
    }
}

impl Flusher {
    pub(crate) fn new(py: Python<'_>, core: &Arc<Core>) -> PyResult<Py<Self>> {
        Py::new(py, Self { core: Arc::downgrade(core) })
    }
}

/// Has the client flush when this turn of the loop is over; at once where there is no loop.
pub(crate) fn flush_soon(py: Python<'_>, core: &Arc<Core>) -> PyResult<()> {
    match find_loop(py)? {
        Some(event_loop) => {
            event_loop.call_method1(pyo3::intern!(py, "call_soon"), (core.flusher(py)?,))?;
        }
        None => core.client(py)?.write_submitted(),
    }
    Ok(())
}
