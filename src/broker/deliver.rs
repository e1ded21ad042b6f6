//! Delivery: from a message and its route to the outboxes, queues and shards that are to have it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{
    delivery::{Content, Delivery},
    frames::HopFlags,
    gathering::send_several,
    hooks::Event,
    journal::{Journal, Packet},
    message::{Message, Parcel},
    reasons::DropReason,
    route::{Own, Reach, Target},
    session::{ClientSession, text_of},
    shard::Shard,
    slots::ConnId,
    timers::Timer,
    wire::{AckKind, Written},
};
use crate::{
    codec::{PacketId, QoS, ReasonCode},
    router::{Choice, GroupHandle, Member, SessionKey},
    session::{Full, Send},
    store::{Id, Record},
};

impl Shard {
    /// Brings a message to everybody who wants it. Returns whether anybody did.
    pub(super) fn route(&mut self, now: Instant, parcel: &mut Parcel<'_>) -> bool {
        self.deliver_run(now);
        let mut recent = self.take_route(parcel.topic, Reach::Everywhere);
        self.wire.out.frames.clear();
        parcel.is_for_one = recent.route.local.len() == 1;
        for target in &recent.route.local {
            self.deliver(now, target, parcel);
        }
        for shard in recent.route.remote.iter() {
            self.forward(shard, None, parcel);
        }
        let hash = recent.hash();
        for group in &mut recent.groups {
            self.deliver_shared(now, group, hash, parcel);
        }
        let is_wanted = !recent.route.is_empty();
        self.recent = Some(recent);
        is_wanted
    }

    /// Brings a message that another shard has routed to the sessions of this one.
    pub(super) fn route_locally(&mut self, now: Instant, message: &Arc<Message>) {
        let mut parcel = Parcel::from_message(message);
        let recent = self.take_route(message.topic(), Reach::Here);
        self.wire.out.frames.clear();
        for target in &recent.route.local {
            self.deliver(now, target, &mut parcel);
        }
        self.recent = Some(recent);
    }

    /// Brings a message to one session of this shard.
    pub(super) fn deliver(&mut self, now: Instant, target: &Target, parcel: &mut Parcel<'_>) {
        let mut target = target;
        if let Some(special) = &target.special {
            let is_own = parcel.publisher.is_some_and(|by| by.shard == self.id && by.session == target.session);
            match &special.own {
                Own::Never if is_own => return,
                Own::Only(other) if is_own => target = other,
                _ => {}
            }
        }
        let ids: &[u32] = target.special.as_ref().map_or(&[], |special| &special.ids);
        let retain = target.retain_as_published && parcel.retain;
        let hop = Hop { qos: target.qos.min(parcel.qos), retain, ids, member: None };
        self.hand_over(now, target.session, hop, parcel);
    }

    /// Brings a message to one member of a shared group, on whatever shard.
    fn deliver_shared(&mut self, now: Instant, group: &mut GroupHandle, topic: u64, parcel: &mut Parcel<'_>) {
        let publisher = parcel.publisher.map_or(0, |publisher| publisher.client_hash);
        let choice = self.choice(now, publisher, topic);
        if let Some(member) = group.choose(&choice, None) {
            member.deliveries_started(1);
            self.give(now, member, parcel);
        }
    }

    /// What the choice of a member may depend on.
    pub(super) fn choice(&mut self, now: Instant, publisher: u64, topic: u64) -> Choice {
        let ms = now.saturating_duration_since(self.shared.started).as_millis() as u64;
        Choice { publisher, topic, random: self.random(), ms }
    }

    /// Brings a message to the member that it was given to, on whatever shard.
    pub(super) fn give(&mut self, now: Instant, member: &Arc<Member>, parcel: &mut Parcel<'_>) {
        if member.shard() == self.id {
            self.deliver_to_member(now, member, parcel);
        } else {
            self.forward(member.shard(), Some(Arc::clone(member)), parcel);
        }
    }

