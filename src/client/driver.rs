//! The client's task: makes connections, moves bytes between the socket and the session, and hands messages out.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use parking_lot::MutexGuard;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::{Sleep, sleep_until},
};
use tracing::{debug, trace};

use super::{
    AckPolicy, ClientEvent, ConnectionState, Error, Message,
    dispatch::Delivery,
    low_water,
    pace::{Arrivals, Departures, Read, TICK},
    reconnect::Backoff,
    state::{Effects, Inner, Life, Progress, State},
    transport::{BoxStream, Connector},
};
use crate::{
    clock::{self, Timer},
    codec::ReasonCode,
    session::client::{AckHandle, CloseReason},
};

/// Runs a client to its end.
pub(super) async fn run(inner: Arc<Inner>, connector: Box<dyn Connector>) {
    let backoff = inner.options.reconnect.map(Backoff::new);
    let inner_of_driver = Arc::clone(&inner);
    let server = Arc::from("");
    let mut driver = Driver { inner: inner_of_driver, connector, backoff, target: 0, server, undelivered: Vec::new() };
    let failure = driver.run().await;
    debug!(failure = ?failure, "client ended");
    inner.end(failure.clone(), driver.undelivered);
    if let Some(spool) = inner.options.spool.clone() {
        // Whoever is told of the end may open the file again.
        let closed = tokio::task::spawn_blocking(move || spool.close());
        if closed.await.is_err() {
            debug!("the runtime ended before the spool was closed");
        }
    }
    inner.progress.send_replace(Progress::Ended(failure));
}

struct Driver {
    inner: Arc<Inner>,
    connector: Box<dyn Connector>,
    backoff: Option<Backoff>,
    target: usize,
    server: Arc<str>,
    /// What the last connection had read and acknowledged, and no mailbox had room for.
    undelivered: Vec<Delivery>,
}

/// How an attempt ended.
struct Ended {
    failure: Option<Error>,
    /// How long it was connected, if it was.
    lasted: Option<Duration>,
}

impl Driver {
    async fn run(&mut self) -> Option<Error> {
        loop {
            let Ended { failure, lasted } = self.round().await;
            let was_ready = !matches!(*self.inner.progress.borrow(), Progress::Starting);
            let wait = match &failure {
                Some(error) if error.retryable() => self.next_wait(was_ready, lasted),
                _ => None,
            };
            self.disconnected(failure.clone(), wait);
            let Some(wait) = wait else { return failure };
            let retry_at = self.inner.now() + wait;
            tokio::select! {
                () = self.inner.options.clock.sleep_until(retry_at) => {}
                () = self.asked_to_end() => {
                    self.disconnected(None, None);
                    return None;
                }
            }
        }
    }

    /// Tries every target once, until one connection has been made and has ended, or a refusal is final.
    async fn round(&mut self) -> Ended {
        let targets = self.connector.targets().max(1);
        let mut ended = Ended { failure: None, lasted: None };
        for _ in 0..targets {
            ended = self.attempt().await;
            let is_final = ended.failure.as_ref().is_none_or(|error| !error.retryable());
            if ended.lasted.is_some() || is_final {
                break;
            }
            self.target = (self.target + 1) % targets;
        }
        ended
    }

    async fn attempt(&mut self) -> Ended {
        self.server = Arc::from(self.connector.name(self.target));
        self.inner.events.send(ClientEvent::Connecting { server: Arc::clone(&self.server) });
        let stream = tokio::select! {
            stream = self.open() => stream,
            () = self.asked_to_end() => return Ended { failure: None, lasted: None },
        };
        let failure = match stream {
            Err(failure) => Some(failure),
            Ok(stream) => self.serve(stream).await,
        };
        let mut state = self.inner.state.lock();
        state.set_corked(false);
        state.session.connection_lost();
        state.dispatch.connection_lost();
        let began = state.connected_at.take();
        drop(state);
        Ended { failure, lasted: began.map(|began| self.inner.now().saturating_duration_since(began)) }
    }

