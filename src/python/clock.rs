//! `Clock`: the time of a broker and of the clients of this process, which a test can advance.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use pyo3::{exceptions::PyTypeError, prelude::*, types::PyString};

use super::{
    errors,
    options::duration,
    runtime::{SIGNAL_CHECK_INTERVAL, check_fork, epoch},
};
use crate::{clock, config::Period};

/// The time that a broker and clients of this process live by: the system's, and what it was advanced.
///
///     broker.clock.advance("8h")
///
/// Every `Broker` has one, `Client(broker)` shares it, and a client with a URL can: `Client(broker.url,
/// clock=broker.clock)`. Keep-alive, will delay, session and message expiry, time-outs, back-off and the delays of
/// faults go by it. Clients of other processes and libraries go by their own: when hours pass in a moment, the broker
/// does not hear from them for hours.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Clock {
    clock: clock::Clock,
    epoch: u32,
}

impl Clock {
    pub(crate) fn of(clock: &clock::Clock) -> Self {
        Self { clock: clock.clone(), epoch: epoch() }
    }

    pub(crate) fn inner(&self) -> &clock::Clock {
        &self.clock
    }
}

#[pymethods]
impl Clock {
    #[new]
    fn new() -> Self {
        Self::of(&clock::Clock::adjustable())
    }

    /// Let time pass, with all that happens in it, in its order; returns when it has.
    ///
    /// It goes from one instant at which something is due to the next, and waits at each until the broker and the
    /// clients that live by this clock are at rest. It blocks, but never for the time that passes, and works inside a
    /// coroutine, too: nothing that happens meanwhile needs the event loop. What your own code does when it hears of
    /// it, it does afterwards.
    ///
    /// Args:
    ///     duration: Seconds, a text as `"8h"`, `"90 min"`, `"30s"` or `"250ms"`, or a `timedelta`.
    ///
    /// Raises:
    ///     InvalidArgument: That is no time, or a negative one.
    fn advance(&self, py: Python<'_>, #[pyo3(from_py_with = span)] duration: Duration) -> PyResult<()> {
        check_fork(py, self.epoch)?;
        let is_done: Receiver<()> = self.clock.begin_advance(duration)?;
        let is_done = parking_lot::Mutex::new(is_done);
        loop {
            match py.detach(|| is_done.lock().recv_timeout(SIGNAL_CHECK_INTERVAL)) {
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// What it shows: as `time.time()`, and ahead of it by `offset`.
    #[getter]
    fn now(&self) -> f64 {
        self.clock.unix_time().as_secs_f64()
    }

    /// Seconds that it was advanced by, in all.
    #[getter]
    fn offset(&self) -> f64 {
        self.clock.offset().as_secs_f64()
    }

    fn __repr__(&self) -> String {
        format!("Clock(offset={})", self.offset())
    }
}

/// A time as an argument: seconds, a text with a unit, or a `timedelta`.
pub(crate) fn span(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        let period = text.to_str()?.parse::<Period>().map_err(|fault| errors::invalid(py, &fault.to_string()))?;
        return Ok(period.as_duration());
    }
    let seconds = if value.hasattr("total_seconds")? { value.call_method0("total_seconds")? } else { value.clone() };
    let seconds = seconds.extract().map_err(|_| {
        let class = value.get_type();
        PyTypeError::new_err(format!("a time is a number of seconds, a str as \"8h\" or a timedelta, not {class}"))
    })?;
    duration(py, "a time", seconds)
}

/// The same for an argument that may be `None`.
pub(crate) fn optional_span(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if value.is_none() { Ok(None) } else { span(value).map(Some) }
}
