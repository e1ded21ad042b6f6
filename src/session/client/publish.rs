//! Outgoing publications: checked, written at once if that is allowed, else queued; and their acknowledgements.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Capabilities, ClientSession, Event, PUBREL, Phase, PublishAck, RequestError, Token,
    journal::{Kept, instant, unix_ms},
    receive::Violation,
    write_ack,
};
use crate::{
    codec::{
        Ack, Limits, PacketId, Properties, Property, PublishHead, QoS, ReasonCode, Text, TopicName, Version,
        publish::forward_owned, topic::check_name,
    },
    session::{AckError, Full, OutgoingAliases, Send, Stored, alias::Naming},
};

/// A publication as the caller has it; copied only if it must be kept.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Payload.
    pub payload: Payload<'a>,
    /// Quality of service.
    pub qos: QoS,
    /// Ask the server to retain it.
    pub retain: bool,
    /// MQTT 5 properties.
    pub properties: &'a Properties,
}

/// Where a payload lies.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// In memory of the caller: copied if kept.
    Borrowed(&'a [u8]),
    /// In memory that can be shared.
    Shared(&'a Bytes),
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// QoS 0, in the output: done, no event follows.
    Written,
    /// In flight or queued: [`Event::Published`] follows.
    Accepted,
}

/// A publication as the session keeps it.
#[derive(Debug)]
pub(super) struct OutMessage {
    topic: TopicName,
    payload: Bytes,
    /// Encoded, without the message expiry interval, which is counted down.
    properties: Vec<u8>,
    qos: QoS,
    retain: bool,
    expires_at: Option<Instant>,
    pub(super) token: Token,
    /// Its number in the journal; 0 if it is not kept.
    pub(super) spooled: u64,
}

impl Payload<'_> {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    fn to_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

impl ClientSession {
    /// Publishes. With no connection, or no room in the window, the message is queued within the bounds of
    /// [`super::SessionOptions::queue`].
    pub fn publish(&mut self, now: Instant, message: &Outgoing<'_>, token: Token) -> Result<Published, RequestError> {
        self.check(message)?;
        let is_online = self.phase == Phase::Online;
        if message.qos == QoS::AtMostOnce {
            if is_online && self.queued_qos0 == 0 {
                self.write_once(now, message)?;
                return Ok(Published::Written);
            }
            if !is_online && !self.options.queue_qos0 {
                return Err(RequestError::Offline);
            }
        }
        let mut message = self.keep(message, token, now)?;
        if message.qos > QoS::AtMostOnce && !self.has_spool_room(message.bytes()) {
            let (messages, bytes) = (self.spooled(), self.spooled_bytes());
            return Err(RequestError::QueueFull { messages, bytes });
        }
        let has_room = self.out.len() < OUTPUT_BYTES_HIGH;
        if is_online && has_room && message.qos > QoS::AtMostOnce && self.session.may_send() {
            self.record_accepted(&mut message);
            self.write_new(now, message)?;
        } else {
            self.enqueue(now, message)?;
        }
        Ok(Published::Accepted)
    }

    /// Whether [`Self::publish`] would find room in the queue for a message of [`Outgoing::queue_bytes`].
    pub fn has_queue_room(&self, queue_bytes: usize) -> bool {
        let queue = &self.options.queue;
        self.session.pending() < queue.messages_max
            && self.session.pending_bytes() + queue_bytes <= queue.bytes_max
            && self.has_spool_room(queue_bytes)
    }

    /// Whether at least a quarter of the queue is free, so that it is worth it to wake those who wait for room.
    pub fn has_much_queue_room(&self) -> bool {
        let queue = &self.options.queue;
        self.session.pending() <= queue.messages_max / 4 * 3
            && self.session.pending_bytes() <= queue.bytes_max / 4 * 3
            && self.has_much_spool_room()
    }

    /// Fails every publication and request that is not finished; for a client that closes. What is kept stays kept.
    pub fn abandon(&mut self) {
        self.queued_qos0 = 0;
        for message in std::mem::take(&mut self.session).into_messages() {
            self.events.push_back(Event::Published(message.token, Err(RequestError::Closed)));
        }
        self.abandon_requests();
    }

    /// Sends what the window and the output's bound allow: first what is to be sent again, then the queue.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.out.len() < OUTPUT_BYTES_HIGH {
            match self.session.poll_send(now) {
                None => return,
                Some(Send::Publish { packet_id, dup, message }) => {
                    if let Some(journal) = &mut self.journal {
                        journal.sending(message, packet_id, dup, self.out.len());
                    }
                    let (out, aliases) = (&mut self.out, &mut self.aliases_out);
                    let mut wire = Wire::new(out, aliases, &self.server, self.options.version, now);
                    if let Err(fault) = wire.publish(message, Some(packet_id), dup) {
                        self.give_up(packet_id, fault);
                    }
                }
                Some(Send::PubRel(id)) => {
                    self.wait_for_commit();
                    write_ack(&mut self.out, self.options.version, PUBREL, id.get(), ReasonCode::Success);
                }
                Some(Send::Once(message)) => {
                    self.queued_qos0 -= 1;
                    let (out, aliases) = (&mut self.out, &mut self.aliases_out);
                    let mut wire = Wire::new(out, aliases, &self.server, self.options.version, now);
                    let result = wire.publish(&message, None, false).map(|()| PublishAck::success());
                    self.events.push_back(Event::Published(message.token, result));
                }
                Some(Send::Expired(message)) => {
                    self.queued_qos0 -= usize::from(message.qos == QoS::AtMostOnce);
                    self.given_up(&message, RequestError::Expired);
                }
            }
        }
    }

    pub(super) fn handle_puback(&mut self, ack: Ack) -> Result<(), Violation> {
        match self.session.handle_puback(ack.packet_id) {
            Ok(message) => self.published(&message, ack.reason, ack.properties),
            // It answers a publication that was given up before it was sent again.
            Err(AckError::Unknown) => {}
            Err(AckError::Unexpected) => {
                return Err(Violation::protocol("PUBACK for a packet that is no QoS 1 PUBLISH"));
            }
        }
        Ok(())
    }

    pub(super) fn handle_pubrec(&mut self, ack: Ack) -> Result<(), Violation> {
        let failed = ack.reason.is_error();
        let reason = match self.session.handle_pubrec(ack.packet_id, failed) {
            Ok(Some(message)) => {
                self.published(&message, ack.reason, ack.properties);
                return Ok(());
            }
            Ok(None) => {
                self.record_pubrec(ack.packet_id);
                ReasonCode::Success
            }
            Err(AckError::Unknown) if failed => return Ok(()),
            Err(AckError::Unknown) => ReasonCode::PacketIdentifierNotFound,
            Err(AckError::Unexpected) => {
                return Err(Violation::protocol("PUBREC for a packet that is no QoS 2 PUBLISH"));
            }
        };
        // [MQTT-4.3.3-4] PUBREL answers every PUBREC that does not refuse.
        write_ack(&mut self.out, self.options.version, PUBREL, ack.packet_id.get(), reason);
        Ok(())
    }

    pub(super) fn handle_pubcomp(&mut self, ack: Ack) -> Result<(), Violation> {
        match self.session.handle_pubcomp(ack.packet_id) {
            // The server took the message with PUBREC; that it has forgotten the identifier since is no failure.
            Ok(message) if ack.reason == ReasonCode::PacketIdentifierNotFound => {
                self.published(&message, ReasonCode::Success, ack.properties);
            }
            Ok(message) => self.published(&message, ack.reason, ack.properties),
            Err(AckError::Unknown) => {}
            Err(AckError::Unexpected) => return Err(Violation::protocol("PUBCOMP for a packet that awaits none")),
        }
        Ok(())
    }

    fn published(&mut self, message: &OutMessage, reason: ReasonCode, properties: Properties) {
        self.record_settled(message);
        self.events.push_back(Event::Published(message.token, Ok(PublishAck { reason, properties })));
    }

    pub(super) fn given_up(&mut self, message: &OutMessage, fault: RequestError) {
        self.record_settled(message);
        self.events.push_back(Event::Published(message.token, Err(fault)));
    }

    /// Judges what does not depend on when the message is sent, and what the present server says.
    fn check(&mut self, message: &Outgoing<'_>) -> Result<(), RequestError> {
        if message.topic != self.checked_topic || message.topic.is_empty() {
            check_name(message.topic, &self.options.limits)?;
            self.checked_topic.clear();
            self.checked_topic.push_str(message.topic);
            self.kept_topic = None;
        }
        if !message.properties.is_empty() {
            check_properties(message.properties, self.options.version)?;
        }
        if self.phase == Phase::Online {
            check_capabilities(&self.server, message.qos, message.retain)?;
        }
        Ok(())
    }

    /// The message in memory of its own; the topic shares that of the message before if it is the same.
    fn keep(&mut self, message: &Outgoing<'_>, token: Token, now: Instant) -> Result<OutMessage, RequestError> {
        let expiry = message.properties.message_expiry_interval();
        let mut properties = Vec::new();
        forward_owned(message.properties, &mut properties)?;
        let topic = self.kept_topic.get_or_insert_with(|| {
            TopicName::from_checked(Text::try_from(message.topic).expect("the topic was checked"))
        });
        Ok(OutMessage {
            topic: topic.clone(),
            payload: message.payload.to_bytes(),
            properties,
            qos: message.qos,
            retain: message.retain,
            expires_at: expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
            token,
            spooled: 0,
        })
    }

    fn write_once(&mut self, now: Instant, message: &Outgoing<'_>) -> Result<(), RequestError> {
        let mut wire = Wire::new(&mut self.out, &mut self.aliases_out, &self.server, self.options.version, now);
        let mut properties = Vec::new();
        forward_owned(message.properties, &mut properties)?;
        let head = PublishHead {
            retain: message.retain,
            topic: message.topic,
            message_expiry: message.properties.message_expiry_interval(),
            properties: &properties,
            ..PublishHead::default()
        };
        wire.write(head, None, message.payload.as_slice())
    }

    fn write_new(&mut self, now: Instant, message: OutMessage) -> Result<(), RequestError> {
        let packet_id = self.session.sent(message);
        let message = self.session.message(packet_id).expect("it was just recorded");
        if let Some(journal) = &mut self.journal {
            journal.sending(message, packet_id, false, self.out.len());
        }
        let mut wire = Wire::new(&mut self.out, &mut self.aliases_out, &self.server, self.options.version, now);
        let written = wire.publish(message, Some(packet_id), false);
        if written.is_err() {
            self.withdraw(packet_id);
        }
        written
    }

    fn enqueue(&mut self, now: Instant, mut message: OutMessage) -> Result<(), RequestError> {
        if !self.has_queue_room(message.bytes()) {
            self.sweep(now);
        }
        if self.options.queue.drop_oldest || self.has_queue_room(message.bytes()) {
            self.record_accepted(&mut message);
        }
        let queued_qos0 = usize::from(message.qos == QoS::AtMostOnce);
        let (messages, bytes) = (self.session.pending(), self.session.pending_bytes());
        match self.session.enqueue(message, &self.options.queue) {
            Ok(()) => {}
            Err(Full::New(message)) => {
                self.record_settled(&message);
                return Err(RequestError::QueueFull { messages, bytes });
            }
            Err(Full::Oldest(dropped)) => {
                for message in dropped {
                    self.queued_qos0 -= usize::from(message.qos == QoS::AtMostOnce);
                    self.given_up(&message, RequestError::Displaced);
                }
            }
        }
        self.queued_qos0 += queued_qos0;
        Ok(())
    }

    fn sweep(&mut self, now: Instant) {
        let mut expired = Vec::new();
        self.session.sweep(now, |message| expired.push(message));
        for message in expired {
            self.queued_qos0 -= usize::from(message.qos == QoS::AtMostOnce);
            self.given_up(&message, RequestError::Expired);
        }
    }

    /// A message in flight that this server cannot take.
    fn give_up(&mut self, packet_id: PacketId, fault: RequestError) {
        if let Some(message) = self.withdraw(packet_id) {
            self.events.push_back(Event::Published(message.token, Err(fault)));
        }
    }

    fn withdraw(&mut self, packet_id: PacketId) -> Option<OutMessage> {
        let message = match self.session.message(packet_id)?.qos {
            QoS::ExactlyOnce => self.session.handle_pubrec(packet_id, true).ok().flatten(),
            _ => self.session.handle_puback(packet_id).ok(),
        }?;
        self.record_settled(&message);
        Some(message)
    }
}