    async fn open(&self) -> Result<BoxStream, Error> {
        let doing = || format!("connecting to {}", self.server);
        let after = self.inner.options.connect_timeout;
        match clock::timeout(&self.inner.options.clock, after, self.connector.connect(self.target)).await {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) => Err(Error::io(doing(), error)),
            None => Err(Error::Timeout { doing: doing(), after }),
        }
    }

    /// Runs one connection to its end; `None` if the client asked for it.
    async fn serve(&mut self, stream: BoxStream) -> Option<Error> {
        let started = {
            let mut state = self.inner.state.lock();
            state.closed = None;
            state.session.connect(self.inner.now())
        };
        if let Err(error) = started {
            return Some(error.into());
        }
        let undelivered = std::mem::take(&mut self.undelivered);
        let mut connection = Connection::new(&self.inner, stream, Arc::clone(&self.server), undelivered);
        let end = poll_fn(|cx| connection.poll(cx)).await;
        self.undelivered = connection.into_undelivered();
        let server = self.server.to_string();
        match end {
            End::Closed(CloseReason::Requested) => None,
            End::Closed(close) => Some(Error::Connection { server, close: Arc::new(close) }),
            End::Eof => Some(Error::ConnectionLost { server }),
            End::Failed(error) => Some(Error::io(format!("talking to {server}"), error)),
        }
    }

    fn next_wait(&mut self, was_ready: bool, lasted: Option<Duration>) -> Option<Duration> {
        let retries_first = self.inner.options.reconnect.is_some_and(|reconnect| reconnect.retry_first);
        if !was_ready && !retries_first {
            return None;
        }
        let backoff = self.backoff.as_mut()?;
        if let Some(lasted) = lasted {
            backoff.reset(lasted);
        }
        backoff.next()
    }

    fn disconnected(&self, reason: Option<Error>, retry_in: Option<Duration>) {
        debug!(server = %self.server, reason = ?reason, ?retry_in, "disconnected");
        let mut state = self.inner.state.lock();
        state.connection = match retry_in {
            Some(_) if matches!(*self.inner.progress.borrow(), Progress::Ready) => ConnectionState::Reconnecting,
            Some(_) => ConnectionState::Connecting,
            None => ConnectionState::Disconnected,
        };
        state.resting.clear();
        drop(state);
        self.inner.events.send(ClientEvent::Disconnected { reason, retry_in });
    }

    /// Waits until the client is asked to end. There is no connection: nothing can be finished first.
    async fn asked_to_end(&self) {
        poll_fn(|cx| {
            let mut state = self.inner.state.lock();
            if !matches!(state.life, Life::Running) {
                return Poll::Ready(());
            }
            state.driver = Some(cx.waker().clone());
            state.is_flushing = false;
            Poll::Pending
        })
        .await;
    }
}

/// One connection.
struct Connection<'a> {
    inner: &'a Inner,
    stream: BoxStream,
    server: Arc<str>,
    read: BytesMut,
    /// Bytes that must be in `read` before another packet can be whole.
    read_goal: usize,
    write: Vec<u8>,
    written: usize,
    timer: Timer,
    /// What is to be handed out; what stays in it did not fit: reading waits.
    deliveries: Vec<Delivery>,
    spare: Vec<VecDeque<Message>>,
    unclaimed: Vec<AckHandle>,
    /// Something was added to the deliveries and not tried yet.
    is_fresh: bool,
    /// Bytes read since some delivery did not fit.
    read_ahead_bytes: usize,
    is_paused: bool,
    end: Option<End>,
    /// Until when the last bytes must have left.
    flush_deadline: Option<Instant>,
    pacing: Option<Pacing>,
}

/// Packets that are gathered, in and out. Not with a clock that is advanced: who counts on all being at rest would
/// have to know of it.
#[derive(Default)]
struct Pacing {
    arrivals: Arrivals,
    /// When what has come is read, enough or not.
    arrivals_due: Tick,
    departures: Departures,
    /// When what was published is written, told or not.
    departures_due: Tick,
}

/// A timer of a millisecond.
#[derive(Default)]
struct Tick {
    sleep: Option<Pin<Box<Sleep>>>,
    is_set: bool,
}

impl Tick {
    fn set(&mut self) {
        let due = tokio::time::Instant::now() + TICK;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(due),
            None => self.sleep = Some(Box::pin(sleep_until(due))),
        }
        self.is_set = true;
    }

    /// Whether it is over, now.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let sleep = self.sleep.as_mut().filter(|_| self.is_set);
        let is_over = sleep.is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        self.is_set &= !is_over;
        is_over
    }
}

