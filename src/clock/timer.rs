//! Waiting for an instant of a clock: tokio's timers for the system's part of it, an entry for what is advanced.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::{Sleep, sleep_until};

use super::{Clock, keep};

/// What [`Clock::advance`] knows of a timer.
#[derive(Default)]
pub(super) struct Entry(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    at: Option<Instant>,
    waker: Option<Waker>,
}

impl Entry {
    /// What it waits for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.lock().at
    }

    /// Wakes who waits.
    pub(super) fn wake(&self) {
        let waker = self.0.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A timer that can be set again and again.
pub(crate) struct Timer {
    clock: Clock,
    at: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
    /// The clock's offset for which `sleep` is right.
    offset: Duration,
    entry: Option<Arc<Entry>>,
}

impl Timer {
    /// One that is not set.
    pub(crate) fn new(clock: &Clock) -> Self {
        let entry = clock.0.as_ref().map(|adjustable| {
            let entry = Arc::new(Entry::default());
            keep(&mut adjustable.entries.lock(), Arc::downgrade(&entry));
            entry
        });
        let sleep = Box::pin(sleep_until(tokio::time::Instant::now()));
        Self { clock: clock.clone(), at: None, sleep, offset: Duration::ZERO, entry }
    }

    /// What it is set to.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Sets it; `None` never fires.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
        if let Some(entry) = &self.entry {
            *entry.0.lock() = Waiting { at, waker: None };
        }
        self.reset();
    }

    /// Ready when it is due, until it is set anew.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let Some(entry) = &self.entry else {
            return self.sleep.as_mut().poll(cx);
        };
        entry.0.lock().waker = Some(cx.waker().clone());
        loop {
            // After the entry was made: who advances moves the offset first and looks at the entries then.
            if self.clock.now_in_runtime() >= at {
                return Poll::Ready(());
            }
            if self.offset != self.clock.offset() {
                self.reset();
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Rounded down by the time that the offset was read: a little more.
            self.sleep.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(1));
        }
    }

    fn reset(&mut self) {
        let Some(at) = self.at else { return };
        self.offset = self.clock.offset();
        self.sleep.as_mut().reset(tokio::time::Instant::from_std(self.clock.to_system(at)));
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Clock {
    /// Waits until it shows `at`.
    pub(crate) async fn sleep_until(&self, at: Instant) {
        let mut timer = Timer::new(self);
        timer.set(Some(at));
        poll_fn(|cx| timer.poll(cx)).await;
    }
}

/// What `future` gives, if it does within `after` by this clock.
pub(crate) async fn timeout<F: Future>(clock: &Clock, after: Duration, future: F) -> Option<F::Output> {
    let deadline = clock.now_in_runtime().checked_add(after);
    let mut timer = Timer::new(clock);
    timer.set(deadline);
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll(cx).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_advance_fires_what_is_due_and_nothing_else() {
        let clock = Clock::adjustable();
        let sleep = |seconds| {
            let (clock, at) = (clock.clone(), clock.now() + Duration::from_secs(seconds));
            tokio::spawn(async move {
                clock.sleep_until(at).await;
                clock.now() - at
            })
        };
        let (near, far) = (sleep(60), sleep(7200));
        tokio::task::yield_now().await;
        clock.advance_async(Duration::from_hours(1)).await;
        assert!(near.await.unwrap() < Duration::from_mins(1), "it was woken when it was due, not at the end");
        assert!(!far.is_finished());
        far.abort();
    }

    #[tokio::test]
    async fn without_an_advance_a_timer_follows_the_system() {
        let clock = Clock::adjustable();
        clock.advance_async(Duration::from_hours(1)).await;
        clock.sleep_until(clock.now() + Duration::from_millis(2)).await;
        assert_eq!(timeout(&clock, Duration::from_millis(2), std::future::pending::<()>()).await, None);
        assert_eq!(timeout(&clock, Duration::from_hours(1), async { 7 }).await, Some(7));
    }
}
