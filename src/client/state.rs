//! What the handles and the client's task share: the session and all that waits on it, behind one short mutex.
//!
//! Nothing is called back under the lock. What has to be told to others is collected in [`Effects`] and told after it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::{
    ClientEvent, ClientOptions, Completion, ConnectionState, Error, EventSource, Outgoing, Spool,
    dispatch::{Delivery, Dispatch, MailboxId},
    mailbox::Mailbox,
    reconnect::random,
    request::Responses,
    ticket::{Recipient, Tickets},
};
use crate::{
    codec::{PacketType, Properties, QoS, ReasonCode},
    disk::DiskError,
    session::client::{
        AckHandle, AckMode, ClientSession, CloseReason, Connected, Event, PublishAck, Published, Reply, RequestError,
        Token,
    },
};

/// One client.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) state: Mutex<State>,
    pub(super) options: ClientOptions,
    pub(super) events: EventSource,
    pub(super) progress: watch::Sender<Progress>,
    /// The mailbox for messages that match nothing, until somebody takes it.
    pub(super) unmatched: Mutex<Option<(MailboxId, Arc<Mailbox>)>>,
    pub(super) responses: tokio::sync::Mutex<Option<Arc<Responses>>>,
    /// Requests whose response has not come.
    pub(super) requests_open: AtomicUsize,
}

/// How far a client has come.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// No CONNACK yet.
    Starting,
    /// It was connected once.
    Ready,
    /// It has ended, for this reason if it was not asked to.
    Ended(Option<Error>),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: ClientSession,
    pub(super) dispatch: Dispatch,
    pub(super) tickets: Tickets,
    pub(super) life: Life,
    pub(super) connection: ConnectionState,
    /// The client's task, while it sleeps. Who takes it wakes it.
    pub(super) driver: Option<Waker>,
    /// The task waits for the socket to take more: new output need not wake it.
    pub(super) is_flushing: bool,
    /// The task looks after every tick for what was published lazily, which need not wake it.
    is_corked: bool,
    /// Somebody was asked to say when he is done.
    is_flush_asked: bool,
    /// Why the present connection is over.
    pub(super) closed: Option<CloseReason>,
    pub(super) connected_at: Option<Instant>,
    /// What the last CONNACK that accepted said.
    pub(super) connack: Option<Arc<Connected>>,
    pub(super) stats: Stats,
    /// Some instant not long ago, where the exact one does not matter.
    pub(super) recently: Instant,
    replies: HashMap<Token, oneshot::Sender<Result<Reply, RequestError>>>,
    next_reply: Token,
    /// Publishers that wait for room.
    room: Vec<Waker>,
    /// Who waits for the client's task to have nothing left to do.
    pub(super) resting: Vec<oneshot::Sender<()>>,
    sink_wants_room: bool,
    spool: Option<Arc<dyn Spool>>,
    /// Who waits for a batch to be in the spool.
    flushing: Vec<(u64, oneshot::Sender<Result<(), DiskError>>)>,
}

/// Whether the client is meant to be connected.
#[derive(Debug, Clone)]
pub(super) enum Life {
    Running,
    /// Asked to end: at once when nothing is unfinished, at the latest at the deadline.
    Closing {
        deadline: Instant,
        reason: ReasonCode,
        session_expiry: Option<u32>,
    },
    Ended(Option<Error>),
}

/// Counters of a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages received.
    pub received: u64,
    /// Messages received that matched no subscription and were dropped.
    pub unmatched: u64,
    /// Publications accepted.
    pub published: u64,
    /// Connections made.
    pub connections: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Publications queued or unacknowledged now.
    pub unfinished: usize,
    /// Publications with QoS 1 and 2 in the spool now, those of earlier processes included.
    pub spooled: usize,
    /// Publications given up or refused of which nobody was told: nobody waited any more, as for those of an earlier
    /// process.
    pub given_up: u64,
}

/// What is to be told after the lock is released.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) wakers: Vec<Waker>,
    pub(super) completions: Vec<Completion>,
    pub(super) events: Vec<ClientEvent>,
    /// Mailboxes that get no more messages, and why if nobody asked for it.
    pub(super) closed: Vec<(Arc<Mailbox>, Option<Error>)>,
    pub(super) sink_room: bool,
    /// The connection has just been made.
    pub(super) connected: Option<Arc<Connected>>,
}

