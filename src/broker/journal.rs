//! The journal of a shard with a store: what changed in this tick, what is submitted and not committed, and what may
//! leave only once it is.
//!
//! Three things wait for commits, each for the tick in which it was caused:
//!
//! * **Packets that vouch for something** ([`Packet`]): acknowledgements to publishers, SUBACK and UNSUBACK, and to
//!   subscribers QoS 2 PUBLISH and PUBREL, whose meaning the client remembers across our crash. They wait in one line
//!   for each connection, so that acknowledgements keep their order [MQTT-4.6.0-2] to [MQTT-4.6.0-4].
//! * **Relays**: envelopes for which this log answers until the other shard has taken them over.
//! * **Debts**: the answer that another shard's message is safe here.
//!
//! QoS 0 and QoS 1 messages to subscribers wait for nothing: should we crash, their publisher sends them again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    deliver::Hop,
    durable::Durable,
    message::{Message, Parcel},
    session::ClientSession,
    shard::Envelope,
    slots::ConnId,
    wire::AckKind,
};
use crate::{
    codec::{self, PacketId, ReasonCode, Text},
    router::{Member, ShardId},
    store::{Handover, Id, LogId, Record, SessionState, Ticket, WillState},
};

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    durable: Arc<Durable>,
    log: LogId,
    /// What changed in this tick.
    records: Vec<Record>,
    records_bytes: usize,
    /// Records of this tick in the shared log.
    shared_records: usize,
    /// Records of all ticks.
    recorded: u64,
    /// The last count given to an [`Id`].
    count: u64,
    /// Number of the tick whose changes are being collected.
    tick: u64,
    /// All ticks up to this one are committed.
    done: u64,
    submitted: VecDeque<Submitted>,
    submitted_bytes: usize,
    is_recovered: bool,
    publishing: Option<Publishing>,
    /// Publications that other shards have not all stored: how many are missing.
    receipts: BTreeMap<u64, u32>,
    last_receipt: u64,
    held: BTreeMap<ConnId, VecDeque<Held>>,
    relays: VecDeque<(u64, ShardId, Envelope)>,
    debts: VecDeque<(u64, ShardId, Receipt)>,
    /// Something may be ready though no tick has been committed since.
    has_news: bool,
    /// When something was held last.
    now: Instant,
}

/// One tick at the store.
#[derive(Debug)]
struct Submitted {
    tick: u64,
    own: Ticket,
    shared: Ticket,
    bytes: usize,
}

/// The publication that is being routed.
#[derive(Debug)]
struct Publishing {
    number: u64,
    /// Other shards that are to store it before it is acknowledged.
    asked: u32,
    /// [`Journal::recorded`] before.
    recorded: u64,
}

/// What an acknowledgement has to wait for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waits {
    tick: u64,
    receipt: Option<u64>,
}

/// A packet that vouches for something.
#[derive(Debug)]
pub(crate) enum Packet {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
        why: Option<&'static str>,
        /// The identifier is free for the client when this is sent.
        frees: Option<codec::QoS>,
    },
    /// SUBACK or UNSUBACK.
    Other(Box<codec::Packet>),
    /// A QoS 2 message in flight.
    Publish { packet_id: PacketId, dup: bool },
}

#[derive(Debug)]
struct Held {
    waits: Waits,
    packet: Packet,
}

/// Where a shard that has stored a message says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub(crate) from: ShardId,
    /// A publication, or the [`Id`] of a relay.
    pub(crate) number: u64,
    pub(crate) is_relay: bool,
}

impl Journal {
    pub(crate) fn new(durable: &Arc<Durable>, shard: ShardId, now: Instant) -> Self {
        Self {
            durable: Arc::clone(durable),
            log: LogId(shard.0),
            records: Vec::new(),
            records_bytes: 0,
            shared_records: 0,
            recorded: 0,
            count: durable.count_max,
            tick: 1,
            done: 0,
            submitted: VecDeque::new(),
            submitted_bytes: 0,
            is_recovered: false,
            publishing: None,
            receipts: BTreeMap::new(),
            last_receipt: 0,
            held: BTreeMap::new(),
            relays: VecDeque::new(),
            debts: VecDeque::new(),
            has_news: false,
            now,
        }
    }

    /// Adds a change.
    pub(crate) fn push(&mut self, record: Record) {
        self.records_bytes += record.bytes();
        self.records.push(record);
        self.recorded += 1;
    }

    /// A name that was never given before.
    pub(crate) fn next_id(&mut self) -> Id {
        self.count += 1;
        Id::new(self.count, self.log)
    }

    /// A session is to have the parcel, under the name `delivery`.
    pub(crate) fn queued(&mut self, session: &ClientSession, delivery: Id, hop: &Hop<'_>, parcel: &mut Parcel<'_>) {
        let message = self.message(parcel);
        let share = hop.member.and_then(share_filter);
        let handover = Handover { qos: hop.qos, retain: hop.retain, ids: hop.ids.into(), share };
        self.push(Record::Queued { client_id: session.client_text(), delivery, message, handover });
    }

