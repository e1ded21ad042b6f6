//! An asynchronous iterator over a bounded queue in Rust, which is its own awaitable.
//!
//! While there are items, `async for` never leaves this file: no future, no task switch, no event loop. One turn of the
//! loop in [`TURN_ITEMS`] is given up, so that others run. An item leaves the queue when it is returned and not before,
//! so a cancelled `anext()` loses nothing.

use std::{
    ffi::{CStr, c_int},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use pyo3::{
    exceptions::{PyRuntimeError, PyStopAsyncIteration},
    prelude::*,
    sync::PyOnceLock,
    types::{PyList, PyType},
};

use super::{
    awaitable::{Awaitable, Step, new_object},
    bridge::{Bridge, Outcome, Promise, is_done, running_loop},
    errors,
    operation::wait_for,
    runtime::{SIGNAL_CHECK_INTERVAL, check_fork, epoch, is_forked},
};
use crate::telemetry::Rows;

/// Where the items of a stream come from.
pub(crate) trait Source: Send + 'static {
    /// Brings up to `want` items within reach of [`Self::pop`]; how many there are now.
    fn fill(&mut self, want: usize) -> usize;

    /// The next item, as a Python object.
    fn pop<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>>;

    /// Up to `max` of the items within reach as one batch of columns.
    fn pop_rows<'py>(&mut self, py: Python<'py>, max: usize, rows: &mut Rows) -> PyResult<Bound<'py, PyAny>> {
        let _ = (max, rows);
        Err(errors::invalid(py, "only messages have columns"))
    }

    /// When the oldest item within reach of [`Self::pop`] was received, Unix time in microseconds.
    fn oldest_us(&self) -> Option<u64> {
        None
    }

    /// Whether there are items that [`Self::fill`] has not brought yet.
    fn has_news(&self) -> bool;

    /// Whether no more items will ever come, apart from those that are here.
    fn is_ended(&self) -> bool;

    /// Why it ended, if that was a failure.
    fn failure(&self, py: Python<'_>) -> Option<PyErr>;

    /// Whom to wake when there is news.
    fn waker(&self) -> &WakerSlot;

    /// What was given out has been consumed: more is asked for.
    fn consumed(&mut self) {}

    /// Nobody will ask any more; `went_wrong` if what was given out last cannot be taken for consumed.
    fn finish(&mut self, went_wrong: bool) {
        let _ = went_wrong;
    }
}

/// Who waits for an item.
pub(crate) enum Waker {
    /// A task of an event loop.
    Loop(Promise),
    /// A thread.
    Thread(Arc<Parker>),
}

impl Waker {
    fn wake(self) {
        match self {
            Self::Loop(promise) => promise.complete(Outcome::Wake),
            Self::Thread(parker) => parker.unpark(),
        }
    }
}

/// Where a waker is left, for whoever brings items. It is woken once.
#[derive(Default)]
pub(crate) struct WakerSlot(Mutex<Option<Waker>>);

impl WakerSlot {
    /// Wakes who waits, if anybody does; from any thread.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    fn set(&self, waker: Waker) {
        let old = self.0.lock().replace(waker);
        drop(old);
    }

    fn take(&self) -> Option<Waker> {
        self.0.lock().take()
    }

    /// Whether somebody still waits. A task that was cancelled does not.
    fn is_awaited(&self, py: Python<'_>) -> PyResult<bool> {
        match &*self.0.lock() {
            Some(Waker::Loop(promise)) => promise.is_pending(py),
            Some(Waker::Thread(_)) => Ok(true),
            None => Ok(false),
        }
    }
}

/// A thread's place to wait.
#[derive(Default)]
pub(crate) struct Parker {
    is_ready: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    fn unpark(&self) {
        *self.is_ready.lock() = true;
        self.changed.notify_one();
    }

    fn park(&self, at_most: Duration) {
        let mut is_ready = self.is_ready.lock();
        if !*is_ready {
            self.changed.wait_for(&mut is_ready, at_most);
        }
        *is_ready = false;
    }
}