impl OutMessage {
    /// A publication of an earlier process; nobody waits for it any more.
    pub(super) fn restore(kept: Kept, id: u64, clock: (Instant, Duration)) -> Self {
        Self {
            topic: TopicName::from_checked(kept.topic),
            payload: kept.payload,
            properties: kept.properties.into(),
            qos: kept.qos,
            retain: kept.retain,
            expires_at: kept.expires_at.map(|at| instant(clock, at)),
            token: 0,
            spooled: id,
        }
    }

    /// As it is kept.
    pub(super) fn to_kept(&self, clock: (Instant, Duration)) -> Kept {
        Kept {
            topic: self.topic.as_text().clone(),
            payload: self.payload.clone(),
            properties: Bytes::copy_from_slice(&self.properties),
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at.map(|at| unix_ms(clock, at)),
        }
    }
}

impl Outgoing<'_> {
    /// What the message is charged with in the queue.
    pub fn queue_bytes(&self) -> usize {
        let mut properties = Vec::new();
        // Properties that cannot be encoded are refused before there is any queueing.
        let _ = forward_owned(self.properties, &mut properties);
        self.topic.len() + self.payload.as_slice().len() + properties.len() + MESSAGE_BYTES
    }
}

impl Stored for OutMessage {
    fn qos(&self) -> QoS {
        self.qos
    }

