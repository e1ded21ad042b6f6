//! A broker of one or three shards in this thread, under virtual time, driven by raw bytes.
//!
//! The harness is the shell of `broker::Shard`: it carries bytes, envelopes and hand-offs at once and to the end after
//! every step, so that a test reads as a script. What a peer received is decoded and kept until the test asks for it.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    io::IoSlice,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromq::{
    auth::{ConnectInfo, OwnedAccess},
    broker::{ConnId, Hooks, Output, Peer as Address, Settings, Shard, Shared, TransportEnd},
    codec::{
        Ack, ConnAck, Cut, Disconnect, Limits, Packet, PacketType, Publish, QoS, ReasonCode, SubAck, UnsubAck, Version,
        frame::{self, Source},
    },
    router::ShardId,
};

use crate::wire::{self, Connect, Subscribe, Unsubscribe, Wire};

/// Runs a test on one shard and on three, with settings that are the defaults but for `$SYS`, which is off.
pub(crate) fn on_all(test: impl Fn(&Bench)) {
    on_all_with(|_| {}, test);
}

/// The same with other settings.
pub(crate) fn on_all_with(change: impl Fn(&mut Settings), test: impl Fn(&Bench)) {
    on_all_hooked(change, Hooks::default, test);
}

/// The same with hooks for authentication and authorisation.
pub(crate) fn on_all_hooked(change: impl Fn(&mut Settings), hooks: impl Fn() -> Hooks, test: impl Fn(&Bench)) {
    for shards in [1, 3] {
        let mut settings = quiet();
        change(&mut settings);
        test(&Bench::new(settings, hooks(), shards));
    }
}

/// Runs a test in MQTT 5 and in MQTT 3.1.1, each on one shard and on three.
pub(crate) fn on_all_versions(test: impl Fn(&Bench, Version)) {
    for version in [Version::V5, Version::V3_1_1] {
        on_all(|bench| test(bench, version));
    }
}

/// Default settings without `$SYS`.
pub(crate) fn quiet() -> Settings {
    Settings { sys_interval: None, ..Settings::default() }
}

/// The broker.
pub(crate) struct Bench {
    world: Rc<RefCell<World>>,
}

impl Bench {
    pub(crate) fn new(settings: Settings, hooks: Hooks, shards: usize) -> Self {
        let now = epoch();
        let shared = Shared::new(settings, hooks, shards, SEED, now);
        let make = |id: usize| Shard::new(shard_id(id), Arc::clone(&shared), now, SEED + id as u64);
        let shards = (0..shards).map(make).collect();
        let world = World {
            shards,
            now,
            lines: Vec::new(),
            by_conn: HashMap::new(),
            deferred: VecDeque::new(),
            asked: VecDeque::new(),
        };
        Self { world: Rc::new(RefCell::new(world)) }
    }

    /// A transport without a packet on it yet. Listeners take turns over the shards.
    pub(crate) fn connect_raw(&self, version: Version) -> Peer {
        let index = self.world.borrow_mut().open(version);
        Peer { world: Rc::clone(&self.world), index, version }
    }

    /// Connects; the CONNACK is still to be read.
    pub(crate) fn connect(&self, version: Version, connect: &Connect) -> Peer {
        let peer = self.connect_raw(version);
        peer.send(connect.clone());
        peer
    }

    /// Connects with a clean start and is accepted.
    pub(crate) fn client(&self, version: Version, id: &str) -> Peer {
        self.accepted(version, &Connect::new(id)).0
    }

    /// Connects and is accepted.
    pub(crate) fn accepted(&self, version: Version, connect: &Connect) -> (Peer, ConnAck) {
        let peer = self.connect(version, connect);
        let connack = peer.expect_connack();
        assert_eq!(connack.reason, ReasonCode::Success, "the CONNECT is accepted");
        (peer, connack)
    }

    /// Lets virtual time pass, with every timer on the way.
    pub(crate) fn advance(&self, time: Duration) {
        self.world.borrow_mut().advance(time);
    }

    /// Ends the connection of a client, as an administrator does.
    pub(crate) fn kick(&self, client_id: &str, reason: ReasonCode) {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        let kicked =
            world.shards.iter_mut().filter_map(|shard| shard.kick(now, client_id, reason).then_some(())).count();
        assert_eq!(kicked, 1, "one shard knows the client");
        world.pump();
    }

