//! What a verb returns: a coroutine that is under way already, or finished.
//!
//! The work begins with the call and not with the `await`, so publications keep the order of their calls. A finished
//! operation does not visit the event loop, but for one in [`TURN_OPERATIONS`]: a loop that publishes and never waits
//! would keep timers, timeouts and all other tasks from running.

use std::{
    cell::Cell,
    ffi::{CStr, c_int},
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use pyo3::{prelude::*, sync::PyOnceLock, types::PyType};
use tokio::task::AbortHandle;

use super::{
    awaitable::{Awaitable, Step, new_object},
    bridge::{Bridge, Outcome, find_loop, is_done, running_loop},
    errors,
    pending::Pending,
    runtime::{Local, Process},
};
use crate::client::Error;

/// A verb under way.
pub(crate) enum Operation {
    /// Finished, with this result.
    Ready(Py<PyAny>),
    /// Finished as well, but whoever awaits it gives up a turn of the loop first.
    Turn { value: Py<PyAny>, is_given: AtomicBool },
    /// A publication that is to be acknowledged.
    Publication(Pending),
    /// Finished when its future is.
    Waiting(Waiting),
    /// Made where no loop runs: it begins when a loop first asks, like any coroutine.
    Deferred { start: Mutex<Option<Start>>, begun: PyOnceLock<Waiting> },
}

pub(crate) struct Waiting {
    future: Py<PyAny>,
    /// The task that works for it ends with the wait.
    task: Local<AbortHandle>,
}

type Start = Box<dyn FnOnce(Python<'_>) -> PyResult<Waiting> + Send>;

impl Operation {
    /// A finished operation.
    pub(crate) fn ready(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
        let py = value.py();
        new_object(py, Self::Ready(value.unbind()))
    }

    /// A finished operation that did as much as `count` small ones, and gives up a turn of the loop if one is due.
    pub(crate) fn finished(value: Bound<'_, PyAny>, count: usize) -> PyResult<Bound<'_, PyAny>> {
        if is_turn_due(count) { Self::ready_after_turn(value) } else { Self::ready(value) }
    }

    /// A finished operation that gives up a turn of the loop.
    pub(crate) fn ready_after_turn(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
        let py = value.py();
        new_object(py, Self::Turn { value: value.unbind(), is_given: AtomicBool::new(false) })
    }

    /// An operation that is finished when the publication is.
    pub(crate) fn publication(py: Python<'_>, pending: Pending) -> PyResult<Bound<'_, PyAny>> {
        new_object(py, Self::Publication(pending))
    }

    /// Runs `work` on tokio; `convert` makes its result a Python object, on the thread of the loop. When the operation
    /// is cancelled, `work` is dropped.
    pub(crate) fn spawn<T, W, C>(py: Python<'_>, work: W, convert: C) -> PyResult<Bound<'_, PyAny>>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        if find_loop(py)?.is_some() {
            return new_object(py, Self::Waiting(Waiting::spawn(py, work, convert)?));
        }
        let start: Start = Box::new(move |py| Waiting::spawn(py, work, convert));
        new_object(py, Self::Deferred { start: Mutex::new(Some(start)), begun: PyOnceLock::new() })
    }

    fn begin(&self, py: Python<'_>) -> PyResult<Option<&Waiting>> {
        match self {
            Self::Ready(_) | Self::Turn { .. } | Self::Publication(_) => Ok(None),
            Self::Waiting(waiting) => Ok(Some(waiting)),
            Self::Deferred { start, begun } => {
                if begun.get(py).is_none() {
                    running_loop(py)?;
                    let start =
                        start.lock().take().ok_or_else(|| errors::closed(py, "the operation failed to begin"))?;
                    // If another thread was faster there would have been no `start` to take.
                    let _ = begun.set(py, start(py)?);
                }
                Ok(begun.get(py))
            }
        }
    }
}

impl Waiting {
    fn spawn<T, W, C>(py: Python<'_>, work: W, convert: C) -> PyResult<Self>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        let (promise, future) = Bridge::promise(py)?;
        let task = Process::get(py)?.runtime().spawn(async move {
            let result = work.await;
            promise.complete(Outcome::Made(Box::new(move |py| match result {
                Ok(value) => convert(py, value),
                Err(error) => Err(errors::from_client(py, &error)),
            })));
        });
        Ok(Self { future: future.unbind(), task: Local::new(task.abort_handle()) })
    }
}

impl Awaitable for Operation {
    const NAME: &'static CStr = c"ferromq.Operation";
    const DOC: &'static CStr = c"A verb under way: await it for its result.\n\
        \n\
        The work begins with the call, not with the await, so publications keep the order of their calls, and arguments\n\
        that cannot be are refused by the call. It is a coroutine for `asyncio.create_task`, `gather` and the like. Awaiting\n\
        it again gives the same result again. Of 256 operations that never had to wait, one gives the event loop a turn.";
    const IS_STREAM: bool = false;

    fn type_cell() -> &'static PyOnceLock<Py<PyType>> {
        static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        &TYPE
    }

    #[inline]
    fn ready<'py>(&self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyAny>>> {
        match self {
            Self::Ready(value) => Some(Ok(value.bind(py).clone())),
            Self::Publication(pending) => pending.ready(py),
            _ => None,
        }
    }

    fn step(&self, py: Python<'_>) -> PyResult<Step> {
        if let Self::Ready(value) = self {
            return Ok(Step::Return(value.clone_ref(py)));
        }
        if let Self::Turn { value, is_given } = self {
            let was_given = is_given.swap(true, Ordering::Relaxed);
            return Ok(if was_given { Step::Return(value.clone_ref(py)) } else { Step::Yield(py.None()) });
        }
        if let Self::Publication(pending) = self {
            return pending.step(py);
        }
        let waiting = self.begin(py)?.ok_or_else(|| errors::closed(py, "the operation failed to begin"))?;
        let future = waiting.future.bind(py);
        if is_done(future)? {
            return future.call_method0(pyo3::intern!(py, "result")).map(|value| Step::Return(value.unbind()));
        }
        wait_for(future)
    }

    fn abandon(&self, py: Python<'_>) {
        let waiting = match self {
            Self::Ready(_) | Self::Turn { .. } | Self::Publication(_) => None,
            Self::Waiting(waiting) => Some(waiting),
            Self::Deferred { start, begun } => {
                let never_begun = start.lock().take();
                drop(never_begun);
                begun.get(py)
            }
        };
        if let Some(task) = waiting.and_then(|waiting| waiting.task.get()) {
            task.abort();
        }
    }

    fn traverse(&self, visit: &mut dyn FnMut(&Py<PyAny>) -> Result<(), c_int>) -> Result<(), c_int> {
        match self {
            Self::Ready(value) | Self::Turn { value, .. } => visit(value),
            Self::Publication(pending) => pending.future().map_or(Ok(()), visit),
            Self::Waiting(waiting) => visit(&waiting.future),
            // Its future is known to the loop as well, so nothing is collected too late.
            Self::Deferred { .. } => Ok(()),
        }
    }

    /// Nothing to let go of: like a tuple, an operation never changes, so another object of the cycle breaks it.
    fn clear(&self) {}
}

/// Counts an operation of this thread, which is to say of its loop, that is finished without suspending and did as much
/// as `count` small ones; whether it is time to give up a turn.
#[inline]
pub(crate) fn is_turn_due(count: usize) -> bool {
    OPERATIONS.with(|operations| {
        let streak = operations.get().saturating_add(count);
        let is_due = streak >= TURN_OPERATIONS;
        operations.set(if is_due { 0 } else { streak });
        is_due
    })
}

thread_local! {
    /// Operations since this thread gave up a turn.
    static OPERATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Operations finished in a row before the event loop gets a turn: a nanosecond each, and a turn every few dozen
/// microseconds.
const TURN_OPERATIONS: usize = 256;

/// Has the task that awaits sleep until `future` is done: the protocol of `asyncio.Future.__await__`.
pub(crate) fn wait_for(future: &Bound<'_, PyAny>) -> PyResult<Step> {
    future.setattr(pyo3::intern!(future.py(), "_asyncio_future_blocking"), true)?;
    Ok(Step::Yield(future.clone().unbind()))
}