impl Inner {
    pub(super) fn new(mut options: ClientOptions) -> Result<Arc<Self>, Error> {
        // Subscriptions differ in who acknowledges; the session leaves it to us, message by message.
        options.session.ack_mode = AckMode::Application;
        options.session.connack_timeout = options.session.connack_timeout.min(options.connect_timeout);
        let now = options.clock.now_in_runtime();
        let exchange = options.auth.as_ref().map(super::AuthFactory::make);
        let mut dispatch = Dispatch::new(random());
        let unmatched = options.unmatched.map(Mailbox::new).map(|mailbox| {
            let id = dispatch.add_unmatched(Arc::clone(&mailbox));
            (id, mailbox)
        });
        let session = ClientSession::new(options.session.clone(), exchange, now);
        let state = State {
            session: resume(session, &options, now)?,
            dispatch,
            tickets: Tickets::default(),
            life: Life::Running,
            connection: ConnectionState::Connecting,
            driver: None,
            is_flushing: false,
            is_corked: false,
            is_flush_asked: false,
            closed: None,
            connected_at: None,
            connack: None,
            stats: Stats::default(),
            recently: now,
            replies: HashMap::new(),
            next_reply: 1,
            room: Vec::new(),
            resting: Vec::new(),
            sink_wants_room: false,
            spool: options.spool.clone(),
            flushing: Vec::new(),
        };
        let inner = Arc::new(Self {
            state: Mutex::new(state),
            events: options.events.take().unwrap_or_else(|| EventSource::new(EVENTS_MAX)),
            progress: watch::channel(Progress::Starting).0,
            responses: tokio::sync::Mutex::new(None),
            requests_open: AtomicUsize::new(0),
            unmatched: Mutex::new(unmatched),
            options,
        });
        if let Some(spool) = &inner.options.spool {
            let weak = Arc::downgrade(&inner);
            spool.on_commit(Box::new(move |result| {
                if let Some(inner) = weak.upgrade() {
                    inner.with(|state| state.spooled(result));
                }
            }));
        }
        Ok(inner)
    }

    /// Now, by the client's clock.
    pub(super) fn now(&self) -> Instant {
        self.options.clock.now_in_runtime()
    }

