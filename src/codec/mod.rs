//! Bytes <-> packets, for MQTT 3.1, 3.1.1 and 5.0 with one model.
//!
//! No clock, no state, no sockets. [`frame::cut`] finds one packet at the start of a byte slice; [`Packet::decode`]
//! turns it into a [`Packet`]; [`PublishRef::decode`] is the same for PUBLISH without copying anything, for the path
//! that every message takes. `encode` appends to a `Vec<u8>`.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))] // a length on the wire must never become a panic

pub mod ack;
pub mod connect;
pub mod control;
pub mod decoder;
pub mod error;
pub mod frame;
pub mod packet;
pub mod property;
pub mod publish;
pub mod reason;
pub mod subscribe;
pub mod text;
pub mod topic;

mod cursor;

pub use ack::Ack;
pub use connect::{ConnAck, Connect, Will};
pub use control::{Auth, Disconnect};
pub use decoder::Decoder;
pub use error::{DecodeError, EncodeError};
pub use frame::{Cut, Frame, Source};
pub use packet::{Limits, Packet, PacketId, PacketType, QoS, Version};
pub use property::{Properties, Property};
pub use publish::{Publish, PublishHead, PublishRef};
pub use reason::ReasonCode;
pub use subscribe::{RetainHandling, SubAck, Subscribe, Subscription, SubscriptionOptions, UnsubAck, Unsubscribe};
pub use text::Text;
pub(crate) use text::TextAnd;
pub use topic::{SharedFilter, TopicFilter, TopicName};
