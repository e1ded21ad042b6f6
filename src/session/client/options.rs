//! What a client asks for in CONNECT, the bounds it keeps, and what the server allows in CONNACK.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    codec::{ConnAck, Limits, Properties, QoS, ReasonCode, Text, Version, Will},
    session::QueueLimits,
};

/// Settings of one client session; fixed while it lives.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Protocol version to speak. Default 5.0.
    pub version: Version,
    /// Client identifier. Empty lets the server assign one.
    pub client_id: Text,
    /// Forget what the server kept from earlier runs. Reconnects of this machine resume nevertheless. Default true.
    pub clean_start: bool,
    /// How long the server keeps the session without a connection, seconds; `u32::MAX` is forever (MQTT 5). Default 0.
    pub session_expiry: u32,
    /// Keep-alive, seconds; 0 switches it off. Default 60.
    pub keep_alive: u16,
    /// User name, if any.
    pub username: Option<Text>,
    /// Password, if any.
    pub password: Option<Bytes>,
    /// The message the server publishes should this client vanish.
    pub will: Option<Will>,
    /// Unfinished QoS 1 and 2 messages the server may have towards this client; at least 1. Default 1024.
    pub receive_maximum: u16,
    /// Unfinished QoS 1 and 2 messages this client has towards the server, whatever more it allows. Default 1024.
    pub send_window: u16,
    /// Topic aliases the server may use towards this client. Default 64.
    pub topic_alias_maximum: u16,
    /// Topic aliases this client uses, as far as the server allows. Default 0: none.
    pub topic_aliases_used_max: u16,
    /// Ask for reason strings and user properties on failures. Default true.
    pub request_problem_information: bool,
    /// Ask the server for a topic prefix for responses. Default false.
    pub request_response_information: bool,
    /// User properties of CONNECT.
    pub user_properties: Vec<(Text, Text)>,
    /// Who acknowledges received QoS 1 and 2 messages. Default [`AckMode::Automatic`].
    pub ack_mode: AckMode,
    /// Bounds of the queue of publications that wait for the connection or for room in the window.
    pub queue: QueueLimits,
    /// Whether QoS 0 publications wait in that queue while there is no connection. Default true.
    pub queue_qos0: bool,
    /// How long CONNACK may take. Default 10 s.
    pub connack_timeout: Duration,
    /// How long PINGRESP may take. Default 10 s.
    pub ping_timeout: Duration,
    /// What the decoder accepts; its packet size is announced as maximum packet size if below the protocol's.
    pub limits: Limits,
}

/// Who acknowledges received QoS 1 and 2 messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckMode {
    /// The machine, as it hands a message out.
    Automatic,
    /// The application, with [`super::ClientSession::acknowledge`]; until then they count against the receive maximum.
    Application,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            version: Version::V5,
            client_id: Text::new(),
            clean_start: true,
            session_expiry: 0,
            keep_alive: 60,
            username: None,
            password: None,
            will: None,
            receive_maximum: 1024,
            send_window: 1024,
            topic_alias_maximum: 64,
            topic_aliases_used_max: 0,
            request_problem_information: true,
            request_response_information: false,
            user_properties: Vec::new(),
            ack_mode: AckMode::Automatic,
            queue: QueueLimits { messages_max: 100_000, bytes_max: 64 << 20, drop_oldest: false },
            queue_qos0: true,
            connack_timeout: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

/// What the server allows on this connection: the properties of CONNACK with their defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Greatest QoS to publish with.
    pub maximum_qos: QoS,
    /// Whether retained messages may be published.
    pub retain_available: bool,
    /// Largest packet the server takes, bytes.
    pub maximum_packet_size: u32,
    /// Unfinished QoS 1 and 2 publications it takes.
    pub receive_maximum: u16,
    /// Topic aliases it takes.
    pub topic_alias_maximum: u16,
    /// Whether filters may hold wildcards.
    pub wildcard_subscriptions: bool,
    /// Whether SUBSCRIBE may carry an identifier.
    pub subscription_identifiers: bool,
    /// Whether filters may be shared ones.
    pub shared_subscriptions: bool,
    /// Keep-alive in force, seconds: the server's if it named one [MQTT-3.2.2-21].
    pub keep_alive: u16,
    /// How long the server keeps the session, seconds.
    pub session_expiry: u32,
}

impl Capabilities {
    /// What `connack` says, with what the client asked for where it says nothing.
    pub(super) fn of(connack: &ConnAck, options: &SessionOptions) -> Self {
        let properties = &connack.properties;
        let available = |value: Option<bool>| value.unwrap_or(true);
        Self {
            maximum_qos: properties.maximum_qos().and_then(QoS::from_bits).unwrap_or(QoS::ExactlyOnce),
            retain_available: available(properties.retain_available()),
            maximum_packet_size: properties.maximum_packet_size().unwrap_or(PACKET_BYTES_MAX),
            receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX),
            topic_alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
            wildcard_subscriptions: available(properties.wildcard_subscription_available()),
            subscription_identifiers: available(properties.subscription_identifier_available()),
            shared_subscriptions: available(properties.shared_subscription_available()),
            keep_alive: properties.server_keep_alive().unwrap_or(options.keep_alive),
            session_expiry: properties.session_expiry_interval().unwrap_or(options.session_expiry),
        }
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        let connack = ConnAck { session_present: false, reason: ReasonCode::Success, properties: Properties::new() };
        Self::of(&connack, &SessionOptions::default())
    }
}

/// The client's part of enhanced authentication (section 4.12): answers the server's challenges.
pub trait AuthExchange: Send + fmt::Debug {
    /// Name of the method; must not change while the session lives.
    fn method(&self) -> Text;

    /// Begins an exchange, for CONNECT or to authenticate again: the first data, if the method has any.
    fn start(&mut self) -> Option<Bytes>;

    /// Answers the data of an AUTH 0x18; a failure ends the connection with this reason.
    fn step(&mut self, data: Option<&Bytes>) -> Result<Option<Bytes>, ReasonCode>;

    /// Judges the data the server ends the exchange with, so that the server can be authenticated too.
    fn finish(&mut self, data: Option<&Bytes>) -> Result<(), ReasonCode> {
        let _ = data;
        Ok(())
    }
}

/// Largest packet the format can hold: a fixed header of 5 bytes and 268,435,455 more.
pub(super) const PACKET_BYTES_MAX: u32 = 268_435_460;