    /// Locks, does `work`, unlocks, and tells whoever is concerned; the client's task looks for new output.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        self.with_driver(State::driver_for_work, work)
    }

    /// The same, but `driver` says who has to be woken.
    fn with_driver<T>(
        &self,
        driver: impl FnOnce(&mut State) -> Option<Waker>,
        work: impl FnOnce(&mut State) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        let result = work(&mut state);
        state.process(&mut effects);
        let driver = driver(&mut state);
        drop(state);
        effects.run(self);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Publishes without waiting. The path of every message: one lock, and a wake only if the task sleeps.
    pub(super) fn publish(&self, message: &Outgoing<'_>, to: Recipient) -> Result<Published, Error> {
        self.with(|state| state.publish(message, to, &self.options))
    }

    /// The same by somebody who calls [`Self::flush`] soon; whether he is asked to.
    pub(super) fn publish_lazily(&self, message: &Outgoing<'_>, to: Recipient) -> Result<(Published, bool), Error> {
        let mut is_asked = false;
        let driver = |state: &mut State| {
            if !state.is_corked || state.session.output_bytes() >= CORKED_BYTES_MAX {
                return state.driver_for_work();
            }
            is_asked = !std::mem::replace(&mut state.is_flush_asked, true);
            None
        };
        let published = self.with_driver(driver, |state| state.publish(message, to, &self.options));
        published.map(|published| (published, is_asked))
    }

    /// What was published lazily is all there is for now.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock();
        state.is_flush_asked = false;
        let driver = state.driver_for_work();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Whether somebody may be waiting for something that the server is yet to send.
    pub(super) fn awaits_answers(&self) -> bool {
        let state = self.state.lock();
        state.session.unfinished() + state.session.unanswered() + self.requests_open.load(Ordering::Relaxed) > 0
    }

    /// Has the client's task look around once more. It answers when it has written all there is, and handed out all that
    /// had come; dropped, there is no connection.
    pub(super) fn rest(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.connection != ConnectionState::Connected {
            return receiver;
        }
        state.resting.push(sender);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        receiver
    }

    /// Asks the client to end.
    pub(super) fn close(&self, deadline: Instant, reason: ReasonCode, session_expiry: Option<u32>) {
        let driver = {
            let mut state = self.state.lock();
            if matches!(state.life, Life::Ended(_)) {
                return;
            }
            state.life = Life::Closing { deadline, reason, session_expiry };
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// The task ends: everybody who waits is told. What was read and acknowledged goes into its mailbox, room or not:
    /// it is no more than one read has brought.
    pub(super) fn end(&self, failure: Option<Error>, mut undelivered: Vec<Delivery>) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        state.life = Life::Ended(failure.clone());
        state.connection = ConnectionState::Disconnected;
        state.session.abandon();
        state.process(&mut effects);
        state.dispatch.take_staged(&mut undelivered, &mut Vec::new());
        let mailboxes = state.dispatch.mailboxes().into_iter();
        effects.closed.extend(mailboxes.map(|mailbox| (mailbox, failure.clone())));
        state.replies.clear();
        state.resting.clear();
        state.flushing.clear();
        effects.wakers.append(&mut state.room);
        drop(state);
        for Delivery { mailbox, messages } in undelivered {
            mailbox.force(messages);
        }
        effects.run(self);
    }

    /// Ready when a publication that is charged with `queue_bytes` would not be refused for want of room.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>, queue_bytes: usize) -> Poll<()> {
        let mut state = self.state.lock();
        let is_running = matches!(state.life, Life::Running);
        if !is_running || state.has_room(queue_bytes, &self.options) {
            return Poll::Ready(());
        }
        state.room.push(cx.waker().clone());
        Poll::Pending
    }

    /// Acknowledges messages that consumers are done with.
    pub(super) fn acknowledge(&self, handles: impl IntoIterator<Item = AckHandle>, reason: ReasonCode) {
        self.with(|state| {
            for handle in handles {
                if state.dispatch.acknowledge(handle) {
                    state.session.acknowledge(handle, reason);
                }
            }
        });
    }
}

impl State {
    pub(super) fn publish(
        &mut self,
        message: &Outgoing<'_>,
        to: Recipient,
        options: &ClientOptions,
    ) -> Result<Published, Error> {
        self.check_alive()?;
        if let Some(spool) = self.spool.as_ref().filter(|_| message.qos > QoS::AtMostOnce)
            && let Some(failure) = spool.failure()
        {
            // What could not be kept is not accepted.
            return Err(Error::Spool(failure));
        }
        if message.qos == QoS::AtMostOnce
            && self.session.is_online()
            && self.session.output_bytes() >= options.output_bytes_max
        {
            self.sink_wants_room = true;
            let (messages, bytes) = (self.session.unfinished(), self.session.output_bytes());
            return Err(RequestError::QueueFull { messages, bytes }.into());
        }
        // Only an expiry interval needs the exact time, and reading the clock costs as much as a small publication.
        let now = if message.properties.is_empty() { self.recently } else { options.clock.now_in_runtime() };
        match self.session.publish(now, message, to.token()) {
            Ok(published) => {
                self.stats.published += 1;
                Ok(published)
            }
            Err(RequestError::Topic(source)) => Err(Error::Topic { topic: message.topic.to_owned(), source }),
            Err(error) => {
                self.sink_wants_room |= matches!(error, RequestError::QueueFull { .. });
                Err(error.into())
            }
        }
    }

    /// A token whose answer comes through the channel.
    pub(super) fn expect_reply(&mut self) -> (Token, oneshot::Receiver<Result<Reply, RequestError>>) {
        let (sender, receiver) = oneshot::channel();
        let token = self.next_reply;
        self.next_reply += 1;
        // Those whose caller has gone are swept out with the next ones.
        self.replies.retain(|_, sender| !sender.is_closed());
        self.replies.insert(token, sender);
        (token, receiver)
    }

    pub(super) fn check_alive(&self) -> Result<(), Error> {
        match &self.life {
            Life::Running => Ok(()),
            Life::Ended(Some(failure)) => Err(failure.clone()),
            Life::Closing { .. } | Life::Ended(None) => Err(Error::Closed),
        }
    }

