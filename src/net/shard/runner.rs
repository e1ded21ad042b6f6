//! What a shard's thread does: poll, tick, park; for its own shard, and for those of others that need no thread.
//!
//! A message between two threads costs a lock, a wake-up and a colder cache; one between two shards of a thread does
//! not. So the first shard's thread is *host* to the other shards until there is more to do than it can: their threads
//! sleep, and their connections are registered with the host's readiness source (`watch`), as are their own sources, for
//! what is still registered there. When the host is saturated it gives the busiest lodger back to its thread, and recalls it
//! unless more gets done then (`trial`). A thread that finds that it and the host together are half idle lodges its shard
//! again.
//!
//! A turn has two halves: all shards of the thread take what there is, bringing each other at once what they have for each
//! other, and then all give.
//!
//! Nothing of what a shard does depends on who runs it: a lodger is parked, woken and entered like any other.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;

#[cfg(target_os = "linux")]
use mio::unix::SourceFd;
use mio::{Events, Poll, Token, event::Event};
use parking_lot::{Condvar, Mutex};

use super::{
    Shards, count,
    load::Load,
    state::{LINGERERS, LODGERS},
    trial::{Advice, Mark, Trials},
    watch::of_token,
};
use crate::net::inbox::Item;

/// A shard's readiness source, and what whoever runs the shard knows of it.
#[derive(Debug)]
pub(super) struct Seat {
    index: usize,
    poll: Poll,
    events: Events,
    /// When the shard has something to do that nothing announces.
    deadline: Option<Instant>,
    /// It has something to do now.
    has_more: bool,
    is_over: bool,
}

/// When one thread has too much to do, and when two have so little that one is enough.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lodging {
    /// Thousandths of its time from which on a host has too much to do.
    pub saturated: u32,
    /// Thousandths of a thread's time below which a shard and its host have to stay together for the shard to lodge. Less
    /// than `saturated`, so that a load does not send shards to and fro. With 0 each shard has its thread from the start.
    pub light: u32,
    /// The same for a shard that lodges so that a trial can compare anew: as much as one thread might do, since on one
    /// thread the same costs less.
    pub tried: u32,
    /// Thousandths of what was done before that have to be done after a shard was given back, for it to stay there.
    pub enough: u32,
    /// How long the host looks at its load; a shard is given back after four windows in which it was saturated.
    pub host_window: Duration,
    /// How long a thread looks at its load before its shard lodges again.
    pub lodger_window: Duration,
    /// How long the verdict of a first trial holds.
    pub pause_min: Duration,
    /// How long that of one after many with the same verdict does.
    pub pause_max: Duration,
}

impl Default for Lodging {
    fn default() -> Self {
        Self {
            saturated: 850,
            light: 800,
            tried: 1100,
            enough: 1030,
            host_window: Duration::from_millis(50),
            lodger_window: Duration::from_millis(200),
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// Where shards wait for who is to run them.
#[derive(Debug)]
pub(super) struct Lodgings {
    when: Lodging,
    /// On their way to the host.
    arriving: Mutex<Vec<Seat>>,
    has_arriving: AtomicBool,
    /// Nobody is taken in any more, and everybody given back.
    is_closed: AtomicBool,
    /// Thousandths of its time that the host was busy, when it looked last.
    host_load: AtomicU32,
    /// Who comes next may save little.
    may_try: AtomicBool,
    /// The shard that is to lodge again; [`HOST`] if none is.
    recalled: AtomicUsize,
}

/// Where a shard's thread sleeps while another runs the shard.
#[derive(Debug, Default)]
pub(super) struct Bed {
    seat: Mutex<Option<Seat>>,
    woken: Condvar,
}

/// One thread's shards.
struct Runner<'a> {
    shards: &'a Shards,
    own: Seat,
    lodgers: Lodgers<'a>,
    load: Load,
    /// The host's.
    trials: Trials,
}

/// Shards of other threads. However their host ends, they are given back.
struct Lodgers<'a> {
    shards: &'a Shards,
    list: Vec<Lodger>,
}

/// A shard of another thread, and what only its host knows of it: its own thread looks at its source by itself.
struct Lodger {
    seat: Seat,
    /// What the host's source tells of its connections.
    told: Vec<Event>,
    /// It had the first half of a turn.
    is_begun: bool,
    /// Its own source was looked at in that.
    is_polled: bool,
    /// Its own source has something, as the host's tells.
    has_events: bool,
    /// What it had done when the host looked last.
    activity: u64,
}

impl Seat {
    pub(super) fn new(index: usize, poll: Poll) -> Self {
        let events_max = if index == HOST { HOST_EVENTS_MAX } else { EVENTS_MAX };
        Self { index, poll, events: Events::with_capacity(events_max), deadline: None, has_more: true, is_over: false }
    }

