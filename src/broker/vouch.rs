//! A shard and its journal: what is recorded, what is held until that is committed, and what another shard is asked to
//! store. Without a store each of these is one branch.

use std::{sync::Arc, time::Instant};

use super::{
    deliver,
    delivery::Delivery,
    journal::{Packet, Receipt},
    message::{Message, Parcel},
    reasons::DropReason,
    shard::{Envelope, Shard},
    slots::ConnId,
    wire::{AckKind, Written},
};
use crate::{
    codec::{self, PacketId, PublishRef, QoS, ReasonCode, SubscriptionOptions, Text},
    router::{Member, SessionKey, ShardId},
    store::{Id, Record, SubscriptionState},
};

impl Shard {
    /// The store has committed something ([`crate::store::Store::on_commit`]): what waited for it goes out.
    pub fn handle_committed(&mut self, now: Instant) {
        if let Some(journal) = &mut self.journal {
            journal.set_now(now);
        }
        self.settle_journal();
    }

    /// Submits this tick's batch, and lets go what is committed.
    pub(super) fn settle_journal(&mut self) {
        // Letting go may record no more than what another round submits.
        while let Some(journal) = &mut self.journal
            && journal.step()
        {
            let now = journal.now();
            while let Some((to, envelope)) = self.journal.as_mut().and_then(|journal| journal.next_envelope()) {
                self.stage(to, envelope);
            }
            for conn in self.journal.as_ref().map(|journal| journal.waiting()).unwrap_or_default() {
                let mut has_room = false;
                while let Some(packet) = self.journal.as_mut().and_then(|journal| journal.next_ready(conn)) {
                    has_room |= self.send_vouched(now, conn, packet);
                }
                if let Some(key) = self.session_of(conn).filter(|_| has_room) {
                    self.pump(now, key);
                }
            }
            self.resume_if_within_bounds();
        }
    }

    /// Sends PUBREC, PUBREL or PUBCOMP once everything recorded so far is committed.
    pub(super) fn ack_when_committed(
        &mut self,
        now: Instant,
        id: ConnId,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        if self.journal.is_none() {
            return self.wire.ack(id, kind, packet_id, reason);
        }
        self.hold(now, id, Packet::Ack { kind, packet_id, reason, why: None, frees: None });
    }

    /// Sends SUBACK or UNSUBACK; to a stored session once everything recorded so far is committed.
    pub(super) fn packet_when_committed(&mut self, now: Instant, id: ConnId, key: SessionKey, packet: codec::Packet) {
        if self.journal.is_none() || !self.is_stored(key) {
            self.wire.packet(id, packet);
            return;
        }
        self.hold(now, id, Packet::Other(Box::new(packet)));
    }

    /// Sends PUBACK or PUBREC once all that its PUBLISH caused is committed, here and on other shards.
    pub(super) fn acknowledge_publish(&mut self, now: Instant, id: ConnId, packet: Packet) {
        let packet = match &mut self.journal {
            None => Some(packet),
            Some(journal) => {
                let waits = journal.end_publish();
                journal.hold(now, id, waits, packet)
            }
        };
        if let Some(packet) = packet {
            self.send_vouched(now, id, packet);
        }
    }

    /// Sends a packet once everything recorded so far is committed.
    pub(super) fn hold(&mut self, now: Instant, id: ConnId, packet: Packet) {
        let packet = match &mut self.journal {
            None => Some(packet),
            Some(journal) => {
                let waits = journal.waits();
                journal.hold(now, id, waits, packet)
            }
        };
        if let Some(packet) = packet {
            self.send_vouched(now, id, packet);
        }
    }

    /// A PUBLISH is accepted and about to be routed: if it is acknowledged, that waits for all it causes.
    pub(super) fn begin_publish(&mut self, key: SessionKey, publish: &PublishRef<'_>) {
        let Some(journal) = &mut self.journal else { return };
        let (Some(packet_id), Some(session)) = (publish.packet_id, self.sessions.get(key)) else { return };
        if publish.qos == QoS::ExactlyOnce && session.is_stored {
            // Not delivered anywhere before the identifier is known for good: other shards have it by relay, since
            // they must not get ahead of this log [MQTT-4.3.3-10].
            journal.push(Record::Received { client_id: session.client_text(), packet_id });
        } else {
            journal.begin_publish();
        }
    }

    /// The client has released a QoS 2 identifier, or it was refused after all.
    pub(super) fn record_released(&mut self, key: SessionKey, packet_id: PacketId) {
        self.record(key, |client_id| Record::Released { client_id, packet_id });
    }

    /// Brings a message to another shard.
    pub(super) fn forward(&mut self, to: ShardId, member: Option<Arc<Member>>, parcel: &mut Parcel<'_>) {
        if let Some(journal) = self.journal.as_mut().filter(|_| parcel.qos != QoS::AtMostOnce) {
            let Some(receipt) = journal.ask(self.id) else {
                return journal.relay(self.id, to, member, parcel);
            };
            let message = Arc::clone(parcel.keep());
            return self.stage(to, Envelope::Durable { message, member, receipt });
        }
        let message = Arc::clone(parcel.keep());
        self.stage(
            to,
            match member {
                None => Envelope::Publish(message),
                Some(member) => Envelope::Shared { message, member },
            },
        );
    }