    /// Shuts the broker down.
    pub(crate) fn shutdown(&self) {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        world.shards.iter_mut().for_each(|shard| shard.shutdown(now));
        world.pump();
    }

    /// Transports that the broker has not closed.
    pub(crate) fn open_connections(&self) -> usize {
        self.world.borrow().by_conn.len()
    }

    /// Sessions of all shards.
    pub(crate) fn sessions(&self) -> usize {
        self.world.borrow().shards.iter().map(|shard| shard.clients().len()).sum()
    }

    /// CONNECTs that wait for a verdict: takes them and answers with `judge`.
    pub(crate) fn judge_deferred(&self, judge: impl Fn(&ConnectInfo) -> ferromq::auth::Verdict) -> usize {
        self.world.borrow_mut().judge_deferred(judge)
    }

    /// What waits for an authorizer: takes it and answers with `judge`; what was asked.
    pub(crate) fn permit_deferred(&self, judge: impl Fn(&OwnedAccess) -> bool) -> Vec<OwnedAccess> {
        self.world.borrow_mut().permit_deferred(judge)
    }
}

/// One end of a connection to the broker.
#[derive(Clone)]
pub(crate) struct Peer {
    world: Rc<RefCell<World>>,
    index: usize,
    version: Version,
}

impl Peer {
    /// Sends, and lets the broker do all that follows from it.
    pub(crate) fn send(&self, wire: impl Wire) {
        self.send_split(wire, usize::MAX);
    }

    /// Sends in pieces of at most `piece` bytes.
    pub(crate) fn send_split(&self, wire: impl Wire, piece: usize) {
        let bytes = wire.wire(self.version);
        for piece in bytes.chunks(piece) {
            self.world.borrow_mut().send(self.index, piece);
        }
    }

    /// The connection breaks.
    pub(crate) fn cut(&self) {
        self.world.borrow_mut().end(self.index, TransportEnd::Error);
    }

    /// The peer closes the connection.
    pub(crate) fn hang_up(&self) {
        self.world.borrow_mut().end(self.index, TransportEnd::Closed);
    }

    /// The peer stops taking bytes off the connection, or takes them again.
    pub(crate) fn stall(&self, stalled: bool) {
        let mut world = self.world.borrow_mut();
        world.lines[self.index].stalled = stalled;
        world.flush(self.index);
        world.pump();
    }