    fn bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.len() + MESSAGE_BYTES
    }

    fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }
}

impl PublishAck {
    /// What a QoS 0 publication ends with: it was sent.
    pub const fn success() -> Self {
        Self { reason: ReasonCode::Success, properties: Properties::new() }
    }
}

/// Where publications are written to, and by which rules.
struct Wire<'a> {
    out: &'a mut Vec<u8>,
    aliases: &'a mut OutgoingAliases,
    server: &'a Capabilities,
    version: Version,
    now: Instant,
}

impl<'a> Wire<'a> {
    fn new(
        out: &'a mut Vec<u8>,
        aliases: &'a mut OutgoingAliases,
        server: &'a Capabilities,
        version: Version,
        now: Instant,
    ) -> Self {
        Self { out, aliases, server, version, now }
    }

    fn publish(&mut self, message: &OutMessage, packet_id: Option<PacketId>, dup: bool) -> Result<(), RequestError> {
        check_capabilities(self.server, message.qos, message.retain)?;
        let head = PublishHead {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic: message.topic.as_str(),
            message_expiry: message.expires_at.map(|at| seconds_left(at, self.now)),
            properties: &message.properties,
            ..PublishHead::default()
        };
        self.write(head, packet_id, &message.payload)
    }

    /// Writes the packet if the server takes one of its size, naming the topic by an alias if that is allowed.
    fn write(&mut self, mut head: PublishHead<'_>, id: Option<PacketId>, payload: &[u8]) -> Result<(), RequestError> {
        let max = self.server.maximum_packet_size;
        let mut len = head.packet_len(self.version, payload.len());
        // With an alias it may be a few bytes longer; one that the server would never see must not be set.
        if self.aliases.is_enabled() && len + ALIAS_BYTES <= max as usize {
            match self.aliases.name(head.topic) {
                Naming::Topic => {}
                Naming::Both(alias) => head.topic_alias = Some(alias),
                Naming::Alias(alias) => (head.topic_alias, head.alias_only) = (Some(alias), true),
            }
            len = head.packet_len(self.version, payload.len());
        }
        if len > max as usize {
            return Err(RequestError::PacketTooLarge { len, max });
        }
        self.out.reserve(len);
        let start = self.out.len();
        let id_at = head.encode(self.version, payload.len(), self.out)?;
        if let (Some(at), Some(id)) = (id_at, id) {
            let place = self.out.get_mut(start + at..start + at + 2).expect("the head has a place for the identifier");
            place.copy_from_slice(&id.get().to_be_bytes());
        }
        self.out.extend_from_slice(payload);
        Ok(())
    }
}

