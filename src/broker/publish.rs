//! PUBLISH from a client, end to end, and the acknowledgements in both directions.

use std::{sync::Arc, time::Instant};

use super::{
    deliver::{Settled, settle},
    delivery::Delivery,
    input::{Handled, PUBACK},
    journal::Packet as Vouch,
    message::{Parcel, Publisher},
    permit::Judged,
    reasons::{DropReason, EndReason},
    shard::Shard,
    slots::ConnId,
    wire::AckKind,
};
use crate::{
    codec::{DecodeError, PacketId, PublishRef, QoS, ReasonCode},
    router::SessionKey,
    session::{AckError, Received, Session},
};

/// Why a publication is not accepted, though the connection goes on if its QoS lets the client be told.
struct Refusal {
    reason: ReasonCode,
    drop: DropReason,
    why: &'static str,
}

impl Shard {
    /// A well-formed PUBLISH on a connected client.
    pub(super) fn handle_publish(&mut self, now: Instant, id: ConnId, publish: &PublishRef<'_>) -> Handled {
        let by_alias;
        let topic = match self.topic_of(id, publish) {
            Ok(None) => publish.topic,
            Ok(Some(topic)) => {
                by_alias = topic;
                &*by_alias
            }
            Err(fault) => {
                self.fault(now, id, &fault);
                return Handled::Yes;
            }
        };
        let judged = self.judge_publish(id, topic, publish);
        if judged == Judged::Deferred {
            return Handled::Later;
        }
        self.handle_judged(now, id, topic, publish, judged == Judged::Allowed);
        Handled::Yes
    }

    /// A PUBLISH whose topic is known, and whether it may be published there.
    fn handle_judged(&mut self, now: Instant, id: ConnId, topic: &str, publish: &PublishRef<'_>, is_allowed: bool) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        let Some(key) = conn.session else { return };
        conn.is_publisher = true;
        self.wire.out.stats.publish_received += 1;
        self.wire.out.stats.publish_bytes_received += publish.payload.len() as u64;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let client_hash = session.client_hash;
        let from =
            From { id, by: Publisher { shard: self.id, session: key, client_hash }, is_v5: session.version.is_v5() };
        if let Some(packet_id) = publish.packet_id {
            let is_answered_at_once = self.journal.is_none() && publish.qos == QoS::AtLeastOnce;
            let received = if is_answered_at_once {
                session.state.judge_publish(packet_id)
            } else {
                session.state.handle_publish(packet_id, publish.qos, publish.dup)
            };
            if received != Received::New && !self.answer_again(now, from, publish.qos, packet_id, received) {
                return;
            }
        }
        if let Err(refusal) = self.check_content(topic, publish, is_allowed) {
            self.count_drop_for(key, topic, refusal.drop);
            return self.refuse_publish(now, from, publish, &refusal);
        }
        self.begin_publish(key, publish);
        let reason = self.accept_publish(now, from, topic, publish);
        if let Some(packet_id) = publish.packet_id {
            self.send_receipt(now, from, packet_id, publish.qos, reason, None);
        }
    }

    /// PUBACKs at the start of `bytes` that say no more than success. Who gets many messages at once answers them at once:
    /// connection and session are looked up once for all of them. Returns how many bytes they took; from the first on that
    /// is out of order, each is handled by itself.
    pub(super) fn handle_puback_run(&mut self, now: Instant, id: ConnId, bytes: &[u8]) -> usize {
        let conn = self.wire.conns.get_mut(id).filter(|conn| conn.is_connected() && !conn.is_waiting());
        let Some((conn, key)) = conn.and_then(|conn| conn.session.map(|key| (conn, key))) else { return 0 };
        let Some(session) = self.sessions.get_mut(key) else { return 0 };
        let (mut count, mut settled) = (0, Settled::default());
        for packet in bytes.as_chunks::<4>().0 {
            let [PUBACK, 2, high, low] = *packet else { break };
            let Some(packet_id) = PacketId::new(u16::from_be_bytes([high, low])) else { break };
            let Ok(delivery) = session.state.handle_puback(packet_id) else { break };
            if let (Some(journal), Some(stored)) = (&mut self.journal, delivery.stored) {
                journal.settled(session, stored);
            }
            settled.add(delivery.member);
            count += 1;
        }
        drop(settled);
        if count > 0 {
            conn.heard = self.wire.epoch.moment(now);
            self.wire.out.stats.packets_received += count as u64;
            if session.has_unsent() {
                self.pump(now, key);
            }
        }
        4 * count
    }