    /// Whether another shard or a handle has given it something.
    fn has_mail(&self, shards: &Shards) -> bool {
        let cell = &shards.cells[self.index];
        cell.was_visited.load(Ordering::Relaxed) || !cell.inbox.is_empty()
    }

    /// Has the host told when this seat's source has something.
    #[cfg(target_os = "linux")]
    fn register_with(&self, host: &Self) -> io::Result<()> {
        let source = self.poll.as_raw_fd();
        host.poll.registry().register(&mut SourceFd(&source), Token(LODGERS + self.index), mio::Interest::READABLE)
    }

    #[cfg(target_os = "linux")]
    fn deregister_from(&self, host: &Self) {
        // One that was never registered, or has failed, tells nothing either.
        let _ = host.poll.registry().deregister(&mut SourceFd(&self.poll.as_raw_fd()));
    }

    #[cfg(not(target_os = "linux"))]
    fn register_with(&self, _: &Self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(not(target_os = "linux"))]
    fn deregister_from(&self, _: &Self) {}

    fn poll(&mut self, timeout: Option<Duration>) {
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Nothing that a running shard could cause or cure.
            panic!("the readiness source failed: {error}");
        }
    }

    /// The first half of a turn of the shard: what its source and the host's tell of is read.
    fn take(&mut self, shards: &Shards, told: &[Event]) {
        shards.cells[self.index].state.lock().take(shards, self.events.iter().chain(told));
        self.events.clear();
    }

    /// The second half: what came of it, and what other shards of the thread have brought meanwhile, is written. With
    /// `is_polled` its source was looked at in this turn, and the host's, if it lodges. A probe that comes between that look and
    /// this may be answered by it; who asks therefore asks again, until nothing was done in between.
    fn give(&mut self, shards: &Shards, is_polled: bool) {
        let cell = &shards.cells[self.index];
        cell.was_visited.store(false, Ordering::Relaxed);
        let mut state = cell.state.lock();
        let now = state.give(shards, is_polled);
        self.is_over = state.is_finished(shards, now);
        self.has_more = state.has_more();
        self.deadline = state.park();
        cell.packets.store(state.shard().packets(), Ordering::Relaxed);
        let is_news = !self.has_more && state.take_activity();
        drop(state);
        if is_news {
            shards.notify_settle();
        }
    }
}

impl Lodger {
    /// To the thread that has lent it to the host.
    fn return_home(self, shards: &Shards) {
        let cell = &shards.cells[self.seat.index];
        cell.lodges.store(false, Ordering::Relaxed);
        // What it has not looked at yet will be told again where it is now.
        self.told.iter().for_each(|event| shards.stray(event.token()));
        cell.bed.wake(self.seat);
    }

