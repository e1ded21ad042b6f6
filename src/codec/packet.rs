//! The packet model: one enum for the three versions of the protocol.

use std::num::NonZeroU16;

use super::{Ack, Auth, ConnAck, Connect, Disconnect, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe};

/// A packet identifier: never zero [MQTT-2.2.1-3].
pub type PacketId = NonZeroU16;

/// Any MQTT control packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Client requests a connection.
    Connect(Box<Connect>),
    /// Server answers a CONNECT.
    ConnAck(Box<ConnAck>),
    /// An application message.
    Publish(Publish),
    /// QoS 1 acknowledgement.
    PubAck(Ack),
    /// QoS 2, part 1.
    PubRec(Ack),
    /// QoS 2, part 2.
    PubRel(Ack),
    /// QoS 2, part 3.
    PubComp(Ack),
    /// Client subscribes.
    Subscribe(Subscribe),
    /// Server answers a SUBSCRIBE.
    SubAck(SubAck),
    /// Client unsubscribes.
    Unsubscribe(Unsubscribe),
    /// Server answers an UNSUBSCRIBE.
    UnsubAck(UnsubAck),
    /// Client asks whether the server is there.
    PingReq,
    /// It is.
    PingResp,
    /// Either side ends the connection on purpose (the server only in MQTT 5).
    Disconnect(Disconnect),
    /// Enhanced authentication (MQTT 5 only).
    Auth(Auth),
}

/// Protocol version, as the level byte of CONNECT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    V3_1 = 3,
    /// MQTT 3.1.1 (`MQTT`, level 4).
    V3_1_1 = 4,
    /// MQTT 5.0 (`MQTT`, level 5).
    V5 = 5,
}

impl Version {
    /// Whether this is MQTT 5.0: reason codes and properties are on the wire.
    #[inline]
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum QoS {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of two bits, or `None` for 3, which the protocol forbids [MQTT-3.3.1-4].
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Type of a control packet: the upper four bits of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the specification's, section 2.1.2
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// What a decoder accepts; all larger input is refused before memory is spent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whole packet, fixed header included, bytes. Default and greatest: 268,435,460.
    pub packet_bytes_max: u32,
    /// Levels of a topic name or filter. Default 128.
    pub topic_levels_max: u16,
    /// Bytes of a topic name or filter. Default 65,535.
    pub topic_bytes_max: u16,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE. Default 10,000.
    pub filters_max: u16,
    /// User properties in one packet. Default 256.
    pub user_properties_max: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 268_435_460,
            topic_levels_max: 128,
            topic_bytes_max: u16::MAX,
            filters_max: 10_000,
            user_properties_max: 256,
        }
    }
}

impl Packet {
    /// Decodes one frame. `version` is that of the connection; a CONNECT carries its own and ignores it.
    pub fn decode(
        frame: super::Frame<'_>,
        version: Version,
        limits: &Limits,
        source: &super::Source<'_>,
    ) -> Result<Self, super::DecodeError> {
        let _ = (frame, version, limits, source);
        todo!("codec helper")
    }

    /// Appends the encoded packet to `out`; on error `out` is as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), super::EncodeError> {
        let _ = (version, out);
        todo!("codec helper")
    }

    /// The type.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}