    /// PUBACK from a client.
    #[inline]
    pub(super) fn handle_puback(&mut self, now: Instant, id: ConnId, packet_id: PacketId, reason: ReasonCode) {
        self.finish(now, id, reason, |session| session.handle_puback(packet_id));
    }

    /// PUBCOMP from a client.
    pub(super) fn handle_pubcomp(&mut self, now: Instant, id: ConnId, packet_id: PacketId, reason: ReasonCode) {
        self.finish(now, id, reason, |session| session.handle_pubcomp(packet_id));
    }

    /// PUBREC from a client: PUBREL follows, even for an identifier that is not known any more [MQTT-4.3.3-4].
    pub(super) fn handle_pubrec(&mut self, now: Instant, id: ConnId, packet_id: PacketId, reason: ReasonCode) {
        let failed = reason.is_error();
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.state.handle_pubrec(packet_id, failed) {
            Ok(None) => {
                self.record_pubrec(key, packet_id);
                self.ack_when_committed(now, id, AckKind::PubRel, packet_id, ReasonCode::Success);
            }
            Ok(Some(delivery)) => {
                self.drop_delivery(key, delivery, DropReason::RefusedByClient);
                self.pump(now, key);
            }
            // Only one that does not refuse asks for PUBREL.
            Err(AckError::Unknown) if failed => {}
            Err(AckError::Unknown) => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.ack_when_committed(now, id, AckKind::PubRel, packet_id, reason);
            }
            Err(AckError::Unexpected) => self.fault(now, id, &DecodeError::protocol("PUBREC for a QoS 1 message")),
        }
    }

    /// PUBREL from a client: PUBCOMP follows [MQTT-4.3.3-11].
    pub(super) fn handle_pubrel(&mut self, now: Instant, id: ConnId, packet_id: PacketId) {
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let found = session.state.handle_pubrel(packet_id);
        let reason = if found { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        if found {
            self.record_released(key, packet_id);
        }
        self.ack_when_committed(now, id, AckKind::PubComp, packet_id, reason);
    }

    /// Sets or removes the retained message of the parcel's topic [MQTT-3.3.1-5] [MQTT-3.3.1-6].
    pub(super) fn retain(&mut self, parcel: &mut Parcel<'_>) -> bool {
        let mut store = self.shared.retained.write();
        if parcel.payload.is_empty() {
            if store.remove(parcel.topic).is_some()
                && let Some(journal) = &mut self.journal
            {
                journal.retained_removed(parcel.topic);
            }
            return true;
        }
        if store.len() >= self.shared.settings.retained_messages_max && store.get(parcel.topic).is_none() {
            return false;
        }
        let message = Arc::clone(parcel.keep());
        if let Some(journal) = &mut self.journal {
            journal.retained(&message);
        }
        store.insert(message.topic(), Arc::clone(&message));
        true
    }

    /// The session of a connected client.
    pub(super) fn session_of(&self, id: ConnId) -> Option<SessionKey> {
        self.wire.conns.get(id).and_then(|conn| conn.session)
    }

    /// What the capabilities forbid; a client was told in CONNACK.
    fn check_publish(&self, publish: &PublishRef<'_>) -> Result<(), DecodeError> {
        let capabilities = &self.shared.settings.capabilities;
        if publish.qos > capabilities.maximum_qos {
            let what = "PUBLISH above the maximum QoS [MQTT-3.2.2-11]";
            return Err(DecodeError::Violation { reason: ReasonCode::QoSNotSupported, what });
        }
        if publish.retain && !capabilities.retain_available {
            let what = "PUBLISH with RETAIN, which is not available [MQTT-3.2.2-14]";
            return Err(DecodeError::Violation { reason: ReasonCode::RetainNotSupported, what });
        }
        if publish.has_subscription_identifier {
            return Err(DecodeError::protocol("PUBLISH from a client with a subscription identifier [MQTT-3.3.4-6]"));
        }
        Ok(())
    }

    /// What a capability or an alias stands in the way of; the topic if an alias stands for it.
    fn topic_of(&mut self, id: ConnId, publish: &PublishRef<'_>) -> Result<Option<crate::codec::Text>, DecodeError> {
        self.check_publish(publish)?;
        publish.topic_alias.map(|alias| self.resolve_alias(id, alias, publish.topic)).transpose()
    }

    fn resolve_alias(&mut self, id: ConnId, alias: u16, topic: &str) -> Result<crate::codec::Text, DecodeError> {
        let conn = self.wire.conns.get_mut(id).ok_or(DecodeError::protocol("no connection"))?;
        let aliases = &mut conn.extras_mut().incoming_aliases;
        aliases.set_maximum(self.shared.settings.capabilities.topic_alias_maximum);
        let result = if topic.is_empty() {
            aliases.get(alias).cloned()
        } else {
            let text = crate::codec::Text::try_from(topic).unwrap_or_default();
            aliases.set(alias, text.clone()).map(|()| text)
        };
        result.map_err(|reason| DecodeError::Violation {
            reason,
            what: "topic alias of 0, above the topic alias maximum, or not set [MQTT-3.3.2-8] [MQTT-3.3.2-9]",
        })
    }

    /// A PUBLISH whose packet identifier is known, or is one too many; whether it is to be delivered all the same.
    #[cold]
    fn answer_again(&mut self, now: Instant, from: From, qos: QoS, packet_id: PacketId, received: Received) -> bool {
        let reason = match received {
            Received::New => return true,
            // MQTT 3 cannot say so, and what is acknowledged must be delivered [MQTT-4.3.2-2].
            Received::InUse if !from.is_v5 && qos != QoS::ExactlyOnce => return true,
            Received::InUse if from.is_v5 => ReasonCode::PacketIdentifierInUse,
            // MQTT 3 cannot say so; the identifier is known, so the message counts as sent again.
            Received::InUse | Received::Duplicate => ReasonCode::Success,
            Received::OverMaximum => {
                let reason = ReasonCode::ReceiveMaximumExceeded;
                let what = "more unacknowledged PUBLISH than the receive maximum [MQTT-3.3.4-7]";
                self.fault(now, from.id, &DecodeError::Violation { reason, what });
                return false;
            }
        };
        let kind = if qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        self.ack_when_committed(now, from.id, kind, packet_id, reason);
        false
    }

    /// Who may publish what.
    fn check_content(&self, topic: &str, publish: &PublishRef<'_>, is_allowed: bool) -> Result<(), Refusal> {
        if is_reserved(topic) {
            let why = "only the server publishes below $SYS";
            return Err(Refusal { reason: ReasonCode::NotAuthorized, drop: DropReason::NotAuthorized, why });
        }
        if self.shared.settings.check_payload_format
            && publish.payload_is_utf8
            && std::str::from_utf8(publish.payload).is_err()
        {
            let reason = ReasonCode::PayloadFormatInvalid;
            return Err(Refusal { reason, drop: DropReason::PayloadFormat, why: "the payload is not UTF-8" });
        }
        if !is_allowed {
            let why = "not allowed to publish to this topic";
            return Err(Refusal { reason: ReasonCode::NotAuthorized, drop: DropReason::NotAuthorized, why });
        }
        Ok(())
    }

    /// Retains and routes; returns what the publisher is told.
    #[inline]
    fn accept_publish(&mut self, now: Instant, from: From, topic: &str, publish: &PublishRef<'_>) -> ReasonCode {
        if self.gather(now, from.by, from.is_v5, publish) {
            return ReasonCode::Success;
        }
        let mut properties = std::mem::take(&mut self.properties);
        properties.clear();
        if !publish.properties.is_empty() {
            publish.forward_properties(&mut properties);
        }
        let mut parcel = Parcel::from_wire(publish, topic, &properties, from.by, from.is_v5, now);
        if let Some(whole) = &self.arrived {
            parcel.share(whole);
        }
        let is_kept = !publish.retain || self.retain(&mut parcel);
        if !is_kept {
            self.count_drop("", topic, DropReason::RetainedFull);
        }
        let has_subscribers = self.route(now, &mut parcel);
        self.properties = properties;
        match (is_kept, has_subscribers) {
            (false, _) => ReasonCode::QuotaExceeded,
            (true, true) => ReasonCode::Success,
            (true, false) => ReasonCode::NoMatchingSubscribers,
        }
    }

    /// Tells a publisher that its message was not accepted: in the acknowledgement, or, for QoS 0 with a payload that
    /// lies about itself, by DISCONNECT. Before MQTT 5 the message is acknowledged and dropped, as the client would
    /// else send it for ever (MQTT 3.1.1, section 3.3.5).
    fn refuse_publish(&mut self, now: Instant, from: From, publish: &PublishRef<'_>, refusal: &Refusal) {
        match publish.packet_id {
            Some(packet_id) => {
                self.send_receipt(now, from, packet_id, publish.qos, refusal.reason, Some(refusal.why));
            }
            None if refusal.reason == ReasonCode::PayloadFormatInvalid => {
                self.disconnect(now, from.id, refusal.reason, EndReason::PayloadFormat, Some(refusal.why));
            }
            None => {}
        }
    }

    #[inline]
    fn send_receipt(
        &mut self,
        now: Instant,
        from: From,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        why: Option<&'static str>,
    ) {
        let kind = if qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        if self.journal.is_none() && reason == ReasonCode::Success {
            return self.wire.ack(from.id, kind, packet_id, reason);
        }
        let is_final = qos == QoS::AtLeastOnce || (reason.is_error() && from.is_v5);
        if is_final && qos == QoS::ExactlyOnce {
            self.record_released(from.by.session, packet_id);
        }
        let (why, frees) = (why.filter(|_| from.is_v5), is_final.then_some(qos));
        self.acknowledge_publish(now, from.id, Vouch::Ack { kind, packet_id, reason, why, frees });
    }

    /// A message to a client is done.
    fn finish(
        &mut self,
        now: Instant,
        id: ConnId,
        reason: ReasonCode,
        take: impl FnOnce(&mut Session<Delivery>) -> Result<Delivery, AckError>,
    ) {
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        match take(&mut session.state) {
            Ok(delivery) if reason.is_error() => {
                self.drop_delivery(key, delivery, DropReason::RefusedByClient);
                self.pump(now, key);
            }
            Ok(delivery) => {
                let has_more = session.has_unsent();
                settle(&delivery);
                self.record_settled(key, &delivery);
                if has_more {
                    self.pump(now, key);
                }
            }
            // A late answer to something that is settled, as after a reconnect: nothing is lost by ignoring it.
            Err(AckError::Unknown) => {}
            Err(AckError::Unexpected) => {
                self.fault(now, id, &DecodeError::protocol("an acknowledgement that fits another QoS"));
            }
        }
    }
}

/// Whose PUBLISH is being handled.
#[derive(Clone, Copy)]
struct From {
    id: ConnId,
    by: Publisher,
    is_v5: bool,
}

/// Whether only the server may publish to a topic (section 4.7.2).
pub(super) fn is_reserved(topic: &str) -> bool {
    topic.strip_prefix("$SYS").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
