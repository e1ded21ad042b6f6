//! Who is at work: a task that is watched from being woken to having nothing left to do.
//!
//! The task gets a waker of the seat's. Being woken is noted before the task is, so between a byte written into a
//! client's pipe and the client's reading it, the client counts as busy.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{Adjustable, Clock, keep};

/// The place of one task.
pub(crate) struct Seat {
    clock: Arc<Adjustable>,
    state: AtomicU8,
    /// How often it was woken.
    turns: AtomicU64,
    /// The task's own waker.
    task: Mutex<Option<Waker>>,
    /// Where the task runs, if it waits for sockets too.
    pub(super) sockets: Option<Handle>,
}

/// The task has nothing to do.
const IDLE: u8 = 0;
/// It is being polled.
const POLLING: u8 = 1;
/// It is to be polled.
const WOKEN: u8 = 2;

impl Clock {
    /// Has `future` live by this clock. With `sockets`, what arrives at sockets of that runtime is waited for, too.
    pub(crate) fn watch<F: Future<Output = ()> + Send + 'static>(
        &self,
        sockets: Option<Handle>,
        future: F,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let Some(adjustable) = &self.0 else { return Box::pin(future) };
        let seat = Arc::new(Seat {
            clock: Arc::clone(adjustable),
            state: AtomicU8::new(WOKEN),
            turns: AtomicU64::new(0),
            task: Mutex::new(None),
            sockets,
        });
        keep(&mut adjustable.seats.lock(), Arc::downgrade(&seat));
        let waker = Waker::from(Arc::clone(&seat));
        Box::pin(Watched { future: Box::pin(future), seat, waker })
    }
}

impl Seat {
    pub(super) fn is_idle(&self) -> bool {
        self.state.load(Ordering::Acquire) == IDLE
    }

    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    fn note_woken(&self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
        self.state.store(WOKEN, Ordering::Release);
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note_woken();
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("is_idle", &self.is_idle()).field("turns", &self.turns()).finish_non_exhaustive()
    }
}

struct Watched<F> {
    future: Pin<Box<F>>,
    seat: Arc<Seat>,
    waker: Waker,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        {
            let mut task = this.seat.task.lock();
            if !task.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        this.seat.state.store(POLLING, Ordering::Release);
        let result = this.future.as_mut().poll(&mut Context::from_waker(&this.waker));
        // Woken meanwhile, it will be polled again.
        let rests = this.seat.state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if rests || result.is_ready() {
            this.seat.clock.rest.notify_waiters();
        }
        result
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        // Wakers of it may live on in what it waited for.
        self.seat.state.store(IDLE, Ordering::Release);
        self.seat.clock.rest.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_task_is_busy_from_its_wake_to_its_rest() {
        let clock = Clock::adjustable();
        let (waker, wakers) = std::sync::mpsc::sync_channel(1);
        let task = clock.watch(
            None,
            poll_fn(move |cx| {
                let _ = waker.send(cx.waker().clone());
                Poll::Pending
            }),
        );
        assert!(!clock.seats().0, "a task that never ran has work to do");
        let task = tokio::spawn(task);
        while !clock.seats().0 {
            clock.rest().await;
        }
        let before = clock.seats();
        wakers.recv().unwrap().wake();
        let woken = clock.seats();
        assert!(!woken.0 && woken.1 > before.1);
        while !clock.seats().0 {
            clock.rest().await;
        }
        task.abort();
        let _ = task.await;
        drop(wakers); // with what it was sent
        assert_eq!(clock.seats(), (true, 0), "who has gone is not waited for");
    }
}
