//! An application message inside the broker, and the view of it that is passed along while it is delivered.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::frames::{SHARE_ABOVE_BYTES, SHARE_WITH_ONE_ABOVE_BYTES};
use crate::{
    codec::{Publish, PublishRef, QoS, TextAnd, TopicName, publish::forward_owned},
    router::{SessionKey, ShardId},
};

/// An application message the broker keeps: retained, queued, in flight, or on its way to another shard. Small ones are
/// one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic; properties that are passed on, encoded for MQTT 5, without their length; the payload if it is not shared.
    parts: TextAnd,
    properties_len: u32,
    /// The payload, if it is one of those that subscribers share.
    shared: Option<Bytes>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) publisher: Option<Publisher>,
}

/// The session that published a message, for No Local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publisher {
    pub(crate) shard: ShardId,
    pub(crate) session: SessionKey,
    /// Hash of the client identifier, for the strategies of shared subscriptions.
    pub(crate) client_hash: u64,
}

impl Publisher {
    /// What stands where there is none yet.
    pub(crate) const fn nobody() -> Self {
        Self { shard: ShardId(0), session: SessionKey::first(0), client_hash: 0 }
    }
}

impl Message {
    /// A message from the process itself: QoS 0, not retained, without properties or expiry.
    pub fn new(topic: TopicName, payload: Bytes) -> Self {
        Self::of(topic.as_str(), &[], &payload, || payload.clone())
    }

    /// A message of these parts. A payload that is to be shared comes from `share`.
    #[inline]
    pub(crate) fn of(topic: &str, properties: &[u8], payload: &[u8], share: impl FnOnce() -> Bytes) -> Self {
        let shared = (payload.len() >= SHARE_ABOVE_BYTES).then(share);
        let copied = if shared.is_some() { &[] } else { payload };
        Self {
            parts: TextAnd::new(topic, [properties, copied]),
            properties_len: properties.len() as u32,
            shared,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            publisher: None,
        }
    }

    /// A message from the process itself, with everything a PUBLISH can say; its expiry counts from `now`.
    pub fn from_publish(publish: &Publish, now: Instant) -> Self {
        let expires_at = publish.properties.message_expiry_interval().map(|seconds| expiry(now, seconds));
        Self { expires_at, ..Self::without_expiry(publish) }
    }

    /// A message that does not expire, whatever its properties say.
    pub(crate) fn without_expiry(publish: &Publish) -> Self {
        let mut properties = Vec::new();
        if let Err(error) = forward_owned(&publish.properties, &mut properties) {
            tracing::debug!(%error, "properties left out");
        }
        let payload = &publish.payload;
        let message = Self::of(publish.topic.as_str(), &properties, payload, || payload.clone());
        message.qos(publish.qos).retain(publish.retain)
    }

    /// With this quality of service.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// With the RETAIN flag.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// The topic.
    #[inline]
    pub fn topic(&self) -> &str {
        self.parts.text()
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        match &self.shared {
            Some(payload) => payload,
            None => self.parts.behind().get(self.properties_len as usize..).unwrap_or_default(),
        }
    }

    /// The payload, shared if it is large.
    pub fn payload_bytes(&self) -> Bytes {
        self.shared.clone().unwrap_or_else(|| Bytes::copy_from_slice(self.payload()))
    }

    /// Properties that are passed on, encoded for MQTT 5, without their length.
    #[inline]
    pub(crate) fn properties(&self) -> &[u8] {
        self.parts.behind().get(..self.properties_len as usize).unwrap_or_default()
    }

    /// What it is charged with, bytes.
    pub fn bytes(&self) -> usize {
        self.topic().len() + self.properties().len() + self.payload().len() + std::mem::size_of::<Self>()
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A message on its way through one shard: borrowed from the read buffer, or from a [`Message`]. What it takes to keep
/// it is made at most once, and only if somebody needs it.
#[derive(Debug)]
pub(crate) struct Parcel<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) properties: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) publisher: Option<Publisher>,
    /// Of this shard's sessions one alone is to have it.
    pub(crate) is_for_one: bool,
    /// Its name in the shard's log, once it is written there.
    pub(crate) stored: Option<crate::store::Id>,
    /// How it came, if that is how it may go on.
    pub(crate) as_sent: Option<AsSent<'a>>,
    /// The payload as part of a buffer that it may stay in.
    shared: Option<Bytes>,
    kept: Option<Arc<Message>>,
}