    /// Whether the broker has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.world.borrow().lines[self.index].closed
    }

    /// The next packet, if there is one.
    pub(crate) fn next(&self) -> Option<Packet> {
        self.next_sized().map(|(packet, _)| packet)
    }

    /// The next packet and its size on the wire.
    pub(crate) fn next_sized(&self) -> Option<(Packet, usize)> {
        self.world.borrow_mut().lines[self.index].packets.pop_front()
    }

    /// All packets that came.
    pub(crate) fn received(&self) -> Vec<Packet> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The next packet, which must be of this type.
    #[track_caller]
    pub(crate) fn expect(&self, kind: PacketType) -> Packet {
        match self.next() {
            Some(packet) if packet.packet_type() == kind => packet,
            Some(packet) => panic!("{kind:?} was expected, not {packet:?}"),
            None => panic!("{kind:?} was expected, nothing came (closed: {})", self.is_closed()),
        }
    }

    #[track_caller]
    pub(crate) fn expect_connack(&self) -> ConnAck {
        match self.expect(PacketType::ConnAck) {
            Packet::ConnAck(connack) => *connack,
            _ => unreachable!("expect checks the type"),
        }
    }

    #[track_caller]
    pub(crate) fn expect_publish(&self) -> Publish {
        match self.expect(PacketType::Publish) {
            Packet::Publish(publish) => publish,
            _ => unreachable!("expect checks the type"),
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    #[track_caller]
    pub(crate) fn expect_ack(&self, kind: PacketType, id: u16) -> Ack {
        match self.expect(kind) {
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                assert_eq!(ack.packet_id.get(), id, "{kind:?} repeats the identifier");
                ack
            }
            other => panic!("{other:?} is no acknowledgement"),
        }
    }

    #[track_caller]
    pub(crate) fn expect_suback(&self, id: u16) -> SubAck {
        match self.expect(PacketType::SubAck) {
            Packet::SubAck(suback) => {
                assert_eq!(suback.packet_id.get(), id, "SUBACK repeats the identifier");
                suback
            }
            _ => unreachable!("expect checks the type"),
        }
    }

    #[track_caller]
    pub(crate) fn expect_unsuback(&self, id: u16) -> UnsubAck {
        match self.expect(PacketType::UnsubAck) {
            Packet::UnsubAck(unsuback) => {
                assert_eq!(unsuback.packet_id.get(), id, "UNSUBACK repeats the identifier");
                unsuback
            }
            _ => unreachable!("expect checks the type"),
        }
    }

    /// A DISCONNECT with this code, and a close.
    #[track_caller]
    pub(crate) fn expect_disconnect(&self, reason: ReasonCode) -> Disconnect {
        let Packet::Disconnect(disconnect) = self.expect(PacketType::Disconnect) else {
            unreachable!("expect checks the type")
        };
        assert_eq!(disconnect.reason, reason);
        self.expect_closed();
        disconnect
    }

    /// The connection is ended as a fault demands after it was accepted: with DISCONNECT and this code in MQTT 5, by
    /// the close alone before.
    #[track_caller]
    pub(crate) fn expect_fault(&self, reason: ReasonCode) {
        if self.version.is_v5() {
            self.expect_disconnect(reason);
        } else {
            self.expect_closed();
        }
    }

    /// A CONNACK that refuses, and a close.
    #[track_caller]
    pub(crate) fn expect_refused(&self, reason: ReasonCode) -> ConnAck {
        let connack = self.expect_connack();
        assert_eq!(connack.reason, reason);
        self.expect_closed();
        connack
    }

    /// Closed by the broker, without another packet.
    #[track_caller]
    pub(crate) fn expect_closed(&self) {
        self.expect_nothing();
        assert!(self.is_closed(), "the broker closes the connection");
    }

    /// Nothing came.
    #[track_caller]
    pub(crate) fn expect_nothing(&self) {
        if let Some(packet) = self.next() {
            panic!("nothing was expected, not {packet:?}");
        }
    }

    /// The connection is alive and quiet: PINGREQ is answered, and by nothing else than PINGRESP.
    #[track_caller]
    pub(crate) fn expect_healthy(&self) {
        self.send(wire::PINGREQ);
        self.expect(PacketType::PingResp);
        self.expect_nothing();
    }

    /// Subscribes to one filter; the reason code of the SUBACK.
    #[track_caller]
    pub(crate) fn subscribe(&self, filter: &str, options: u8) -> ReasonCode {
        self.subscribe_with(Subscribe::new(SUBSCRIBE_ID).filter(filter, options))
    }

    /// Sends a SUBSCRIBE made with [`SUBSCRIBE_ID`]; the first reason code of the SUBACK.
    #[track_caller]
    pub(crate) fn subscribe_with(&self, subscribe: Subscribe) -> ReasonCode {
        self.send(subscribe);
        self.expect_suback(SUBSCRIBE_ID).reasons[0]
    }

    /// Unsubscribes from one filter.
    #[track_caller]
    pub(crate) fn unsubscribe(&self, filter: &str) {
        self.send(Unsubscribe::new(SUBSCRIBE_ID).filter(filter));
        self.expect_unsuback(SUBSCRIBE_ID);
    }

    /// Publishes and completes the exchange; the reason code of PUBACK or PUBREC.
    #[track_caller]
    pub(crate) fn publish(&self, topic: &str, payload: &str, qos: u8) -> ReasonCode {
        self.publish_with(wire::Publish::new(topic, payload).qos(qos, PUBLISH_ID), qos)
    }

    /// The same with a PUBLISH made with [`PUBLISH_ID`].
    #[track_caller]
    pub(crate) fn publish_with(&self, publish: wire::Publish, qos: u8) -> ReasonCode {
        self.send(publish);
        match qos {
            0 => ReasonCode::Success,
            1 => self.take_ack(PacketType::PubAck).reason,
            _ => {
                let reason = self.take_ack(PacketType::PubRec).reason;
                if !reason.is_error() {
                    self.send(wire::pubrel(PUBLISH_ID));
                    self.take_ack(PacketType::PubComp);
                }
                reason
            }
        }
    }

    /// The next message, acknowledged to the end.
    #[track_caller]
    pub(crate) fn message(&self) -> Publish {
        let publish = self.expect_publish();
        if let Some(id) = publish.packet_id {
            if publish.qos == QoS::AtLeastOnce {
                self.send(wire::puback(id.get()));
            } else {
                self.send(wire::pubrec(id.get()));
                self.take_ack(PacketType::PubRel);
                self.send(wire::pubcomp(id.get()));
            }
        }
        publish
    }

    /// All messages that came, each acknowledged to the end.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<Publish> {
        let mut messages = Vec::new();
        while self.peek() == Some(PacketType::Publish) {
            messages.push(self.message());
        }
        messages
    }

    /// Their payloads.
    #[track_caller]
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.messages().iter().map(|message| text(&message.payload)).collect()
    }

    fn peek(&self) -> Option<PacketType> {
        let world = self.world.borrow();
        world.lines[self.index].packets.front().map(|(packet, _)| packet.packet_type())
    }

    /// The first acknowledgement of this type, whatever messages came before it.
    #[track_caller]
    fn take_ack(&self, kind: PacketType) -> Ack {
        let mut world = self.world.borrow_mut();
        let packets = &mut world.lines[self.index].packets;
        let at = packets.iter().position(|(packet, _)| packet.packet_type() == kind);
        match at.and_then(|at| packets.remove(at)) {
            Some((Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack), _)) => ack,
            _ => panic!("{kind:?} was expected in {packets:?}"),
        }
    }
}