    /// A delivery is over.
    pub(crate) fn settled(&mut self, session: &ClientSession, delivery: Id) {
        if session.is_stored {
            self.push(Record::Settled { client_id: session.client_text(), delivery });
        }
    }

    /// A session begins or changes.
    pub(crate) fn session(&mut self, session: &ClientSession) {
        let info = session.will.as_ref().and_then(|will| will.info.as_ref());
        let username = info.and_then(|info| info.username.clone());
        let will = session.will.as_ref().map(|will| WillState {
            message: self.durable.stored(&will.message),
            delay: will.delay,
            expiry: will.expiry,
            username,
        });
        let state = SessionState {
            version: session.version,
            expiry_interval: session.expiry_interval,
            lost_at: session.away.as_ref().map(|away| self.durable.unix_ms(away.lost_at)),
            will,
        };
        self.push(Record::Session { client_id: session.client_text(), state });
    }

    /// A retained message is set; under the lock of the retained store. `$SYS` tells of this run alone.
    pub(crate) fn retained(&mut self, message: &Message) {
        if !message.topic().starts_with(SYS) {
            let message = self.durable.stored(message);
            self.shared(Record::Retained { message });
        }
    }

    /// A retained message is removed; under the lock of the retained store.
    pub(crate) fn retained_removed(&mut self, topic: &str) {
        if !topic.starts_with(SYS)
            && let Ok(topic) = Text::try_from(topic)
        {
            self.shared(Record::RetainedRemoved { topic });
        }
    }

    /// This log answers for the parcel until shard `to` has it; the envelope leaves once that is committed.
    pub(crate) fn relay(&mut self, from: ShardId, to: ShardId, member: Option<Arc<Member>>, parcel: &mut Parcel<'_>) {
        let message = self.message(parcel);
        let relay = self.next_id();
        let share = member.as_ref().and_then(|member| {
            let client_id = Text::try_from(&**member.client_id()).ok()?;
            Some(crate::store::ShareMember { client_id, filter: share_filter(member)? })
        });
        self.push(Record::Relay { relay, message, to: to.0, member: share });
        let receipt = Receipt { from, number: relay.as_u64(), is_relay: true };
        let envelope = Envelope::Durable { message: Arc::clone(parcel.keep()), member, receipt };
        self.relays.push_back((self.tick, to, envelope));
    }

    /// A publication is about to be routed whose acknowledgement will wait for all who store it.
    pub(crate) fn begin_publish(&mut self) {
        self.last_receipt += 1;
        self.publishing = Some(Publishing { number: self.last_receipt, asked: 0, recorded: self.recorded });
    }

    /// Another shard is asked to store the publication that is being routed; none if nobody waits for it.
    pub(crate) fn ask(&mut self, from: ShardId) -> Option<Receipt> {
        let publishing = self.publishing.as_mut()?;
        publishing.asked += 1;
        Some(Receipt { from, number: publishing.number, is_relay: false })
    }

    /// It is routed; what its acknowledgement waits for.
    pub(crate) fn end_publish(&mut self) -> Waits {
        let Some(publishing) = self.publishing.take() else { return self.waits() };
        if publishing.asked > 0 {
            self.receipts.insert(publishing.number, publishing.asked);
        }
        Waits {
            tick: if publishing.recorded == self.recorded { 0 } else { self.current() },
            receipt: (publishing.asked > 0).then_some(publishing.number),
        }
    }

    /// Another shard has stored a publication, or taken over a relay.
    pub(crate) fn handle_stored(&mut self, now: Instant, receipt: Receipt) {
        self.now = now;
        if receipt.is_relay {
            if let Some(relay) = Id::from_u64(receipt.number) {
                self.push(Record::Relayed { relay });
            }
        } else if let Some(missing) = self.receipts.get_mut(&receipt.number) {
            *missing -= 1;
            if *missing == 0 {
                self.receipts.remove(&receipt.number);
                self.has_news = true;
            }
        }
    }

    /// A message of another shard was handled since [`Self::recorded`] said `before`: true if the answer can be given
    /// at once, else it becomes a debt.
    pub(crate) fn taken_over(&mut self, receipt: Receipt, before: u64) -> bool {
        if self.recorded == before {
            return true;
        }
        if let Some(relay) = Id::from_u64(receipt.number).filter(|_| receipt.is_relay) {
            self.push(Record::Taken { relay });
        }
        self.debts.push_back((self.tick, receipt.from, receipt));
        false
    }