/// A source and who consumes it: one at a time, whether a task, a batch iterator or a thread.
pub(crate) struct Reader {
    epoch: u32,
    state: Mutex<State>,
}

struct State {
    source: Box<dyn Source>,
    /// Somebody has begun to wait; whether he still does, the waker's slot knows.
    was_awaited: bool,
    /// Items given since the task last left the stream.
    streak: u32,
    /// Somebody has asked for an item.
    was_asked: bool,
}

impl Reader {
    pub(crate) fn new(source: impl Source) -> Arc<Self> {
        let state = State { source: Box::new(source), was_awaited: false, streak: 0, was_asked: false };
        Arc::new(Self { epoch: epoch(), state: Mutex::new(state) })
    }

    /// The asynchronous iterator over single items.
    pub(crate) fn items(self: &Arc<Self>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Stream::object(py, Arc::clone(self), None)
    }

    /// The asynchronous iterator over lists of up to `max` items, complete or not `within` that time from the first.
    pub(crate) fn batches(self: &Arc<Self>, py: Python<'_>, max: usize, within: Duration) -> PyResult<Py<PyAny>> {
        Stream::object(py, Arc::clone(self), Some(Batching { max, within, rows: None, due: Mutex::new(None) }))
    }

    /// The same, as columns.
    pub(crate) fn columns(
        self: &Arc<Self>,
        py: Python<'_>,
        max: usize,
        within: Duration,
        rows: Rows,
    ) -> PyResult<Py<PyAny>> {
        let rows = Some(Mutex::new(rows));
        Stream::object(py, Arc::clone(self), Some(Batching { max, within, rows, due: Mutex::new(None) }))
    }

    /// The next item, if it is here.
    pub(crate) fn try_next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        check_fork(py, self.epoch)?;
        let mut state = self.claim(py)?;
        state.source.consumed();
        state.source.pop(py)
    }

    /// Items that have left their queue and were not given out.
    pub(crate) fn at_hand(&self) -> usize {
        self.state.try_lock().map_or(0, |mut state| state.source.fill(0))
    }

    /// When the oldest of them was received, Unix time in microseconds.
    pub(crate) fn oldest_us(&self) -> Option<u64> {
        self.state.try_lock().and_then(|state| state.source.oldest_us())
    }

    /// Somebody is about to ask for items, or has looked for how many there are.
    pub(crate) fn ask(&self) {
        if let Some(mut state) = self.state.try_lock() {
            state.was_asked = true;
        }
    }

    /// Whether anybody has asked for an item, or does now.
    pub(crate) fn was_asked(&self) -> bool {
        self.state.try_lock().is_none_or(|state| state.was_asked)
    }

    /// Nobody will ask any more.
    pub(crate) fn finish(&self, py: Python<'_>, went_wrong: bool) -> PyResult<()> {
        check_fork(py, self.epoch)?;
        if let Some(mut state) = self.state.try_lock() {
            state.source.finish(went_wrong);
        }
        Ok(())
    }

    /// Waits on this thread for up to `max` items, at least one, until `deadline`; `None` when there will be no more.
    pub(crate) fn take_blocking<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        deadline: Option<Instant>,
    ) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
        let found = self.wait_blocking(py, 1, deadline, |state| state.pop_many(py, max))?;
        Ok(found)
    }

    /// Waits on this thread for `max` items, or for what came `within` that time from the first, as columns; `None` when
    /// there will be no more.
    pub(crate) fn columns_blocking<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        within: Duration,
        rows: &mut Rows,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.wait_blocking(py, 1, None, |_| Ok(()))?.is_none() {
            return Ok(None);
        }
        let due = Instant::now() + within;
        self.wait_blocking(py, max, Some(due), |state| state.source.pop_rows(py, max, rows))
    }

    /// Waits on this thread until `want` items are here, no more will come or `deadline`, then does `then` with what is
    /// here; `None` if that is nothing and nothing will come.
    fn wait_blocking<T>(
        &self,
        py: Python<'_>,
        want: usize,
        deadline: Option<Instant>,
        then: impl FnOnce(&mut State) -> PyResult<T>,
    ) -> PyResult<Option<T>> {
        check_fork(py, self.epoch)?;
        let parker = Arc::new(Parker::default());
        loop {
            let mut state = self.claim(py)?;
            state.source.consumed();
            let here = state.source.fill(want);
            if here >= want {
                return then(&mut state).map(Some);
            }
            if state.source.is_ended() && state.source.fill(want) == here {
                if here > 0 {
                    return then(&mut state).map(Some);
                }
                return state.source.failure(py).map_or(Ok(None), Err);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return then(&mut state).map(Some);
            }
            if !state.arm(Waker::Thread(Arc::clone(&parker))) {
                continue;
            }
            drop(state);
            let slice = left.map_or(SIGNAL_CHECK_INTERVAL, |left| left.min(SIGNAL_CHECK_INTERVAL));
            py.detach(|| parker.park(slice));
            self.state.lock().source.waker().take();
            py.check_signals()?;
        }
    }

    /// The state, if nobody else waits.
    fn claim(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, State>> {
        let mut state = self.state.try_lock().ok_or_else(in_use)?;
        if state.was_awaited {
            if state.source.waker().is_awaited(py)? {
                return Err(in_use());
            }
            state.was_awaited = false;
        }
        state.was_asked = true;
        Ok(state)
    }
}