/// A payload as text.
pub(crate) fn text(payload: &Bytes) -> String {
    String::from_utf8(payload.to_vec()).expect("the tests publish text")
}

/// Identifier that [`Peer::subscribe`] uses.
pub(crate) const SUBSCRIBE_ID: u16 = 0x5B5B;

/// Identifier that [`Peer::publish`] uses.
pub(crate) const PUBLISH_ID: u16 = 0x7B7B;

struct World {
    shards: Vec<Shard>,
    now: Instant,
    lines: Vec<Line>,
    by_conn: HashMap<(usize, ConnId), usize>,
    deferred: VecDeque<(usize, u64, Arc<ConnectInfo>)>,
    asked: VecDeque<(usize, u64, Vec<OwnedAccess>)>,
}

/// One connection as its transport sees it.
struct Line {
    version: Version,
    shard: usize,
    conn: ConnId,
    /// Bytes sent while the broker did not read.
    unread: VecDeque<u8>,
    /// Bytes received that are no whole packet yet.
    partial: Vec<u8>,
    packets: VecDeque<(Packet, usize)>,
    stalled: bool,
    closing: bool,
    closed: bool,
}

impl World {
    fn open(&mut self, version: Version) -> usize {
        let index = self.lines.len();
        let shard = index % self.shards.len();
        let address = Address { address: format!("test:{index}").into(), listener: "test://".into() };
        let conn = self.shards[shard].open(self.now, address);
        self.by_conn.insert((shard, conn), index);
        self.lines.push(Line {
            version,
            shard,
            conn,
            unread: VecDeque::new(),
            partial: Vec::new(),
            packets: VecDeque::new(),
            stalled: false,
            closing: false,
            closed: false,
        });
        self.pump();
        index
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        if !self.lines[index].closed {
            self.lines[index].unread.extend(bytes);
            self.pump();
        }
    }

