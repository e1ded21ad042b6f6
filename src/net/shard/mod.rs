//! The shards of one broker on their threads, and how they reach one another.
//!
//! Each shard's state sits in a mutex, which the thread that runs it takes for each turn. Between two turns that thread
//! is either about to have another one or *parked* in the poll. So there are two ways to give a shard work. Usually it
//! goes into the inbox, and the thread is woken if it is parked. But a thread that has a few envelopes for a parked shard
//! may *enter* it: take the mutex, run the shard to completion and flush its connections. Then a lone message between two
//! threads costs no wake-up. Which thread runs which shard is up to `runner`: while there is little to do, one runs all, and
//! what its shards have for each other they bring each other as they read.
//!
//! **Nothing is lost.** A thread parks by setting `parked`, then looking into the inbox, then polling. A sender pushes,
//! then looks at `parked`. Both look inside or after the inbox's mutex: if the thread's look came first, its store of
//! `parked` is visible to the sender, who wakes it; else the thread sees the item and does not park. Whoever turns
//! `parked` from true to false does the one wake-up.
//!
//! **Nothing is overtaken.** Who enters or visits a shard first does what is in its inbox, so the batches of one sender are
//! handled in the order they were sent, whichever way each of them took.
//!
//! **Nothing deadlocks.** Entering and visiting only try the mutex, and a shard that was entered or visited goes nowhere.

mod accept;
mod close;
mod conns;
mod flush;
mod load;
mod outputs;
mod read;
mod runner;
mod state;
mod thread;
mod trial;
mod watch;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use mio::{Poll, Waker};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub use runner::Lodging;
pub(crate) use state::Probe;
pub(crate) use thread::spawn;

use self::{
    runner::{Bed, Lodgings},
    state::State,
    watch::Sources,
};
use super::{
    blocking::BlockingPool,
    duplex::DuplexEnd,
    inbox::{Command, Inbox, Item},
    interpose::Interposer,
    listener::{Acceptor, ListenSocket, ListenerInfo},
    transport::{Stream, Transport},
};
use crate::{
    auth::{Authenticator, Authorizer},
    broker::{ConnId, Envelope, Peer, Shard, Shared},
    clock::{Clock, Group, Look, Looking},
    router::ShardId,
};

/// All shards of one broker.
#[derive(Debug)]
pub(crate) struct Shards {
    cells: Box<[ShardCell]>,
    pool: BlockingPool,
    authenticator: Option<Arc<dyn Authenticator>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    clock: Clock,
    /// What stands between connections and shards, if anything does.
    interposer: Option<Arc<dyn Interposer>>,
    counters: Counters,
    /// Shards that have nothing left to do before the end.
    drained: AtomicUsize,
    /// How many have published their wills before the end.
    wills_sent: AtomicUsize,
    /// Those who wait for the broker to settle.
    settle_waiters: AtomicUsize,
    settle: Notify,
    /// Which thread runs which shard.
    lodgings: Lodgings,
}

/// One shard as other threads see it.
#[derive(Debug)]
struct ShardCell {
    state: Mutex<State>,
    parked: AtomicBool,
    inbox: Inbox,
    /// The first shard's thread runs it.
    lodges: AtomicBool,
    /// It has got something from another shard of its thread, and had no turn since.
    was_visited: AtomicBool,
    waker: Waker,
    /// Where its thread sleeps while another runs it.
    bed: Bed,
    /// Packets that it had received and sent by the end of its last turn.
    packets: AtomicU64,
    /// Nobody will look into the inbox any more.
    is_stopped: AtomicBool,
    has_drained: AtomicBool,
    has_sent_wills: AtomicBool,
}

/// What happened at the edge of the broker, outside any session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetStats {
    /// Connections closed at once because their listener was at its limit.
    pub connections_refused: u64,
    /// Times that accepting had to wait because descriptors or memory ran out.
    pub accepts_postponed: u64,
    /// Connections that failed while they were accepted or registered.
    pub accepts_failed: u64,
    /// Envelope batches that had to wait because another shard's inbox was full.
    pub inboxes_full: u64,
    /// Times that one shard's thread ran another, parked shard instead of waking it.
    pub shards_entered: u64,
    /// Times that a thread was woken from its wait for events because another had something for a shard.
    pub shards_woken: u64,
    /// Times that the first shard's thread took another shard to run it as well, because both had little to do or one
    /// thread gets more done.
    pub shards_taken_in: u64,
    /// Times that it gave one back to its own thread, because it had too much to do or the broker ended.
    pub shards_given_back: u64,
    /// Times that it asked for one again, because less was done with a thread more.
    pub shards_recalled: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    refused: AtomicU64,
    postponed: AtomicU64,
    failed: AtomicU64,
    inboxes_full: AtomicU64,
    entered: AtomicU64,
    woken: AtomicU64,
    taken_in: AtomicU64,
    given_back: AtomicU64,
    recalled: AtomicU64,
}

