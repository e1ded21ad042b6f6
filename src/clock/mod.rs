//! The time of a broker and of the clients of its process: the system's, or one that tests move.
//!
//! The core takes time as an argument; its shells ask a [`Clock`]. Most have the system's, which costs nothing. An
//! adjustable one runs with the system's and can be [advanced](Clock::advance): hours pass in milliseconds, and
//! everything that would happen in them does, in its order. It does not jump: it goes from one deadline that somebody
//! waits for to the next, and at each waits until everybody who lives by it has come to rest. Who lives by it is known:
//! shards answer when they have looked at every source of work, and the tasks of clients are watched from the
//! moment they are woken to the moment they have nothing left to do.

mod advance;
mod seat;
mod timer;

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use advance::{Group, Look, Looking};
pub(crate) use seat::Seat;
pub(crate) use timer::{Timer, timeout};

use timer::Entry;

/// Where the time comes from. Cloning it gives another handle to the same.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Adjustable>>);

/// What an adjustable clock is.
#[derive(Default)]
struct Adjustable {
    /// How far it is ahead of the system's.
    offset_nanos: AtomicU64,
    /// The tasks that live by it.
    seats: Mutex<Vec<Weak<Seat>>>,
    /// What answers for itself: the shards of a broker.
    groups: Mutex<Vec<Weak<dyn Group>>>,
    /// Those who wait for an instant.
    entries: Mutex<Vec<Weak<Entry>>>,
    /// Some task has come to rest.
    rest: Notify,
    /// One at a time moves it.
    advancing: Mutex<()>,
}

impl Clock {
    /// The system's time.
    pub const fn system() -> Self {
        Self(None)
    }

    /// One that can be advanced; it begins with the system's time.
    pub fn adjustable() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether it can be advanced.
    pub const fn is_adjustable(&self) -> bool {
        self.0.is_some()
    }

    /// Now.
    #[inline]
    pub fn now(&self) -> Instant {
        self.at(Instant::now())
    }

    /// Now, for those who run on tokio, whose own clock tests can stop.
    #[inline]
    pub(crate) fn now_in_runtime(&self) -> Instant {
        self.at(tokio::time::Instant::now().into_std())
    }

    /// The wall clock, advanced likewise: time since 1970.
    pub fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + self.offset()
    }

    /// How far it is ahead of the system's.
    pub fn offset(&self) -> Duration {
        let Some(adjustable) = &self.0 else { return Duration::ZERO };
        Duration::from_nanos(adjustable.offset_nanos.load(Ordering::Acquire))
    }

    /// What it showed, or will show, at an instant of the system's if nobody moves it.
    #[inline]
    fn at(&self, system: Instant) -> Instant {
        if self.0.is_none() { system } else { system + self.offset() }
    }

    /// The instant of the system's at which it shows `at` if nobody moves it.
    fn to_system(&self, at: Instant) -> Instant {
        at.checked_sub(self.offset()).unwrap_or_else(Instant::now)
    }

    /// Has `advance` ask this for work and deadlines as long as it lives.
    pub(crate) fn add_group(&self, group: Weak<dyn Group>) {
        if let Some(adjustable) = &self.0 {
            keep(&mut adjustable.groups.lock(), group);
        }
    }

    /// Whether all watched tasks have nothing to do, and how often any of them had: if that did not change, none had.
    pub(crate) fn seats(&self) -> (bool, u64) {
        let Some(adjustable) = &self.0 else { return (true, 0) };
        let seats = adjustable.live_seats();
        (seats.iter().all(|seat| seat.is_idle()), seats.iter().map(|seat| seat.turns()).sum())
    }

    /// Resolves when some watched task comes to rest, from the moment it is made; never for the system's clock.
    pub(crate) fn rest(&self) -> impl Future<Output = ()> + '_ {
        let rest = self.0.as_ref().map(|adjustable| adjustable.rest.notified());
        async {
            match rest {
                Some(rest) => rest.await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Adjustable {
    fn live_seats(&self) -> Vec<Arc<Seat>> {
        self.seats.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn live_groups(&self) -> Vec<Arc<dyn Group>> {
        self.groups.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn live_entries(&self) -> Vec<Arc<Entry>> {
        self.entries.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Clock(system)"),
            Some(_) => write!(f, "Clock(system + {:?})", self.offset()),
        }
    }
}

/// Adds to a list of what may go at any time; what has gone is swept out whenever the list would have to grow.
fn keep<T: ?Sized>(list: &mut Vec<Weak<T>>, item: Weak<T>) {
    if list.len() == list.capacity() {
        list.retain(|item| item.strong_count() > 0);
    }
    list.push(item);
}
