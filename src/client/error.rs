//! Why something failed, with the code the protocol gives it, and whether trying again can help.

use std::{io, sync::Arc, time::Duration};

use crate::{
    codec::{PacketType, Properties, ReasonCode, Text, topic::InvalidTopic},
    net::tls::explain_io,
    session::client::{CloseReason, RequestError},
};

/// Why a client's operation failed. Cheap to clone: everybody who waits is told.
#[non_exhaustive]
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The transport could not be set up or failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried, with the address.
        doing: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The connection ended, or was refused, for this reason.
    #[error("{server}: {close}{}", text_of(close_properties(close)))]
    Connection {
        /// The server's address.
        server: String,
        /// How it ended.
        close: Arc<CloseReason>,
    },
    /// The server closed the transport without a word.
    #[error("{server} closed the connection")]
    ConnectionLost {
        /// The server's address.
        server: String,
    },
    /// The server refused a publication or a subscription.
    #[error("the server refused {what}: {reason}{}", text_of(Some(properties)))]
    Refused {
        /// The packet it refused.
        packet: PacketType,
        /// The topic or filter.
        what: String,
        /// Why.
        reason: ReasonCode,
        /// What else it said.
        properties: Properties,
    },
    /// Refused or given up on this side.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The topic name or filter is not valid.
    #[error("{topic:?}: {source}")]
    Topic {
        /// The topic.
        topic: String,
        /// The fault.
        source: InvalidTopic,
    },
    /// No answer in time.
    #[error("{doing} took longer than {after:?}")]
    Timeout {
        /// What was tried.
        doing: String,
        /// The limit.
        after: Duration,
    },
    /// A mailbox with the overflow policy `Error` was full.
    #[error("messages came faster than they were taken: {messages} are waiting, no more are allowed")]
    Overflow {
        /// Messages in the mailbox.
        messages: usize,
    },
    /// The options cannot work.
    #[error("{0}")]
    Options(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// The protocol's code for it, if it has one.
    pub fn reason_code(&self) -> Option<ReasonCode> {
        match self {
            Self::Connection { close, .. } => close.reason(),
            Self::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// What the server said about it in words.
    pub fn reason_string(&self) -> Option<&str> {
        self.properties()?.reason_string().map(Text::as_str)
    }

    /// The properties of the packet that told of it.
    pub fn properties(&self) -> Option<&Properties> {
        match self {
            Self::Connection { close, .. } => close_properties(close),
            Self::Refused { properties, .. } => Some(properties),
            _ => None,
        }
    }

    /// The packet concerned.
    pub fn packet_type(&self) -> Option<PacketType> {
        match self {
            Self::Connection { close, .. } => match **close {
                CloseReason::Refused(_) | CloseReason::ConnAckTimeout => Some(PacketType::Connect),
                CloseReason::ServerDisconnect { .. } => Some(PacketType::Disconnect),
                CloseReason::PingTimeout => Some(PacketType::PingReq),
                CloseReason::AuthenticationFailed(_) => Some(PacketType::Auth),
                _ => None,
            },
            Self::Refused { packet, .. } => Some(*packet),
            _ => None,
        }
    }

    /// Whether the same attempt, made again later, may succeed. It decides about reconnecting, too.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() != io::ErrorKind::Unsupported,
            Self::ConnectionLost { .. } | Self::Timeout { .. } => true,
            Self::Connection { close, .. } => close_is_retryable(close),
            Self::Refused { reason, .. } => REFUSED_RETRYABLE.contains(reason),
            Self::Request(error) => matches!(
                error,
                RequestError::QueueFull { .. }
                    | RequestError::Displaced
                    | RequestError::Offline
                    | RequestError::TooManyRequests
            ),
            Self::Topic { .. } | Self::Overflow { .. } | Self::Options(_) | Self::Closed => false,
        }
    }

    pub(super) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source: Arc::new(explain_io(source)) }
    }
}

fn close_is_retryable(close: &CloseReason) -> bool {
    match close {
        CloseReason::Refused(connack) => REFUSED_RETRYABLE.contains(&connack.reason),
        CloseReason::ServerDisconnect { reason, .. } => !DISCONNECT_FINAL.contains(reason),
        CloseReason::ConnAckTimeout | CloseReason::PingTimeout | CloseReason::Protocol { .. } => true,
        // The same message would come again.
        CloseReason::PacketTooLarge { .. } | CloseReason::AuthenticationFailed(_) | CloseReason::Requested => false,
    }
}

fn close_properties(close: &CloseReason) -> Option<&Properties> {
    match close {
        CloseReason::Refused(connack) => Some(&connack.properties),
        CloseReason::ServerDisconnect { properties, .. } => Some(properties),
        _ => None,
    }
}

/// The server's own words, and the server it sends us to, as the end of a message.
fn text_of(properties: Option<&Properties>) -> String {
    let Some(properties) = properties else { return String::new() };
    let mut text = String::new();
    if let Some(reason) = properties.reason_string() {
        text.push_str(": ");
        text.push_str(reason);
    }
    if let Some(server) = properties.server_reference() {
        text.push_str("; it names another server: ");
        text.push_str(server);
    }
    text
}

/// Refusals that pass: the server's state, not ours, is the cause.
const REFUSED_RETRYABLE: &[ReasonCode] = &[
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::MessageRateTooHigh,
    ReasonCode::QuotaExceeded,
    ReasonCode::ConnectionRateExceeded,
    ReasonCode::PacketIdentifierInUse,
];

/// Disconnections that coming back would only repeat. After a takeover it would start a fight with the other client.
const DISCONNECT_FINAL: &[ReasonCode] = &[
    ReasonCode::SessionTakenOver,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
    ReasonCode::Banned,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
];