/// Why a connection is over.
enum End {
    Closed(CloseReason),
    Eof,
    Failed(io::Error),
}

impl<'a> Connection<'a> {
    fn new(inner: &'a Inner, stream: BoxStream, server: Arc<str>, undelivered: Vec<Delivery>) -> Self {
        Self {
            inner,
            stream,
            server,
            read: BytesMut::new(),
            read_goal: 1,
            write: Vec::new(),
            written: 0,
            timer: Timer::new(&inner.options.clock),
            deliveries: undelivered,
            spare: Vec::new(),
            unclaimed: Vec::new(),
            is_fresh: false,
            read_ahead_bytes: 0,
            is_paused: false,
            end: None,
            flush_deadline: None,
            pacing: (!inner.options.clock.is_adjustable()).then(Pacing::default),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS_MAX {
            self.deliver(cx);
            let mut progress = self.poll_pacing(cx);
            progress |= self.poll_read(cx);
            progress |= self.poll_timer(cx);
            progress |= self.poll_write(cx);
            progress |= self.is_fresh;
            if let Some(end) = self.poll_end(cx) {
                return Poll::Ready(end);
            }
            if !progress && self.park(cx) {
                return Poll::Pending;
            }
        }
        // A stream that is always ready must not keep the thread to itself.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads and processes until the socket is empty, a consumer is full, or others should have their turn.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        for _ in 0..READS_PER_TURN {
            if self.end.is_some() || self.is_paused {
                break;
            }
            if self.read.capacity() - self.read.len() < READ_BYTES_LOW {
                self.read.reserve(READ_BYTES.max(self.read_goal.saturating_sub(self.read.len())));
            }
            match pin!(self.stream.read_buf(&mut self.read)).poll(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.end = Some(End::Eof),
                Poll::Ready(Ok(count)) => {
                    progress = true;
                    self.handle_input(count);
                    self.deliver(cx);
                }
                Poll::Ready(Err(error)) => self.end = Some(End::Failed(error)),
            }
        }
        progress | self.end.is_some()
    }

    fn handle_input(&mut self, count: usize) {
        self.read_ahead_bytes += if self.deliveries.is_empty() { 0 } else { count };
        if self.read.len() < self.read_goal {
            self.inner.state.lock().stats.bytes_in += count as u64;
            return;
        }
        let input = self.read.split().freeze();
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let inner = self.inner;
        let mut state = inner.state.lock();
        state.recently = inner.now();
        state.stats.bytes_in += count as u64;
        state.session.stamp(stamp.as_micros() as u64);
        let (instant, received) = (state.recently, state.stats.received);
        let taken = state.receive(instant, &input);
        self.keep_rest(&input, taken, state.session.bytes_needed());
        let read = Read { bytes: count, messages: state.stats.received - received, said: state.said() };
        self.process(state, Effects::default());
        self.arrived(instant, read);
    }

    /// Has the socket wait for more bytes at a time if that is worth it.
    fn arrived(&mut self, now: Instant, read: Read) {
        let Some(pacing) = &mut self.pacing else { return };
        if let Some(bytes) = pacing.arrivals.read(now, read) {
            trace!(server = %self.server, bytes, "gathering");
            if !low_water::set(&*self.stream, bytes) {
                pacing.arrivals.end();
            }
        }
        if pacing.arrivals.is_waiting() {
            pacing.arrivals_due.set();
        }
    }

