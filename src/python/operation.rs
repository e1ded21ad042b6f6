//! What a verb returns: a coroutine that is under way already, or finished.
//!
//! The work begins with the call and not with the `await`, so publications keep the order of their calls. A finished
//! operation never visits the event loop.

use std::{
    ffi::{CStr, c_int},
    future::Future,
};

use pyo3::{prelude::*, sync::PyOnceLock, types::PyType};
use tokio::task::AbortHandle;

use super::{
    awaitable::{Awaitable, Step, new_object},
    bridge::{Bridge, Outcome, is_done, running_loop},
    errors,
    runtime::{Local, Process},
};
use crate::client::Error;

/// A verb under way.
pub(crate) enum Operation {
    /// Finished, with this result.
    Ready(Py<PyAny>),
    /// Finished when the future is. The task, if there is one, ends with the wait.
    Waiting { future: Py<PyAny>, task: Option<Local<AbortHandle>> },
}

impl Operation {
    /// A finished operation.
    pub(crate) fn ready(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
        let py = value.py();
        new_object(py, Self::Ready(value.unbind()))
    }

    /// An operation that is finished when `future` is.
    pub(crate) fn waiting(future: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
        let py = future.py();
        new_object(py, Self::Waiting { future: future.unbind(), task: None })
    }

    /// Runs `work` on tokio; `convert` makes its result a Python object, on the thread of the loop. When the operation
    /// is cancelled, `work` is dropped.
    pub(crate) fn spawn<'py, T, W, C>(py: Python<'py>, work: W, convert: C) -> PyResult<Bound<'py, PyAny>>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        let (promise, future) = Bridge::running(py)?.promise(&running_loop(py)?)?;
        let task = Process::get(py)?.runtime().spawn(async move {
            let result = work.await;
            promise.complete(Outcome::Made(Box::new(move |py| match result {
                Ok(value) => convert(py, value),
                Err(error) => Err(errors::from_client(py, &error)),
            })));
        });
        new_object(py, Self::Waiting { future: future.unbind(), task: Some(Local::new(task.abort_handle())) })
    }
}

impl Awaitable for Operation {
    const NAME: &'static CStr = c"ferromq._ferromq.Operation";
    const DOC: &'static CStr = c"A verb under way: await it for its result.";
    const IS_STREAM: bool = false;

    fn type_cell() -> &'static PyOnceLock<Py<PyType>> {
        static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        &TYPE
    }

    #[inline]
    fn ready<'py>(&self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyAny>>> {
        match self {
            Self::Ready(value) => Some(Ok(value.bind(py).clone())),
            Self::Waiting { .. } => None,
        }
    }

    fn step(&self, py: Python<'_>) -> PyResult<Step> {
        match self {
            Self::Ready(value) => Ok(Step::Return(value.clone_ref(py))),
            Self::Waiting { future, .. } => {
                let future = future.bind(py);
                if is_done(future)? {
                    return future.call_method0(pyo3::intern!(py, "result")).map(|value| Step::Return(value.unbind()));
                }
                wait_for(future)
            }
        }
    }

    fn abandon(&self, _py: Python<'_>) {
        if let Self::Waiting { task: Some(task), .. } = self
            && let Some(task) = task.get()
        {
            task.abort();
        }
    }

    fn traverse(&self, visit: &mut dyn FnMut(&Py<PyAny>) -> Result<(), c_int>) -> Result<(), c_int> {
        match self {
            Self::Ready(value) | Self::Waiting { future: value, .. } => visit(value),
        }
    }

    /// Nothing to let go of: like a tuple, an operation never changes, so another object of the cycle breaks it.
    fn clear(&self) {}
}

/// Has the task that awaits sleep until `future` is done: the protocol of `asyncio.Future.__await__`.
pub(crate) fn wait_for(future: &Bound<'_, PyAny>) -> PyResult<Step> {
    future.setattr(pyo3::intern!(future.py(), "_asyncio_future_blocking"), true)?;
    Ok(Step::Yield(future.clone().unbind()))
}