    /// The first half of a turn, if it has something to do.
    fn take(&mut self, shards: &Shards, now: Instant) {
        let is_due = self.seat.deadline.is_some_and(|due| due <= now);
        self.is_polled = self.has_events || self.seat.has_more;
        if self.is_polled {
            self.seat.poll(Some(Duration::ZERO));
            // The host's source tells of what comes, not of what was left.
            self.has_events = self.seat.events.iter().count() == EVENTS_MAX;
        }
        self.is_begun = self.is_polled || is_due || !self.told.is_empty() || self.seat.has_mail(shards);
        if self.is_begun {
            self.seat.take(shards, &self.told);
            self.told.clear();
        }
    }

    /// The second, if it had the first or has got something since.
    fn give(&mut self, shards: &Shards) {
        if self.seat.has_mail(shards) {
            self.seat.take(shards, &[]);
            self.is_begun = true;
        }
        if self.is_begun {
            self.seat.give(shards, self.is_polled);
        }
    }
}

impl Lodgings {
    pub(super) fn new(when: Lodging) -> Self {
        Self {
            when,
            arriving: Mutex::default(),
            has_arriving: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            host_load: AtomicU32::new(0),
            may_try: AtomicBool::new(false),
            recalled: AtomicUsize::new(HOST),
        }
    }

    /// Whether a shard whose thread is busy for so many thousandths of its time should lodge.
    fn is_worth_it(&self, load: u32) -> bool {
        let both = load.saturating_add(self.host_load.load(Ordering::Relaxed));
        !self.is_closed.load(Ordering::Acquire)
            && (both < self.when.light || (both < self.when.tried && self.may_try.swap(false, Ordering::Relaxed)))
    }

