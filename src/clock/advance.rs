//! Moving an adjustable clock: from deadline to deadline, each time until everybody is at rest.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Handle,
    sync::oneshot,
};

use super::{Adjustable, Clock};

/// What answers for itself whether it has work: the shards of a broker.
pub(crate) trait Group: Send + Sync + fmt::Debug {
    /// Does what is due, looks at every source of work, and tells; who is parked is woken for it.
    fn look(&self) -> Looking<'_>;
}

/// What [`Group::look`] returns; `None` if it has ended.
pub(crate) type Looking<'a> = Pin<Box<dyn Future<Output = Option<Look>> + Send + 'a>>;

/// One look at a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Nothing is left to do before the next event or deadline.
    pub(crate) is_idle: bool,
    /// Grows with everything that is done.
    pub(crate) activity: u64,
    /// The next instant at which something is to be done that others can see.
    pub(crate) deadline: Option<Instant>,
}

impl Clock {
    /// Lets `by` pass, with all that happens in it; returns when it has and everybody who lives by this clock is at
    /// rest. Nothing happens on the system's clock.
    ///
    /// Not for a thread of a runtime whose tasks live by this clock, nor for a hook of the broker: they would be waited
    /// for while they wait. [`Self::advance_async`] is for tasks.
    pub fn advance(&self, by: Duration) {
        if let Some(adjustable) = &self.0 {
            let _turn = adjustable.advancing.lock();
            Advance { clock: self, adjustable, patience: PATIENCE }.run(self.now() + by);
        }
    }

    /// The same for tasks. Dropping the future leaves the clock on its way.
    pub async fn advance_async(&self, by: Duration) {
        let (done, is_done) = oneshot::channel();
        let clock = self.clone();
        let moving = thread::Builder::new().name("ferromq-clock".into()).spawn(move || {
            clock.advance(by);
            // Who asked may have lost interest.
            let _ = done.send(());
        });
        match moving {
            Ok(_) => drop(is_done.await),
            Err(error) => tracing::error!(%error, "no thread to advance a clock"),
        }
    }

    /// What a thread that waits for [`Self::advance`] in slices needs: it runs on a thread of its own.
    #[cfg(feature = "python")]
    pub(crate) fn begin_advance(&self, by: Duration) -> std::io::Result<std::sync::mpsc::Receiver<()>> {
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        let clock = self.clone();
        thread::Builder::new().name("ferromq-clock".into()).spawn(move || {
            clock.advance(by);
            // Who asked may have lost interest.
            let _ = done.send(());
        })?;
        Ok(is_done)
    }
}

struct Advance<'a> {
    clock: &'a Clock,
    adjustable: &'a Arc<Adjustable>,
    /// How long one step waits for those who do not come to rest, by the system's clock.
    patience: Duration,
}

