//! Why a message was dropped and why a connection ended: typed, named and counted, every one.

use crate::codec::ReasonCode;

macro_rules! reasons {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident => $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum $type { $($(#[$variant_doc])* $variant,)* }

        impl $type {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name for metrics, logs and events.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// Why a message was not delivered to a subscriber, or not accepted from a publisher.
    DropReason {
        /// The subscriber's session queue was full (count or bytes); the new message went.
        QueueFull => "queue_full",
        /// The subscriber's session queue was full; this, the oldest, made room.
        QueueFullOldest => "queue_full_oldest",
        /// QoS 0 to a connection whose unsent bytes exceed the soft limit.
        SlowConsumer => "slow_consumer",
        /// QoS 0 to a session whose client is away.
        Offline => "offline_qos0",
        /// The message expiry interval passed before delivery.
        Expired => "expired",
        /// Larger than the client's maximum packet size [MQTT-3.1.2-24].
        PacketTooLarge => "packet_too_large",
        /// The session ended with the message undelivered.
        SessionEnded => "session_ended",
        /// The client refused it with a reason code of 0x80 or above.
        RefusedByClient => "refused_by_client",
        /// The publisher may not publish to this topic.
        NotAuthorized => "not_authorized",
        /// The payload is not what its format indicator says.
        PayloadFormat => "payload_format",
        /// The topic name is not accepted.
        TopicNameInvalid => "topic_name_invalid",
        /// The retained store is full.
        RetainedFull => "retained_full",
        /// An internal hand-over between shards could not be completed because the target shut down.
        ShardGone => "shard_gone",
    }
}

reasons! {
    /// Why a connection ended.
    EndReason {
        /// The client sent DISCONNECT.
        ClientDisconnect => "client_disconnect",
        /// The client closed the connection without DISCONNECT.
        ClientClosed => "client_closed",
        /// The transport failed.
        TransportError => "transport_error",
        /// The WebSocket layer was violated.
        WebSocketError => "websocket_error",
        /// TLS failed: its handshake, or bytes that were not encrypted.
        TlsError => "tls_error",
        /// No complete CONNECT in time.
        ConnectTimeout => "connect_timeout",
        /// Nothing heard for 1.5 times the keep-alive.
        KeepAliveTimeout => "keep_alive_timeout",
        /// The bytes were no packet.
        MalformedPacket => "malformed_packet",
        /// A packet that is not allowed here.
        ProtocolError => "protocol_error",
        /// A packet larger than the maximum packet size.
        PacketTooLarge => "packet_too_large",
        /// Unknown protocol version.
        UnsupportedVersion => "unsupported_version",
        /// Client identifier refused.
        ClientIdentifierNotValid => "client_identifier_not_valid",
        /// Credentials refused.
        BadCredentials => "bad_credentials",
        /// Not allowed.
        NotAuthorized => "not_authorized",
        /// Authentication method unknown or changed, or the exchange failed.
        AuthenticationFailed => "authentication_failed",
        /// Another connection uses the client identifier.
        SessionTakenOver => "session_taken_over",
        /// Too many unacknowledged publications.
        ReceiveMaximumExceeded => "receive_maximum_exceeded",
        /// Topic alias of 0, over the maximum, or unknown.
        TopicAliasInvalid => "topic_alias_invalid",
        /// Topic name or filter not valid.
        TopicInvalid => "topic_invalid",
        /// A capability that is switched off was used (QoS, retain, shared, wildcard, subscription identifiers).
        NotSupported => "not_supported",
        /// A limit was exceeded.
        QuotaExceeded => "quota_exceeded",
        /// The payload is not what its format indicator says (QoS 0, where no acknowledgement can say so).
        PayloadFormat => "payload_format",
        /// Nothing could be written for the stall timeout.
        Stalled => "stalled",
        /// Too many connections or too little memory.
        ServerBusy => "server_busy",
        /// An administrator ended it.
        AdministrativeAction => "administrative_action",
        /// The broker shuts down.
        ServerShuttingDown => "server_shutting_down",
        /// Something on the broker's side failed, as a hook that raised.
        InternalError => "internal_error",
    }
}

impl EndReason {
    /// The end that a fault of the peer, named by its reason code, leads to.
    pub const fn from_code(code: ReasonCode) -> Self {
        match code {
            ReasonCode::MalformedPacket => Self::MalformedPacket,
            ReasonCode::UnsupportedProtocolVersion => Self::UnsupportedVersion,
            ReasonCode::ClientIdentifierNotValid => Self::ClientIdentifierNotValid,
            ReasonCode::BadUserNameOrPassword => Self::BadCredentials,
            ReasonCode::NotAuthorized | ReasonCode::Banned => Self::NotAuthorized,
            ReasonCode::ServerUnavailable | ReasonCode::ServerBusy | ReasonCode::ConnectionRateExceeded => {
                Self::ServerBusy
            }
            ReasonCode::ServerShuttingDown => Self::ServerShuttingDown,
            ReasonCode::BadAuthenticationMethod => Self::AuthenticationFailed,
            ReasonCode::KeepAliveTimeout => Self::KeepAliveTimeout,
            ReasonCode::SessionTakenOver => Self::SessionTakenOver,
            ReasonCode::TopicFilterInvalid | ReasonCode::TopicNameInvalid => Self::TopicInvalid,
            ReasonCode::ReceiveMaximumExceeded => Self::ReceiveMaximumExceeded,
            ReasonCode::TopicAliasInvalid => Self::TopicAliasInvalid,
            ReasonCode::PacketTooLarge => Self::PacketTooLarge,
            ReasonCode::MessageRateTooHigh | ReasonCode::QuotaExceeded => Self::QuotaExceeded,
            ReasonCode::AdministrativeAction | ReasonCode::UseAnotherServer | ReasonCode::ServerMoved => {
                Self::AdministrativeAction
            }
            ReasonCode::PayloadFormatInvalid => Self::PayloadFormat,
            ReasonCode::RetainNotSupported
            | ReasonCode::QoSNotSupported
            | ReasonCode::SharedSubscriptionsNotSupported
            | ReasonCode::SubscriptionIdentifiersNotSupported
            | ReasonCode::WildcardSubscriptionsNotSupported => Self::NotSupported,
            ReasonCode::UnspecifiedError | ReasonCode::ImplementationSpecificError => Self::InternalError,
            _ => Self::ProtocolError,
        }
    }
}
