//! PUBLISH: the packet that matters. [`PublishRef`] is the view without a copy, [`Publish`] the owned form, and
//! [`PublishHead`] what a broker encodes once and sends to many.

use bytes::Bytes;

use super::{
    DecodeError, EncodeError, Frame, Limits, PacketId, PacketType, Properties, QoS, Source, Text, TopicName, Version,
    cursor::{self, Reader, field},
    frame,
    packet::Wire,
    property::{self, Place, Scan, Value},
    topic,
};

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
    /// The frame's body as it came, of which the payload is the end.
    pub body: &'a [u8],
}

/// All of a PUBLISH but its payload, for a server that encodes once what it sends to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishHead<'a> {
    /// Sent again after an unacknowledged attempt.
    pub dup: bool,
    /// Quality of service of this hop; above 0 the packet identifier is written as 0, to be patched.
    pub qos: QoS,
    /// Whether the RETAIN flag is set.
    pub retain: bool,
    /// Topic name, valid.
    pub topic: &'a str,
    /// Topic alias to send (MQTT 5).
    pub topic_alias: Option<u16>,
    /// The receiver knows the alias: the topic is sent empty. Needs `topic_alias`.
    pub alias_only: bool,
    /// Message expiry interval left, seconds (MQTT 5).
    pub message_expiry: Option<u32>,
    /// Subscription identifiers of the matching subscriptions (MQTT 5).
    pub subscription_ids: &'a [u32],
    /// Encoded properties that [`PublishRef::forward_properties`] or [`forward_owned`] has collected (MQTT 5).
    pub properties: &'a [u8],
}

impl<'a> PublishRef<'a> {
    /// Whether a broker may send the body on as it is: nothing in it belongs to this hop but the packet identifier.
    #[inline]
    pub const fn is_forwardable(&self) -> bool {
        self.topic_alias.is_none() && self.message_expiry.is_none() && !self.has_subscription_identifier
    }