impl State {
    fn pop_many<'py>(&mut self, py: Python<'py>, max: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let count = self.source.fill(max).min(max);
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            let Some(item) = self.source.pop(py)? else { break };
            found.push(item);
        }
        Ok(found)
    }

    /// Whether there is nothing more, now and ever. In this order: what came before the end is here by then.
    fn is_over(&mut self) -> bool {
        self.source.is_ended() && self.source.fill(1) == 0
    }

    /// Leaves the waker, unless there is news already.
    fn arm(&mut self, waker: Waker) -> bool {
        self.source.waker().set(waker);
        self.was_awaited = true;
        let waits = !(self.source.has_news() || self.source.is_ended());
        if !waits {
            self.source.waker().wake();
        }
        waits
    }
}

/// The Python iterator.
pub(crate) struct Stream {
    reader: Arc<Reader>,
    batching: Option<Batching>,
    /// `__anext__` has given out this object itself, and nobody has resumed it yet.
    is_claimed: AtomicBool,
}

struct Batching {
    max: usize,
    within: Duration,
    /// Makes columns of messages, if that is what is wanted.
    rows: Option<Mutex<Rows>>,
    /// When the batch that has begun is given out, full or not.
    due: Mutex<Option<Instant>>,
}

impl Stream {
    fn object(py: Python<'_>, reader: Arc<Reader>, batching: Option<Batching>) -> PyResult<Py<PyAny>> {
        new_object(py, Self { reader, batching, is_claimed: AtomicBool::new(false) }).map(Bound::unbind)
    }

    /// The next item or batch, if it is complete.
    fn take<'py>(&self, py: Python<'py>, state: &mut State) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(batching) = &self.batching else { return state.source.pop(py) };
        let count = state.source.fill(batching.max);
        if count == 0 {
            return Ok(None);
        }
        let mut due = batching.due.lock();
        let is_due = *due.get_or_insert_with(|| Instant::now() + batching.within) <= Instant::now();
        if count < batching.max && !is_due && !state.source.is_ended() {
            return Ok(None);
        }
        *due = None;
        drop(due);
        if let Some(rows) = &batching.rows {
            return state.source.pop_rows(py, batching.max, &mut rows.lock()).map(Some);
        }
        Ok(Some(PyList::new(py, state.pop_many(py, batching.max)?)?.into_any()))
    }

    /// Has the task sleep until there is news, or the batch is due.
    fn wait(&self, py: Python<'_>, state: &mut State) -> PyResult<Step> {
        let event_loop = running_loop(py)?;
        let (promise, future) = Bridge::of(&event_loop)?.promise_in(&event_loop)?;
        state.streak = 0;
        if state.arm(Waker::Loop(promise)) {
            let due = self.batching.as_ref().and_then(|batching| *batching.due.lock());
            if let Some(due) = due {
                let left = due.saturating_duration_since(Instant::now()).as_secs_f64();
                let wake_up = Py::new(py, WakeUp { future: future.clone().unbind() })?;
                event_loop.call_method1(pyo3::intern!(py, "call_later"), (left, wake_up))?;
            }
        }
        wait_for(&future)
    }
}

