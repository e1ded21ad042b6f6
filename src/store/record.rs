//! The records of a log: every change of what must survive, small enough that a message is written once and referred to.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::codec::{PacketId, QoS, SubscriptionOptions, Text, Version};

/// One change. Sessions are named by their client identifier; all times are milliseconds of Unix time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A broker has started. What relays and receipts the previous one left behind is settled by this batch.
    Life(Life),
    /// A message, before the first record that refers to it. It is kept as long as a delivery or relay refers to it.
    Message {
        /// Its name.
        id: Id,
        /// The message.
        message: Message,
    },
    /// A session begins, or its state changes; its subscriptions and messages stay.
    Session {
        /// Whose.
        client_id: Text,
        /// The state.
        state: SessionState,
    },
    /// A session ends, with everything in it.
    SessionRemoved {
        /// Whose.
        client_id: Text,
    },
    /// A subscription is made or replaced.
    Subscription {
        /// Whose.
        client_id: Text,
        /// The filter, with `$share/...` if it is shared.
        filter: Text,
        /// How.
        subscription: SubscriptionState,
    },
    /// A subscription ends.
    SubscriptionRemoved {
        /// Whose.
        client_id: Text,
        /// Which.
        filter: Text,
    },
    /// A session is to have a message. Identifiers of deliveries grow in the order in which they are to be made.
    Queued {
        /// Whose.
        client_id: Text,
        /// Name of this delivery.
        delivery: Id,
        /// The message.
        message: Id,
        /// How it is delivered.
        handover: Handover,
    },
    /// A message is about to be sent to the client for the first time, under this packet identifier.
    Sent {
        /// Whose.
        client_id: Text,
        /// The delivery.
        delivery: Id,
        /// Its packet identifier from now on.
        packet_id: PacketId,
    },
    /// The client has sent PUBREC: only PUBREL is due.
    PubRec {
        /// Whose.
        client_id: Text,
        /// The delivery.
        delivery: Id,
    },
    /// A delivery is over: acknowledged, dropped, or given to somebody else.
    Settled {
        /// Whose.
        client_id: Text,
        /// The delivery.
        delivery: Id,
    },
    /// A QoS 2 message was received from the client; what it caused is in the same batch.
    Received {
        /// Whose.
        client_id: Text,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// The client has released it: the identifier is free.
    Released {
        /// Whose.
        client_id: Text,
        /// The identifier.
        packet_id: PacketId,
    },
    /// This log answers for a message until another shard has it.
    Relay {
        /// Name of this relay.
        relay: Id,
        /// The message.
        message: Id,
        /// The shard.
        to: u8,
        /// The member of a shared subscription that is to have it; else whoever subscribes to its topic there.
        member: Option<ShareMember>,
    },
    /// The other shard has it.
    Relayed {
        /// The relay.
        relay: Id,
    },
    /// This shard has taken over all relays up to this one from the log that it names.
    Taken {
        /// The relay.
        relay: Id,
    },
    /// A retained message is set or replaced.
    Retained {
        /// The message, which names its topic.
        message: Message,
    },
    /// A retained message is removed.
    RetainedRemoved {
        /// Its topic.
        topic: Text,
    },
}

/// Name of a message, delivery or relay: grows within a log, and never occurs twice in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(NonZeroU64);

impl Id {
    /// The `count`th name (from 1) that the log gives.
    pub fn new(count: u64, log: super::LogId) -> Self {
        Self(NonZeroU64::new(count << 8 | u64::from(log.0)).unwrap_or(NonZeroU64::MIN))
    }

    /// How many names the log had given, this one included.
    pub fn count(self) -> u64 {
        self.0.get() >> 8
    }

    /// The log that gave it.
    pub fn log(self) -> super::LogId {
        super::LogId((self.0.get() & 0xFF) as u8)
    }

    /// As a number, for engines.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// From [`Self::as_u64`].
    pub fn from_u64(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }
}

/// Which shard a client identifier is at home on, for the time of one run of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Seed of the hash.
    pub seed: u64,
    /// Number of shards.
    pub shards: u8,
}

/// An application message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic name.
    pub topic: Text,
    /// Its payload.
    pub payload: Bytes,
    /// Properties that are passed on, encoded for MQTT 5, without their length.
    pub properties: Bytes,
    /// The QoS it was published with.
    pub qos: QoS,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// When it expires.
    pub expires_at: Option<u64>,
}

/// A session without its subscriptions and messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Protocol version of its last connection.
    pub version: Version,
    /// Seconds it outlives its connection; 0xFFFFFFFF for ever.
    pub expiry_interval: u32,
    /// When its connection was lost; none while it is connected.
    pub lost_at: Option<u64>,
    /// The will that is still to be published.
    pub will: Option<WillState>,
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillState {
    /// The message; its expiry counts from when it is published.
    pub message: Message,
    /// Will delay interval, seconds.
    pub delay: u32,
    /// Message expiry interval, seconds.
    pub expiry: Option<u32>,
    /// User name of the client, for the authorizer.
    pub username: Option<Text>,
}

/// A subscription without its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionState {
    /// Its options, with the QoS that was granted.
    pub options: SubscriptionOptions,
    /// Its subscription identifier.
    pub id: Option<u32>,
}

/// How a message goes to one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: Box<[u32]>,
    /// The shared subscription it came by, as in SUBSCRIBE.
    pub share: Option<Text>,
}

/// A member of a shared subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareMember {
    /// Its client identifier.
    pub client_id: Text,
    /// The shared subscription, as in SUBSCRIBE.
    pub filter: Text,
}

impl Record {
    /// About how much memory it holds, bytes.
    pub fn bytes(&self) -> usize {
        let more = match self {
            Self::Message { message, .. } | Self::Retained { message } => message.bytes(),
            Self::Session { state, .. } => state.will.as_ref().map_or(0, |will| will.message.bytes()),
            _ => 0,
        };
        size_of::<Self>() + more
    }
}

impl Message {
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }
}