    /// Brings a message to a member of a shared group that lives on this shard; to another if it has left meanwhile.
    pub(super) fn deliver_to_member(&mut self, now: Instant, member: &Arc<Member>, parcel: &mut Parcel<'_>) {
        let Some(options) = MemberOptions::unpack(member.options()) else {
            member.deliveries_ended(1);
            return self.redispatch(now, member, parcel);
        };
        let ids: SmallVec<[u32; 2]> = options.id.into_iter().collect();
        let retain = options.retain_as_published && parcel.retain;
        let hop = Hop { qos: options.qos.min(parcel.qos), retain, ids: &ids, member: Some(member) };
        if !self.hand_over(now, member.session(), hop, parcel) {
            member.deliveries_ended(1);
        }
    }

    /// Gives a message that a member could not finish to another one.
    pub(super) fn redispatch(&mut self, now: Instant, from: &Member, parcel: &mut Parcel<'_>) {
        let publisher = parcel.publisher.map_or(0, |publisher| publisher.client_hash);
        let topic = self.shared.interest.hasher().text(parcel.topic);
        let choice = self.choice(now, publisher, topic);
        let Some(member) = from.group().and_then(|group| group.choose(&choice, Some(from))) else {
            return self.count_drop(from.client_id(), parcel.topic, DropReason::SessionEnded);
        };
        member.deliveries_started(1);
        if member.shard() == self.id {
            self.wire.out.frames.clear();
            self.deliver_to_member(now, &member, parcel);
        } else {
            self.forward(member.shard(), Some(member), parcel);
        }
    }