impl Awaitable for Stream {
    const NAME: &'static CStr = c"ferromq.Stream";
    const DOC: &'static CStr = c"An asynchronous iterator over messages, events or batches, from a bounded queue.\n\
        \n\
        It has one consumer: a second `anext()` while another waits raises `RuntimeError`. Cancelling an `anext()` loses\n\
        nothing. While items are at hand, the event loop gets one turn in 128 items.";
    const IS_STREAM: bool = true;

    fn type_cell() -> &'static PyOnceLock<Py<PyType>> {
        static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        &TYPE
    }

    #[inline]
    fn ready<'py>(&self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyAny>>> {
        self.is_claimed.store(false, Ordering::Relaxed);
        if self.batching.is_some() || is_forked(self.reader.epoch) {
            return None;
        }
        let mut state = self.reader.state.try_lock()?;
        if state.was_awaited || state.streak >= TURN_ITEMS {
            return None;
        }
        state.source.consumed();
        let item = state.source.pop(py).transpose()?;
        state.streak += 1;
        Some(item)
    }

    fn step(&self, py: Python<'_>) -> PyResult<Step> {
        check_fork(py, self.reader.epoch)?;
        let mut state = self.reader.claim(py)?;
        if state.streak >= TURN_ITEMS {
            state.streak = 0;
            return Ok(Step::Yield(py.None()));
        }
        state.source.consumed();
        if let Some(item) = self.take(py, &mut state)? {
            state.streak += 1;
            return Ok(Step::Return(item.unbind()));
        }
        if state.is_over() {
            let end = state.source.failure(py);
            return Err(end.unwrap_or_else(|| PyStopAsyncIteration::new_err(())));
        }
        self.wait(py, &mut state)
    }

    /// If it is another task that waits, against the rule, it is woken for nothing and not forgotten.
    fn abandon(&self, _py: Python<'_>) {
        if let Some(state) = self.reader.state.try_lock() {
            state.source.waker().wake();
        }
    }

    /// The object itself, unless another `anext()` holds it and was not awaited yet: `gather` would take two uses of
    /// one object for one.
    fn next_awaitable(&self, slf: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if self.is_claimed.swap(true, Ordering::Relaxed) {
            return Ok(Py::new(slf.py(), Anext { stream: slf.clone().unbind() })?.into_any());
        }
        Ok(slf.clone().unbind())
    }

    /// It holds no Python objects: whoever waits is known to the loop alone.
    fn traverse(&self, _visit: &mut dyn FnMut(&Py<PyAny>) -> Result<(), c_int>) -> Result<(), c_int> {
        Ok(())
    }

    fn clear(&self) {}
}

/// A second `anext()` of a stream.
#[pyclass(frozen, module = "ferromq._ferromq", name = "_Anext")]
pub(crate) struct Anext {
    stream: Py<PyAny>,
}

#[pymethods]
impl Anext {
    fn __await__(&self, py: Python<'_>) -> Py<PyAny> {
        self.stream.clone_ref(py)
    }
}

/// Ends the wait of a batch that has begun.
#[pyclass(frozen, module = "ferromq._ferromq", name = "_WakeUp")]
pub(crate) struct WakeUp {
    future: Py<PyAny>,
}

#[pymethods]
impl WakeUp {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let future = self.future.bind(py);
        if !is_done(future)? {
            future.call_method1("set_result", (py.None(),))?;
        }
        Ok(())
    }
}

fn in_use() -> PyErr {
    PyRuntimeError::new_err("somebody else waits for the next item: one consumer per subscription, or subscribe twice")
}

/// Items given in a row before the event loop gets a turn: below 20 ns an item, and a turn every few dozen microseconds.
const TURN_ITEMS: u32 = 128;