    /// Another shard's message that it wants to know stored.
    pub(super) fn take_over(
        &mut self,
        now: Instant,
        message: &Arc<Message>,
        member: Option<Arc<Member>>,
        receipt: Receipt,
    ) {
        let before = self.journal.as_ref().map_or(0, |journal| journal.recorded());
        match member {
            None => self.route_locally(now, message),
            Some(member) => {
                let mut parcel = Parcel::from_message(message);
                self.wire.out.frames.clear();
                self.deliver_to_member(now, &member, &mut parcel);
            }
        }
        if self.journal.as_mut().is_none_or(|journal| journal.taken_over(receipt, before)) {
            self.stage(receipt.from, Envelope::Stored { receipt });
        }
    }

    /// Records that a message goes to a client under this identifier. Whether it is sent later: a QoS 2 message leaves
    /// under an identifier that is known for good, or the client might get it again under another.
    pub(super) fn record_sent(
        &mut self,
        now: Instant,
        conn: ConnId,
        key: SessionKey,
        (delivery, packet_id): (Id, PacketId),
        qos: QoS,
    ) -> bool {
        self.record(key, |client_id| Record::Sent { client_id, delivery, packet_id });
        let waits = qos == QoS::ExactlyOnce;
        if waits {
            self.hold(now, conn, Packet::Publish { packet_id, dup: false });
        }
        waits
    }

    /// The client has sent PUBREC.
    pub(super) fn record_pubrec(&mut self, key: SessionKey, packet_id: PacketId) {
        let delivery = self.sessions.get(key).and_then(|session| session.state.message(packet_id)?.stored);
        if let Some(delivery) = delivery {
            self.record(key, |client_id| Record::PubRec { client_id, delivery });
        }
    }

    /// A delivery is over.
    pub(super) fn record_settled(&mut self, key: SessionKey, delivery: &Delivery) {
        if let (Some(journal), Some(stored)) = (&mut self.journal, delivery.stored)
            && let Some(session) = self.sessions.get(key)
        {
            journal.settled(session, stored);
        }
    }

    /// A subscription is made or replaced.
    pub(super) fn record_subscription(
        &mut self,
        key: SessionKey,
        filter: &Text,
        options: SubscriptionOptions,
        id: Option<u32>,
    ) {
        let filter = filter.clone();
        let subscription = SubscriptionState { options, id };
        self.record(key, |client_id| Record::Subscription { client_id, filter, subscription });
    }

    /// A subscription ends.
    pub(super) fn record_unsubscription(&mut self, key: SessionKey, filter: &Text) {
        let filter = filter.clone();
        self.record(key, |client_id| Record::SubscriptionRemoved { client_id, filter });
    }

    /// A session begins or changes. One that has come to end with its connection is stored no more.
    pub(super) fn record_session(&mut self, key: SessionKey) {
        let Some(journal) = &mut self.journal else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.is_persistent() {
            session.is_stored = true;
            journal.session(session);
        } else if session.is_stored {
            session.is_stored = false;
            journal.push(Record::SessionRemoved { client_id: session.client_text() });
        }
    }

    /// A session ends.
    pub(super) fn record_session_removed(&mut self, key: SessionKey) {
        self.record(key, |client_id| Record::SessionRemoved { client_id });
        if let Some(session) = self.sessions.get_mut(key) {
            session.is_stored = false;
        }
    }

    /// A change of a session, if that is stored.
    fn record(&mut self, key: SessionKey, make: impl FnOnce(Text) -> Record) {
        let Some(journal) = &mut self.journal else { return };
        if let Some(session) = self.sessions.get(key).filter(|session| session.is_stored) {
            journal.push(make(session.client_text()));
        }
    }

    fn is_stored(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| session.is_stored)
    }

    /// What a packet vouches for is committed, or there is no store. Whether it was given up, since the client has no room
    /// for it, and with it its place in the window.
    fn send_vouched(&mut self, now: Instant, id: ConnId, packet: Packet) -> bool {
        match packet {
            Packet::Ack { kind, packet_id, reason, why, frees } => {
                match why {
                    Some(why) => self.wire.ack_because(id, kind, packet_id, reason, why),
                    None => self.wire.ack(id, kind, packet_id, reason),
                }
                if let Some(qos) = frees
                    && let Some(session) = self.session_of(id).and_then(|key| self.sessions.get_mut(key))
                {
                    session.state.acknowledged(packet_id, qos);
                }
            }
            Packet::Other(packet) => {
                self.wire.packet(id, *packet);
            }
            Packet::Publish { packet_id, dup } => {
                let Some(key) = self.session_of(id) else { return false };
                let Some(session) = self.sessions.get_mut(key) else { return false };
                let Some(delivery) = session.state.message(packet_id) else { return false };
                let written = deliver::write(&mut self.wire, id, delivery, Some(packet_id), dup, now);
                if written == Written::TooLarge
                    && let Some(delivery) = session.state.discard(packet_id)
                {
                    self.drop_delivery(key, delivery, DropReason::PacketTooLarge);
                    return true;
                }
            }
        }
        false
    }
}
