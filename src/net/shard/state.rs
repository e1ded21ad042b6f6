//! What a shard's mutex protects, and the two halves of a turn.

use std::{
    collections::VecDeque,
    sync::Weak,
    time::{Duration, Instant},
};

use mio::{Registry, Token, event::Event};
use tokio::sync::oneshot;

use super::{
    Shards,
    close::Lingering,
    conns::Conns,
    watch::{Sources, Watched, of_token},
};
use crate::{
    broker::{ConnId, Envelope, Shard},
    net::{
        inbox::{Command, Item},
        listener::Acceptor,
    },
};

/// One shard with its transports.
#[derive(Debug)]
pub(super) struct State {
    pub(super) shard: Shard,
    pub(super) index: usize,
    /// What a duplex tells; not for anything else, since the caller passes the shards along.
    pub(super) shards: Weak<Shards>,
    pub(super) sources: Sources,
    pub(super) conns: Conns,
    pub(super) acceptors: Vec<Acceptor>,
    /// Where the next connection goes, if this shard accepts for others.
    pub(super) next_deal: usize,
    pub(super) lingering: Lingering,
    /// Connections whose last bytes are not flushed yet, and until when that is waited for.
    pub(super) closing: VecDeque<(Instant, ConnId)>,
    /// Connections to read.
    pub(super) ready: VecDeque<ConnId>,
    /// Connections to flush that the shard does not know to be dirty.
    pub(super) flush: Vec<ConnId>,
    pub(super) flush_scratch: Vec<ConnId>,
    /// How many connections the last round flushed.
    pub(super) last_dirty: usize,
    pub(super) scratch: Box<[u8]>,
    /// Bytes given to the shard in one piece; fewer while each of them makes many for others.
    pub(super) feed_bytes: usize,
    /// Batches that did not fit into another shard's inbox, by shard.
    pub(super) backlog: Vec<VecDeque<Vec<Envelope>>>,
    pub(super) backlog_batches: usize,
    /// What is being handed to a shard of the same thread.
    pub(super) handed: Vec<Envelope>,
    pub(super) probes: Vec<oneshot::Sender<Probe>>,
    items: VecDeque<Item>,
    waiting: Vec<usize>,
    /// Outputs or dirty connections are left over.
    pub(super) is_unfinished: bool,
    /// Counts what was done, so that a probe can tell whether anything was.
    pub(super) activity: u64,
    activity_seen: u64,
    /// The most connections there were since memory was given back last, and when that is to be done again.
    conns_peak: usize,
    trim_at: Option<Instant>,
    /// Until when the thread sleeps, while it is parked.
    sleeps_until: Option<Instant>,
    draining: Option<Draining>,
    has_failed: bool,
}

/// The end of a shard.
#[derive(Debug, Clone, Copy)]
struct Draining {
    deadline: Instant,
    /// When this shard says goodbye even if others are not done with their wills.
    goodbye_deadline: Instant,
    /// Since it has said goodbye: until when connections that are closed already may hold it up.
    linger_deadline: Option<Instant>,
}

/// One look at a shard, for [`crate::server::BrokerHandle::is_settled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Nothing is left to do.
    pub(crate) is_settled: bool,
    /// Nothing is left to do before the next event or deadline; clients may have yet to acknowledge.
    pub(crate) is_idle: bool,
    /// Grows with everything that is done.
    pub(crate) activity: u64,
    /// When something is due that is not housekeeping.
    pub(crate) deadline: Option<Instant>,
}

impl State {
    pub(super) fn new(shard: Shard, index: usize, shards: usize, weak: Weak<Shards>, sources: Sources) -> Self {
        Self {
            shard,
            index,
            shards: weak,
            sources,
            conns: Conns::default(),
            acceptors: Vec::new(),
            next_deal: 0,
            lingering: Lingering::default(),
            closing: VecDeque::new(),
            ready: VecDeque::new(),
            flush: Vec::new(),
            flush_scratch: Vec::new(),
            last_dirty: 0,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            feed_bytes: SCRATCH_BYTES,
            backlog: (0..shards).map(|_| VecDeque::new()).collect(),
            backlog_batches: 0,
            handed: Vec::new(),
            probes: Vec::new(),
            items: VecDeque::new(),
            waiting: Vec::new(),
            is_unfinished: false,
            activity: 0,
            activity_seen: 0,
            conns_peak: 0,
            trim_at: None,
            sleeps_until: None,
            draining: None,
            has_failed: false,
        }
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.sources.own
    }

    pub(super) fn next_acceptor_token(&self) -> Token {
        Token(ACCEPTORS + self.acceptors.len())
    }

