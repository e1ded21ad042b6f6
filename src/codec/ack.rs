//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape.

use super::{PacketId, Properties, ReasonCode};

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
}
