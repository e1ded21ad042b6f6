//! One shard: its state, and the contract with the shell that runs it.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use super::conn::TransportEnd;
use super::{
    conn::{Conn, Phase},
    gathering::Gathering,
    journal::{Journal, Receipt},
    limits::Settings,
    message::Message,
    moment::Epoch,
    outbox::Outbox,
    peer::Peer,
    reasons::{DropReason, EndReason},
    route::{RecentRoute, Route},
    run::Run,
    session::{ClientSession, HashState},
    shared::Shared,
    slots::{ConnId, Slots},
    stats::Stats,
    subscribers::Subscribers,
    sys::Sys,
    timers::Timer,
    turns::Turns,
    wire::Wire,
};
use crate::{
    auth::{ConnectInfo, OwnedAccess},
    codec::{Connect, ReasonCode, Text, Version},
    router::{CacheLimits, FilterTrie, Generations, Index, Member, RouteCache, SessionKey, ShardId},
    session::QueueLimits,
};

/// One shard of the broker.
#[derive(Debug)]
pub struct Shard {
    pub(super) id: ShardId,
    pub(super) shared: Arc<Shared>,
    pub(super) wire: Wire,
    pub(super) sessions: Slots<SessionKey, ClientSession>,
    /// Sessions by the hash of their client identifier.
    by_client: Index,
    /// For what strangers choose.
    pub(super) hash_state: HashState,
    /// Filters of this shard's sessions.
    pub(super) subscriptions: FilterTrie<Subscribers>,
    pub(super) cache: RouteCache<Route>,
    pub(super) recent: Option<Box<RecentRoute>>,
    /// Changes of `subscriptions`, so that older routes are not used.
    pub(super) local: Generations,
    pub(super) outputs: VecDeque<Output>,
    /// Envelopes for each other shard, sent once a tick.
    pub(super) staged: Vec<Vec<Envelope>>,
    pub(super) staged_count: usize,
    pub(super) queue_limits: QueueLimits,
    pub(super) queued_bytes: usize,
    pub(super) paused: Vec<ConnId>,
    pub(super) turns: Turns,
    pub(super) next_ticket: u64,
    pub(super) tickets: BTreeMap<u64, ConnId>,
    pub(super) sys: Sys,
    /// What a store is told, and what waits for it.
    pub(super) journal: Option<Box<Journal>>,
    pub(super) is_shutting_down: bool,
    /// The packet that is being handled, if it has a buffer of its own, which its payload may go on in.
    pub(super) arrived: Option<Bytes>,
    /// Publications of the client that is being heard, to be delivered together.
    pub(super) gathering: Gathering,
    /// Properties to pass on, reused from packet to packet.
    pub(super) properties: Vec<u8>,
    seed: u64,
    random: u64,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Output {
    /// To be given to that shard's [`Shard::handle_envelopes`], in order.
    Envelopes {
        /// The shard.
        to: ShardId,
        /// What it is to have.
        batch: Vec<Envelope>,
    },
    /// The transport moves to that shard's [`Shard::handle_handoff`]; the connection is dead here.
    Handoff {
        /// The connection that moves.
        conn: ConnId,
        /// Where to.
        to: ShardId,
        /// What goes with it.
        handoff: Box<Handoff>,
    },
    /// Flush the outbox as far as it goes, then close the transport and call [`Shard::closed`].
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Run `Authenticator::authenticate_blocking` where blocking is allowed, then call [`Shard::handle_verdict`].
    Authenticate {
        /// To be given back with the verdict.
        ticket: u64,
        /// Who asks.
        info: Arc<ConnectInfo>,
    },
    /// Run `Authorizer::authorize_blocking` for each where blocking is allowed, then call [`Shard::handle_permits`].
    Authorize {
        /// To be given back with the answers.
        ticket: u64,
        /// Who asks.
        info: Arc<ConnectInfo>,
        /// What for.
        asked: Vec<OwnedAccess>,
    },
    /// Read what this connection has sent by now, whether or not it is ready, then call [`Shard::handle_heard_out`].
    HearOut {
        /// The connection that another one with its client identifier takes over from.
        conn: ConnId,
        /// To be given back.
        ticket: u64,
    },
    /// These may be read again.
    Resume {
        /// Connections whose reading was refused.
        conns: Vec<ConnId>,
    },
}

/// What one shard sends another.
#[derive(Debug)]
pub enum Envelope {
    /// A message for the subscribers of that shard.
    Publish(Arc<Message>),
    /// Several messages of one topic for the subscribers of that shard.
    Run(Arc<Run>),
    /// A message for one member of a shared subscription.
    Shared {
        /// The message.
        message: Arc<Message>,
        /// The member it was given to.
        member: Arc<Member>,
    },
    /// Several messages of one topic for one member of a shared subscription.
    SharedRun {
        /// The messages.
        run: Arc<Run>,
        /// The member they were given to.
        member: Arc<Member>,
    },
    /// A message as in the others, whose sender wants to know when it is stored.
    Durable {
        /// The message.
        message: Arc<Message>,
        /// The member it was given to; without one it is for all subscribers of that shard.
        member: Option<Arc<Member>>,
        /// What to answer.
        receipt: Receipt,
    },
    /// The answer: the message is as safe as the sender was asked to keep it till now.
    Stored {
        /// Whose.
        receipt: Receipt,
    },
}

impl Envelope {
    /// How many messages it holds, or answers: what counts against [`super::SlowConsumer::staged_envelopes_max`].
    pub fn messages(&self) -> usize {
        if let Self::Run(run) | Self::SharedRun { run, .. } = self { run.len() } else { 1 }
    }
}

/// A connection on its way to its home shard.
#[derive(Debug)]
pub struct Handoff {
    pub(super) peer: Peer,
    pub(super) connect: Box<Connect>,
    /// Bytes that came behind the CONNECT.
    pub(super) unread: Vec<u8>,
    pub(super) connect_deadline: Instant,
}

/// One client, for lists.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Client identifier.
    pub client_id: Text,
    /// User name.
    pub username: Option<Text>,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Protocol version.
    pub version: Version,
    /// Address of the peer, if connected.
    pub address: Option<Arc<str>>,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Messages queued for it.
    pub queued: usize,
    /// Messages in flight to it.
    pub inflight: usize,
    /// Bytes unsent or queued.
    pub bytes_held: usize,
    /// Seconds its session outlives the connection; 0xFFFFFFFF for ever.
    pub session_expiry_interval: u32,
}

