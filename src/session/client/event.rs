//! What a client session tells its shell, and why it says no.

use super::{Capabilities, Message};
use crate::codec::{ConnAck, EncodeError, Properties, QoS, ReasonCode, TopicFilter, topic::InvalidTopic};

/// A number of the shell's choice that names one request until its completion is told.
pub type Token = u64;

/// Something the shell should know, from [`super::ClientSession::poll_event`].
#[derive(Debug)]
pub enum Event {
    /// CONNACK accepted the connection.
    Connected(Box<Connected>),
    /// A message came in.
    Message(Message),
    /// A publication is done: acknowledged (perhaps with a failure code), or given up.
    Published(Token, Result<PublishAck, RequestError>),
    /// SUBACK: one code a filter.
    Subscribed(Token, Result<Reply, RequestError>),
    /// UNSUBACK: one code a filter (MQTT 5).
    Unsubscribed(Token, Result<Reply, RequestError>),
    /// A subscription could not be restored after the server had lost the session.
    SubscriptionLost(TopicFilter, ReasonCode),
    /// The server and this client have authenticated each other again.
    Reauthenticated,
    /// The connection is over: write out what is left, close it, then call `connection_lost`.
    Closed(Box<CloseReason>),
}

/// What CONNACK said.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The server resumed the session; else subscriptions are being made again.
    pub session_present: bool,
    /// What the server allows.
    pub capabilities: Capabilities,
    /// All of the properties.
    pub properties: Properties,
}

/// A finished publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishAck {
    /// The code of PUBACK, PUBREC or PUBCOMP; success for QoS 0 and before MQTT 5.
    pub reason: ReasonCode,
    /// Reason string and user properties.
    pub properties: Properties,
}

/// SUBACK or UNSUBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// One code a filter, in order; empty for UNSUBACK before MQTT 5.
    pub reasons: Vec<ReasonCode>,
    /// Reason string and user properties.
    pub properties: Properties,
}

/// Why a connection is over.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// `disconnect` was called.
    #[error("this client disconnected")]
    Requested,
    /// CONNACK refused the connection.
    #[error("the server refused the connection: {}", .0.reason)]
    Refused(ConnAck),
    /// The server sent DISCONNECT.
    #[error("the server disconnected this client: {reason}")]
    ServerDisconnect {
        /// Why.
        reason: ReasonCode,
        /// Reason string, server reference and user properties.
        properties: Properties,
    },
    /// The server violated the protocol.
    #[error("the server violated the protocol: {what} ({reason})")]
    Protocol {
        /// The code this client sent in DISCONNECT.
        reason: ReasonCode,
        /// What was wrong.
        what: &'static str,
    },
    /// A packet larger than this client accepts.
    #[error("the server sent a packet of {len} bytes, this client accepts {max}: raise the maximum packet size")]
    PacketTooLarge {
        /// Bytes of the packet.
        len: u32,
        /// The limit.
        max: u32,
    },
    /// No CONNACK in time.
    #[error("the server did not answer CONNECT in time")]
    ConnAckTimeout,
    /// No PINGRESP in time.
    #[error("the server did not answer PINGREQ in time")]
    PingTimeout,
    /// The authentication exchange failed on this side.
    #[error("the authentication exchange failed: {0}")]
    AuthenticationFailed(ReasonCode),
}

impl CloseReason {
    /// The reason code, where the protocol has one.
    pub fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Requested | Self::ConnAckTimeout => None,
            Self::Refused(connack) => Some(connack.reason),
            Self::ServerDisconnect { reason, .. }
            | Self::Protocol { reason, .. }
            | Self::AuthenticationFailed(reason) => Some(*reason),
            Self::PacketTooLarge { .. } => Some(ReasonCode::PacketTooLarge),
            Self::PingTimeout => Some(ReasonCode::KeepAliveTimeout),
        }
    }
}

/// Why a request is not, or no longer, being carried out.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The topic name or filter is not valid.
    #[error(transparent)]
    Topic(#[from] InvalidTopic),
    /// Above the server's maximum QoS [MQTT-3.2.2-11].
    #[error("the server takes at most QoS {}: publish with a lower one", *.max as u8)]
    QoSNotSupported {
        /// What it takes.
        max: QoS,
    },
    /// The server keeps no retained messages [MQTT-3.2.2-14].
    #[error("the server does not keep retained messages: publish without retain")]
    RetainNotSupported,
    /// The server takes no wildcards.
    #[error("the server does not take wildcards in filters: subscribe to exact topics")]
    WildcardsNotSupported,
    /// The server takes no shared filters.
    #[error("the server does not take shared subscriptions: subscribe to the filter itself")]
    SharedNotSupported,
    /// The server takes no subscription identifiers.
    #[error("the server does not take subscription identifiers: subscribe without one")]
    IdentifiersNotSupported,
    /// Larger than the server takes [MQTT-3.2.2-15].
    #[error("a packet of {len} bytes exceeds the {max} that the server takes")]
    PacketTooLarge {
        /// Bytes of the packet.
        len: usize,
        /// The limit.
        max: u32,
    },
    /// Needs MQTT 5.
    #[error("{0} needs MQTT 5: connect with version 5")]
    NeedsVersion5(&'static str),
    /// A property or combination that the protocol forbids here.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// The queue of waiting publications is full.
    #[error("{messages} publications of {bytes} bytes are waiting already: wait for them, or allow a longer queue")]
    QueueFull {
        /// Messages waiting.
        messages: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// A newer publication took this one's place in the full queue.
    #[error("dropped from the full queue to make room for newer publications")]
    Displaced,
    /// Its message expiry interval passed before it could be sent.
    #[error("the message expired before it could be sent")]
    Expired,
    /// QoS 0 and no connection.
    #[error("there is no connection, and QoS 0 publications are not queued: wait for it, or use QoS 1")]
    Offline,
    /// The server lost the session while this QoS 2 message was under way: it may or may not have been delivered.
    #[error("the server lost the session while this QoS 2 message was under way: it may have been delivered")]
    SessionLost,
    /// All identifiers are taken by unanswered requests.
    #[error("too many requests are unanswered: wait for some")]
    TooManyRequests,
    /// The client is closed or closing.
    #[error("the client is closed")]
    Closed,
    /// A value no wire format can hold.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