    pub(super) fn add_acceptor(&mut self, acceptor: Acceptor) {
        self.acceptors.push(acceptor);
    }

    /// The first half of a turn of the thread that runs the shard: everything that there is to be done comes in.
    pub(super) fn take<'a>(&mut self, shards: &Shards, events: impl Iterator<Item = &'a Event>) {
        let now = shards.now();
        for event in events {
            self.dispatch(shards, now, event);
        }
        self.take_inbox(shards, now);
        self.handle_timeouts(shards, now);
        self.read_ready(shards, now);
        // A connection that moves away has gone from the core, and its place is given to the next that comes.
        self.handle_outputs(shards, now, true);
    }

    /// The second half: what came of it leaves. Probes are answered only if `is_polled`: the sources of work have been looked
    /// at since the last turn. Returns when this began.
    pub(super) fn give(&mut self, shards: &Shards, is_polled: bool) -> Instant {
        let now = shards.now();
        self.complete(shards, now, true);
        if is_polled {
            self.answer_probes(shards);
        }
        if self.draining.is_some() && !self.is_unfinished && !self.is_backlogged() {
            shards.note_wills_sent(self.index);
        }
        now
    }

    /// Takes what a shard of the same thread has for this one, which is to have a turn afterwards.
    pub(super) fn run_visited(&mut self, shards: &Shards, batch: &mut Vec<Envelope>) {
        let now = shards.now();
        // What was sent before comes before.
        if !shards.cells[self.index].inbox.is_empty() {
            self.take_inbox(shards, now);
        }
        self.handle_envelopes(now, batch);
    }

    /// One turn on another thread while this shard's is parked; whether the thread has to be woken.
    pub(super) fn run_entered(&mut self, shards: &Shards, work: impl FnOnce(&mut Self, Instant)) -> bool {
        let now = shards.now();
        self.take_inbox(shards, now);
        work(self, now);
        if self.shard.staged_bytes() > ENTERED_FLUSH_BYTES_MAX {
            return true;
        }
        self.complete(shards, now, false);
        // Whoever waits for the broker to settle is told when the thread parks again.
        let is_awaited = self.activity != self.activity_seen && shards.settle_waiters() > 0;
        let is_due_earlier = match (self.next_deadline(), self.sleeps_until) {
            (Some(due), Some(until)) => due < until,
            (due, None) => due.is_some(),
            (None, _) => false,
        };
        self.has_more() || is_due_earlier || is_awaited || self.draining.is_some()
    }

    /// Whether there is work that no event will announce.
    pub(super) fn has_more(&self) -> bool {
        self.is_unfinished
            || !self.flush.is_empty()
            || !self.probes.is_empty()
            || (!self.ready.is_empty() && !self.is_backlogged())
    }

    /// Notes that the thread is about to sleep; returns until when.
    pub(super) fn park(&mut self) -> Option<Instant> {
        self.sleeps_until = self.next_deadline();
        self.sleeps_until
    }

    /// Whether anything was done since this was asked last.
    pub(super) fn take_activity(&mut self) -> bool {
        let before = std::mem::replace(&mut self.activity_seen, self.activity);
        before != self.activity
    }

    /// Reading waits until other shards have taken what this one has for them. They do not wait for us: a full inbox is
    /// emptied whatever its shard's clients do.
    pub(super) fn is_backlogged(&self) -> bool {
        self.backlog_batches > 0
    }

    /// Runs a handle's command.
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        self.activity += 1;
        command(&mut self.shard, now);
    }

    /// Whether the thread may end, once it was told to.
    pub(super) fn is_finished(&mut self, shards: &Shards, now: Instant) -> bool {
        if self.has_failed {
            return true;
        }
        let Some(draining) = self.draining else { return false };
        let Some(linger_deadline) = draining.linger_deadline else { return now >= draining.deadline };
        let lingers = !self.lingering.is_empty() && now < linger_deadline;
        let is_stored = !self.shard.has_unsubmitted();
        if self.conns.is_empty() && !self.is_backlogged() && !self.has_more() && !lingers && is_stored {
            shards.note_drained(self.index);
        }
        shards.is_drained() || now >= draining.deadline
    }

    /// Whether this shard has said goodbye to its clients.
    pub(super) fn is_closing(&self) -> bool {
        self.draining.is_some_and(|draining| draining.linger_deadline.is_some())
    }

    /// Tells every client that this is the end.
    fn say_goodbye(&mut self, now: Instant) {
        let Some(draining) = self.draining.as_mut().filter(|draining| draining.linger_deadline.is_none()) else {
            return;
        };
        let linger = SHUTDOWN_LINGER.min(draining.deadline.saturating_duration_since(now) / 10);
        draining.linger_deadline = Some(now + linger);
        self.activity += 1;
        self.shard.shutdown(now);
    }

    /// Work on this shard panicked on another thread; its own thread is to end.
    pub(super) fn fail(&mut self) {
        self.has_failed = true;
    }

    /// Closes everything; the counters stay.
    pub(super) fn release(&mut self) {
        self.conns.clear();
        self.acceptors.clear();
        self.lingering.clear();
        self.items.clear();
        self.backlog.iter_mut().for_each(VecDeque::clear);
        self.backlog_batches = 0;
        self.probes.clear();
    }

    /// Notes what an event says.
    fn dispatch(&mut self, shards: &Shards, now: Instant, event: &Event) {
        match event.token() {
            WAKER => {}
            // Seen to by whose turn it is.
            Token(token) if token >= LODGERS => {}
            Token(token) if token >= ACCEPTORS => self.accept(shards, now, token - ACCEPTORS),
            Token(token) if token >= LINGERERS => self.lingering.discard(token - LINGERERS, &mut self.scratch),
            token => {
                let (shard, index) = of_token(token);
                if shard != self.index {
                    // Somebody's who does not lodge here any more.
                    if !shards.lodges(shard) {
                        shards.stray(token);
                    }
                    return;
                }
                let Some(slot) = self.conns.at_mut(index) else { return };
                let (conn, watched) = (slot.conn, slot.watched);
                if event.is_writable() && slot.is_full {
                    slot.is_full = false;
                    self.flush.push(conn);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    slot.is_ending |= event.is_read_closed() || event.is_error();
                    self.make_ready(conn);
                }
                if watched == Watched::Here && shards.lodges(self.index) {
                    self.watch(shards, now, conn);
                }
            }
        }
    }

    /// Does what other threads have asked for.
    fn take_inbox(&mut self, shards: &Shards, now: Instant) {
        let mut items = std::mem::take(&mut self.items);
        shards.cells[self.index].inbox.take(&mut items, &mut self.waiting);
        for item in items.drain(..) {
            self.handle_item(shards, now, item);
        }
        self.items = items;
        for index in self.waiting.drain(..) {
            shards.send(index, Item::Room);
        }
        self.retry_backlog(shards);
    }

    fn handle_item(&mut self, shards: &Shards, now: Instant, item: Item) {
        match item {
            Item::Envelopes(mut batch) => self.handle_envelopes(now, &mut batch),
            Item::Handoff(moved) => {
                let (transport, handoff) = *moved;
                let conn = self.shard.handle_handoff(now, handoff);
                self.adopt(shards, now, conn, transport);
            }
            Item::Accepted(accepted) => {
                let (transport, peer) = *accepted;
                self.open(shards, now, transport, peer);
            }
            Item::Duplex { conn, writable: false } => self.make_ready(conn),
            Item::Duplex { conn, writable: true } => {
                if let Some(slot) = self.conns.get_mut(conn) {
                    slot.is_full = false;
                    self.flush.push(conn);
                }
            }
            Item::Stray(index) => self.take_stray(shards, now, index),
            Item::Strays => self.take_all_strays(shards, now),
            Item::Verdict(ticket, verdict) => {
                self.activity += 1;
                self.shard.handle_verdict(now, ticket, verdict);
            }
            Item::Permits(ticket, answers) => {
                self.activity += 1;
                self.shard.handle_permits(now, ticket, answers);
            }
            Item::Committed => {
                self.activity += 1;
                self.shard.handle_committed(now);
            }
            Item::Command(command) => self.command(now, command),
            Item::Probe(answer) => self.probes.push(answer),
            // Looked after whenever the inbox is taken.
            Item::Room => {}
            Item::Shutdown(deadline) => {
                self.activity += 1;
                self.acceptors.clear();
                let goodbye_deadline = now + deadline.saturating_duration_since(now) / 2;
                self.draining.get_or_insert(Draining { deadline, goodbye_deadline, linger_deadline: None });
                self.shard.prepare_shutdown(now);
            }
            Item::Goodbye => self.say_goodbye(now),
        }
    }

    /// Takes envelopes in bites, so that outboxes are flushed before they reach their limits.
    pub(super) fn handle_envelopes(&mut self, now: Instant, batch: &mut Vec<Envelope>) {
        self.activity += 1;
        let mut rest = batch.drain(..);
        while rest.len() > 0 {
            let bite = rest.len().min(ENVELOPES_PER_BITE);
            self.shard.look_ahead_of(rest.as_slice().get(..bite).unwrap_or_default());
            self.shard.handle_envelopes(now, rest.by_ref().take(ENVELOPES_PER_BITE));
            self.flush_if_over_budget(now);
        }
    }

    fn handle_timeouts(&mut self, shards: &Shards, now: Instant) {
        if self.shard.poll_timeout().is_some_and(|due| due <= now) {
            self.activity += 1;
            self.shard.handle_timeout(now);
        }
        self.close_overdue(now);
        self.lingering.expire(now);
        self.give_memory_back(shards, now);
        if let Some(draining) = self.draining {
            if draining.goodbye_deadline <= now {
                self.say_goodbye(now);
            }
            if draining.linger_deadline.is_some_and(|deadline| deadline <= now) {
                self.lingering.clear();
            }
        }
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].retry_at.is_some_and(|due| due <= now) {
                self.accept(shards, now, index);
            }
        }
    }

    /// A while after most connections of a burst have gone, what they have left goes back to the system.
    fn give_memory_back(&mut self, shards: &Shards, now: Instant) {
        let conns = self.conns.len();
        self.conns_peak = self.conns_peak.max(conns);
        if self.conns_peak < TRIM_CONNS_MIN || conns > self.conns_peak / 2 {
            self.trim_at = None;
            return;
        }
        if now >= *self.trim_at.get_or_insert(now + TRIM_PAUSE) {
            (self.trim_at, self.conns_peak) = (None, conns);
            // One that cannot be done now is not worth a second try: the next burst has one of its own.
            let _ = shards.pool.run(Box::new(crate::net::trim::trim));
        }
    }

    /// When something is due that no event announces.
    fn next_deadline(&self) -> Option<Instant> {
        self.deadline_but(self.shard.poll_timeout())
    }

    fn deadline_but(&self, of_shard: Option<Instant>) -> Option<Instant> {
        let closing = self.closing.front().map(|(due, _)| *due);
        let accepting = self.acceptors.iter().filter_map(|acceptor| acceptor.retry_at).min();
        let draining = self.draining.map(|draining| match draining.linger_deadline {
            None => draining.goodbye_deadline,
            Some(_) if self.lingering.is_empty() => draining.deadline,
            Some(linger_deadline) => linger_deadline,
        });
        let own = [closing, self.lingering.next_deadline(), accepting, draining, self.trim_at];
        own.into_iter().chain([of_shard]).flatten().min()
    }

    fn answer_probes(&mut self, shards: &Shards) {
        if self.probes.is_empty() {
            return;
        }
        let is_idle = self.ready.is_empty()
            && !self.is_unfinished
            && self.flush.is_empty()
            && !self.is_backlogged()
            && shards.cells[self.index].inbox.is_empty();
        let is_settled =
            is_idle && self.shard.is_settled() && !self.conns.iter().any(|slot| slot.transport.has_unread());
        let deadline = self.deadline_but(self.shard.poll_timeout_of_clients());
        let probe = Probe { is_settled, is_idle: is_idle && !shards.is_judging(), activity: self.activity, deadline };
        for answer in self.probes.drain(..) {
            // Who asked may have lost interest.
            let _ = answer.send(probe);
        }
    }
}