    /// Whether the host wants this shard back; says so once.
    fn take_recall(&self, index: usize) -> bool {
        let recalled = &self.recalled;
        recalled.load(Ordering::Relaxed) == index
            && recalled.compare_exchange(index, HOST, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Gives a shard to the host, or back if that takes nobody in any more. The host is to be woken.
    fn arrive(&self, seat: Seat) -> Result<(), Seat> {
        let mut arriving = self.arriving.lock();
        if self.is_closed.load(Ordering::Acquire) {
            return Err(seat);
        }
        arriving.push(seat);
        self.has_arriving.store(true, Ordering::Release);
        Ok(())
    }

    /// Nobody is taken in from now on; those who are on their way are returned. The host is to be woken.
    pub(super) fn close(&self) {
        // Under the lock, so that nobody arrives after those who are sent back have been.
        let _arriving = self.arriving.lock();
        self.is_closed.store(true, Ordering::Release);
    }

    /// The host has ended: those who were still on their way to it go back.
    pub(super) fn end(&self, shards: &Shards) {
        self.close();
        for seat in std::mem::take(&mut *self.arriving.lock()) {
            shards.cells[seat.index].bed.wake(seat);
        }
        (0..shards.len()).filter(|shard| *shard != HOST).for_each(|shard| shards.send(shard, Item::Strays));
    }
}

impl Bed {
    fn wake(&self, seat: Seat) {
        *self.seat.lock() = Some(seat);
        self.woken.notify_one();
    }

    fn sleep(&self) -> Seat {
        let mut place = self.seat.lock();
        loop {
            match place.take() {
                Some(seat) => return seat,
                None => self.woken.wait(&mut place),
            }
        }
    }
}

/// Runs a shard until its end, on this thread or the host's.
pub(super) fn run(shards: &Shards, index: usize, poll: Poll) {
    let mut seat = Seat::new(index, poll);
    // At first there is nothing to do.
    let mut lodges = index != HOST && shards.lodgings.when.light > 0 && Load::is_told();
    loop {
        if lodges {
            seat = match shards.lodgings.arrive(seat) {
                Ok(()) => {
                    shards.cells[HOST].wake();
                    shards.cells[index].bed.sleep()
                }
                Err(refused) => refused,
            };
        }
        match Runner::new(shards, seat).run() {
            Some(own) => seat = own,
            None => return,
        }
        lodges = true;
    }
}

impl<'a> Runner<'a> {
    fn new(shards: &'a Shards, mut own: Seat) -> Self {
        own.has_more = true;
        let Lodging { host_window, lodger_window, .. } = shards.lodgings.when;
        let window = if own.index == HOST { host_window } else { lodger_window };
        let now = shards.now();
        Self {
            shards,
            own,
            lodgers: Lodgers { shards, list: Vec::new() },
            load: Load::new(window, now),
            trials: Trials::new(shards.lodgings.when, now),
        }
    }

    /// Runs the shards until the end, or until this thread's own may lodge with the host.
    fn run(mut self) -> Option<Seat> {
        loop {
            let now = self.shards.now();
            let timeout = self.park(now);
            self.turn(timeout);
            if self.own.is_over {
                return None;
            }
            let lodgings = &self.shards.lodgings;
            if self.own.index == HOST {
                if let Some(load) = self.load.look(now) {
                    self.relieve(load);
                }
            } else if lodgings.take_recall(self.own.index)
                || self.load.look(now).is_some_and(|load| lodgings.is_worth_it(load))
            {
                return Some(self.own);
            }
        }
    }

    /// Waits for something to do and has all shards of the thread do it. All read before any writes: so they have brought
    /// each other what they have for each other, and each connection is written to once.
    fn turn(&mut self, timeout: Option<Duration>) {
        let shards = self.shards;
        self.own.poll(timeout);
        self.set_parked(false);
        self.take_in();
        self.note_events();
        self.own.take(shards, &[]);
        let now = shards.now();
        self.each_lodger(|lodger, shards| lodger.take(shards, now));
        self.own.give(shards, true);
        if self.own.is_over {
            return;
        }
        self.each_lodger(Lodger::give);
        // What came for it otherwise is done before anybody sleeps.
        if self.own.has_mail(shards) {
            self.own.take(shards, &[]);
            self.own.give(shards, false);
        }
    }

    /// Lets others enter the shards, if there is nothing to do; returns how long to wait for events. See the
    /// documentation of the parent module: the look into an inbox comes after the store, a sender's look after its push.
    fn park(&self, now: Instant) -> Option<Duration> {
        if self.seats().any(|seat| seat.has_more) || self.lodgers.list.iter().any(|lodger| lodger.has_events) {
            return Some(Duration::ZERO);
        }
        self.set_parked(true);
        if self.seats().any(|seat| seat.has_mail(self.shards)) {
            return Some(Duration::ZERO);
        }
        let until_due = self.seats().filter_map(|seat| seat.deadline).min().map(|at| at.saturating_duration_since(now));
        let until_look = self.trials.is_trying().then_some(self.shards.lodgings.when.host_window);
        until_due.into_iter().chain(until_look).min()
    }

    fn set_parked(&self, is_parked: bool) {
        self.seats().for_each(|seat| self.shards.cells[seat.index].parked.store(is_parked, Ordering::Release));
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        std::iter::once(&self.own).chain(self.lodgers.list.iter().map(|lodger| &lodger.seat))
    }

    /// What there is for the lodgers.
    fn note_events(&mut self) {
        if self.lodgers.list.is_empty() {
            return;
        }
        for event in &self.own.events {
            let Token(token) = event.token();
            let (shard, is_source) = match token.checked_sub(LODGERS) {
                Some(shard) => (shard, true),
                None if token < LINGERERS => (of_token(event.token()).0, false),
                None => continue,
            };
            if let Some(lodger) = self.lodgers.list.iter_mut().find(|lodger| lodger.seat.index == shard) {
                if is_source {
                    lodger.has_events = true;
                } else {
                    lodger.told.push(event.clone());
                }
            }
        }
    }

    /// Does one half of the lodgers' turns.
    fn each_lodger(&mut self, mut half: impl FnMut(&mut Lodger, &Shards)) {
        let shards = self.shards;
        for at in (0..self.lodgers.list.len()).rev() {
            let lodger = &mut self.lodgers.list[at];
            // A shard that fails takes neither its host nor the other lodgers with it.
            if catch_unwind(AssertUnwindSafe(|| half(lodger, shards))).is_err() {
                shards.cells[lodger.seat.index].state.lock().fail();
                lodger.seat.is_over = true;
            }
            if lodger.seat.is_over {
                self.give_back(at);
            }
        }
    }

    /// Takes in those who have come, unless it is too late for that.
    fn take_in(&mut self) {
        if self.own.index != HOST {
            return;
        }
        let lodgings = &self.shards.lodgings;
        if lodgings.has_arriving.swap(false, Ordering::AcqRel) {
            let arriving = std::mem::take(&mut *lodgings.arriving.lock());
            for mut seat in arriving {
                count(&self.shards.counters.taken_in);
                // Here it is, even if it has come by itself meanwhile.
                lodgings.take_recall(seat.index);
                seat.has_more = true;
                let registered = seat.register_with(&self.own);
                let activity = self.shards.cells[seat.index].state.lock().activity;
                self.trials.note_arrival(seat.index, self.shards.now());
                self.shards.cells[seat.index].lodges.store(true, Ordering::Relaxed);
                self.lodgers.list.push(Lodger {
                    seat,
                    told: Vec::new(),
                    is_begun: false,
                    is_polled: false,
                    has_events: false,
                    activity,
                });
                if let Err(error) = registered {
                    tracing::warn!(%error, "a shard cannot be run by the thread of another");
                    self.give_back(self.lodgers.list.len() - 1);
                }
            }
        }
        if lodgings.is_closed.load(Ordering::Acquire) {
            self.give_all_back();
        }
    }

    /// Gives the busiest lodger back to its thread if that is needed, or recalls it if that did no good.
    fn relieve(&mut self, load: u32) {
        let (shards, now) = (self.shards, self.shards.now());
        let packets = shards.cells.iter().map(|cell| cell.packets.load(Ordering::Relaxed)).sum();
        let advice = self.trials.look(load, Mark { at: now, packets });
        shards.lodgings.host_load.store(load, Ordering::Relaxed);
        shards.lodgings.may_try.store(self.trials.may_try_together(now), Ordering::Relaxed);
        let busiest = self.busiest();
        match advice {
            Advice::Stay => {}
            Advice::GiveBack => {
                if let Some(at) = busiest {
                    self.trials.begin(self.lodgers.list[at].seat.index);
                    self.give_back(at);
                }
            }
            Advice::Recall(index) => {
                count(&shards.counters.recalled);
                shards.lodgings.recalled.store(index, Ordering::Relaxed);
                shards.cells[index].wake();
            }
        }
    }

    /// The lodger that has done most since the last look, if any has done something.
    fn busiest(&mut self) -> Option<usize> {
        let done = |lodger: &mut Lodger| {
            let activity = self.shards.cells[lodger.seat.index].state.lock().activity;
            activity - std::mem::replace(&mut lodger.activity, activity)
        };
        let done = self.lodgers.list.iter_mut().map(done).enumerate();
        done.filter(|(_, done)| *done > 0).max_by_key(|(_, done)| *done).map(|(at, _)| at)
    }

    fn give_back(&mut self, at: usize) {
        count(&self.shards.counters.given_back);
        let lodger = self.lodgers.list.swap_remove(at);
        lodger.seat.deregister_from(&self.own);
        lodger.return_home(self.shards);
    }

    fn give_all_back(&mut self) {
        while !self.lodgers.list.is_empty() {
            self.give_back(0);
        }
    }
}

impl Drop for Lodgers<'_> {
    fn drop(&mut self) {
        self.list.drain(..).for_each(|lodger| lodger.return_home(self.shards));
    }
}

/// Who the host is: the first shard's thread.
pub(super) const HOST: usize = 0;

/// Events of one poll; more come with the next.
const EVENTS_MAX: usize = 1024;

/// The same for the host's, which tells of the connections of several shards.
const HOST_EVENTS_MAX: usize = 2 * EVENTS_MAX;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