    /// How much has been recorded so far.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded
    }

    /// What everything recorded so far waits for.
    pub(crate) fn waits(&self) -> Waits {
        Waits { tick: self.current(), receipt: None }
    }

    /// Puts a packet in the line of its connection, or gives it back if it may go now.
    pub(crate) fn hold(&mut self, now: Instant, conn: ConnId, waits: Waits, packet: Packet) -> Option<Packet> {
        if self.is_ready(waits) && !self.held.contains_key(&conn) {
            return Some(packet);
        }
        self.now = now;
        self.held.entry(conn).or_default().push_back(Held { waits, packet });
        None
    }

    /// The connection is over: its line too.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.held.remove(&conn);
    }

    /// When a packet that is let go now is sent.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Time has passed.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Submits this tick's batch and looks at what is committed. Whether something may be ready.
    pub(crate) fn step(&mut self) -> bool {
        self.submit();
        self.advance() | std::mem::take(&mut self.has_news)
    }

    /// Whether so much waits for a connection that it should not be read for now.
    pub(crate) fn is_full(&self, conn: ConnId) -> bool {
        self.held.get(&conn).is_some_and(|line| line.len() >= HELD_PER_CONN_MAX)
    }

    /// Connections with a line.
    pub(crate) fn waiting(&self) -> Vec<ConnId> {
        self.held.keys().copied().collect()
    }

    /// The next packet of a line that may go.
    pub(crate) fn next_ready(&mut self, conn: ConnId) -> Option<Packet> {
        let waits = self.held.get(&conn)?.front()?.waits;
        if !self.is_ready(waits) {
            return None;
        }
        let line = self.held.get_mut(&conn)?;
        let held = line.pop_front();
        if line.is_empty() {
            self.held.remove(&conn);
        }
        held.map(|held| held.packet)
    }

    /// The next envelope that may leave.
    pub(crate) fn next_envelope(&mut self) -> Option<(ShardId, Envelope)> {
        let done = self.done;
        if self.relays.front().is_some_and(|(tick, ..)| *tick <= done) {
            return self.relays.pop_front().map(|(_, to, envelope)| (to, envelope));
        }
        if self.debts.front().is_some_and(|(tick, ..)| *tick <= done) {
            return self.debts.pop_front().map(|(_, to, receipt)| (to, Envelope::Stored { receipt }));
        }
        None
    }

    /// About how much memory waits for commits, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.records_bytes + self.submitted_bytes
    }

    /// Whether everything is committed and nothing waits.
    pub(crate) fn is_settled(&self) -> bool {
        self.current() <= self.done && self.held.is_empty() && self.receipts.is_empty()
    }

    /// The message of the parcel in this log; written the first time.
    fn message(&mut self, parcel: &mut Parcel<'_>) -> Id {
        if let Some(id) = parcel.stored {
            return id;
        }
        let id = self.next_id();
        let message = self.durable.stored(parcel.keep());
        self.push(Record::Message { id, message });
        parcel.stored = Some(id);
        id
    }

    fn shared(&mut self, record: Record) {
        self.records_bytes += record.bytes();
        self.durable.record_shared(record);
        self.shared_records += 1;
        self.recorded += 1;
    }

    /// The tick with which everything recorded so far is committed.
    fn current(&self) -> u64 {
        if self.records.is_empty() && self.shared_records == 0 { self.tick - 1 } else { self.tick }
    }

    fn is_ready(&self, waits: Waits) -> bool {
        waits.tick <= self.done && waits.receipt.is_none_or(|number| !self.receipts.contains_key(&number))
    }

    /// Whether there is something that was not submitted: until what was left half done is settled, nothing is.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.current() >= self.tick
    }

    fn submit(&mut self) {
        if !self.has_unsubmitted() {
            return;
        }
        let store = &self.durable.store;
        if !self.is_recovered {
            self.is_recovered = store.committed(LogId::SHARED) >= self.durable.recovery;
            if !self.is_recovered {
                return;
            }
        }
        let shared = if self.shared_records > 0 { self.durable.submit_shared() } else { Ticket::default() };
        let own = if self.records.is_empty() {
            Ticket::default()
        } else {
            store.submit(self.log, std::mem::take(&mut self.records))
        };
        let bytes = std::mem::take(&mut self.records_bytes);
        self.submitted.push_back(Submitted { tick: self.tick, own, shared, bytes });
        self.submitted_bytes += bytes;
        self.shared_records = 0;
        self.tick += 1;
    }

    /// Whether more is committed than before.
    fn advance(&mut self) -> bool {
        if self.submitted.is_empty() {
            return false;
        }
        let own = self.durable.store.committed(self.log);
        let shared = self.durable.store.committed(LogId::SHARED);
        let before = self.done;
        while let Some(first) = self.submitted.front()
            && first.own <= own
            && first.shared <= shared
        {
            self.done = first.tick;
            self.submitted_bytes -= first.bytes;
            self.submitted.pop_front();
        }
        self.done > before
    }
}

/// The shared subscription of a member, as in SUBSCRIBE.
fn share_filter(member: &Arc<Member>) -> Option<Text> {
    let group = member.group()?;
    Text::try_from(format!("$share/{}/{}", group.name(), group.filter()).as_str()).ok()
}

/// Packets that wait for one connection at most, but for those of the packets in its last read.
const HELD_PER_CONN_MAX: usize = 4096;

/// Topics that are not stored.
const SYS: &str = "$SYS/";