/// The waker's token.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Tokens from here are the readiness sources of other shards that this one's thread runs.
pub(super) const LODGERS: usize = usize::MAX / 8 * 7;

/// Tokens from here are listeners. Below [`LINGERERS`] a token is that of a connection (`watch`).
const ACCEPTORS: usize = usize::MAX / 4 * 3;

/// Tokens from here are connections that are closed but for the peer's end.
pub(super) const LINGERERS: usize = usize::MAX / 4 * 2;

/// Read in one call: many packets, and still in the second-level cache.
const SCRATCH_BYTES: usize = 64 << 10;

/// Envelopes between two looks at the flush budget.
const ENVELOPES_PER_BITE: usize = 64;

/// More than this is left for the shard's own thread to write: by then the wake-up is the smaller part.
const ENTERED_FLUSH_BYTES_MAX: usize = 64 << 10;

/// Fewer connections are no burst.
const TRIM_CONNS_MIN: usize = 1000;

/// From the end of a burst until its memory goes back: they may come again, and the shard drops at its next sweep what it
/// keeps for speed.
const TRIM_PAUSE: Duration = Duration::from_secs(31);

/// At shutdown, how long a peer that was told may take to close before the process ends under it; a tenth of the drain
/// timeout at most.
const SHUTDOWN_LINGER: Duration = Duration::from_millis(200);