    /// Decodes and validates a PUBLISH frame, its properties included, without copying.
    #[inline]
    pub fn decode(frame: Frame<'a>, version: Version, limits: &Limits) -> Result<Self, DecodeError> {
        debug_assert_eq!(frame.header >> 4, PacketType::Publish as u8);
        frame.check_length(version)?;
        let (dup, qos) = read_flags(frame.flags())?;
        let mut reader = Reader::new(frame.body);
        let topic_bytes = reader.binary(TOPIC)?;
        // An empty topic is judged when it is known whether an alias stands for it.
        let topic = if topic_bytes.is_empty() { "" } else { topic::decode_name(topic_bytes, TOPIC, limits)? };
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(reader.packet_id(field!("the packet identifier of PUBLISH"))?),
        };
        let mut publish = Self {
            dup,
            qos,
            retain: frame.header & RETAIN != 0,
            topic,
            packet_id,
            topic_alias: None,
            message_expiry: None,
            payload_is_utf8: false,
            has_subscription_identifier: false,
            properties: &[],
            payload: &[],
            body: frame.body,
        };
        if version.is_v5() {
            publish.read_properties(&mut reader, limits)?;
        }
        if topic.is_empty() && publish.topic_alias.is_none() {
            return Err(DecodeError::protocol(NO_TOPIC)); // section 3.3.2.1
        }
        publish.payload = reader.rest();
        Ok(publish)
    }

    /// Appends to `out` the properties a broker passes on unchanged (payload format indicator, content type, response
    /// topic, correlation data, user properties in their order), encoded, without a length [MQTT-3.3.2-17].
    /// Message expiry, topic alias and subscription identifiers are left out: they belong to the hop.
    pub fn forward_properties(&self, out: &mut Vec<u8>) {
        if self.is_forwardable() {
            return out.extend_from_slice(self.properties);
        }
        let mut scan = Scan::new(self.properties, PLACE, &UNLIMITED);
        while let Some(entry) = scan.next().expect("decode has checked the properties") {
            if !belongs_to_hop(entry.rule.id) {
                out.extend_from_slice(entry.wire);
            }
        }
    }

    /// The owned form; `source` says whether bytes are shared or copied.
    pub fn to_publish(&self, source: &Source<'_>) -> Publish {
        let mut properties = Properties::new();
        let mut scan = Scan::new(self.properties, PLACE, &UNLIMITED);
        while let Some(entry) = scan.next().expect("decode has checked the properties") {
            properties.push(entry.to_property(*source));
        }
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: TopicName::from_checked(Text::from_checked(self.topic, *source)),
            packet_id: self.packet_id,
            properties,
            payload: source.take(self.payload),
        }
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>, limits: &Limits) -> Result<(), DecodeError> {
        self.properties = property::read_block(reader)?;
        let mut scan = Scan::new(self.properties, PLACE, limits);
        while let Some(entry) = scan.next()? {
            let Value::Number(number) = entry.value else { continue };
            match entry.rule.id {
                property::PAYLOAD_FORMAT_INDICATOR => self.payload_is_utf8 = number == 1,
                property::MESSAGE_EXPIRY_INTERVAL => self.message_expiry = Some(number),
                property::TOPIC_ALIAS => self.topic_alias = Some(number as u16),
                property::SUBSCRIPTION_IDENTIFIER => self.has_subscription_identifier = true,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Publish {
    /// Appends the encoded packet; on error `out` is as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        super::packet::encode(self, version, out)
    }
}

impl Wire for Publish {
    fn header(&self) -> u8 {
        header(self.dup, self.qos, self.retain)
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if self.packet_id.is_some() != (self.qos > QoS::AtMostOnce) {
            return Err(EncodeError::NotAllowed("PUBLISH has a packet identifier if and only if its QoS is above 0"));
        }
        if self.dup && self.qos == QoS::AtMostOnce {
            return Err(EncodeError::NotAllowed(DUP_AT_QOS_0));
        }
        if self.topic.as_str().is_empty() && (!version.is_v5() || self.properties.topic_alias().is_none()) {
            return Err(EncodeError::NotAllowed(NO_TOPIC));
        }
        let properties_len = self.properties.block_len_in(version, PLACE)?;
        Ok(topic_and_id_len(self.topic.as_str(), self.qos) + properties_len + self.payload.len())
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        put_topic_and_id(self.topic.as_str(), self.qos, self.packet_id.map_or(0, PacketId::get), out);
        self.properties.put_block_in(version, out);
        out.extend_from_slice(&self.payload);
    }
}

/// Appends fixed header and the first part of a body whose packet has `body_len` bytes of it: the rest must follow.
/// Flags and packet identifier are those of QoS 0 or 1, to be patched; returns where the packet identifier would stand,
/// counted from the frame's first byte.
#[inline]
pub fn put_body_start(
    start: &[u8],
    body_len: usize,
    topic_len: usize,
    out: &mut Vec<u8>,
) -> Result<usize, EncodeError> {
    frame::put_header(out, header(false, QoS::AtMostOnce, false), body_len)?;
    out.extend_from_slice(start);
    Ok(frame::packet_len(body_len) - body_len + 2 + topic_len)
}

impl PublishHead<'_> {
    /// Bytes between the remaining length and the payload.
    pub fn encoded_len(&self, version: Version) -> usize {
        let properties_len = if version.is_v5() {
            let len = self.properties_len();
            cursor::varint_len(len) + len
        } else {
            0
        };
        topic_and_id_len(self.sent_topic(version), self.qos) + properties_len
    }

    /// Bytes of the whole packet with a payload of `payload_len`: what a receiver's maximum packet size is about.
    pub fn packet_len(&self, version: Version, payload_len: usize) -> usize {
        frame::packet_len(self.encoded_len(version) + payload_len)
    }

    /// Appends the packet up to its payload, which has `payload_len` bytes and must follow. Returns where in the frame
    /// the packet identifier stands, counted from the frame's first byte, if QoS is above 0. Nothing is appended on
    /// error; the only one is a packet of more than 268,435,455 bytes.
    pub fn encode(
        &self,
        version: Version,
        payload_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, EncodeError> {
        let start = out.len();
        let topic = self.sent_topic(version);
        let head_len = self.encoded_len(version);
        out.reserve(FIXED_HEADER_BYTES_MAX + head_len); // the payload may go another way, shared
        frame::put_header(out, header(self.dup, self.qos, self.retain), head_len + payload_len)?;
        let packet_id_at = out.len() - start + 2 + topic.len();
        put_topic_and_id(topic, self.qos, 0, out);
        if version.is_v5() {
            self.put_properties(out);
        }
        Ok((self.qos > QoS::AtMostOnce).then_some(packet_id_at))
    }

    fn sent_topic(&self, version: Version) -> &str {
        debug_assert!(!self.alias_only || self.topic_alias.is_some(), "an empty topic needs an alias");
        if self.alias_only && version.is_v5() { "" } else { self.topic }
    }

    fn properties_len(&self) -> usize {
        let ids_len: usize = self.subscription_ids.iter().map(|&id| 1 + cursor::varint_len(id as usize)).sum();
        let alias_len = if self.topic_alias.is_some() { 3 } else { 0 };
        let expiry_len = if self.message_expiry.is_some() { 5 } else { 0 };
        self.properties.len() + ids_len + alias_len + expiry_len
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        cursor::put_varint(out, self.properties_len());
        if let Some(alias) = self.topic_alias {
            out.push(property::TOPIC_ALIAS);
            cursor::put_u16(out, alias);
        }
        if let Some(seconds) = self.message_expiry {
            out.push(property::MESSAGE_EXPIRY_INTERVAL);
            cursor::put_u32(out, seconds);
        }
        for &id in self.subscription_ids {
            out.push(property::SUBSCRIPTION_IDENTIFIER);
            cursor::put_varint(out, id as usize);
        }
        out.extend_from_slice(self.properties);
    }
}

/// Appends those of `properties` that a broker passes on unchanged, encoded, without a length: what
/// [`PublishRef::forward_properties`] does, for messages that did not come off the wire (a will, a message published
/// in process). An error if PUBLISH cannot hold one of them; then `out` is as it was.
pub fn forward_owned(properties: &Properties, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    properties.put_where(PLACE, |property| !belongs_to_hop(property.id()), out)
}

/// Message expiry is counted down, alias and subscription identifiers are of one connection. A will's delay does not
/// outlive the will.
const fn belongs_to_hop(id: u8) -> bool {
    matches!(
        id,
        property::MESSAGE_EXPIRY_INTERVAL
            | property::TOPIC_ALIAS
            | property::SUBSCRIPTION_IDENTIFIER
            | property::WILL_DELAY_INTERVAL
    )
}

const fn read_flags(flags: u8) -> Result<(bool, QoS), DecodeError> {
    let dup = flags & DUP != 0;
    match QoS::from_bits(flags >> 1 & 0b11) {
        Some(QoS::AtMostOnce) if dup => Err(DecodeError::malformed(DUP_AT_QOS_0)),
        Some(qos) => Ok((dup, qos)),
        None => Err(DecodeError::malformed("PUBLISH has QoS 3 [MQTT-3.3.1-4]")),
    }
}

const fn header(dup: bool, qos: QoS, retain: bool) -> u8 {
    let dup = if dup { DUP } else { 0 };
    let retain = if retain { RETAIN } else { 0 };
    (PacketType::Publish as u8) << 4 | dup | (qos as u8) << 1 | retain
}

fn topic_and_id_len(topic: &str, qos: QoS) -> usize {
    2 + topic.len() + if qos > QoS::AtMostOnce { 2 } else { 0 }
}

fn put_topic_and_id(topic: &str, qos: QoS, packet_id: u16, out: &mut Vec<u8>) {
    cursor::put_field(out, topic.as_bytes());
    if qos > QoS::AtMostOnce {
        cursor::put_u16(out, packet_id);
    }
}

/// Type and flags, and four bytes of remaining length.
const FIXED_HEADER_BYTES_MAX: usize = 5;

/// Flags of the first byte, section 3.3.1.
const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

const TOPIC: &cursor::Field = field!("the topic name of PUBLISH");

const PLACE: Place = Place::of(PacketType::Publish);

/// For properties that have been checked before.
const UNLIMITED: Limits = Limits {
    packet_bytes_max: u32::MAX,
    topic_levels_max: u16::MAX,
    topic_bytes_max: u16::MAX,
    filters_max: u16::MAX,
    user_properties_max: u16::MAX,
};

const NO_TOPIC: &str = "PUBLISH has neither a topic name nor a topic alias";
const DUP_AT_QOS_0: &str = "PUBLISH has DUP set at QoS 0 [MQTT-3.3.1-2]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Cut, Property};

    /// Alias, response topic, expiry, identifier, user property: of the hop, not, of the hop, of the hop, not.
    const PROPERTIES: &[u8] = b"\x23\x00\x05\x08\x00\x01r\x02\x00\x00\x00\x09\x0B\x07\x26\x00\x01k\x00\x01v";

    fn view(frame: Frame<'_>) -> PublishRef<'_> {
        PublishRef::decode(frame, Version::V5, &Limits::default()).unwrap()
    }

    #[test]
    fn what_belongs_to_the_hop_is_not_forwarded() {
        let body = [b"\x00\x01t", &[PROPERTIES.len() as u8][..], PROPERTIES, b"payload"].concat();
        let publish = view(Frame::new(0x30, &body));
        assert_eq!((publish.topic_alias, publish.message_expiry), (Some(5), Some(9)));
        assert!(publish.has_subscription_identifier);
        assert_eq!(publish.payload, b"payload");
        let mut forwarded = Vec::new();
        publish.forward_properties(&mut forwarded);
        assert_eq!(forwarded, b"\x08\x00\x01r\x26\x00\x01k\x00\x01v");
        let mut owned = Vec::new();
        forward_owned(&publish.to_publish(&Source::Scratch).properties, &mut owned).unwrap();
        assert_eq!(owned, forwarded);
    }

    #[test]
    fn a_wills_delay_is_not_forwarded_and_a_foreign_property_is_refused() {
        let mut out = vec![1];
        let will = [Property::WillDelayInterval(5), Property::PayloadFormatIndicator(1)].into_iter().collect();
        forward_owned(&will, &mut out).unwrap();
        assert_eq!(out, [1, 0x01, 1]);
        let foreign = [Property::PayloadFormatIndicator(1), Property::ReceiveMaximum(5)].into_iter().collect();
        assert!(forward_owned(&foreign, &mut out).is_err());
        assert_eq!(out, [1, 0x01, 1]);
    }

    #[test]
    fn a_head_is_patched_where_it_says() {
        let head = PublishHead {
            qos: QoS::AtLeastOnce,
            topic: "a/b",
            topic_alias: Some(3),
            alias_only: true,
            subscription_ids: &[7, 200],
            ..PublishHead::default()
        };
        let mut out = vec![0xAA; 3];
        let at = head.encode(Version::V5, 2, &mut out).unwrap().unwrap();
        out.extend_from_slice(b"hi");
        let mut frame_bytes = out.split_off(3);
        assert_eq!(frame_bytes.len(), head.packet_len(Version::V5, 2));
        frame_bytes[at..at + 2].copy_from_slice(&[0x12, 0x34]);
        let Ok(Cut::Frame(frame, _)) = frame::cut(&frame_bytes, u32::MAX) else { panic!("a whole packet") };
        let publish = view(frame);
        assert_eq!((publish.topic, publish.topic_alias), ("", Some(3)));
        assert_eq!(publish.packet_id, PacketId::new(0x1234));
        assert_eq!(publish.payload, b"hi");
    }

    #[test]
    fn before_mqtt_5_a_head_has_its_topic_and_no_properties() {
        let head = PublishHead { topic: "t", topic_alias: Some(3), alias_only: true, ..PublishHead::default() };
        let mut out = Vec::new();
        assert_eq!(head.encode(Version::V3_1_1, 1, &mut out), Ok(None));
        assert_eq!(out, b"\x30\x04\x00\x01t");
    }

    #[test]
    fn a_packet_beyond_the_format_is_refused_before_a_byte_is_written() {
        let head = PublishHead { topic: "t", ..PublishHead::default() };
        let mut out = vec![1];
        assert!(head.encode(Version::V5, 268_435_455, &mut out).is_err());
        assert_eq!(out, [1]);
        assert!(head.encode(Version::V3_1_1, 268_435_455 - 3, &mut out).is_ok());
    }
}
