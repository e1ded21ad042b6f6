//! One shard: its state, and the contract with the shell that runs it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

pub use super::conn::{Peer, TransportEnd};
use super::{
    conn::{Conn, Phase},
    deliver::{LocalSubscription, Route},
    journal::{Journal, Receipt},
    message::Message,
    outbox::Outbox,
    reasons::EndReason,
    session::{ClientSession, HashState},
    shared::Shared,
    slots::{ConnId, Slots},
    stats::Stats,
    sys::Sys,
    timers::Timer,
    wire::Wire,
};
use crate::{
    auth::ConnectInfo,
    codec::{
        Ack, Connect, Cut, DecodeError, Frame, Limits, Packet, PacketId, PacketType, PublishRef, ReasonCode, Source,
        Text, Version, frame,
    },
    router::{CacheLimits, FilterTrie, Generations, Member, RouteCache, SessionKey, ShardId},
    session::QueueLimits,
};

/// One shard of the broker.
#[derive(Debug)]
pub struct Shard {
    pub(super) id: ShardId,
    pub(super) shared: Arc<Shared>,
    pub(super) wire: Wire,
    pub(super) sessions: Slots<SessionKey, ClientSession>,
    pub(super) by_client: HashMap<Text, SessionKey, HashState>,
    /// Filters of this shard's sessions.
    pub(super) subscriptions: FilterTrie<Vec<LocalSubscription>>,
    pub(super) cache: RouteCache<Arc<Route>>,
    /// Changes of `subscriptions`, so that older routes are not used.
    pub(super) local: Generations,
    pub(super) outputs: VecDeque<Output>,
    /// Envelopes for each other shard, sent once a tick.
    pub(super) staged: Vec<Vec<Envelope>>,
    pub(super) staged_count: usize,
    pub(super) queue_limits: QueueLimits,
    pub(super) queued_bytes: usize,
    pub(super) paused: Vec<ConnId>,
    pub(super) next_ticket: u64,
    pub(super) tickets: BTreeMap<u64, ConnId>,
    pub(super) sys: Sys,
    /// What a store is told, and what waits for it.
    pub(super) journal: Option<Box<Journal>>,
    pub(super) is_shutting_down: bool,
    /// Properties to pass on, reused from packet to packet.
    pub(super) properties: Vec<u8>,
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
    /// A message for one member of a shared subscription.
    Shared {
        /// The message.
        message: Arc<Message>,
        /// The member it was given to.
        member: Arc<Member>,
    },
    /// A message as in the other two, whose sender wants to know when it is stored.
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

/// A connection on its way to its home shard.
#[derive(Debug)]
pub struct Handoff {
    pub(super) peer: Peer,
    pub(super) connect: Box<Connect>,
    /// Bytes that came behind the CONNECT.
    pub(super) unread: Vec<u8>,
    pub(super) connect_deadline: Option<Instant>,
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
        let mut wire = Wire::new(settings.slow_consumer.stall_timeout);
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
            by_client: HashMap::with_hasher(HashState::with_seed(seed, foldhash::SharedSeed::global_fixed())),
            subscriptions: FilterTrie::new(seed),
            cache: RouteCache::new(ROUTE_CACHE),
            local: Generations::new(shared.interest.hasher().clone()),
            outputs: VecDeque::new(),
            staged: (0..shared.shards()).map(|_| Vec::new()).collect(),
            staged_count: 0,
            queue_limits,
            queued_bytes: 0,
            paused: Vec::new(),
            next_ticket: 1,
            tickets: BTreeMap::new(),
            sys: Sys::default(),
            journal,
            is_shutting_down: false,
            properties: Vec::new(),
            random: seed ^ u64::from(id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            shared,
        };
        shard.restore(now);
        shard
    }

    /// A transport was accepted: its CONNECT is awaited.
    pub fn open(&mut self, now: Instant, peer: Peer) -> ConnId {
        self.wire.stats.connections_opened += 1;
        let conn = Conn::new(peer, now, self.shared.settings.connect_timeout);
        let id = self.wire.conns.insert(conn);
        self.wire.arm(id);
        id
    }