    /// Reads what comes too slowly to be waited for, and looks whether there is still much to write.
    fn poll_pacing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pacing) = &mut self.pacing else { return false };
        let is_late = pacing.arrivals_due.poll(cx);
        if is_late {
            pacing.arrivals.late();
            low_water::set(&*self.stream, 1);
        }
        let is_tick = pacing.departures_due.poll(cx);
        if is_tick {
            let mut state = self.inner.state.lock();
            if pacing.departures.tick(state.stats.published) {
                pacing.departures_due.set();
            } else {
                state.set_corked(false);
            }
        }
        is_late || is_tick
    }

    /// Takes the session's events, stages what came in, unlocks, and tells whoever is concerned.
    fn process(&mut self, mut state: MutexGuard<'_, State>, mut effects: Effects) {
        state.process(&mut effects);
        self.is_fresh |= state.dispatch.has_staged();
        state.dispatch.take_staged(&mut self.deliveries, &mut self.spare);
        if let Some(reason) = state.closed.take() {
            self.end.get_or_insert(End::Closed(reason));
        }
        let connected = effects.connected.take();
        let is_new = connected.is_some();
        if let Some(connected) = connected {
            state.connection = ConnectionState::Connected;
            state.connack = Some(Arc::clone(&connected));
            state.connected_at = Some(self.inner.now());
            state.stats.connections += 1;
            debug!(server = %self.server, session_present = connected.session_present, "connected");
            effects.events.push(ClientEvent::Connected { server: Arc::clone(&self.server), connected });
        }
        drop(state);
        effects.run(self.inner);
        if is_new {
            // After the event: who waited for the connection asks for events from then on, and this one was before.
            self.inner.progress.send_replace(Progress::Ready);
        }
    }

    /// Keeps the start of a packet whose end is still to come.
    fn keep_rest(&mut self, input: &Bytes, taken: usize, needed: usize) {
        let rest = input.get(taken..).unwrap_or_default();
        self.read_goal = rest.len() + needed.max(1);
        self.read.reserve(if rest.is_empty() { 0 } else { READ_BYTES.max(self.read_goal) });
        self.read.extend_from_slice(rest);
    }

    /// Hands out what was read; reading pauses while a mailbox that must not lose anything is full.
    fn deliver(&mut self, cx: &mut Context<'_>) {
        self.is_fresh = false;
        if self.deliveries.is_empty() {
            return;
        }
        let (spare, unclaimed) = (&mut self.spare, &mut self.unclaimed);
        self.deliveries.retain_mut(|delivery| {
            delivery.mailbox.deliver(&mut delivery.messages, unclaimed, cx.waker());
            let is_done = delivery.messages.is_empty();
            if is_done && spare.len() < SPARE_MAX {
                spare.push(std::mem::take(&mut delivery.messages));
            }
            !is_done
        });
        if !self.unclaimed.is_empty() {
            self.inner.acknowledge(self.unclaimed.drain(..), ReasonCode::Success);
        }
        let is_paused = self.must_pause();
        if is_paused != self.is_paused {
            trace!(server = %self.server, is_paused, "reading");
            self.is_paused = is_paused;
            self.inner.state.lock().session.set_paused(is_paused, self.inner.now());
        }
    }

    /// Whether to read no further. A consumer that awaits an acknowledgement before it takes its next message would wait
    /// for itself if what it awaits stood behind messages that nobody reads: while anything is unanswered, reading goes
    /// on, up to a bound.
    fn must_pause(&mut self) -> bool {
        if self.deliveries.is_empty() {
            self.read_ahead_bytes = 0;
            return false;
        }
        self.read_ahead_bytes >= READ_AHEAD_BYTES_MAX || !self.inner.awaits_answers()
    }

    /// Writes all there is, or as much as the socket takes.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.refill() {
            let rest = self.write.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Pending => return progress,
                Poll::Ready(Ok(0)) => self.fail(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    progress = true;
                    self.written += count;
                }
                Poll::Ready(Err(error)) => self.fail(error),
            }
        }
        // A stream that encrypts or frames may hold some of it yet.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            self.fail(error);
        }
        progress
    }

    /// Whether there is something to write, taken from the session if nothing is left of the last.
    fn refill(&mut self) -> bool {
        if matches!(self.end, Some(End::Failed(_) | End::Eof)) {
            return false;
        }
        if self.written < self.write.len() {
            return true;
        }
        let inner = self.inner;
        let mut state = inner.state.lock();
        state.stats.bytes_out += self.written as u64;
        self.write.clear();
        // Growing it again costs a page fault every 4 KiB: only what a large message has left behind is given back.
        self.write.shrink_to(inner.options.output_bytes_max.saturating_mul(2));
        self.written = 0;
        state.is_flushing = false;
        let now = inner.now();
        state.session.take_output(now, &mut self.write);
        if let Some(pacing) = self.pacing.as_mut().filter(|_| !self.write.is_empty())
            && pacing.departures.write(now, state.stats.published)
        {
            state.set_corked(true);
            pacing.departures_due.set();
        }
        self.process(state, Effects::default());
        !self.write.is_empty()
    }

    fn fail(&mut self, error: io::Error) {
        self.end = Some(End::Failed(error));
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        if self.timer.poll(cx).is_pending() {
            return false;
        }
        self.timer.set(None);
        let inner = self.inner;
        let mut state = inner.state.lock();
        let now = inner.now();
        state.session.handle_timeout(now);
        state.dispatch.handle_timeout(now);
        self.process(state, Effects::default());
        true
    }

    /// Once the end is clear: flushes what is left, for a short while, and shuts the transport down.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let can_write = matches!(self.end.as_ref()?, End::Closed(_));
        if can_write {
            let deadline = *self.flush_deadline.get_or_insert_with(|| self.inner.now() + FLUSH_TIMEOUT);
            let is_late = deadline <= self.inner.now();
            // What waits for the spool is yet to come, DISCONNECT behind it.
            let is_flushed = self.written >= self.write.len() && self.inner.state.lock().session.output_bytes() == 0;
            if !is_late && (!is_flushed || Pin::new(&mut self.stream).poll_shutdown(cx).is_pending()) {
                return None;
            }
        }
        self.end.take()
    }

    /// Nothing more can be done now: who has something new wakes this task. False if there is something after all.
    fn park(&mut self, cx: &mut Context<'_>) -> bool {
        let inner = self.inner;
        let mut state = inner.state.lock();
        let is_flushing = self.written < self.write.len();
        let deadlines = [state.session.poll_timeout(), state.dispatch.poll_timeout(), self.flush_deadline];
        let mut deadline = deadlines.into_iter().flatten().min();
        if self.end.is_none() {
            if !is_flushing && state.session.has_output() {
                return false;
            }
            if let Life::Closing { deadline: latest, reason, session_expiry } = state.life {
                if is_finished(&state, is_flushing) || latest <= inner.now() {
                    // The expiry was judged by what the server had agreed to when it was asked for; a new connection may
                    // have changed that.
                    if state.session.disconnect(reason, session_expiry).is_err() {
                        let _ = state.session.disconnect(reason, None);
                    }
                    self.process(state, Effects::default());
                    return false;
                }
                deadline = [deadline, Some(latest)].into_iter().flatten().min();
            }
        }
        if !state.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        state.is_flushing = is_flushing;
        let is_resting = !is_flushing && self.deliveries.is_empty();
        let resting = if is_resting { std::mem::take(&mut state.resting) } else { Vec::new() };
        drop(state);
        for waits in resting {
            // Who asked may have lost interest.
            let _ = waits.send(());
        }
        self.set_timer(deadline, cx)
    }

    /// Sets the timer if it would fire too late; one that fires early does no harm. False if it fires at once.
    fn set_timer(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = deadline else { return true };
        if self.timer.at().is_none_or(|at| at > deadline) {
            self.timer.set(Some(deadline));
        }
        self.timer.poll(cx).is_pending()
    }

    /// The connection is over: what could not be handed out, less what the server will send again.
    fn into_undelivered(mut self) -> Vec<Delivery> {
        for Delivery { mailbox, messages } in &mut self.deliveries {
            let is_acknowledged = mailbox.options().ack == AckPolicy::Auto;
            messages.retain(|message| is_acknowledged || message.ack_handle().is_none_or(|ack| ack.is_exactly_once()));
        }
        self.deliveries
    }
}

/// Whether nothing is left that a graceful end waits for.
fn is_finished(state: &State, is_flushing: bool) -> bool {
    let session = &state.session;
    !session.is_online() || (!is_flushing && session.unfinished() == 0 && session.unanswered() == 0)
}

/// What is read at once: large enough for hundreds of small messages, small enough for the cache.
const READ_BYTES: usize = 64 * 1024;

/// Read beyond full mailboxes while an answer is awaited: a multiple of what servers and sockets buffer.
const READ_AHEAD_BYTES_MAX: usize = 64 << 20;

/// A read buffer with less room than this is replaced.
const READ_BYTES_LOW: usize = 4 * 1024;

/// Turns before other tasks have theirs.
const TURNS_MAX: usize = 16;

/// Reads before the writer and the timer have their turn.
const READS_PER_TURN: usize = 8;

/// Queues kept for the next reads.
const SPARE_MAX: usize = 8;

/// How long the last bytes of a connection, DISCONNECT among them, may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
