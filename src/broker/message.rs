//! An application message inside the broker, and the view of it that is passed along while it is delivered.

use std::{sync::Arc, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    codec::{Publish, PublishRef, QoS, Text, TopicName, publish::forward_owned},
    router::{SessionKey, ShardId},
};

/// An application message the broker keeps: retained, queued, in flight, or on its way to another shard. Its parts
/// share one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) topic: Text,
    pub(crate) payload: Bytes,
    /// Properties that are passed on, encoded for MQTT 5, without their length.
    pub(crate) properties: Bytes,
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

impl Message {
    /// A message from the process itself: QoS 0, not retained, without properties or expiry.
    pub fn new(topic: TopicName, payload: Bytes) -> Self {
        Self {
            topic: topic.as_text().clone(),
            payload,
            properties: Bytes::new(),
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
        Self {
            topic: publish.topic.as_text().clone(),
            payload: publish.payload.clone(),
            properties: properties.into(),
            qos: publish.qos,
            retain: publish.retain,
            expires_at: None,
            publisher: None,
        }
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
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// What it is charged with, bytes.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len() + std::mem::size_of::<Self>()
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
    /// Its name in the shard's log, once it is written there.
    pub(crate) stored: Option<crate::store::Id>,
    kept: Option<Arc<Message>>,
}

impl<'a> Parcel<'a> {
    /// A PUBLISH in the read buffer; `topic` has its alias resolved, `properties` are those to pass on.
    pub(crate) fn from_wire(
        publish: &PublishRef<'a>,
        topic: &'a str,
        properties: &'a [u8],
        publisher: Publisher,
        now: Instant,
    ) -> Self {
        Self {
            topic,
            payload: publish.payload,
            properties,
            qos: publish.qos,
            retain: publish.retain,
            expires_at: publish.message_expiry.map(|seconds| expiry(now, seconds)),
            publisher: Some(publisher),
            stored: None,
            kept: None,
        }
    }

    /// A message that is kept already.
    pub(crate) fn from_message(message: &'a Arc<Message>) -> Self {
        Self {
            topic: &message.topic,
            payload: &message.payload,
            properties: &message.properties,
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
            publisher: message.publisher,
            stored: None,
            kept: Some(Arc::clone(message)),
        }
    }

    /// The message to keep; copied out of the read buffer the first time.
    pub(crate) fn keep(&mut self) -> &Arc<Message> {
        self.kept.get_or_insert_with(|| {
            let mut buffer = BytesMut::with_capacity(self.topic.len() + self.properties.len() + self.payload.len());
            buffer.put_slice(self.topic.as_bytes());
            buffer.put_slice(self.properties);
            buffer.put_slice(self.payload);
            let mut rest = buffer.freeze();
            let topic = rest.split_to(self.topic.len());
            let properties = rest.split_to(self.properties.len());
            Arc::new(Message {
                topic: Text::from_utf8(topic).unwrap_or_default(),
                payload: rest,
                properties,
                qos: self.qos,
                retain: self.retain,
                expires_at: self.expires_at,
                publisher: self.publisher,
            })
        })
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