    /// Writes the message to the session's connection, or queues it, or drops it and says why. Returns whether the
    /// session now answers for it.
    #[inline]
    pub(super) fn hand_over(&mut self, now: Instant, key: SessionKey, hop: Hop<'_>, parcel: &mut Parcel<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        if parcel.is_expired(now) {
            self.count_drop_for(key, parcel.topic, DropReason::Expired);
            return false;
        }
        let soft_bytes = self.shared.settings.slow_consumer.outbox_soft_bytes;
        let acked = hop.qos != QoS::AtMostOnce;
        let is_next = if acked { session.state.may_send() } else { !session.state.has_queued_once() };
        let line = session.conn.filter(|_| is_next).and_then(|conn| self.wire.line(conn));
        let Some(mut line) = line.filter(|line| line.conn.has_room(soft_bytes)) else {
            return self.set_aside(key, hop, parcel);
        };
        if !line.fits(now, parcel, hop.qos, hop.ids) {
            self.count_drop_for(key, parcel.topic, DropReason::PacketTooLarge);
            return false;
        }
        let stored = self.journal.as_mut().filter(|_| acked && session.is_stored).map(|journal| {
            let delivery = journal.next_id();
            journal.queued(session, delivery, &hop, parcel);
            delivery
        });
        let packet_id = acked.then(|| {
            let keep = session.is_persistent() || hop.member.is_some();
            let content = if keep { Content::Message(Arc::clone(parcel.keep())) } else { Content::Gone };
            session.state.sent(hop.delivery(content, stored))
        });
        if let Some((sent, conn)) = stored.zip(packet_id).zip(session.conn) {
            return self.send_recorded(now, key, conn, sent, hop, parcel);
        }
        let flags = HopFlags { qos: hop.qos, retain: hop.retain, dup: false, packet_id };
        line.publish(now, parcel, flags, hop.ids);
        acked
    }

    /// As the end of [`Self::hand_over`], for a delivery that a store keeps.
    fn send_recorded(
        &mut self,
        now: Instant,
        key: SessionKey,
        conn: ConnId,
        sent: (Id, PacketId),
        hop: Hop<'_>,
        parcel: &mut Parcel<'_>,
    ) -> bool {
        if !self.record_sent(now, conn, key, sent, hop.qos)
            && let Some(mut line) = self.wire.line(conn)
        {
            let flags = HopFlags { qos: hop.qos, retain: hop.retain, dup: false, packet_id: Some(sent.1) };
            line.publish(now, parcel, flags, hop.ids);
        }
        true
    }

    /// The message cannot be written now: it is queued if its QoS or the settings ask for that.
    fn set_aside(&mut self, key: SessionKey, hop: Hop<'_>, parcel: &mut Parcel<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        if hop.qos == QoS::AtMostOnce {
            let is_online = session.conn.is_some();
            let may_wait = if is_online {
                session.state.has_queued_once()
            } else {
                self.shared.settings.session.queue_qos0_offline
            };
            if !may_wait {
                let reason = if is_online { DropReason::SlowConsumer } else { DropReason::Offline };
                self.count_drop_for(key, parcel.topic, reason);
                return false;
            }
        }
        let journal = self.journal.as_mut().filter(|_| hop.qos != QoS::AtMostOnce && session.is_stored);
        let mut named = journal.map(|journal| (journal.next_id(), journal));
        let stored = named.as_ref().map(|(delivery, _)| *delivery);
        let delivery = hop.delivery(Content::Message(Arc::clone(parcel.keep())), stored);
        let before = session.state.pending_bytes();
        let result = session.state.enqueue(delivery, &self.queue_limits);
        self.queued_bytes = self.queued_bytes + session.state.pending_bytes() - before;
        if let Some((delivery, journal)) = named.as_mut().filter(|_| !matches!(result, Err(Full::New(_)))) {
            journal.queued(session, *delivery, &hop, parcel);
        }
        match result {
            Ok(()) => {}
            Err(Full::New(delivery)) => self.drop_delivery(key, delivery, DropReason::QueueFull),
            Err(Full::Oldest(deliveries)) => {
                for delivery in deliveries {
                    self.drop_delivery(key, delivery, DropReason::QueueFullOldest);
                }
            }
        }
        true
    }

    /// Sends what waits in a session while its window and outbox have room: resends, queued, then retained messages.
    pub(super) fn pump(&mut self, now: Instant, key: SessionKey) {
        let soft_bytes = self.shared.settings.slow_consumer.outbox_soft_bytes;
        loop {
            let Some(session) = self.sessions.get_mut(key) else { return };
            let Some(conn) = session.conn else { return };
            let before = session.state.pending_bytes();
            let step = loop {
                if !self.wire.conns.get(conn).is_some_and(|conn| conn.has_room(soft_bytes)) {
                    break Step::Full;
                }
                if send_several(session, &mut self.wire, conn, soft_bytes) {
                    continue;
                }
                match send_next(session, &mut self.wire, self.journal.as_deref_mut(), conn, now) {
                    Step::Sent => {}
                    step => break step,
                }
            };
            self.queued_bytes = self.queued_bytes + session.state.pending_bytes() - before;
            match step {
                Step::Full => return,
                Step::Sent => {}
                Step::Vouch(packet) => self.hold(now, conn, packet),
                Step::Dropped(delivery, reason) => self.drop_delivery(key, delivery, reason),
                Step::Nothing => break,
            }
        }
        self.pump_retained(now, key);
    }

    /// A scan that had used up its turn has another.
    pub(super) fn go_on_scanning(&mut self, now: Instant, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.is_scan_armed = false;
            self.pump(now, key);
        }
    }

    /// Sends retained messages that new subscriptions wait for, slice by slice. A filter that few of many topics match
    /// takes many slices: after some of them others have their turn.
    fn pump_retained(&mut self, now: Instant, key: SessionKey) {
        if self.sessions.get(key).is_none_or(|session| session.retained.is_empty()) {
            return;
        }
        let soft_bytes = self.shared.settings.slow_consumer.outbox_soft_bytes;
        let changes = self.shared.retained.read().changes();
        let mut slices = 0;
        loop {
            let Some(session) = self.sessions.get_mut(key) else { return };
            let Some(conn) = session.conn else { return };
            let has_room = self.wire.conns.get(conn).is_some_and(|conn| conn.has_room(soft_bytes));
            let may_send = session.state.may_send();
            let Some(scan) = session.retained.front_mut() else { return };
            if !has_room || (scan.qos != QoS::AtMostOnce && !may_send) {
                return;
            }
            let may_be_stale = slices == 0 && scan.changes != changes;
            let Some(message) = scan.ready.pop_front() else {
                if scan.is_finished {
                    session.retained.pop_front();
                } else if slices < SLICES_PER_TURN {
                    slices += 1;
                    refill(scan, &self.shared.retained.read());
                } else {
                    if !std::mem::replace(&mut session.is_scan_armed, true) {
                        self.wire.timers.arm(now + SCAN_PAUSE, Timer::Scan(key));
                    }
                    return;
                }
                continue;
            };
            // One that has waited may have been replaced: the newer one went, or goes, by its own way.
            let is_stale = may_be_stale
                && !self.shared.retained.read().get(message.topic()).is_some_and(|held| Arc::ptr_eq(held, &message));
            if is_stale {
                continue;
            }
            let (qos, ids): (_, SmallVec<[u32; 2]>) = (scan.qos.min(message.qos), scan.id.into_iter().collect());
            if message.is_expired(now) {
                self.count_drop_for(key, message.topic(), DropReason::Expired);
                continue;
            }
            let mut parcel = Parcel::from_message(&message);
            self.wire.out.frames.clear();
            self.hand_over(now, key, Hop { qos, retain: true, ids: &ids, member: None }, &mut parcel);
        }
    }

    /// A delivery that will not be made: counted, told, and its seat's account settled.
    pub(super) fn drop_delivery(&mut self, key: SessionKey, delivery: Delivery, reason: DropReason) {
        settle(&delivery);
        self.record_settled(key, &delivery);
        self.count_drop_for(key, delivery.content.topic(), reason);
    }

    pub(super) fn count_drop_for(&mut self, key: SessionKey, topic: &str, reason: DropReason) {
        self.wire.out.stats.count_drop(reason);
        if let Some(session) = self.sessions.get(key) {
            self.shared.hooks.tell(|| Event::Dropped { client_id: &session.client_id, topic, reason });
        }
    }

    pub(super) fn count_drop(&mut self, client_id: &str, topic: &str, reason: DropReason) {
        self.wire.out.stats.count_drop(reason);
        self.shared.hooks.tell(|| Event::Dropped { client_id, topic, reason });
    }
}