impl Shards {
    /// The shards, without threads yet, and each one's readiness source for [`spawn`].
    pub(crate) fn new(
        shared: &Arc<Shared>,
        authenticator: Option<Arc<dyn Authenticator>>,
        authorizer: Option<Arc<dyn Authorizer>>,
        seed: u64,
        clock: &Clock,
        interposer: Option<Arc<dyn Interposer>>,
        lodging: Lodging,
    ) -> std::io::Result<(Arc<Self>, Vec<Poll>)> {
        let now = clock.now();
        let polls = (0..shared.shards()).map(|_| Poll::new()).collect::<std::io::Result<Vec<_>>>()?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), state::WAKER));
        let wakers = wakers.collect::<std::io::Result<Vec<_>>>()?;
        let host = polls.get(runner::HOST).expect("there is a shard at least").registry();
        let sources = polls.iter().map(|poll| {
            let own = poll.registry().try_clone()?;
            Ok(Sources { own, host: host.try_clone()? })
        });
        let sources = sources.collect::<std::io::Result<Vec<_>>>()?;
        let envelopes_max = shared.settings().slow_consumer.staged_envelopes_max;
        let shards = Arc::new_cyclic(|shards: &Weak<Self>| {
            let parts = sources.into_iter().zip(wakers).enumerate();
            let cells = parts.map(|(index, (sources, waker))| {
                let id = ShardId(u8::try_from(index).expect("there are at most 64 shards"));
                let shard = Shard::new(id, Arc::clone(shared), now, seed);
                ShardCell {
                    state: Mutex::new(State::new(shard, index, shared.shards(), Weak::clone(shards), sources)),
                    parked: AtomicBool::new(false),
                    inbox: Inbox::new(envelopes_max),
                    lodges: AtomicBool::new(false),
                    was_visited: AtomicBool::new(false),
                    waker,
                    bed: Bed::default(),
                    packets: AtomicU64::new(0),
                    is_stopped: AtomicBool::new(false),
                    has_drained: AtomicBool::new(false),
                    has_sent_wills: AtomicBool::new(false),
                }
            });
            Self {
                cells: cells.collect(),
                pool: BlockingPool::new(),
                authenticator,
                authorizer,
                clock: clock.clone(),
                interposer,
                counters: Counters::default(),
                drained: AtomicUsize::new(0),
                wills_sent: AtomicUsize::new(0),
                settle_waiters: AtomicUsize::new(0),
                settle: Notify::new(),
                lodgings: Lodgings::new(lodging),
            }
        });
        let group: Weak<Self> = Arc::downgrade(&shards);
        clock.add_group(group);
        Ok((shards, polls))
    }

    /// Now, by the broker's clock.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The broker's clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What stands between connections and shards.
    pub(crate) fn interposer(&self) -> Option<&Arc<dyn Interposer>> {
        self.interposer.as_ref()
    }

    /// Whether an authenticator is at work on a thread that may block.
    fn is_judging(&self) -> bool {
        self.pool.is_busy()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Gives the shards a listener's sockets; before their threads run.
    pub(crate) fn listen(&self, sockets: Vec<ListenSocket>, info: &Arc<ListenerInfo>) -> std::io::Result<()> {
        let deals_out = sockets.len() < self.len();
        for (cell, socket) in self.cells.iter().zip(sockets) {
            let mut state = cell.state.lock();
            let token = state.next_acceptor_token();
            let acceptor = Acceptor::new(socket, Arc::clone(info), deals_out, state.registry(), token)?;
            state.add_acceptor(acceptor);
        }
        Ok(())
    }

    /// Adds to a shard's inbox, and wakes it if need be.
    pub(crate) fn send(&self, to: usize, item: Item) {
        let cell = &self.cells[to];
        cell.inbox.push(item);
        self.note_sent(cell);
    }

    /// Has somebody see to what was added to an inbox.
    fn note_sent(&self, cell: &ShardCell) {
        if cell.is_stopped() {
            // Looked at after the push: either the thread that ended clears it, or we do.
            cell.inbox.clear();
        } else {
            cell.wake_if_parked(&self.counters);
        }
    }

    /// Tells a shard, or all of them, that the store has committed something.
    pub(crate) fn committed(&self, shard: Option<usize>) {
        match shard {
            Some(shard) => self.send(shard, Item::Committed),
            None => (0..self.len()).for_each(|shard| self.send(shard, Item::Committed)),
        }
    }

    /// Runs `command` on a shard: here and now if it is parked, else there and soon. Given back if too many wait.
    pub(crate) fn command(&self, to: usize, command: Command) -> Result<(), Command> {
        let cell = &self.cells[to];
        if cell.is_stopped() {
            return Err(command);
        }
        let mut command = Some(command);
        self.enter(to, |state, now| {
            if let Some(command) = command.take() {
                state.command(now, command);
            }
        });
        let Some(command) = command else { return Ok(()) };
        cell.inbox.push_command(command)?;
        cell.wake_if_parked(&self.counters);
        Ok(())
    }

    /// Sends envelopes of shard `from`, or gives them back when the inbox is full; then [`Item::Room`] will follow.
    fn deliver(&self, from: usize, to: usize, batch: Vec<Envelope>, may_enter: bool) -> Result<(), Vec<Envelope>> {
        let cell = &self.cells[to];
        if cell.is_stopped() {
            return Ok(());
        }
        let mut batch = Some(batch);
        if may_enter && batch.as_ref().is_some_and(|batch| batch.len() <= ENTER_ENVELOPES_MAX) {
            self.enter(to, |state, now| {
                if let Some(mut batch) = batch.take() {
                    state.handle_envelopes(now, &mut batch);
                }
            });
        }
        let Some(batch) = batch else { return Ok(()) };
        cell.inbox.push_envelopes(batch, from).inspect_err(|_| count(&self.counters.inboxes_full))?;
        cell.wake_if_parked(&self.counters);
        Ok(())
    }

    /// Runs `work` on a parked shard, then the shard to completion. Does nothing if the shard is not parked.
    fn enter(&self, index: usize, work: impl FnOnce(&mut State, Instant)) {
        let cell = &self.cells[index];
        if !cell.parked.load(Ordering::Acquire) {
            return;
        }
        let Some(mut state) = cell.state.try_lock() else { return };
        if cell.is_stopped() {
            return;
        }
        count(&self.counters.entered);
        let run = catch_unwind(AssertUnwindSafe(|| state.run_entered(self, work)));
        let needs_thread = run.unwrap_or_else(|_| {
            state.fail();
            true
        });
        drop(state);
        if needs_thread {
            cell.wake_if_parked(&self.counters);
        }
    }

    /// Whether one thread runs both shards: the first one's, which is host to the other, or to both.
    fn is_beside(&self, shard: usize, other: usize) -> bool {
        let is_there = |index: usize| index == runner::HOST || self.lodges(index);
        shard != other && is_there(shard) && is_there(other)
    }

    /// Gives a shard of the same thread what another one has for it; then it is to have a turn. Whether that was possible, or
    /// what is left in `batch` has to take the way to other threads.
    fn visit(&self, index: usize, batch: &mut Vec<Envelope>) -> bool {
        let cell = &self.cells[index];
        // Held by a thread that has seen it parked a moment ago, if at all.
        let Some(mut state) = cell.state.try_lock() else { return false };
        if cell.is_stopped() {
            return false;
        }
        cell.was_visited.store(true, Ordering::Relaxed);
        let run = catch_unwind(AssertUnwindSafe(|| state.run_visited(self, batch)));
        run.inspect_err(|_| state.fail()).is_ok()
    }

    /// A duplex became ready.
    pub(crate) fn notify_duplex(&self, shard: usize, conn: ConnId, writable: bool) {
        self.send(shard, Item::Duplex { conn, writable });
    }

    /// Gives a shard the end of an in-process connection.
    pub(crate) fn accept_duplex(&self, to: usize, end: DuplexEnd, peer: Peer) {
        let transport = Transport::new(Stream::Duplex(end), None, None);
        self.send(to, Item::Accepted(Box::new((transport, peer))));
    }

    /// Asks a shard whether there is anything left to do. It looks at its sockets first, so this wakes it.
    pub(crate) fn probe(&self, shard: usize) -> oneshot::Receiver<Probe> {
        let (sender, receiver) = oneshot::channel();
        self.send(shard, Item::Probe(sender));
        receiver
    }

    /// Counters of the edge.
    pub(crate) fn net_stats(&self) -> NetStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetStats {
            connections_refused: get(&self.counters.refused),
            accepts_postponed: get(&self.counters.postponed),
            accepts_failed: get(&self.counters.failed),
            inboxes_full: get(&self.counters.inboxes_full),
            shards_entered: get(&self.counters.entered),
            shards_woken: get(&self.counters.woken),
            shards_taken_in: get(&self.counters.taken_in),
            shards_given_back: get(&self.counters.given_back),
            shards_recalled: get(&self.counters.recalled),
        }
    }

    /// Whether the shards have ended.
    pub(crate) fn is_stopped(&self) -> bool {
        self.cells.iter().any(ShardCell::is_stopped)
    }

    /// Whether this shard has ended.
    pub(super) fn has_stopped(&self, shard: usize) -> bool {
        self.cells[shard].is_stopped()
    }

    /// Begins the end: every shard publishes its wills, then says goodbye and drains until `deadline`.
    pub(crate) fn begin_shutdown(&self, deadline: Instant) {
        self.pool.close();
        // Each shard ends on its own thread.
        self.lodgings.close();
        for index in 0..self.cells.len() {
            self.send(index, Item::Shutdown(deadline));
        }
    }

    /// The counters of a shard that has stopped; its state stays for this.
    pub(crate) fn with_stopped<R>(&self, index: usize, look: impl FnOnce(&Shard) -> R) -> R {
        look(self.cells[index].state.lock().shard())
    }

    /// Resolves when some shard comes to rest after having done something, from the moment this is polled first.
    pub(crate) fn settle_event(&self) -> SettleEvent<'_> {
        self.settle_waiters.fetch_add(1, Ordering::AcqRel);
        SettleEvent(self)
    }

    fn settle_waiters(&self) -> usize {
        self.settle_waiters.load(Ordering::Acquire)
    }

    /// A shard comes to rest after having done something.
    pub(crate) fn notify_settle(&self) {
        if self.settle_waiters() > 0 {
            self.settle.notify_waiters();
        }
    }

    /// One shard has handed its wills to the others. When it is the last, they say goodbye: what their inboxes hold by
    /// then is delivered before.
    fn note_wills_sent(&self, index: usize) {
        if self.cells[index].has_sent_wills.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.wills_sent.fetch_add(1, Ordering::AcqRel) + 1 == self.cells.len() {
            for index in 0..self.cells.len() {
                self.send(index, Item::Goodbye);
            }
        }
    }

    /// One shard has nothing left to do before the end. When it is the last, all of them may go.
    fn note_drained(&self, index: usize) {
        if self.cells[index].has_drained.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.drained.fetch_add(1, Ordering::AcqRel) + 1 == self.cells.len() {
            self.cells.iter().for_each(ShardCell::wake);
        }
    }

    fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire) >= self.cells.len()
    }
}