impl Advance<'_> {
    fn run(&mut self, target: Instant) {
        while let Some(next) = self.settle().filter(|next| *next < target) {
            self.jump_to(next);
        }
        self.jump_to(target);
        self.settle();
        // All of them: tokio's timers behind them are set for where the clock was.
        self.adjustable.live_entries().iter().for_each(|entry| entry.wake());
        self.settle();
    }

    /// Sets the clock, if it is not there already.
    fn jump_to(&self, at: Instant) {
        let missing = at.saturating_duration_since(self.clock.now());
        let nanos = u64::try_from(missing.as_nanos()).unwrap_or(u64::MAX);
        self.adjustable.offset_nanos.fetch_add(nanos, Ordering::AcqRel);
    }

    /// Wakes who waited for an instant that has come.
    fn fire(&self) {
        let now = self.clock.now();
        for entry in self.adjustable.live_entries() {
            if entry.deadline().is_some_and(|at| at <= now) {
                entry.wake();
            }
        }
    }

    /// Waits until everybody is at rest; the next deadline. Who does not come to rest is not waited for again as long.
    fn settle(&mut self) -> Option<Instant> {
        let until = Instant::now() + self.patience;
        loop {
            match wait(self.quiet(), until) {
                Some(Some(next)) => return next,
                Some(None) if Instant::now() < until => {}
                _ => {
                    tracing::warn!("somebody who lives by an advanced clock does not come to rest; it goes on");
                    self.patience = HASTE;
                    return self.next_deadline();
                }
            }
        }
    }

    /// Looks until two looks in a row find everybody at rest and nothing done between them. `None`: something that is
    /// due has not been done yet.
    async fn quiet(&self) -> Option<Option<Instant>> {
        let mut last = None;
        loop {
            // Each time, as the system's clock runs on meanwhile.
            self.fire();
            self.seats_at_rest().await;
            let (activity, deadline) = self.look().await;
            let now = self.clock.now();
            if activity.is_some() && activity == last {
                let next = [deadline, self.next_entry()].into_iter().flatten().min();
                return if next.is_some_and(|at| at <= now) { None } else { Some(next) };
            }
            last = activity;
        }
    }

    /// Waits until no watched task is at work, even with what sockets hold for it.
    async fn seats_at_rest(&self) {
        loop {
            let mut rest = pin!(self.adjustable.rest.notified());
            rest.as_mut().enable();
            let before = self.clock.seats();
            if before.0 {
                self.clock.cross_fences().await;
                if self.clock.seats() == before {
                    return;
                }
            } else {
                rest.await;
            }
        }
    }

    /// One look at every group: how much was done in all if all of them are idle, and their next deadline.
    async fn look(&self) -> (Option<u64>, Option<Instant>) {
        let mut activity = self.clock.seats().1;
        let mut is_idle = true;
        let mut deadline: Option<Instant> = None;
        for group in self.adjustable.live_groups() {
            let Some(look) = group.look().await else { continue };
            is_idle &= look.is_idle;
            activity += look.activity;
            deadline = [deadline, look.deadline].into_iter().flatten().min();
        }
        (is_idle.then_some(activity), deadline)
    }

    /// The next deadline after now, when not everybody is at rest.
    fn next_deadline(&self) -> Option<Instant> {
        let now = self.clock.now();
        let groups = wait(self.look(), Instant::now() + HASTE).and_then(|(_, deadline)| deadline);
        let entries = self.adjustable.live_entries().into_iter().filter_map(|entry| entry.deadline());
        entries.chain(groups).filter(|at| *at > now).min()
    }

    fn next_entry(&self) -> Option<Instant> {
        self.adjustable.live_entries().iter().filter_map(|entry| entry.deadline()).min()
    }
}

impl Clock {
    /// Waits until the runtimes of watched tasks have looked at all sockets that are ready now.
    pub(crate) async fn cross_fences(&self) {
        let Some(adjustable) = &self.0 else { return };
        let runtimes: HashMap<_, _> = (adjustable.live_seats().iter())
            .filter_map(|seat| seat.sockets.clone())
            .map(|runtime| (runtime.id(), runtime))
            .collect();
        for runtime in runtimes.into_values() {
            cross_fence(&runtime).await;
        }
    }
}

/// Readiness is reported in the order in which it came about, so when a socket that became ready last has been reported,
/// all others have.
async fn cross_fence(runtime: &Handle) {
    let crossing = runtime.spawn(async {
        let (mut here, mut there) = UnixStream::pair()?;
        here.write_all(&[0]).await?;
        there.read_exact(&mut [0]).await
    });
    if let Ok(Err(error)) = crossing.await {
        tracing::warn!(%error, "sockets cannot be waited for while a clock is advanced");
    }
}

/// Drives a future on this thread until then, whatever runtime surrounds it.
fn wait<F: Future>(future: F, until: Instant) -> Option<F::Output> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = until.checked_duration_since(Instant::now())?;
        thread::park_timeout(left);
    }
}

/// How long somebody who lives by the clock may be at work at one instant of it: a hundred times what a loaded machine
/// needs for a client's turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same once somebody has not come to rest, as one who is always at work never does.
const HASTE: Duration = Duration::from_millis(5);