/// What is left of a message expiry interval, in seconds begun.
fn seconds_left(expires_at: Instant, now: Instant) -> u32 {
    let left = expires_at.saturating_duration_since(now);
    left.as_secs() as u32 + u32::from(left.subsec_nanos() > 0)
}

fn check_capabilities(server: &Capabilities, qos: QoS, retain: bool) -> Result<(), RequestError> {
    if qos > server.maximum_qos {
        return Err(RequestError::QoSNotSupported { max: server.maximum_qos });
    }
    if retain && !server.retain_available {
        return Err(RequestError::RetainNotSupported);
    }
    Ok(())
}

fn check_properties(properties: &Properties, version: Version) -> Result<(), RequestError> {
    if !version.is_v5() {
        return Err(RequestError::NeedsVersion5("a PUBLISH with properties"));
    }
    for property in properties {
        match property {
            Property::PayloadFormatIndicator(_)
            | Property::MessageExpiryInterval(_)
            | Property::ContentType(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(_) => {}
            // [MQTT-3.3.2-14]
            Property::ResponseTopic(topic) => check_name(topic, &Limits::default())?,
            Property::SubscriptionIdentifier(_) => {
                // [MQTT-3.3.4-6]
                return Err(RequestError::NotAllowed("a client must not publish with a subscription identifier"));
            }
            Property::TopicAlias(_) => {
                return Err(RequestError::NotAllowed("topic aliases are the session's: allow them in the options"));
            }
            _ => return Err(RequestError::NotAllowed("a property that PUBLISH does not have")),
        }
    }
    Ok(())
}

/// What setting an alias adds to a PUBLISH at most: the property, and a longer length of the properties and the packet.
const ALIAS_BYTES: usize = 5;

/// Output beyond this is not added from the queue; it is refilled as it is written.
const OUTPUT_BYTES_HIGH: usize = 1 << 20;

/// What a queued message is charged with beside its topic and payload.
const MESSAGE_BYTES: usize = size_of::<OutMessage>();