    /// Bytes came in. They may be split anywhere; what is no whole packet yet is kept.
    pub fn receive(&mut self, now: Instant, id: ConnId, bytes: &[u8]) {
        self.wire.stats.bytes_received += bytes.len() as u64;
        let Some(conn) = self.wire.conns.get(id) else { return };
        if conn.partial.is_empty() {
            let used = self.consume(now, id, bytes);
            self.keep_tail(id, bytes.get(used..).unwrap_or_default());
            return;
        }
        let mut partial = self.wire.take_partial(id);
        partial.extend_from_slice(bytes);
        let used = self.consume(now, id, &partial);
        if used == 0 {
            self.wire.keep_partial(id, partial);
            self.check_partial(now, id);
        } else {
            self.keep_tail(id, partial.get(used..).unwrap_or_default());
        }
    }

    /// Whether the shell should read from the connection now. After `false` it waits for [`Output::Resume`].
    pub fn wants_read(&mut self, id: ConnId) -> bool {
        let is_over = self.is_over_bounds();
        let Some(conn) = self.wire.conns.get_mut(id) else { return false };
        let wants = match conn.phase {
            Phase::Closing => return false,
            Phase::Authenticating(_, Some(_)) => conn.partial.len() < AUTHENTICATING_BYTES_MAX,
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
            conn.keep_alive.touch(now);
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
    pub fn handle_envelopes(&mut self, now: Instant, batch: Vec<Envelope>) {
        for envelope in batch {
            match envelope {
                Envelope::Publish(message) => self.route_locally(now, &message),
                Envelope::Shared { message, member } => {
                    let mut parcel = super::message::Parcel::from_message(&message);
                    self.wire.frames.clear();
                    self.deliver_to_member(now, member, &mut parcel);
                }
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
        let mut conn = Conn::new(handoff.peer, now, self.shared.settings.connect_timeout);
        conn.connect_deadline = handoff.connect_deadline;
        let id = self.wire.conns.insert(conn);
        self.wire.arm(id);
        self.handle_connect(now, id, handoff.connect);
        if !handoff.unread.is_empty() {
            self.receive(now, id, &handoff.unread);
        }
        id
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Bounded: entries armed while handling lie in the future, but for a connection or session each.
        for _ in 0..TIMERS_PER_CALL_MAX {
            match self.wire.timers.pop_due(now) {
                None => return,
                Some(Timer::Conn(id)) => self.handle_conn_deadline(now, id),
                Some(Timer::Session(key)) => self.handle_session_deadline(now, key),
                Some(Timer::Sys) => self.publish_sys(now),
                Some(Timer::Sweep) => self.sweep(now),
            }
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wire.timers.next()
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
        self.staged_count -= batch.len();
        // The publishers that were not read because of them may go on, even if nothing is flushed any more.
        self.resume_if_within_bounds();
        Some(Output::Envelopes { to: ShardId(to as u8), batch })
    }

    /// Publishes a message of the process itself to all who want it, on every shard.
    pub fn publish(&mut self, now: Instant, message: Message) {
        let message = Arc::new(message);
        let mut parcel = super::message::Parcel::from_message(&message);
        if message.retain {
            self.retain(&mut parcel);
        }
        self.route(now, &mut parcel);
    }

    /// The clients of this shard, connected or with a session.
    pub fn clients(&self) -> Vec<ClientInfo> {
        self.sessions.iter().map(|(_, session)| self.client_info(session)).collect()
    }

    /// Ends the connection of a client for an administrator; whether there was one.
    pub fn kick(&mut self, now: Instant, client_id: &str, reason: ReasonCode) -> bool {
        let conn = self.by_client.get(client_id).and_then(|key| self.sessions.get(*key)).and_then(|s| s.conn);
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
            && self.journal.as_ref().is_none_or(|journal| journal.is_settled())
            && self.sessions.iter().all(|(_, session)| {
                session.conn.is_none()
                    || (session.state.inflight() == 0 && session.state.pending() == 0 && session.retained.is_empty())
            })
    }

    /// The counters, with what is held now.
    pub fn stats(&self) -> Stats {
        let mut stats = self.wire.stats.clone();
        for (_, session) in self.sessions.iter() {
            let is_connected = u64::from(session.conn.is_some());
            stats.clients_connected += is_connected;
            stats.clients_disconnected += 1 - is_connected;
            stats.subscriptions += session.subscriptions.len() as u64;
            stats.shared_subscriptions += session.subscriptions.values().filter(|s| s.member.is_some()).count() as u64;
            stats.messages_queued += session.state.pending() as u64;
            stats.messages_inflight += session.state.inflight() as u64;
        }
        stats.retained_messages = self.shared.retained.read().len() as u64;
        stats.bytes_held = (self.wire.unsent_bytes() + self.queued_bytes) as u64;
        stats
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Stages an envelope for another shard.
    pub(super) fn stage(&mut self, to: ShardId, envelope: Envelope) {
        if let Some(batch) = self.staged.get_mut(usize::from(to.0)) {
            batch.push(envelope);
            self.staged_count += 1;
        }
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

    /// Bytes in outboxes, queues and incomplete packets, and on their way to the store.
    pub(super) fn held_bytes(&self) -> usize {
        self.wire.unsent_bytes()
            + self.wire.partial_bytes()
            + self.queued_bytes
            + self.journal.as_ref().map_or(0, |journal| journal.bytes())
    }

    fn is_over_bounds(&self) -> bool {
        let limits = &self.shared.settings.slow_consumer;
        self.held_bytes() > limits.memory_watermark_bytes || self.staged_count > limits.staged_envelopes_max
    }

    /// Handles the whole packets at the start of `bytes`; returns how many bytes they took.
    fn consume(&mut self, now: Instant, id: ConnId, bytes: &[u8]) -> usize {
        let limits = self.shared.settings.limits;
        let mut used = 0;
        loop {
            let Some(conn) = self.wire.conns.get_mut(id) else { return bytes.len() };
            match conn.phase {
                Phase::Closing => return bytes.len(),
                Phase::Authenticating(_, Some(_)) => return used,
                _ => {}
            }
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return used;
            }
            let packet_bytes_max = packet_bytes_max(conn, &limits);
            match frame::cut(rest, packet_bytes_max) {
                Ok(Cut::NeedMore(_)) => {
                    if let Err(error) = check_start(conn, rest) {
                        self.fault(now, id, &error);
                        return bytes.len();
                    }
                    return used;
                }
                Ok(Cut::Frame(frame, length)) => {
                    used += length;
                    conn.keep_alive.touch(now);
                    self.wire.stats.packets_received += 1;
                    let unread = bytes.get(used..).unwrap_or_default();
                    if let Err(error) = self.handle_frame(now, id, frame, &limits, unread) {
                        self.fault(now, id, &error);
                    }
                }
                Err(error) => {
                    if matches!(error, DecodeError::PacketTooLarge { .. }) {
                        match announced_in_start(conn, rest) {
                            Start::Version(version) => conn.version = version,
                            Start::Unclear => {}
                            Start::TooShort => return used,
                        }
                    }
                    self.fault(now, id, &error);
                    return bytes.len();
                }
            }
        }
    }

    /// One packet, by the phase of its connection.
    fn handle_frame(
        &mut self,
        now: Instant,
        id: ConnId,
        frame: Frame<'_>,
        limits: &Limits,
        unread: &[u8],
    ) -> Result<(), DecodeError> {
        let Some(conn) = self.wire.conns.get(id) else { return Ok(()) };
        let version = conn.version;
        if conn.is_connected() {
            if frame.header >> 4 == PacketType::Publish as u8 {
                let publish = PublishRef::decode(frame, version, limits)?;
                self.handle_publish(now, id, &publish);
                return Ok(());
            }
            if is_for_clients(frame.header) {
                let what = "a packet that only a server sends";
                return Err(DecodeError::protocol(what));
            }
            if let Some(ack) = short_ack(frame) {
                self.handle_packet(now, id, ack);
                return Ok(());
            }
            let packet = Packet::decode(frame, version, limits, &Source::Scratch)?;
            self.handle_packet(now, id, packet);
            return Ok(());
        }
        if let Some(announced) = announced_version(frame.header, frame.body)
            && let Some(conn) = self.wire.conns.get_mut(id)
            && matches!(conn.phase, Phase::AwaitConnect)
        {
            // A CONNECT that turns out malformed is answered in the form of the version it claims.
            conn.version = announced;
        }
        let conn = self.wire.conns.get(id).ok_or(DecodeError::protocol("no connection"))?;
        match Packet::decode(frame, version, limits, &Source::Scratch)? {
            Packet::Connect(connect) if matches!(conn.phase, Phase::AwaitConnect) => {
                if let Some(home) = self.foreign_home(&connect) {
                    self.hand_off(id, home, connect, unread);
                } else {
                    self.handle_connect(now, id, connect);
                }
                Ok(())
            }
            Packet::Auth(auth) if matches!(conn.phase, Phase::Authenticating(..)) => {
                self.handle_auth(now, id, &auth);
                Ok(())
            }
            Packet::Disconnect(_) if matches!(conn.phase, Phase::Authenticating(..)) => {
                self.end(now, id, EndReason::ClientDisconnect);
                Ok(())
            }
            _ => Err(DecodeError::protocol("a packet before CONNECT was accepted [MQTT-3.1.0-1]")),
        }
    }

    /// Any packet but PUBLISH, on a connected client.
    fn handle_packet(&mut self, now: Instant, id: ConnId, packet: Packet) {
        match packet {
            Packet::PubAck(ack) => self.handle_puback(now, id, &ack),
            Packet::PubRec(ack) => self.handle_pubrec(now, id, &ack),
            Packet::PubRel(ack) => self.handle_pubrel(now, id, &ack),
            Packet::PubComp(ack) => self.handle_pubcomp(now, id, &ack),
            Packet::Subscribe(subscribe) => self.handle_subscribe(now, id, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(now, id, &unsubscribe),
            Packet::PingReq => {
                self.wire.packet(now, id, Packet::PingResp);
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(now, id, &disconnect),
            Packet::Auth(auth) => self.handle_auth(now, id, &auth),
            Packet::Publish(_)
            | Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => {
                let what = "a second CONNECT, or a packet only a server sends [MQTT-3.1.0-2]";
                self.fault(now, id, &DecodeError::protocol(what));
            }
        }
    }

    /// The shard a CONNECT belongs to, if it is another one.
    fn foreign_home(&self, connect: &Connect) -> Option<ShardId> {
        if connect.client_id.is_empty() {
            return None;
        }
        let home = self.shared.home(&connect.client_id);
        (home != self.id).then_some(home)
    }

    fn hand_off(&mut self, id: ConnId, to: ShardId, connect: Box<Connect>, unread: &[u8]) {
        let Some(conn) = self.wire.remove(id) else { return };
        let handoff =
            Handoff { peer: conn.peer, connect, unread: unread.to_vec(), connect_deadline: conn.connect_deadline };
        self.outputs.push_back(Output::Handoff { conn: id, to, handoff: Box::new(handoff) });
    }

    fn keep_tail(&mut self, id: ConnId, tail: &[u8]) {
        if tail.is_empty() {
            return;
        }
        if let Some(conn) = self.wire.conns.get_mut(id)
            && !conn.is_closing()
        {
            let whole = match frame::cut(tail, u32::MAX) {
                Ok(Cut::NeedMore(more)) => tail.len() + more.min(PARTIAL_RESERVE_BYTES_MAX),
                _ => tail.len(),
            };
            let mut partial = Vec::with_capacity(whole);
            partial.extend_from_slice(tail);
            self.wire.keep_partial(id, partial);
        }
    }

    /// Packets whose end does not come share half of the memory watermark; beyond, those end that make them larger.
    fn check_partial(&mut self, now: Instant, id: ConnId) {
        let bytes_max = self.shared.settings.slow_consumer.memory_watermark_bytes / 2;
        let is_large = self.wire.conns.get(id).is_some_and(|conn| conn.partial.len() > PARTIAL_RESERVE_BYTES_MAX);
        if is_large && self.wire.partial_bytes() > bytes_max {
            let what = "packets that are not complete hold too much memory; this one is given up";
            self.fault(now, id, &DecodeError::Violation { reason: ReasonCode::QuotaExceeded, what });
        }
    }

    fn client_info(&self, session: &ClientSession) -> ClientInfo {
        let conn = session.conn.and_then(|id| self.wire.conns.get(id));
        ClientInfo {
            client_id: session.client_id.clone(),
            username: conn.and_then(|conn| conn.info.as_ref()).and_then(|info| info.username.clone()),
            is_connected: conn.is_some(),
            version: session.version,
            address: conn.map(|conn| Arc::clone(&conn.peer.address)),
            subscriptions: session.subscriptions.len(),
            queued: session.state.pending(),
            inflight: session.state.inflight(),
            bytes_held: session.state.pending_bytes() + conn.map_or(0, |conn| conn.outbox.len()),
            session_expiry_interval: session.expiry_interval,
        }
    }
}

/// Whether only a server sends packets of this type, so that their content does not matter.
const fn is_for_clients(header: u8) -> bool {
    let kind = header >> 4;
    kind == PacketType::ConnAck as u8
        || kind == PacketType::SubAck as u8
        || kind == PacketType::UnsubAck as u8
        || kind == PacketType::PingResp as u8
}

/// An acknowledgement of two bytes, success in every version: one for each message there is, so not taken apart at length.
#[inline]
fn short_ack(frame: Frame<'_>) -> Option<Packet> {
    if frame.overlong {
        return None;
    }
    let packet_id = PacketId::new(u16::from_be_bytes(<[u8; 2]>::try_from(frame.body).ok()?))?;
    let ack = Ack::new(packet_id, ReasonCode::Success);
    match frame.header {
        0x40 => Some(Packet::PubAck(ack)),
        0x50 => Some(Packet::PubRec(ack)),
        0x62 => Some(Packet::PubRel(ack)),
        0x70 => Some(Packet::PubComp(ack)),
        _ => None,
    }
}

/// The version a CONNECT claims, as far as that can be told: the form in which it is answered.
fn announced_version(header: u8, body: &[u8]) -> Option<Version> {
    if header >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let (length, rest) = body.split_first_chunk::<2>()?;
    match rest.get(usize::from(u16::from_be_bytes(*length)))? & !BRIDGE_BIT {
        ..=3 => Some(Version::V3_1),
        4 => Some(Version::V3_1_1),
        _ => Some(Version::V5),
    }
}

/// What the first bytes tell of a CONNECT that is too large to be read.
enum Start {
    Version(Version),
    /// It is no CONNECT, or none of ours.
    Unclear,
    /// A few more bytes will tell.
    TooShort,
}

fn announced_in_start(conn: &Conn, start: &[u8]) -> Start {
    let Some((header, after)) = start.split_first() else { return Start::Unclear };
    if !matches!(conn.phase, Phase::AwaitConnect) || header >> 4 != PacketType::Connect as u8 {
        return Start::Unclear;
    }
    let length_len = after.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let body = after.get(length_len..).unwrap_or_default();
    match announced_version(*header, body) {
        Some(version) => Start::Version(version),
        None if body.len() < PROTOCOL_BYTES_MAX => Start::TooShort,
        None => Start::Unclear,
    }
}

/// The largest packet taken now: from a stranger, no more than the greatest CONNECT that makes sense.
fn packet_bytes_max(conn: &Conn, limits: &Limits) -> u32 {
    match conn.phase {
        Phase::AwaitConnect | Phase::Authenticating(..) => limits.packet_bytes_max.min(CONNECT_BYTES_MAX),
        _ => limits.packet_bytes_max,
    }
}

/// Refuses early what can never become an acceptable packet: anything but a CONNECT of sensible size as the first.
fn check_start(conn: &Conn, start: &[u8]) -> Result<(), DecodeError> {
    if !matches!(conn.phase, Phase::AwaitConnect) {
        return Ok(());
    }
    match start.first() {
        Some(first) if first >> 4 != PacketType::Connect as u8 => {
            Err(DecodeError::protocol("the first packet is no CONNECT [MQTT-3.1.0-1]"))
        }
        _ => Ok(()),
    }
}

/// Routes a shard remembers: 64 MiB at most.
const ROUTE_CACHE: CacheLimits = CacheLimits { entries_max: 65_536, bytes_max: 64 << 20 };

/// Largest CONNECT or AUTH: five fields of 64 KiB, and as much again in properties.
const CONNECT_BYTES_MAX: u32 = 1 << 20;

/// Protocol name with its length, and the level after it.
const PROTOCOL_BYTES_MAX: usize = 9;

/// Some bridges mark themselves in the protocol level.
const BRIDGE_BIT: u8 = 0x80;

/// Bytes taken from a client while its CONNECT is judged elsewhere.
const AUTHENTICATING_BYTES_MAX: usize = 64 << 10;

/// A partial packet's buffer is sized for the whole packet up to here; larger ones grow as bytes really come.
const PARTIAL_RESERVE_BYTES_MAX: usize = 64 << 10;

/// Deadlines handled in one call; more wait for the next.
const TIMERS_PER_CALL_MAX: usize = 10_000;

/// How often expired retained and queued messages are looked for.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
