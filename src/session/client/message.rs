//! A received message: one shared slice of the read buffer, taken apart when asked.

use std::fmt;

use bytes::Bytes;

use crate::codec::{Frame, Limits, PacketId, Properties, PublishRef, QoS, Source, Text, Version};

/// An application message from the server. Cloning shares; only what is asked for is decoded.
///
/// A kept message keeps the buffer it came in, which may hold many others: [`Message::detach`] first.
#[derive(Clone)]
pub struct Message {
    /// The PUBLISH after its fixed header; validated when it came in.
    body: Bytes,
    /// The topic, if the packet named it by an alias.
    aliased: Option<Text>,
    ack: Option<AckHandle>,
    received_at_us: u64,
    topic_len: u16,
    payload_at: u32,
    header: u8,
    version: Version,
}

/// Names one received QoS 1 or 2 message, to acknowledge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AckHandle {
    pub(super) sequence: u64,
    pub(super) packet_id: PacketId,
    pub(super) exactly_once: bool,
}

impl AckHandle {
    /// Whether the message is a QoS 2 one, whose handle outlives the connection.
    pub const fn is_exactly_once(&self) -> bool {
        self.exactly_once
    }

    /// The packet identifier of the PUBLISH.
    pub const fn packet_id(&self) -> PacketId {
        self.packet_id
    }
}

impl Message {
    /// The message of a decoded PUBLISH, whose frame lies in `input`.
    pub(super) fn new(frame: Frame<'_>, publish: &PublishRef<'_>, version: Version, input: &Bytes) -> Self {
        let payload_at = frame.body.len() - publish.payload.len();
        Self {
            body: input.slice_ref(frame.body),
            aliased: None,
            ack: None,
            received_at_us: 0,
            topic_len: publish.topic.len() as u16,
            payload_at: payload_at as u32,
            header: frame.header,
            version,
        }
    }

    /// A message that was never on a wire, without properties; the topic is a valid one.
    pub fn compose(topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Self {
        let topic_len = u16::try_from(topic.len()).expect("a topic is no longer than 65,535 bytes");
        let mut body = Vec::with_capacity(4 + topic.len() + payload.len());
        body.extend_from_slice(&topic_len.to_be_bytes());
        body.extend_from_slice(topic.as_bytes());
        if qos != QoS::AtMostOnce {
            body.extend_from_slice(&1_u16.to_be_bytes());
        }
        let payload_at = body.len() as u32;
        body.extend_from_slice(payload);
        let header = 0x30 | (qos as u8) << 1 | u8::from(retain);
        let body = Bytes::from(body);
        let version = Version::V3_1_1;
        Self { body, aliased: None, ack: None, received_at_us: 0, topic_len, payload_at, header, version }
    }

    pub(super) fn with_topic(mut self, topic: Text) -> Self {
        self.aliased = Some(topic);
        self
    }

    pub(super) fn with_ack(mut self, ack: Option<AckHandle>) -> Self {
        self.ack = ack;
        self
    }

    pub(super) fn received_at(mut self, unix_us: u64) -> Self {
        self.received_at_us = unix_us;
        self
    }

    /// The topic.
    #[inline]
    pub fn topic(&self) -> &str {
        match &self.aliased {
            Some(topic) => topic,
            None => std::str::from_utf8(self.topic_bytes()).expect("validated when the packet was decoded"),
        }
    }

    /// The topic as UTF-8 bytes.
    #[inline]
    pub fn topic_bytes(&self) -> &[u8] {
        match &self.aliased {
            Some(topic) => topic.as_bytes(),
            None => self.body.get(TOPIC_AT..TOPIC_AT + usize::from(self.topic_len)).unwrap_or_default(),
        }
    }

    /// The topic as text that shares the buffer.
    pub fn topic_text(&self) -> Text {
        match &self.aliased {
            Some(topic) => topic.clone(),
            None => Text::from_utf8(self.body.slice_ref(self.topic_bytes())).unwrap_or_default(),
        }
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.body.get(self.payload_at as usize..).unwrap_or_default()
    }

    /// The payload, sharing the buffer.
    pub fn payload_bytes(&self) -> Bytes {
        self.body.slice(self.payload_at as usize..)
    }

    /// Quality of service it was delivered with.
    #[inline]
    pub fn qos(&self) -> QoS {
        QoS::from_bits(self.header >> 1 & 3).unwrap_or_default()
    }

    /// Whether it came from the retained store (or, with retain-as-published, was published to be retained).
    pub fn retain(&self) -> bool {
        self.header & 1 != 0
    }

    /// Whether the server has sent it before.
    pub fn dup(&self) -> bool {
        self.header & 8 != 0
    }

    /// Whether it carries MQTT 5 properties.
    pub fn has_properties(&self) -> bool {
        let id = if self.header & 6 == 0 { 0 } else { 2 };
        self.version.is_v5() && self.payload_at as usize > TOPIC_AT + usize::from(self.topic_len) + id + 1
    }

    /// The MQTT 5 properties, decoded now.
    pub fn properties(&self) -> Properties {
        if !self.has_properties() {
            return Properties::new();
        }
        let frame = Frame::new(self.header, &self.body);
        // Judged by the connection's limits when it came in; here only taken apart again.
        let limits = Limits { topic_levels_max: u16::MAX, user_properties_max: u16::MAX, ..Limits::default() };
        PublishRef::decode(frame, self.version, &limits)
            .map(|publish| publish.to_publish(&Source::Shared(&self.body)).properties)
            .unwrap_or_default()
    }

    /// When it was read, Unix time in microseconds, as the shell stamped it.
    pub fn received_at_us(&self) -> u64 {
        self.received_at_us
    }

    /// What acknowledges it, if that is up to the application.
    pub fn ack_handle(&self) -> Option<AckHandle> {
        self.ack
    }

    /// What it is charged with in a queue, bytes.
    #[inline]
    pub fn cost_bytes(&self) -> usize {
        self.body.len() + size_of::<Self>()
    }

    /// The same message in memory of its own, so that keeping it does not keep the buffer it came in.
    #[must_use]
    pub fn detach(mut self) -> Self {
        self.body = Bytes::copy_from_slice(&self.body);
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .finish_non_exhaustive()
    }
}

/// Where the topic lies in the body: after its length.
const TOPIC_AT: usize = 2;