    fn end(&mut self, index: usize, end: TransportEnd) {
        let line = &mut self.lines[index];
        if !line.closed {
            line.closed = true;
            let (shard, conn) = (line.shard, line.conn);
            self.by_conn.remove(&(shard, conn));
            self.shards[shard].closed(self.now, conn, end);
            self.pump();
        }
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        let mut rounds = 0;
        self.pump();
        while let Some(at) = self.shards.iter().filter_map(Shard::poll_timeout).min().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let now = self.now;
            self.shards.iter_mut().for_each(|shard| shard.handle_timeout(now));
            self.pump();
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "timers that are handled go away");
        }
        self.now = end;
    }

    /// Carries everything until nothing moves.
    fn pump(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for index in 0..self.lines.len() {
                moved |= self.feed(index);
            }
            for shard in 0..self.shards.len() {
                while let Some(output) = self.shards[shard].poll_output() {
                    moved = true;
                    self.carry(shard, output);
                }
                while let Some(conn) = self.shards[shard].next_dirty() {
                    if let Some(index) = self.by_conn.get(&(shard, conn)).copied() {
                        moved |= self.flush(index);
                    }
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    /// Hands the bytes that wait to the broker, if it reads.
    fn feed(&mut self, index: usize) -> bool {
        let line = &mut self.lines[index];
        let shard = &mut self.shards[line.shard];
        if line.unread.is_empty() || line.closed || !shard.wants_read(line.conn) {
            return false;
        }
        let bytes: Vec<u8> = line.unread.drain(..).collect();
        shard.receive(self.now, line.conn, &bytes);
        true
    }

    fn carry(&mut self, from: usize, output: Output) {
        match output {
            Output::Envelopes { to, batch } => self.shards[index_of(to)].handle_envelopes(self.now, batch),
            Output::Handoff { conn, to, handoff } => {
                let index = self.by_conn.remove(&(from, conn)).expect("a hand-off is of an open connection");
                let to = index_of(to);
                let conn = self.shards[to].handle_handoff(self.now, *handoff);
                self.by_conn.insert((to, conn), index);
                let line = &mut self.lines[index];
                (line.shard, line.conn) = (to, conn);
            }
            Output::Close { conn } => {
                if let Some(index) = self.by_conn.get(&(from, conn)).copied() {
                    self.lines[index].closing = true;
                    self.flush(index);
                }
            }
            Output::HearOut { conn, ticket } => {
                if let Some(index) = self.by_conn.get(&(from, conn)).copied() {
                    self.feed(index);
                }
                self.shards[from].handle_heard_out(self.now, conn, ticket);
            }
            Output::Authenticate { ticket, info } => self.deferred.push_back((from, ticket, info)),
            Output::Authorize { ticket, asked, .. } => self.asked.push_back((from, ticket, asked)),
            Output::Resume { .. } => {}
        }
    }

    /// Moves bytes from the outbox to the peer; whether any moved.
    fn flush(&mut self, index: usize) -> bool {
        let line = &mut self.lines[index];
        if line.closed {
            return false;
        }
        let shard = &mut self.shards[line.shard];
        let mut moved = false;
        while let Some(outbox) = shard.outbox(line.conn).filter(|outbox| !outbox.is_empty() && !line.stalled) {
            let mut slices = [IoSlice::new(&[]); 16];
            let count = outbox.io_slices(&mut slices);
            let before = line.partial.len();
            for slice in &slices[..count] {
                line.partial.extend_from_slice(slice);
            }
            let taken = line.partial.len() - before;
            outbox.advance(taken);
            shard.flushed(self.now, line.conn, taken);
            moved = true;
        }
        if line.stalled && shard.outbox(line.conn).is_some_and(|outbox| !outbox.is_empty()) {
            shard.flushed(self.now, line.conn, 0);
        }
        line.decode();
        if line.closing {
            let end = (line.shard, line.conn);
            line.closed = true;
            shard.closed(self.now, line.conn, TransportEnd::Closed);
            self.by_conn.remove(&end);
            moved = true;
        }
        moved
    }

    fn permit_deferred(&mut self, judge: impl Fn(&OwnedAccess) -> bool) -> Vec<OwnedAccess> {
        let waiting = std::mem::take(&mut self.asked);
        let mut all = Vec::new();
        for (shard, ticket, asked) in waiting {
            let answers = asked.iter().map(&judge).collect();
            self.shards[shard].handle_permits(self.now, ticket, answers);
            all.extend(asked);
        }
        self.pump();
        all
    }

    fn judge_deferred(&mut self, judge: impl Fn(&ConnectInfo) -> ferromq::auth::Verdict) -> usize {
        let waiting = std::mem::take(&mut self.deferred);
        let count = waiting.len();
        for (shard, ticket, info) in waiting {
            self.shards[shard].handle_verdict(self.now, ticket, judge(&info));
        }
        self.pump();
        count
    }
}

impl Line {
    fn decode(&mut self) {
        let mut at = 0;
        let limits = Limits::default();
        while let Cut::Frame(found, taken) =
            frame::cut(&self.partial[at..], limits.packet_bytes_max).expect("a broker sends whole packets")
        {
            let packet = Packet::decode(found, self.version, &limits, &Source::Scratch)
                .unwrap_or_else(|error| panic!("a broker sends valid packets: {error}"));
            self.packets.push_back((packet, taken));
            at += taken;
        }
        self.partial.drain(..at);
    }
}

fn shard_id(index: usize) -> ShardId {
    ShardId(u8::try_from(index).expect("a bench has few shards"))
}

fn index_of(shard: ShardId) -> usize {
    usize::from(shard.0)
}

/// The instant at which every bench begins.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

const SEED: u64 = 7;

/// More steps than any script of this suite takes; above it something runs in circles.
const ROUNDS_MAX: usize = 200_000;