/// How one subscriber is to have a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hop<'a> {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) ids: &'a [u32],
    /// The member of a shared group it comes to.
    pub(crate) member: Option<&'a Arc<Member>>,
}

impl Hop<'_> {
    fn delivery(&self, content: Content, stored: Option<Id>) -> Delivery {
        Delivery {
            content,
            qos: self.qos,
            retain: self.retain,
            ids: (!self.ids.is_empty()).then(|| Box::new(self.ids.into())),
            member: self.member.cloned(),
            stored,
        }
    }
}

/// A delivery is over, one way or the other: a member of a shared group has one less in hand.
pub(crate) fn settle(delivery: &Delivery) {
    if let Some(member) = &delivery.member {
        member.deliveries_ended(1);
    }
}

/// Deliveries that are over one after the other: those of one member of a shared group are counted down together, when
/// another's is added or this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    member: Option<Arc<Member>>,
    count: u32,
}

impl Settled {
    /// One more, and the member it came by.
    #[inline]
    pub(crate) fn add(&mut self, member: Option<Arc<Member>>) {
        let Some(member) = member else { return };
        if self.member.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &member)) {
            self.tell();
            self.member = Some(member);
        }
        self.count += 1;
    }

    fn tell(&mut self) {
        if let Some(member) = self.member.take() {
            member.deliveries_ended(std::mem::take(&mut self.count));
        }
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Options of a shared subscription as its member carries them, so that a delivery looks nothing up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberOptions {
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<u32>,
}

impl MemberOptions {
    /// What a member that has left carries.
    pub(crate) const LEFT: u64 = u64::MAX;

    /// As one number; a subscription identifier has 28 bits and is never 0.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.id.unwrap_or(0)) << 3 | u64::from(self.retain_as_published) << 2 | self.qos as u64
    }

    pub(crate) fn unpack(packed: u64) -> Option<Self> {
        let qos = QoS::from_bits((packed & 0b11) as u8)?;
        let id = (packed >> 3) as u32;
        Some(Self { qos, retain_as_published: packed & 0b100 != 0, id: (id > 0).then_some(id) })
    }
}