/// The body of a PUBLISH that says nothing of its hop: to subscribers of the same kind it goes as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsSent<'a> {
    pub(crate) body: &'a [u8],
    /// Whether it has properties, which MQTT 5 brought.
    pub(crate) is_v5: bool,
    /// Whether it has a packet identifier.
    pub(crate) is_acked: bool,
}

impl<'a> Parcel<'a> {
    /// A PUBLISH in the read buffer; `topic` has its alias resolved, `properties` are those to pass on.
    pub(crate) fn from_wire(
        publish: &PublishRef<'a>,
        topic: &'a str,
        properties: &'a [u8],
        publisher: Publisher,
        is_v5: bool,
        now: Instant,
    ) -> Self {
        let as_sent = AsSent { body: publish.body, is_v5, is_acked: publish.packet_id.is_some() };
        Self {
            topic,
            payload: publish.payload,
            properties,
            qos: publish.qos,
            retain: publish.retain,
            expires_at: publish.message_expiry.map(|seconds| expiry(now, seconds)),
            publisher: Some(publisher),
            is_for_one: false,
            stored: None,
            as_sent: publish.is_forwardable().then_some(as_sent),
            shared: None,
            kept: None,
        }
    }

    /// One that says nothing but its topic, QoS and payload.
    pub(crate) fn plain(topic: &'a str, payload: &'a [u8], qos: QoS, by: Publisher, as_sent: AsSent<'a>) -> Self {
        Self {
            topic,
            payload,
            properties: &[],
            qos,
            retain: false,
            expires_at: None,
            publisher: Some(by),
            is_for_one: false,
            stored: None,
            as_sent: Some(as_sent),
            shared: None,
            kept: None,
        }
    }

    /// The parcel lies in this buffer, and nothing else does. The payload stays in it if that keeps little else alive.
    pub(crate) fn share(&mut self, whole: &Bytes) {
        let is_most = self.payload.len() >= SHARE_ABOVE_BYTES && self.payload.len() >= whole.len() / 4 * 3;
        self.shared = is_most.then(|| whole.slice_ref(self.payload));
    }

    /// A message that is kept already.
    pub(crate) fn from_message(message: &'a Arc<Message>) -> Self {
        Self {
            topic: message.topic(),
            payload: message.payload(),
            properties: message.properties(),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
            publisher: message.publisher,
            is_for_one: false,
            stored: None,
            as_sent: None,
            shared: None,
            kept: Some(Arc::clone(message)),
        }
    }

    /// The message to keep; copied out of the read buffer the first time.
    pub(crate) fn keep(&mut self) -> &Arc<Message> {
        self.kept.get_or_insert_with(|| {
            let share = || self.shared.take().unwrap_or_else(|| Bytes::copy_from_slice(self.payload));
            let message = Message::of(self.topic, self.properties, self.payload, share);
            Arc::new(Message {
                qos: self.qos,
                retain: self.retain,
                expires_at: self.expires_at,
                publisher: self.publisher,
                ..message
            })
        })
    }

    /// Whether its subscribers share the payload; else it is copied to each of them.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        let from_bytes = if self.is_for_one { SHARE_WITH_ONE_ABOVE_BYTES } else { SHARE_ABOVE_BYTES };
        self.payload.len() >= from_bytes
    }

    /// Seconds of its expiry interval that are left, if it has one [MQTT-3.3.2-6].
    pub(crate) fn expiry_left(&self, now: Instant) -> Option<u32> {
        self.expires_at.map(|at| seconds_left(at, now))
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The moment `seconds` from `now`, or the end of time that can be told.
pub(crate) fn expiry(now: Instant, seconds: u32) -> Instant {
    now + std::time::Duration::from_secs(seconds.into())
}

/// Whole seconds from `now` to `at`, rounded up so that a live message never says 0.
pub(crate) fn seconds_left(at: Instant, now: Instant) -> u32 {
    let left = at.saturating_duration_since(now);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
