//! CONNECT and CONNACK.

use bytes::Bytes;

use super::{Properties, QoS, ReasonCode, Text, TopicName, Version};

/// A client's request to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Protocol version asked for.
    pub version: Version,
    /// Clean start (MQTT 5) or clean session (before).
    pub clean_start: bool,
    /// Bridge bit: some 3.x bridges set bit 7 of the protocol level (mosquitto). Kept so that it can be told.
    pub bridge: bool,
    /// Keep-alive, seconds; 0 switches it off.
    pub keep_alive: u16,
    /// Client identifier; may be empty.
    pub client_id: Text,
    /// Will message, if any.
    pub will: Option<Will>,
    /// User name, if any.
    pub username: Option<Text>,
    /// Password, if any.
    pub password: Option<Bytes>,
    /// MQTT 5 properties.
    pub properties: Properties,
}

/// The message a server publishes for a client that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic of the will.
    pub topic: TopicName,
    /// Payload of the will.
    pub payload: Bytes,
    /// Quality of service of the will.
    pub qos: QoS,
    /// Whether the will is retained.
    pub retain: bool,
    /// Will properties (MQTT 5), will delay interval among them.
    pub properties: Properties,
}

/// A server's answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// The server had a session for this client and resumes it.
    pub session_present: bool,
    /// Success, or why not. Encoded as the return code of section 3.2.2.3 before MQTT 5.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: Properties,
}