    /// The error of a request: one that was open when the client ended failed for the reason the client did.
    pub(super) fn explain(&self, error: RequestError) -> Error {
        match error {
            RequestError::Closed => self.check_alive().err().unwrap_or(Error::Closed),
            other => other.into(),
        }
    }

    /// Takes in what was read: messages are staged, the rest becomes events. How many bytes were taken.
    pub(super) fn receive(&mut self, now: Instant, input: &Bytes) -> usize {
        let (dispatch, received) = (&mut self.dispatch, &mut self.stats.received);
        self.session.handle_bytes_to(now, input, |message| {
            *received += 1;
            dispatch.route(message)
        })
    }

    /// Takes all events of the session; what they tell others is told later.
    pub(super) fn process(&mut self, effects: &mut Effects) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Message(_) => debug_assert!(false, "messages are routed as they come in"),
                Event::Published(token, result) => self.published(token, result, effects),
                Event::Subscribed(token, result) | Event::Unsubscribed(token, result) => {
                    if let Some(reply) = self.replies.remove(&token) {
                        // Nobody waits if the caller was cancelled.
                        let _ = reply.send(result);
                    }
                }
                Event::SubscriptionLost(filter, reason) => {
                    let what = format!("the subscription {:?} when it was made again", filter.as_str());
                    let properties = Properties::new();
                    let error = Error::Refused { packet: PacketType::Subscribe, what, reason, properties };
                    let mailboxes = self.dispatch.mailboxes_of(&filter);
                    effects.closed.extend(mailboxes.into_iter().map(|mailbox| (mailbox, Some(error.clone()))));
                }
                Event::Connected(connected) => {
                    self.dispatch.connected(self.recently, connected.session_present);
                    effects.connected = Some(Arc::from(connected));
                }
                Event::Reauthenticated => effects.events.push(ClientEvent::Reauthenticated),
                Event::Closed(reason) => self.closed = Some(*reason),
            }
        }
        while let Some(handle) = self.dispatch.poll_released() {
            self.session.acknowledge(handle, ReasonCode::Success);
        }
        if !self.room.is_empty() || self.sink_wants_room {
            self.tell_room(effects);
        }
        if let Some(spool) = &self.spool
            && let Some((batch, changes)) = self.session.take_changes()
        {
            spool.submit(batch, changes);
        }
    }

    /// The spool has committed, or cannot.
    fn spooled(&mut self, result: Result<u64, DiskError>) {
        match result {
            Ok(batch) => {
                self.session.committed(batch);
                for (_, waits) in self.flushing.extract_if(.., |(wanted, _)| *wanted <= batch) {
                    // Who asked may have lost interest.
                    let _ = waits.send(Ok(()));
                }
            }
            Err(failure) => {
                for (_, waits) in self.flushing.drain(..) {
                    let _ = waits.send(Err(failure.clone()));
                }
            }
        }
    }

    /// What tells that everything so far is in the spool, unless it is.
    #[allow(clippy::type_complexity)] // what a channel is
    pub(super) fn expect_commit(&mut self) -> Result<Option<oneshot::Receiver<Result<(), DiskError>>>, Error> {
        let Some(spool) = &self.spool else {
            return Err(Error::Options("there is no spool to flush: name one in the options".to_owned()));
        };
        if let Some(failure) = spool.failure() {
            return Err(Error::Spool(failure));
        }
        let Some(batch) = self.session.uncommitted() else { return Ok(None) };
        self.check_alive()?;
        let (sender, receiver) = oneshot::channel();
        self.flushing.push((batch, sender));
        Ok(Some(receiver))
    }

    fn published(&mut self, token: Token, result: Result<PublishAck, RequestError>, effects: &mut Effects) {
        match Recipient::of(token) {
            Recipient::Nobody => self.note_unheard(&result),
            Recipient::Ticket(id) => effects.wakers.extend(self.tickets.complete(id, result)),
            Recipient::Sink(number) => {
                let result = result.map_err(|error| self.explain(error)).and_then(refused);
                effects.completions.push(Completion { number, result });
            }
        }
    }

    /// What became of a publication that nobody waits for.
    fn note_unheard(&mut self, result: &Result<PublishAck, RequestError>) {
        match result {
            Ok(ack) if !ack.reason.is_error() => return,
            // It is still in the spool, or its publisher asked for no more.
            Err(RequestError::Closed) => return,
            Ok(ack) => tracing::warn!(reason = %ack.reason, "the server refused a publication that nobody waits for"),
            Err(error) => tracing::warn!(%error, "a publication that nobody waits for was given up"),
        }
        self.stats.given_up += 1;
    }

    /// Wakes the publishers that wait, once there is room for many messages.
    fn tell_room(&mut self, effects: &mut Effects) {
        let has_room = self.session.output_bytes() == 0 && self.session.has_much_queue_room();
        if !has_room {
            return;
        }
        effects.wakers.append(&mut self.room);
        effects.sink_room |= std::mem::take(&mut self.sink_wants_room);
    }

    fn has_room(&self, queue_bytes: usize, options: &ClientOptions) -> bool {
        let fits_queue = self.session.has_queue_room(queue_bytes) || self.session.queued_bytes() == 0;
        // What fits into neither an empty queue nor an empty spool is told so.
        let fits_spool = self.session.has_spool_room(queue_bytes) || self.session.spooled() == 0;
        fits_queue
            && fits_spool
            && (!self.session.is_online() || self.session.output_bytes() < options.output_bytes_max)
    }

    /// Whether the task looks after every tick for what was published lazily.
    pub(super) fn set_corked(&mut self, is_corked: bool) {
        self.is_corked = is_corked;
        self.is_flush_asked = false;
    }

    /// Counts what the application has asked for: somebody may wait for an answer to it.
    pub(super) fn said(&self) -> u64 {
        self.stats.published + self.next_reply
    }

    /// Who has to be woken if there is something to write or to hand out.
    fn driver_for_work(&mut self) -> Option<Waker> {
        let has_output = !self.is_flushing && self.session.has_output();
        if has_output || self.dispatch.has_staged() { self.driver.take() } else { None }
    }
}