impl Shard {
    /// A shard without connections. `unix_time` is the time of day at `now`, for `$SYS`.
    pub fn new(id: ShardId, shared: Arc<Shared>, now: Instant, seed: u64) -> Self {
        let settings = &shared.settings;
        let mut wire = Wire::new(Epoch::new(now), settings.slow_consumer.stall_timeout);
        if settings.sys_interval.is_some() {
            // The first at once, so that nobody finds the topics missing.
            wire.timers.arm(now, Timer::Sys);
        }
        wire.timers.arm(now + SWEEP_INTERVAL, Timer::Sweep);
        let queue_limits = QueueLimits {
            messages_max: settings.session.queued_messages_max,
            bytes_max: settings.session.queued_bytes_max,
            drop_oldest: settings.session.drop_policy == super::DropPolicy::Oldest,
        };
        let journal = shared.durable.as_ref().map(|durable| Box::new(Journal::new(durable, id, now)));
        let mut shard = Self {
            id,
            wire,
            sessions: Slots::new(),
            by_client: Index::new(),
            hash_state: HashState::with_seed(seed, foldhash::SharedSeed::global_fixed()),
            subscriptions: FilterTrie::new(seed),
            cache: RouteCache::new(route_cache(settings)),
            recent: None,
            local: Generations::new(shared.interest.hasher().clone()),
            outputs: VecDeque::new(),
            staged: (0..shared.shards()).map(|_| Vec::new()).collect(),
            staged_count: 0,
            queue_limits,
            queued_bytes: 0,
            paused: Vec::new(),
            turns: Turns::default(),
            next_ticket: 1,
            tickets: BTreeMap::new(),
            sys: Sys::default(),
            journal,
            is_shutting_down: false,
            arrived: None,
            gathering: Gathering::default(),
            properties: Vec::new(),
            seed,
            random: seed ^ u64::from(id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            shared,
        };
        shard.restore(now);
        shard
    }

    /// A transport was accepted: its CONNECT is awaited.
    pub fn open(&mut self, now: Instant, peer: Peer) -> ConnId {
        self.wire.out.stats.connections_opened += 1;
        self.add(now, peer, now + self.shared.settings.connect_timeout)
    }

    /// Whether the shell should read from the connection now. After `false` it waits for [`Output::Resume`].
    pub fn wants_read(&mut self, id: ConnId) -> bool {
        let is_over = self.is_over_bounds();
        let Some(conn) = self.wire.conns.get_mut(id) else { return false };
        let wants = match conn.phase {
            Phase::Closing => return false,
            _ if conn.is_waiting() => conn.partial().len() < WAITING_BYTES_MAX,
            _ if conn.outbox.len() > self.shared.settings.slow_consumer.outbox_soft_bytes.saturating_mul(2) => {
                // A peer that takes no answers gets to ask nothing more; `flushed` lets it go on.
                conn.is_choked = true;
                return false;
            }
            _ if self.journal.as_ref().is_some_and(|journal| journal.is_full(id)) => false,
            _ => !(is_over && conn.is_publisher),
        };
        if !wants && !conn.is_paused {
            conn.is_paused = true;
            self.paused.push(id);
        }
        wants
    }

    /// The transport ended.
    pub fn closed(&mut self, now: Instant, id: ConnId, end: TransportEnd) {
        let reason = match end {
            TransportEnd::Closed => EndReason::ClientClosed,
            TransportEnd::Error => EndReason::TransportError,
            TransportEnd::WebSocket => EndReason::WebSocketError,
            TransportEnd::Tls => EndReason::TlsError,
        };
        self.lost(now, id, reason);
        self.wire.remove(id);
    }

    /// A connection with unsent bytes.
    pub fn next_dirty(&mut self) -> Option<ConnId> {
        self.wire.next_dirty()
    }

    /// The unsent bytes of a connection.
    pub fn outbox(&mut self, id: ConnId) -> Option<&mut Outbox> {
        self.wire.conns.get_mut(id).map(|conn| &mut conn.outbox)
    }

    /// `bytes` bytes were written and the outbox advanced by them (0: the transport takes nothing now).
    pub fn flushed(&mut self, now: Instant, id: ConnId, bytes: usize) {
        self.wire.flushed(now, id, bytes);
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if conn.is_choked && conn.outbox.len() <= self.shared.settings.slow_consumer.outbox_soft_bytes {
            conn.is_choked = false;
            // What it sent meanwhile has not been read: its silence was ours.
            conn.heard = self.wire.epoch.moment(now);
            self.outputs.push_back(Output::Resume { conns: vec![id] });
        }
        if bytes > 0
            && conn.outbox.len() <= self.shared.settings.slow_consumer.outbox_soft_bytes / 2
            && let Some(key) = conn.session
            && self.sessions.get(key).is_some_and(|s| s.state.pending() > 0 || !s.retained.is_empty())
        {
            self.pump(now, key);
        }
        self.resume_if_within_bounds();
    }

    /// Bytes staged in outboxes since the last complete round of flushing: the budget of a tick.
    pub fn staged_bytes(&self) -> usize {
        self.wire.staged_bytes()
    }

    /// Envelopes from another shard.
    pub fn handle_envelopes(&mut self, now: Instant, batch: impl IntoIterator<Item = Envelope>) {
        for envelope in batch {
            match envelope {
                Envelope::Publish(message) => self.route_locally(now, &message),
                Envelope::Run(run) => self.take_run(now, &run),
                Envelope::Shared { message, member } => {
                    let mut parcel = super::message::Parcel::from_message(&message);
                    self.wire.out.frames.clear();
                    self.deliver_to_member(now, &member, &mut parcel);
                }
                Envelope::SharedRun { run, member } => self.take_piece(now, &member, &run),
                Envelope::Durable { message, member, receipt } => self.take_over(now, &message, member, receipt),
                Envelope::Stored { receipt } => {
                    if let Some(journal) = &mut self.journal {
                        journal.handle_stored(now, receipt);
                    }
                }
            }
        }
    }

    /// A connection came from another shard, because its client identifier is at home here.
    pub fn handle_handoff(&mut self, now: Instant, handoff: Handoff) -> ConnId {
        let id = self.add(now, handoff.peer, handoff.connect_deadline);
        self.handle_connect(now, id, handoff.connect);
        if !handoff.unread.is_empty() {
            self.receive(now, id, &handoff.unread);
        }
        id
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Bounded: entries armed while handling lie in the future, but for a connection or session each.
        let mut is_turn = false;
        for _ in 0..TIMERS_PER_CALL_MAX {
            match self.wire.timers.pop_due(now) {
                None => break,
                Some((at, Timer::Conn(id))) => self.handle_conn_deadline(now, id, at),
                Some((at, Timer::Session(key))) => self.handle_session_deadline(now, key, at),
                Some((_, Timer::Scan(key))) => self.go_on_scanning(now, key),
                Some((_, Timer::Turn)) => is_turn = true,
                Some((_, Timer::Sys)) => self.publish_sys(now),
                Some((_, Timer::Sweep)) => self.sweep(now),
                Some((_, Timer::Routes)) => self.sweep_routes(now),
            }
        }
        if is_turn {
            self.take_turn(now);
        }
    }

    /// Whether the store has yet to be given something.
    pub fn has_unsubmitted(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.has_unsubmitted())
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wire.timers.next()
    }

