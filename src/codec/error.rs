//! Why bytes are no packet, and which reason code says so to the peer.

use super::ReasonCode;

/// Why a packet could not be decoded.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Larger than the receiver accepts.
    #[error("packet of {len} bytes exceeds the limit of {max}")]
    PacketTooLarge {
        /// Bytes of the whole packet.
        len: u32,
        /// The limit.
        max: u32,
    },
    /// Any other violation: `reason` is what the specification names for it, `what` says where and why.
    #[error("{what} ({reason})")]
    Violation {
        /// 0x81 malformed packet, 0x82 protocol error, or the more specific code.
        reason: ReasonCode,
        /// The fault in words, with the packet and field.
        what: &'static str,
    },
}

impl DecodeError {
    /// The reason code for DISCONNECT or CONNACK.
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::Violation { reason, .. } => *reason,
        }
    }

    /// A malformed packet.
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::Violation { reason: ReasonCode::MalformedPacket, what }
    }

    /// A protocol error.
    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::Violation { reason: ReasonCode::ProtocolError, what }
    }
}

/// Why a packet could not be encoded: no wire format holds the value, or every peer would refuse it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary field of more than 65,535 bytes, or a packet over 268,435,455.
    #[error("{what} of {len} bytes does not fit: at most {max}")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// Its bytes.
        len: usize,
        /// The most the format can hold.
        max: usize,
    },
    /// The field or packet does not exist in this version.
    #[error("{0}")]
    NotInVersion(&'static str),
    /// The specification forbids the value, in the words that a decoder would use.
    #[error("{0}")]
    NotAllowed(&'static str),
}

impl EncodeError {
    /// What a decoder would say of the value.
    pub(super) const fn not_allowed(fault: &DecodeError) -> Self {
        match fault {
            DecodeError::Violation { what, .. } => Self::NotAllowed(what),
            DecodeError::PacketTooLarge { .. } => Self::NotAllowed("the packet is too large"),
        }
    }
}
