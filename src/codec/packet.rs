//! The packet model: one enum for the three versions of the protocol.

use std::num::NonZeroU16;

use super::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, EncodeError, Frame, Publish, PublishRef, Source, SubAck,
    Subscribe, UnsubAck, Unsubscribe, ack, cursor, frame,
};

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
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V3_1, Self::V3_1_1, Self::V5];

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

impl PacketType {
    /// The type of the upper four bits of a first byte; 0 never is one, and 15 not before MQTT 5.
    #[inline]
    pub const fn from_bits(bits: u8, version: Version) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 if version.is_v5() => Self::Auth,
            _ => return None,
        })
    }

    /// The specification's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }

    /// The first byte of a packet of this type whose flags are fixed.
    #[inline]
    pub(super) const fn header(self) -> u8 {
        let flags = match self.fixed_flags() {
            Some(flags) => flags,
            None => 0,
        };
        (self as u8) << 4 | flags
    }

    /// The flags of table 2-2, or `None` for PUBLISH, which uses them.
    const fn fixed_flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }
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
        frame: Frame<'_>,
        version: Version,
        limits: &Limits,
        source: &Source<'_>,
    ) -> Result<Self, DecodeError> {
        let packet_type = PacketType::from_bits(frame.header >> 4, version)
            .ok_or(DecodeError::malformed("the packet type does not exist in this version"))?;
        if packet_type == PacketType::Connect {
            return Connect::decode(frame, limits, *source).map(|connect| Self::Connect(Box::new(connect)));
        }
        frame.check_length(version)?;
        check_flags(packet_type, frame.flags(), version)?;
        let body = frame.body;
        let context = &Context { version, limits, source: *source };
        Ok(match packet_type {
            PacketType::Connect => unreachable!("decoded above"),
            PacketType::ConnAck => Self::ConnAck(Box::new(ConnAck::decode(body, context)?)),
            PacketType::Publish => Self::Publish(PublishRef::decode(frame, version, limits)?.to_publish(source)),
            PacketType::PubAck => Self::PubAck(Ack::decode(packet_type, body, context)?),
            PacketType::PubRec => Self::PubRec(Ack::decode(packet_type, body, context)?),
            PacketType::PubRel => Self::PubRel(Ack::decode(packet_type, body, context)?),
            PacketType::PubComp => Self::PubComp(Ack::decode(packet_type, body, context)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(body, context)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(body, context)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(body, context)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(body, context)?),
            PacketType::PingReq => empty(body).map(|()| Self::PingReq)?,
            PacketType::PingResp => empty(body).map(|()| Self::PingResp)?,
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(body, context)?),
            PacketType::Auth => Self::Auth(Auth::decode(body, context)?),
        })
    }

    /// Appends the encoded packet to `out`; on error `out` is as it was. What comes out is what [`Self::decode`]
    /// accepts. `version` is that of the connection; a CONNECT carries its own and ignores it. Before MQTT 5,
    /// properties are left out, and reasons where they have no counterpart.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.with_wire(|wire| encode(wire, version, out))
    }

    /// Bytes that [`Self::encode`] would append: what a receiver's maximum packet size is about.
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        self.with_wire(|wire| wire.body_len(version)).map(frame::packet_len)
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

    fn with_wire<T>(&self, f: impl FnOnce(&dyn Wire) -> T) -> T {
        match self {
            Self::Connect(connect) => f(&**connect),
            Self::ConnAck(connack) => f(&**connack),
            Self::Publish(publish) => f(publish),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                f(&ack::AckWire { packet_type: self.packet_type(), ack })
            }
            Self::Subscribe(subscribe) => f(subscribe),
            Self::SubAck(suback) => f(suback),
            Self::Unsubscribe(unsubscribe) => f(unsubscribe),
            Self::UnsubAck(unsuback) => f(unsuback),
            Self::PingReq | Self::PingResp => f(&Ping(self.packet_type())),
            Self::Disconnect(disconnect) => f(disconnect),
            Self::Auth(auth) => f(auth),
        }
    }
}

/// What decoding depends on besides the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) version: Version,
    pub(super) limits: &'a Limits,
    pub(super) source: Source<'a>,
}

/// A packet that can be written: first its size, with every check, then its bytes, which cannot fail any more.
pub(super) trait Wire {
    /// The first byte: type and flags.
    fn header(&self) -> u8;

    /// Bytes after the remaining length, or why no peer would take the packet.
    fn body_len(&self, version: Version) -> Result<usize, EncodeError>;

    /// Appends what [`Self::body_len`] has counted.
    fn put_body(&self, version: Version, out: &mut Vec<u8>);
}

/// Appends a whole packet; on error `out` is as it was.
pub(super) fn encode<W: Wire + ?Sized>(packet: &W, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let body_len = packet.body_len(version)?;
    out.reserve(frame::packet_len(body_len.min(cursor::VARINT_MAX)));
    frame::put_header(out, packet.header(), body_len)?;
    let body_at = out.len();
    packet.put_body(version, out);
    debug_assert_eq!(out.len() - body_at, body_len, "the size was computed wrongly");
    Ok(())
}

/// PINGREQ or PINGRESP.
struct Ping(PacketType);

impl Wire for Ping {
    fn header(&self) -> u8 {
        self.0.header()
    }

    fn body_len(&self, _: Version) -> Result<usize, EncodeError> {
        Ok(0)
    }

    fn put_body(&self, _: Version, _: &mut Vec<u8>) {}
}

/// The flags that section 2.1.3 fixes for each type but PUBLISH. MQTT 3.1 sets DUP on packets sent again, and says
/// "not used" of the flags of all others.
pub(super) fn check_flags(packet_type: PacketType, flags: u8, version: Version) -> Result<(), DecodeError> {
    let cared_for = match (version, packet_type.fixed_flags()) {
        (_, None) | (Version::V3_1, Some(0)) => return Ok(()),
        (Version::V3_1, Some(_)) => QOS_BITS,
        _ => ALL_BITS,
    };
    if flags & cared_for != packet_type.fixed_flags().unwrap_or(0) {
        return Err(DecodeError::malformed("the fixed header has reserved flags set wrongly [MQTT-2.1.3-1]"));
    }
    Ok(())
}

fn empty(body: &[u8]) -> Result<(), DecodeError> {
    cursor::Reader::new(body).finish(cursor::field!("the fixed header of a ping"))
}

const QOS_BITS: u8 = 0b0110;
const ALL_BITS: u8 = 0b1111;