impl Group for Shards {
    fn look(&self) -> Looking<'_> {
        Box::pin(async {
            let probes: Vec<_> = (0..self.len()).map(|shard| self.probe(shard)).collect();
            let mut sum = Look { is_idle: true, activity: 0, deadline: None };
            for probe in probes {
                let probe = probe.await.ok()?;
                sum.is_idle &= probe.is_idle;
                sum.activity += probe.activity;
                sum.deadline = [sum.deadline, probe.deadline].into_iter().flatten().min();
            }
            Some(sum)
        })
    }
}

/// Somebody's interest in [`Shards::settle_event`]; ends on drop.
#[derive(Debug)]
pub(crate) struct SettleEvent<'a>(&'a Shards);

impl SettleEvent<'_> {
    /// The notification; to be enabled before the state is looked at.
    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.settle.notified()
    }
}

impl Drop for SettleEvent<'_> {
    fn drop(&mut self) {
        self.0.settle_waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ShardCell {
    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Wakes the thread if it is parked and nobody else has.
    fn wake_if_parked(&self, counters: &Counters) {
        if self.parked.load(Ordering::Acquire) && self.parked.swap(false, Ordering::AcqRel) {
            count(&counters.woken);
            self.wake();
        }
    }

    fn wake(&self) {
        // Fails only if the descriptor is gone, and with it the thread.
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a shard could not be woken");
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A sender enters a parked shard for this many envelopes at most; more are work for another core.
const ENTER_ENVELOPES_MAX: usize = 8;