    /// The same but for the broker's own housekeeping (`$SYS`, sweeping out what has expired), which can be done once for
    /// hours as well as every few seconds.
    pub fn poll_timeout_of_clients(&self) -> Option<Instant> {
        self.wire.timers.next_of_clients()
    }

    /// Something the shell is to do; asked until there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.journal.is_some() {
            self.settle_journal();
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
        }
        if self.staged_count == 0 {
            return None;
        }
        let (to, batch) = self.staged.iter_mut().enumerate().find(|(_, batch)| !batch.is_empty())?;
        let batch = std::mem::take(batch);
        self.staged_count -= batch.iter().map(Envelope::messages).sum::<usize>();
        // The publishers that were not read because of them may go on, even if nothing is flushed any more.
        self.resume_if_within_bounds();
        Some(Output::Envelopes { to: ShardId(to as u8), batch })
    }

    /// Shards for which something is staged.
    #[cfg(feature = "net")]
    pub(crate) fn staged_for(&self) -> impl Iterator<Item = ShardId> {
        let staged = self.staged.iter().enumerate().filter(|(_, batch)| !batch.is_empty());
        staged.map(|(to, _)| ShardId(to as u8))
    }

    /// Whether anything is staged for another shard.
    #[cfg(feature = "net")]
    pub(crate) const fn has_staged(&self) -> bool {
        self.staged_count > 0
    }

    /// Moves what is staged for a shard into `batch`, which is empty: ahead of [`Output::Envelopes`].
    #[cfg(feature = "net")]
    pub(crate) fn take_staged(&mut self, to: ShardId, batch: &mut Vec<Envelope>) {
        debug_assert!(batch.is_empty(), "what was moved before was delivered");
        if let Some(staged) = self.staged.get_mut(usize::from(to.0)) {
            std::mem::swap(staged, batch);
            self.staged_count -= batch.iter().map(Envelope::messages).sum::<usize>();
            self.resume_if_within_bounds();
        }
    }

    /// Publishes a message of the process itself to all who want it, on every shard.
    pub fn publish(&mut self, now: Instant, message: Message) {
        let message = Arc::new(message);
        let mut parcel = super::message::Parcel::from_message(&message);
        if message.retain && !self.retain(&mut parcel) {
            self.count_drop("", message.topic(), DropReason::RetainedFull);
        }
        self.route(now, &mut parcel);
    }

    /// Envelopes came back because their shard has stopped.
    pub fn undeliverable(&mut self, batch: Vec<Envelope>) {
        for envelope in batch {
            match envelope {
                Envelope::Publish(message) | Envelope::Shared { message, .. } | Envelope::Durable { message, .. } => {
                    self.count_drop("", message.topic(), DropReason::ShardGone);
                }
                Envelope::Run(run) | Envelope::SharedRun { run, .. } => {
                    for _ in 0..run.len() {
                        self.count_drop("", run.topic(), DropReason::ShardGone);
                    }
                }
                Envelope::Stored { .. } => {}
            }
        }
    }

    /// The clients of this shard, connected or with a session.
    pub fn clients(&self) -> Vec<ClientInfo> {
        let clients = self.sessions.iter().filter(|(_, session)| !self.is_observer(session.conn));
        clients.map(|(_, session)| self.client_info(session)).collect()
    }

    /// Ends the connection of a client for an administrator; whether there was one.
    pub fn kick(&mut self, now: Instant, client_id: &str, reason: ReasonCode) -> bool {
        let conn = self.session_key(client_id).and_then(|key| self.sessions.get(key)).and_then(|s| s.conn);
        if let Some(conn) = conn {
            self.disconnect(now, conn, reason, EndReason::AdministrativeAction, None);
        }
        conn.is_some()
    }

    /// The broker is about to shut down: nobody may connect any more, and the wills are published that [`Self::shutdown`]
    /// would publish, while the subscribers of all shards are still there.
    pub fn prepare_shutdown(&mut self, now: Instant) {
        self.is_shutting_down = true;
        let connected: Vec<SessionKey> = self.wire.conns.iter().filter_map(|(_, conn)| conn.session).collect();
        for key in connected {
            if self.sessions.get(key).is_some_and(ClientSession::will_is_due_at_loss) {
                self.publish_will(now, key);
            }
        }
    }

    /// The broker shuts down: wills are published, MQTT 5 clients told, connections closed when they are flushed. Where
    /// there are several shards, all of them should have been through [`Self::prepare_shutdown`].
    pub fn shutdown(&mut self, now: Instant) {
        self.prepare_shutdown(now);
        for id in self.wire.conns.keys() {
            self.disconnect(now, id, ReasonCode::ServerShuttingDown, EndReason::ServerShuttingDown, None);
        }
    }

    /// Whether every accepted message has been delivered and acknowledged as far as clients are connected.
    pub fn is_settled(&self) -> bool {
        self.wire.unsent_bytes() == 0
            && self.staged_count == 0
            && self.tickets.is_empty()
            && self.turns.is_idle()
            && self.journal.as_ref().is_none_or(|journal| journal.is_settled())
            && self.sessions.iter().all(|(_, session)| {
                session.conn.is_none()
                    || (session.state.inflight() == 0 && session.state.pending() == 0 && session.retained.is_empty())
            })
    }

    /// Packets received and sent so far.
    #[cfg(feature = "net")]
    pub(crate) fn packets(&self) -> u64 {
        let stats = &self.wire.out.stats;
        stats.packets_received + stats.packets_sent
    }

    /// The counters, with what is held now.
    pub fn stats(&self) -> Stats {
        let mut stats = self.wire.out.stats.clone();
        for (_, session) in self.sessions.iter() {
            match session.conn {
                Some(_) => stats.clients_connected += u64::from(!self.is_observer(session.conn)),
                None => stats.clients_disconnected += 1,
            }
            stats.subscriptions += session.subscriptions.len() as u64;
            stats.shared_subscriptions += session.subscriptions.members().count() as u64;
            stats.messages_queued += session.state.pending() as u64;
            stats.messages_inflight += session.state.inflight() as u64;
            stats.note_holder(self.bytes_held(session) as u64, || session.client_text());
        }
        stats.retained_messages = self.shared.retained.read().len() as u64;
        stats.bytes_held = (self.wire.unsent_bytes() + self.queued_bytes) as u64;
        stats
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Whether a client is let in.
    pub fn is_connected(&self, id: ConnId) -> bool {
        self.wire.conns.get(id).is_some_and(Conn::is_connected)
    }

    /// The session of a client identifier.
    pub(super) fn session_key(&self, client_id: &str) -> Option<SessionKey> {
        let is_meant = |at: u32| self.sessions.at(at).is_some_and(|(_, session)| *session.client_id == *client_id);
        let at = self.by_client.find(spread(self.shared.client_hash(client_id)), is_meant)?;
        self.sessions.at(at).map(|(key, _)| key)
    }

    /// Keeps a session; there must be none of its client identifier.
    pub(super) fn add_session(&mut self, session: ClientSession) -> SessionKey {
        let hash = session.client_hash;
        let key = self.sessions.insert(session);
        self.by_client.insert(spread(hash), key.index);
        key
    }

    pub(super) fn remove_session(&mut self, key: SessionKey) -> Option<ClientSession> {
        let session = self.sessions.remove(key)?;
        self.by_client.remove(spread(session.client_hash), |at| at == key.index);
        Some(session)
    }

    /// The client identifier of a session, for logs.
    pub(super) fn client_id(&self, key: SessionKey) -> &str {
        self.sessions.get(key).map_or("", |session| &session.client_id)
    }

    fn add(&mut self, now: Instant, peer: Peer, connect_deadline: Instant) -> ConnId {
        let epoch = self.wire.epoch;
        let id = self.wire.conns.insert(Conn::new(peer, epoch.moment(now), epoch.moment(connect_deadline)));
        self.wire.arm(id);
        id
    }

    /// Stages an envelope for another shard.
    pub(super) fn stage(&mut self, to: ShardId, envelope: Envelope) {
        if let Some(batch) = self.staged.get_mut(usize::from(to.0)) {
            self.staged_count += envelope.messages();
            batch.push(envelope);
        }
    }

    /// A number that strangers may see and that tells them nothing of the next: a keyed hash (SipHash) of a draw.
    pub(super) fn secret(&mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.random()).hash(&mut hasher);
        hasher.finish()
    }

    /// A number from the shard's own generator (SplitMix64): its seed is an argument, so runs can be repeated.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Lets paused connections be read again once there is room.
    pub(super) fn resume_if_within_bounds(&mut self) {
        if !self.paused.is_empty() && !self.is_over_bounds() {
            self.resume_all();
        }
    }

    pub(super) fn resume_all(&mut self) {
        let conns = std::mem::take(&mut self.paused);
        for id in &conns {
            if let Some(conn) = self.wire.conns.get_mut(*id) {
                conn.is_paused = false;
            }
        }
        self.outputs.push_back(Output::Resume { conns });
    }

    /// Bytes in outboxes and on their way to the store.
    fn draining_bytes(&self) -> usize {
        let stored = self.journal.as_ref().map_or(0, |journal| journal.bytes());
        self.wire.unsent_bytes() + stored
    }

    /// The same, and what has come of packets that are not complete.
    pub(super) fn moving_bytes(&self) -> usize {
        self.draining_bytes() + self.wire.partial_bytes()
    }

    /// What drains by itself counts, so that pausing publishers helps. Packets that are not complete do not: who is to
    /// complete them must be read. They, and the queues of clients that are away, have bounds of their own.
    fn is_over_bounds(&self) -> bool {
        let limits = &self.shared.settings.slow_consumer;
        self.draining_bytes() > limits.memory_watermark_bytes || self.staged_count > limits.staged_envelopes_max
    }

    /// What is unsent or queued for a client.
    fn bytes_held(&self, session: &ClientSession) -> usize {
        let conn = session.conn.and_then(|id| self.wire.conns.get(id));
        session.state.pending_bytes() + conn.map_or(0, |conn| conn.outbox.len())
    }

    /// Whether this is the connection of one of the process who looks on.
    pub(super) fn is_observer(&self, conn: Option<ConnId>) -> bool {
        conn.and_then(|id| self.wire.conns.get(id)).is_some_and(|conn| conn.peer.is_observer())
    }

    fn client_info(&self, session: &ClientSession) -> ClientInfo {
        let conn = session.conn.and_then(|id| self.wire.conns.get(id));
        ClientInfo {
            client_id: session.client_text(),
            username: conn.and_then(|conn| conn.info()).and_then(|info| info.username.clone()),
            is_connected: conn.is_some(),
            version: session.version,
            address: conn.map(|conn| conn.peer.address.to_text()),
            subscriptions: session.subscriptions.len(),
            queued: session.state.pending(),
            inflight: session.state.inflight(),
            bytes_held: self.bytes_held(session),
            session_expiry_interval: session.expiry_interval,
        }
    }
}

/// A hash of a client identifier for the shard's own index: all that are at home here are alike in what picks the shard.
const fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Routes a shard remembers: as many as fit a sixteenth of its memory watermark (64 MiB of 1 GiB: a quarter of a million
/// topics). A number of topics would be a cliff for who has a few more.
const fn route_cache(settings: &Settings) -> CacheLimits {
    let bytes_max = settings.slow_consumer.memory_watermark_bytes / 16;
    CacheLimits { entries_max: u32::MAX as usize, bytes_max }
}

/// Bytes taken from a client while something of it is judged elsewhere.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// Deadlines handled in one call; more wait for the next.
const TIMERS_PER_CALL_MAX: usize = 10_000;

/// How often expired retained and queued messages are looked for.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
