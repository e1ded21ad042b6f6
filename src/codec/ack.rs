//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape.

use super::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ReasonCode, Version,
    cursor::{self, Field, Reader, field},
    packet::{Context, Wire},
    property::Place,
};

/// Acknowledgement of a PUBLISH or of one of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Which PUBLISH.
    pub packet_id: PacketId,
    /// Success, or why not (MQTT 5; success before).
    pub reason: ReasonCode,
    /// Reason string and user properties (MQTT 5).
    pub properties: Properties,
}

impl Ack {
    /// An acknowledgement without properties.
    pub const fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: Properties::new() }
    }

    /// Appends the acknowledgement as a packet of `packet_type`, one of the four; on error `out` is as it was.
    pub fn encode(&self, packet_type: PacketType, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        super::packet::encode(&AckWire { packet_type, ack: self }, version, out)
    }

    pub(super) fn decode(packet_type: PacketType, body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id(field!("the packet identifier of an acknowledgement"))?;
        let mut ack = Self::new(packet_id, ReasonCode::Success);
        // The reason and the properties may be left out, sections 3.4.2.1 and 3.4.2.2.1.
        if context.version.is_v5() && !reader.is_empty() {
            ack.reason = read_reason(&mut reader, packet_type, field!("the reason code of an acknowledgement"))?;
            if !reader.is_empty() {
                ack.properties = Properties::decode(&mut reader, Place::of(packet_type), context)?;
            }
        }
        reader.finish(field!("an acknowledgement"))?;
        Ok(ack)
    }
}

/// Reads a reason code that is legal in `packet_type`.
pub(super) fn read_reason(
    reader: &mut Reader<'_>,
    packet_type: PacketType,
    field: &Field,
) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_u8(reader.u8(field)?)
        .filter(|reason| reason.is_legal_in(packet_type))
        .ok_or(DecodeError::protocol(ILLEGAL_REASON))
}

/// Fails unless `reason` is legal in `packet_type`.
pub(super) const fn check_reason(reason: ReasonCode, packet_type: PacketType) -> Result<(), EncodeError> {
    if reason.is_legal_in(packet_type) { Ok(()) } else { Err(EncodeError::NotAllowed(ILLEGAL_REASON)) }
}

/// An acknowledgement and which of the four it is.
pub(super) struct AckWire<'a> {
    pub(super) packet_type: PacketType,
    pub(super) ack: &'a Ack,
}

impl Wire for AckWire<'_> {
    fn header(&self) -> u8 {
        self.packet_type.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if !version.is_v5() {
            return Ok(2);
        }
        check_reason(self.ack.reason, self.packet_type)?;
        tail_len(self.ack.reason, &self.ack.properties, Place::of(self.packet_type)).map(|len| 2 + len)
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        cursor::put_u16(out, self.ack.packet_id.get());
        if version.is_v5() {
            put_tail(self.ack.reason, &self.ack.properties, out);
        }
    }
}

/// Bytes of a reason and properties in their shortest form: nothing for success alone, one byte for a reason alone.
pub(super) fn tail_len(reason: ReasonCode, properties: &Properties, place: Place) -> Result<usize, EncodeError> {
    match (reason, properties.is_empty()) {
        (ReasonCode::Success, true) => Ok(0),
        (_, true) => Ok(1),
        (_, false) => properties.block_len(place).map(|len| 1 + len),
    }
}

/// Appends what [`tail_len`] has counted.
pub(super) fn put_tail(reason: ReasonCode, properties: &Properties, out: &mut Vec<u8>) {
    if reason != ReasonCode::Success || !properties.is_empty() {
        out.push(reason.as_u8());
    }
    if !properties.is_empty() {
        properties.put_block(out);
    }
}

const ILLEGAL_REASON: &str = "the reason code is not one of this packet's";
