//! PUBLISH: the packet that matters. [`PublishRef`] is the view without a copy, [`Publish`] the owned form.

use bytes::Bytes;

use super::{DecodeError, EncodeError, Frame, Limits, PacketId, Properties, QoS, Source, TopicName, Version};

/// An application message as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent again after an unacknowledged attempt.
    pub dup: bool,
    /// Quality of service of this hop.
    pub qos: QoS,
    /// To be retained, or from the retained store.
    pub retain: bool,
    /// Topic; empty only in MQTT 5 together with a topic alias.
    pub topic: TopicName,
    /// Present if and only if `qos` is above 0 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// MQTT 5 properties; empty in the older versions.
    pub properties: Properties,
    /// The payload: anything at all.
    pub payload: Bytes,
}

/// A PUBLISH decoded in place: every field borrows from the frame, already validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishRef<'a> {
    /// Sent again after an unacknowledged attempt.
    pub dup: bool,
    /// Quality of service of this hop.
    pub qos: QoS,
    /// To be retained.
    pub retain: bool,
    /// Topic (valid, no wildcards); empty only in MQTT 5 together with `topic_alias`.
    pub topic: &'a str,
    /// Present if and only if `qos` is above 0.
    pub packet_id: Option<PacketId>,
    /// The topic alias property, if sent; never zero.
    pub topic_alias: Option<u16>,
    /// Message expiry interval, seconds, if sent.
    pub message_expiry: Option<u32>,
    /// Payload format indicator is 1: the sender says that the payload is UTF-8.
    pub payload_is_utf8: bool,
    /// Subscription identifiers were sent (a client must not).
    pub has_subscription_identifier: bool,
    /// All properties as they were on the wire, without their length; empty before MQTT 5.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> PublishRef<'a> {
    /// Decodes and validates a PUBLISH frame, its properties included, without copying.
    pub fn decode(frame: Frame<'a>, version: Version, limits: &Limits) -> Result<Self, DecodeError> {
        let _ = (frame, version, limits);
        todo!("codec helper")
    }

    /// Appends to `out` the properties a broker passes on unchanged (payload format indicator, content type, response
    /// topic, correlation data, user properties in their order), encoded, without a length [MQTT-3.3.2-17].
    /// Message expiry, topic alias and subscription identifiers are left out: they belong to the hop.
    pub fn forward_properties(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!("codec helper")
    }

    /// The owned form; `source` says whether bytes are shared or copied.
    pub fn to_publish(&self, source: &Source<'_>) -> Publish {
        let _ = source;
        todo!("codec helper")
    }
}

impl Publish {
    /// Appends the encoded packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let _ = (version, out);
        todo!("codec helper")
    }
}
