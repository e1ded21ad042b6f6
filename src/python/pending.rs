//! A publication under way, and its end, whichever comes first: that somebody awaits it, or that it is over.
//!
//! A future of asyncio costs more than a publication does, and most publications of a series are over before it is their
//! turn to be awaited. So there is a future only where somebody has to sleep. The failure of a publication that nobody can
//! ask for any more goes to the loop's exception handler, as that of a future does.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::{
    awaitable::Step,
    bridge::{Bridge, Outcome, Promise, is_done, running_loop},
    operation::wait_for,
    publish,
};
use crate::{client::Error, session::client::PublishAck};

/// The end that Python holds, in an operation.
pub(crate) struct Pending {
    shared: Arc<Shared>,
    /// Made when somebody has to sleep.
    future: OnceLock<Py<PyAny>>,
}

/// The end that the client's task holds: the duty to settle. Dropped unfulfilled, the publication has failed.
pub(crate) struct Duty(Arc<Shared>);

/// Whom to wake, and with what.
pub(crate) type Wake = (Promise, Outcome);

type Ended = Result<PublishAck, Error>;

struct Shared {
    /// Of the loop that is told of a failure nobody asks for.
    bridge: Bridge,
    state: Mutex<State>,
}

enum State {
    /// Under way; nobody waits.
    Open,
    /// Under way; somebody sleeps.
    Awaited(Promise),
    /// It is over.
    Over { ended: Ended, is_told: bool },
    /// It is over and a future has its end, or nobody can ask any more.
    Left,
}

impl Pending {
    /// Both ends of a publication.
    pub(crate) fn new(bridge: Bridge) -> (Self, Duty) {
        let shared = Arc::new(Shared { bridge, state: Mutex::new(State::Open) });
        (Self { shared: Arc::clone(&shared), future: OnceLock::new() }, Duty(shared))
    }

    /// Its end, if that is there and good. Drops no `Py`.
    #[inline]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyAny>>> {
        match &mut *self.shared.state.lock() {
            State::Over { ended: Ok(ack), is_told } if publish::is_plain(ack) => {
                *is_told = true;
                Some(publish::plain_success(py, ack.reason))
            }
            _ => None,
        }
    }

    /// One turn of whoever awaits it.
    pub(crate) fn step(&self, py: Python<'_>) -> PyResult<Step> {
        let future = match self.future.get() {
            Some(future) => future.bind(py),
            None => match self.shared.tell() {
                Some(ended) => return publish::finished(py, ended).map(Step::Return),
                None => self.sleep(py)?,
            },
        };
        if is_done(future)? {
            return future.call_method0(pyo3::intern!(py, "result")).map(|value| Step::Return(value.unbind()));
        }
        wait_for(future)
    }

    /// What the garbage collector is to know of.
    pub(crate) fn future(&self) -> Option<&Py<PyAny>> {
        self.future.get()
    }

    /// A future for who awaits it, which is done already if the publication has ended meanwhile.
    fn sleep<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let event_loop = running_loop(py)?;
        let (promise, future) = Bridge::of(&event_loop)?.promise_in(&event_loop)?;
        // Another thread may have made one, while Python was called.
        let kept = self.future.get_or_init(|| future.clone().unbind()).bind(py);
        if kept.is(&future) {
            self.shared.wait(promise);
        } else {
            promise.forget(py);
        }
        Ok(kept)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Threads of a parent process may have held the lock at the fork.
        if self.shared.bridge.is_usable() {
            self.shared.leave();
        }
    }
}

impl Duty {
    /// The publication is over; whom to wake. To be done last, when all that ended with it are settled: who wakes looks
    /// for those at once.
    #[must_use]
    pub(crate) fn settle(self, ended: Ended) -> Option<Wake> {
        self.0.settle(ended)
    }

    /// It was never begun.
    pub(crate) fn forget(self) {
        *self.0.state.lock() = State::Left;
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.0.is_under_way()
            && let Some((promise, outcome)) = self.0.settle(Err(Error::Closed))
        {
            promise.complete(outcome);
        }
    }
}

impl Shared {
    fn is_under_way(&self) -> bool {
        matches!(*self.state.lock(), State::Open | State::Awaited(_))
    }

    fn settle(&self, ended: Ended) -> Option<Wake> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Left) {
            State::Open => {
                *state = State::Over { ended, is_told: false };
                None
            }
            State::Awaited(promise) => Some((promise, Outcome::Published(ended))),
            State::Over { .. } | State::Left => {
                drop(state);
                self.report(ended);
                None
            }
        }
    }

    /// Its end if there is one, for somebody who asks.
    fn tell(&self) -> Option<Ended> {
        match &mut *self.state.lock() {
            State::Over { ended, is_told } => {
                *is_told = true;
                Some(ended.clone())
            }
            _ => None,
        }
    }

    /// The promise is kept when it is over, which may be now.
    fn wait(&self, promise: Promise) {
        let mut state = self.state.lock();
        if let State::Over { ended, .. } = &*state {
            let ended = ended.clone();
            *state = State::Left;
            drop(state);
            promise.complete(Outcome::Published(ended));
        } else {
            *state = State::Awaited(promise);
        }
    }

    /// Nobody can ask any more.
    fn leave(&self) {
        let mut state = self.state.lock();
        if matches!(*state, State::Awaited(_)) {
            // Whoever sleeps has the future.
            return;
        }
        let left = std::mem::replace(&mut *state, State::Left);
        drop(state);
        if let State::Over { ended, is_told: false } = left {
            self.report(ended);
        }
    }

    fn report(&self, ended: Ended) {
        if ended.as_ref().map_or(true, |ack| ack.reason.is_error()) {
            self.bridge.report(ended);
        }
    }
}