enum Step {
    Sent,
    /// To be sent once what is recorded is committed.
    Vouch(Packet),
    Dropped(Delivery, DropReason),
    /// The outbox has no room.
    Full,
    Nothing,
}

/// Sends the next thing of a session's own queue.
fn send_next(
    session: &mut ClientSession,
    wire: &mut super::wire::Wire,
    journal: Option<&mut Journal>,
    conn: super::slots::ConnId,
    now: Instant,
) -> Step {
    let (packet_id, written) = match session.state.poll_send(now) {
        None => return Step::Nothing,
        Some(Send::Expired(delivery)) => return Step::Dropped(delivery, DropReason::Expired),
        Some(Send::PubRel(packet_id)) if journal.is_some() => {
            let (kind, reason) = (AckKind::PubRel, ReasonCode::Success);
            return Step::Vouch(Packet::Ack { kind, packet_id, reason, why: None, frees: None });
        }
        Some(Send::PubRel(packet_id)) => {
            wire.ack(conn, AckKind::PubRel, packet_id, ReasonCode::Success);
            return Step::Sent;
        }
        Some(Send::Once(delivery)) => {
            if write(wire, conn, &delivery, None, false, now) == Written::TooLarge {
                return Step::Dropped(delivery, DropReason::PacketTooLarge);
            }
            settle(&delivery);
            return Step::Sent;
        }
        Some(Send::Publish { packet_id, dup, message }) => {
            if let Some(journal) = journal
                && let Some(delivery) = message.stored
            {
                if !dup {
                    journal.push(Record::Sent { client_id: text_of(&session.client_id), delivery, packet_id });
                }
                if message.qos == QoS::ExactlyOnce {
                    return Step::Vouch(Packet::Publish { packet_id, dup });
                }
            }
            (packet_id, write(wire, conn, message, Some(packet_id), dup, now))
        }
    };
    if written == Written::TooLarge
        && let Some(delivery) = session.state.discard(packet_id)
    {
        return Step::Dropped(delivery, DropReason::PacketTooLarge);
    }
    Step::Sent
}

pub(super) fn write(
    wire: &mut super::wire::Wire,
    conn: super::slots::ConnId,
    delivery: &Delivery,
    packet_id: Option<crate::codec::PacketId>,
    dup: bool,
    now: Instant,
) -> Written {
    let Some(mut parcel) = delivery.content.parcel() else { return Written::Yes };
    wire.out.frames.clear();
    let ids: &[u32] = delivery.ids.as_deref().map_or(&[], |ids| ids);
    let Some(mut line) = wire.line(conn) else { return Written::Gone };
    if !line.fits(now, &parcel, delivery.qos, ids) {
        return Written::TooLarge;
    }
    let flags = HopFlags { qos: delivery.qos, retain: delivery.retain, dup, packet_id };
    line.publish(now, &mut parcel, flags, ids);
    Written::Yes
}

/// Reads the next slice of a retained scan.
fn refill(scan: &mut super::session::RetainedScan, store: &crate::router::RetainedStore<Arc<Message>>) {
    let ready: &mut VecDeque<Arc<Message>> = &mut scan.ready;
    let next = store.scan(&scan.filter, scan.cursor.take(), super::shared::RETAINED_SLICE, |_, message| {
        ready.push_back(Arc::clone(message));
    });
    scan.changes = store.changes();
    scan.is_finished = next.is_none();
    scan.cursor = next;
}

/// Slices of the retained store that one turn of a session looks through.
const SLICES_PER_TURN: usize = 16;

/// How long a session that has had its turn lets others have theirs.
const SCAN_PAUSE: Duration = Duration::from_millis(1);
