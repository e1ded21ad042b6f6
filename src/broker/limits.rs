//! What a broker allows: capabilities it announces, and the bound of every queue and buffer.

use std::time::Duration;

use crate::{
    codec::{Limits, QoS},
    router::SharedStrategy,
};

/// Everything that can be set about a broker's behaviour. Plain values: `config` parses them from TOML.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the decoder accepts.
    pub limits: Limits,
    /// What CONNACK announces and the broker enforces.
    pub capabilities: Capabilities,
    /// Bounds of each session.
    pub session: SessionLimits,
    /// When a consumer is too slow, and what then.
    pub slow_consumer: SlowConsumer,
    /// Time from accepting a connection to its complete CONNECT (and authentication). Default 10 s.
    pub connect_timeout: Duration,
    /// Connections of one shard-set in all, 0 for no limit. Default 0. Over it, CONNACK says server busy.
    pub connections_max: usize,
    /// Retained messages in all. Default 1,000,000. Over it, new topics are refused with quota exceeded.
    pub retained_messages_max: usize,
    /// Whether a client may connect without user name when no authenticator is installed. Default true.
    pub allow_anonymous: bool,
    /// Refuse payloads marked UTF-8 that are not (PUBACK/PUBREC/DISCONNECT 0x99). Default false.
    pub check_payload_format: bool,
    /// How a shared subscription picks a member. Default round-robin.
    pub shared_strategy: SharedStrategy,
    /// How often `$SYS/broker/...` is published; `None` switches it off. Default 10 s.
    pub sys_interval: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            capabilities: Capabilities::default(),
            session: SessionLimits::default(),
            slow_consumer: SlowConsumer::default(),
            connect_timeout: Duration::from_secs(10),
            connections_max: 0,
            retained_messages_max: 1_000_000,
            allow_anonymous: true,
            check_payload_format: false,
            shared_strategy: SharedStrategy::default(),
            sys_interval: Some(Duration::from_secs(10)),
        }
    }
}

/// What this server can do, announced in CONNACK (section 3.2.2.3) and enforced.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// Greatest QoS accepted in PUBLISH and wills, and granted. Default 2.
    pub maximum_qos: QoS,
    /// Retained messages are kept. Default true.
    pub retain_available: bool,
    /// Wildcard subscriptions are accepted. Default true.
    pub wildcard_subscription_available: bool,
    /// Subscription identifiers are accepted. Default true.
    pub subscription_identifier_available: bool,
    /// Shared subscriptions are accepted. Default true.
    pub shared_subscription_available: bool,
    /// QoS 1 and 2 publications a client may have unacknowledged. Default 1024; never 0.
    pub receive_maximum: u16,
    /// Topic aliases a client may use towards the server. Default 32.
    pub topic_alias_maximum: u16,
    /// Topic aliases the server uses towards a client, at most (and at most what the client allows). Default 16.
    pub topic_alias_outgoing_max: u16,
    /// Longest session expiry interval granted, seconds; 0xFFFFFFFF never expires. Default 0xFFFFFFFF. Applies to
    /// persistent sessions of MQTT 3 too.
    pub session_expiry_max: u32,
    /// Longest keep-alive granted, seconds; a longer one, or none, is replaced (server keep alive). 0 grants any.
    /// Default 0.
    pub keep_alive_max: u16,
    /// Prefix of the response information given to clients that ask, completed by the client identifier;
    /// `None` gives none. Default `Some("response/")`.
    pub response_information: Option<String>,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifier_available: true,
            shared_subscription_available: true,
            receive_maximum: 1024,
            topic_alias_maximum: 32,
            topic_alias_outgoing_max: 16,
            session_expiry_max: u32::MAX,
            keep_alive_max: 0,
            response_information: Some("response/".into()),
        }
    }
}

/// Bounds of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// QoS 1 and 2 messages in flight to a client at most, whatever its receive maximum. Default 1024.
    pub inflight_max: u16,
    /// Messages queued at most (in-flight ones apart). Default 100,000.
    pub queued_messages_max: usize,
    /// Bytes of payload and topic queued at most. Default 64 MiB.
    pub queued_bytes_max: usize,
    /// Which message goes when the queue is full. Default: the new one.
    pub drop_policy: DropPolicy,
    /// Queue QoS 0 messages for clients that are away. Default false.
    pub queue_qos0_offline: bool,
    /// Subscriptions at most; more are refused with quota exceeded. Default 100,000.
    pub subscriptions_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            inflight_max: 1024,
            queued_messages_max: 100_000,
            queued_bytes_max: 64 << 20,
            drop_policy: DropPolicy::default(),
            queue_qos0_offline: false,
            subscriptions_max: 100_000,
        }
    }
}

/// Which message a full queue drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DropPolicy {
    /// The one that arrives.
    #[default]
    New,
    /// The one that has waited longest.
    Oldest,
}

/// The ladder for consumers that do not keep up: drop QoS 0, queue the rest, disconnect, pause publishers, refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowConsumer {
    /// Unsent bytes of a connection above which QoS 0 is dropped and QoS 1 and 2 wait in the session. Default 1 MiB.
    pub outbox_soft_bytes: usize,
    /// Disconnected when nothing could be written for this long. Default 30 s.
    pub stall_timeout: Duration,
    /// Bytes a shard holds in outboxes, queues and staging above which it stops reading from publishers, and above
    /// twice which it answers CONNECT with server busy. A sixteenth of it is what routes of topics may take that a shard
    /// remembers. Default 1 GiB.
    pub memory_watermark_bytes: usize,
    /// Envelopes staged for another shard above which the publishers of this shard are not read. Default 65,536.
    pub staged_envelopes_max: usize,
}

impl Default for SlowConsumer {
    fn default() -> Self {
        Self {
            outbox_soft_bytes: 1 << 20,
            stall_timeout: Duration::from_secs(30),
            memory_watermark_bytes: 1 << 30,
            staged_envelopes_max: 65_536,
        }
    }
}