impl Effects {
    /// Tells everybody; no lock may be held.
    pub(super) fn run(mut self, inner: &Inner) {
        if self.is_empty() {
            return;
        }
        for waker in self.wakers {
            waker.wake();
        }
        for (mailbox, failure) in self.closed {
            mailbox.close(failure);
        }
        if let Some(sink) = &inner.options.completions {
            if !self.completions.is_empty() {
                sink.complete(&mut self.completions);
            }
            if self.sink_room {
                sink.room();
            }
        }
        for event in self.events {
            inner.events.send(event);
        }
    }

    fn is_empty(&self) -> bool {
        self.wakers.is_empty()
            && self.completions.is_empty()
            && self.events.is_empty()
            && self.closed.is_empty()
            && !self.sink_room
    }
}

/// Has the session go on where the last process stopped, if it left a spool.
fn resume(session: ClientSession, options: &ClientOptions, now: Instant) -> Result<ClientSession, Error> {
    let Some(spool) = &options.spool else { return Ok(session) };
    let fault = |what: &str| Err(Error::Options(what.to_owned()));
    if options.session.client_id.is_empty() {
        return fault("a spool belongs to a client identifier: name one");
    }
    if options.session.clean_start || (options.session.version.is_v5() && options.session.session_expiry == 0) {
        return fault("a spool needs a session that the server keeps: no clean start, and an expiry above 0");
    }
    let kept = spool.load().map_err(Error::Spool)?;
    Ok(session.with_journal(kept, options.spool_bytes_max, now, options.clock.unix_time()))
}

/// An acknowledgement with a failure code is an error for who waits.
pub(super) fn refused(ack: PublishAck) -> Result<PublishAck, Error> {
    if !ack.reason.is_error() {
        return Ok(ack);
    }
    let what = "a publication".to_owned();
    Err(Error::Refused { packet: PacketType::Publish, what, reason: ack.reason, properties: ack.properties })
}

/// Output that is worth a wake, whoever may say that he is done.
const CORKED_BYTES_MAX: usize = 32 * 1024;

/// Events kept for a reader that lags.
const EVENTS_MAX: usize = 256;
