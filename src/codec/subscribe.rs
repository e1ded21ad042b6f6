//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use super::{PacketId, Properties, QoS, ReasonCode, TopicFilter};

/// A client's request for subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// To be answered with the same identifier.
    pub packet_id: PacketId,
    /// At most one subscription identifier, and user properties (MQTT 5).
    pub properties: Properties,
    /// At least one [MQTT-3.8.3-2].
    pub subscriptions: Vec<Subscription>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The filter; may be a shared one (`$share/group/filter`).
    pub filter: TopicFilter,
    /// How to deliver.
    pub options: SubscriptionOptions,
}

/// Subscription options, section 3.8.3.1; only `qos` exists before MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionOptions {
    /// Greatest QoS to deliver with.
    pub qos: QoS,
    /// Do not send back what this client published itself.
    pub no_local: bool,
    /// Keep the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// Which retained messages to send at once.
    pub retain_handling: RetainHandling,
}

/// Which retained messages a new subscription receives at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetainHandling {
    /// All that match.
    #[default]
    Send = 0,
    /// All that match, but only if the subscription did not exist.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

/// A server's answer to SUBSCRIBE: one code a filter, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties (MQTT 5).
    pub properties: Properties,
    /// Granted QoS or failure for each filter; failures become 0x80 before MQTT 5.
    pub reasons: Vec<ReasonCode>,
}

/// A client's request to end subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// To be answered with the same identifier.
    pub packet_id: PacketId,
    /// User properties (MQTT 5).
    pub properties: Properties,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<TopicFilter>,
}

/// A server's answer to UNSUBSCRIBE; no codes before MQTT 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// The identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties (MQTT 5).
    pub properties: Properties,
    /// One code a filter (MQTT 5).
    pub reasons: Vec<ReasonCode>,
}
