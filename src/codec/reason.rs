//! Reason codes (MQTT 5.0, section 2.4) and their counterparts before MQTT 5.

use std::fmt;

use super::PacketType;

/// The outcome of an operation, one byte on the wire. Codes of 0x80 and above are failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success, normal disconnection or granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQoS1 = 0x01,
    /// Granted QoS 2.
    GrantedQoS2 = 0x02,
    /// The client wants its will published.
    DisconnectWithWill = 0x04,
    /// Accepted, but nobody subscribes.
    NoMatchingSubscribers = 0x10,
    /// Nothing to unsubscribe.
    NoSubscriptionExisted = 0x11,
    /// Next step of the exchange.
    ContinueAuthentication = 0x18,
    /// The client starts a new exchange.
    ReAuthenticate = 0x19,
    /// No better code fits.
    UnspecifiedError = 0x80,
    /// The bytes are no packet.
    MalformedPacket = 0x81,
    /// The packet is not allowed here.
    ProtocolError = 0x82,
    /// Valid, but not accepted by this server.
    ImplementationSpecificError = 0x83,
    /// Unknown protocol level.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is not accepted.
    ClientIdentifierNotValid = 0x85,
    /// Credentials refused.
    BadUserNameOrPassword = 0x86,
    /// Not allowed.
    NotAuthorized = 0x87,
    /// The server is not available.
    ServerUnavailable = 0x88,
    /// Try again later.
    ServerBusy = 0x89,
    /// Barred by administrative action.
    Banned = 0x8A,
    /// The server ends.
    ServerShuttingDown = 0x8B,
    /// Method unknown, or changed.
    BadAuthenticationMethod = 0x8C,
    /// Nothing heard for 1.5 times the keep-alive.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses this client identifier.
    SessionTakenOver = 0x8E,
    /// The filter is not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// The identifier is in use already.
    PacketIdentifierInUse = 0x91,
    /// The identifier is unknown.
    PacketIdentifierNotFound = 0x92,
    /// More unacknowledged publications than allowed.
    ReceiveMaximumExceeded = 0x93,
    /// Alias of 0, over the maximum, or unknown.
    TopicAliasInvalid = 0x94,
    /// Larger than the maximum packet size.
    PacketTooLarge = 0x95,
    /// Publishing too fast.
    MessageRateTooHigh = 0x96,
    /// An implementation or administrative limit.
    QuotaExceeded = 0x97,
    /// Closed by an administrator.
    AdministrativeAction = 0x98,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are switched off.
    RetainNotSupported = 0x9A,
    /// QoS above the maximum QoS.
    QoSNotSupported = 0x9B,
    /// For now.
    UseAnotherServer = 0x9C,
    /// For good.
    ServerMoved = 0x9D,
    /// Switched off.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connecting too often.
    ConnectionRateExceeded = 0x9F,
    /// The time allowed for this connection is over.
    MaximumConnectTime = 0xA0,
    /// Switched off.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Switched off.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// Every code there is, in ascending order.
    pub const ALL: &'static [Self] = &[
        Self::Success,
        Self::GrantedQoS1,
        Self::GrantedQoS2,
        Self::DisconnectWithWill,
        Self::NoMatchingSubscribers,
        Self::NoSubscriptionExisted,
        Self::ContinueAuthentication,
        Self::ReAuthenticate,
        Self::UnspecifiedError,
        Self::MalformedPacket,
        Self::ProtocolError,
        Self::ImplementationSpecificError,
        Self::UnsupportedProtocolVersion,
        Self::ClientIdentifierNotValid,
        Self::BadUserNameOrPassword,
        Self::NotAuthorized,
        Self::ServerUnavailable,
        Self::ServerBusy,
        Self::Banned,
        Self::ServerShuttingDown,
        Self::BadAuthenticationMethod,
        Self::KeepAliveTimeout,
        Self::SessionTakenOver,
        Self::TopicFilterInvalid,
        Self::TopicNameInvalid,
        Self::PacketIdentifierInUse,
        Self::PacketIdentifierNotFound,
        Self::ReceiveMaximumExceeded,
        Self::TopicAliasInvalid,
        Self::PacketTooLarge,
        Self::MessageRateTooHigh,
        Self::QuotaExceeded,
        Self::AdministrativeAction,
        Self::PayloadFormatInvalid,
        Self::RetainNotSupported,
        Self::QoSNotSupported,
        Self::UseAnotherServer,
        Self::ServerMoved,
        Self::SharedSubscriptionsNotSupported,
        Self::ConnectionRateExceeded,
        Self::MaximumConnectTime,
        Self::SubscriptionIdentifiersNotSupported,
        Self::WildcardSubscriptionsNotSupported,
    ];

    /// The code of a byte, or `None` for a value the specification does not define.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00 => Self::Success,
            0x01 => Self::GrantedQoS1,
            0x02 => Self::GrantedQoS2,
            0x04 => Self::DisconnectWithWill,
            0x10 => Self::NoMatchingSubscribers,
            0x11 => Self::NoSubscriptionExisted,
            0x18 => Self::ContinueAuthentication,
            0x19 => Self::ReAuthenticate,
            0x80 => Self::UnspecifiedError,
            0x81 => Self::MalformedPacket,
            0x82 => Self::ProtocolError,
            0x83 => Self::ImplementationSpecificError,
            0x84 => Self::UnsupportedProtocolVersion,
            0x85 => Self::ClientIdentifierNotValid,
            0x86 => Self::BadUserNameOrPassword,
            0x87 => Self::NotAuthorized,
            0x88 => Self::ServerUnavailable,
            0x89 => Self::ServerBusy,
            0x8A => Self::Banned,
            0x8B => Self::ServerShuttingDown,
            0x8C => Self::BadAuthenticationMethod,
            0x8D => Self::KeepAliveTimeout,
            0x8E => Self::SessionTakenOver,
            0x8F => Self::TopicFilterInvalid,
            0x90 => Self::TopicNameInvalid,
            0x91 => Self::PacketIdentifierInUse,
            0x92 => Self::PacketIdentifierNotFound,
            0x93 => Self::ReceiveMaximumExceeded,
            0x94 => Self::TopicAliasInvalid,
            0x95 => Self::PacketTooLarge,
            0x96 => Self::MessageRateTooHigh,
            0x97 => Self::QuotaExceeded,
            0x98 => Self::AdministrativeAction,
            0x99 => Self::PayloadFormatInvalid,
            0x9A => Self::RetainNotSupported,
            0x9B => Self::QoSNotSupported,
            0x9C => Self::UseAnotherServer,
            0x9D => Self::ServerMoved,
            0x9E => Self::SharedSubscriptionsNotSupported,
            0x9F => Self::ConnectionRateExceeded,
            0xA0 => Self::MaximumConnectTime,
            0xA1 => Self::SubscriptionIdentifiersNotSupported,
            0xA2 => Self::WildcardSubscriptionsNotSupported,
            _ => return None,
        })
    }

    /// The byte on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether the operation failed.
    #[inline]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether a packet of this type may carry the code: the tables of sections 3.2.2.2, 3.4.2.1, 3.5.2.1, 3.6.2.1,
    /// 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1 and 3.15.2.1.
    pub const fn is_legal_in(self, packet: PacketType) -> bool {
        match packet {
            PacketType::ConnAck => self.is_legal_in_connack(),
            PacketType::PubAck | PacketType::PubRec => self.is_legal_in_puback(),
            PacketType::PubRel | PacketType::PubComp => matches!(self, Self::Success | Self::PacketIdentifierNotFound),
            PacketType::SubAck => self.is_legal_in_suback(),
            PacketType::UnsubAck => self.is_legal_in_unsuback(),
            PacketType::Disconnect => self.is_legal_in_disconnect(),
            PacketType::Auth => matches!(self, Self::Success | Self::ContinueAuthentication | Self::ReAuthenticate),
            _ => false,
        }
    }

    /// The return code of CONNACK before MQTT 5 (3.1.1, section 3.2.2.3). Reasons without a counterpart become the
    /// nearest: 5 for what the client may not do, 3 for what the server cannot or will not do now.
    pub const fn connect_return_code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            _ => 3,
        }
    }

    /// The reason of a return code of CONNACK before MQTT 5, or `None` for those it reserves.
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// The return code of SUBACK before MQTT 5 (3.1.1, section 3.9.3): granted QoS, or 0x80 for every failure.
    pub const fn suback_return_code(self) -> u8 {
        if self.is_error() { Self::UnspecifiedError as u8 } else { self as u8 }
    }

    /// The reason of a return code of SUBACK before MQTT 5, or `None` for those it reserves [MQTT-3.9.3-2].
    pub const fn from_suback_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::GrantedQoS1,
            2 => Self::GrantedQoS2,
            0x80 => Self::UnspecifiedError,
            _ => return None,
        })
    }

    const fn is_legal_in_connack(self) -> bool {
        matches!(
            self,
            Self::Success
                | Self::UnspecifiedError
                | Self::MalformedPacket
                | Self::ProtocolError
                | Self::ImplementationSpecificError
                | Self::UnsupportedProtocolVersion
                | Self::ClientIdentifierNotValid
                | Self::BadUserNameOrPassword
                | Self::NotAuthorized
                | Self::ServerUnavailable
                | Self::ServerBusy
                | Self::Banned
                | Self::BadAuthenticationMethod
                | Self::TopicNameInvalid
                | Self::PacketTooLarge
                | Self::QuotaExceeded
                | Self::PayloadFormatInvalid
                | Self::RetainNotSupported
                | Self::QoSNotSupported
                | Self::UseAnotherServer
                | Self::ServerMoved
                | Self::ConnectionRateExceeded
        )
    }

    const fn is_legal_in_puback(self) -> bool {
        matches!(
            self,
            Self::Success
                | Self::NoMatchingSubscribers
                | Self::UnspecifiedError
                | Self::ImplementationSpecificError
                | Self::NotAuthorized
                | Self::TopicNameInvalid
                | Self::PacketIdentifierInUse
                | Self::QuotaExceeded
                | Self::PayloadFormatInvalid
        )
    }

    const fn is_legal_in_suback(self) -> bool {
        matches!(
            self,
            Self::Success
                | Self::GrantedQoS1
                | Self::GrantedQoS2
                | Self::UnspecifiedError
                | Self::ImplementationSpecificError
                | Self::NotAuthorized
                | Self::TopicFilterInvalid
                | Self::PacketIdentifierInUse
                | Self::QuotaExceeded
                | Self::SharedSubscriptionsNotSupported
                | Self::SubscriptionIdentifiersNotSupported
                | Self::WildcardSubscriptionsNotSupported
        )
    }

    const fn is_legal_in_unsuback(self) -> bool {
        matches!(
            self,
            Self::Success
                | Self::NoSubscriptionExisted
                | Self::UnspecifiedError
                | Self::ImplementationSpecificError
                | Self::NotAuthorized
                | Self::TopicFilterInvalid
                | Self::PacketIdentifierInUse
        )
    }

    /// Failures are the rule here, so this lists what is not one of DISCONNECT's. 0x8C stands in section 2.4 but not
    /// in section 3.14.2.1; the wider reading is taken.
    const fn is_legal_in_disconnect(self) -> bool {
        if !self.is_error() {
            return matches!(self, Self::Success | Self::DisconnectWithWill);
        }
        !matches!(
            self,
            Self::UnsupportedProtocolVersion
                | Self::ClientIdentifierNotValid
                | Self::BadUserNameOrPassword
                | Self::ServerUnavailable
                | Self::Banned
                | Self::PacketIdentifierInUse
                | Self::PacketIdentifierNotFound
        )
    }

    /// The specification's name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::GrantedQoS1 => "granted QoS 1",
            Self::GrantedQoS2 => "granted QoS 2",
            Self::DisconnectWithWill => "disconnect with will message",
            Self::NoMatchingSubscribers => "no matching subscribers",
            Self::NoSubscriptionExisted => "no subscription existed",
            Self::ContinueAuthentication => "continue authentication",
            Self::ReAuthenticate => "re-authenticate",
            Self::UnspecifiedError => "unspecified error",
            Self::MalformedPacket => "malformed packet",
            Self::ProtocolError => "protocol error",
            Self::ImplementationSpecificError => "implementation specific error",
            Self::UnsupportedProtocolVersion => "unsupported protocol version",
            Self::ClientIdentifierNotValid => "client identifier not valid",
            Self::BadUserNameOrPassword => "bad user name or password",
            Self::NotAuthorized => "not authorized",
            Self::ServerUnavailable => "server unavailable",
            Self::ServerBusy => "server busy",
            Self::Banned => "banned",
            Self::ServerShuttingDown => "server shutting down",
            Self::BadAuthenticationMethod => "bad authentication method",
            Self::KeepAliveTimeout => "keep alive timeout",
            Self::SessionTakenOver => "session taken over",
            Self::TopicFilterInvalid => "topic filter invalid",
            Self::TopicNameInvalid => "topic name invalid",
            Self::PacketIdentifierInUse => "packet identifier in use",
            Self::PacketIdentifierNotFound => "packet identifier not found",
            Self::ReceiveMaximumExceeded => "receive maximum exceeded",
            Self::TopicAliasInvalid => "topic alias invalid",
            Self::PacketTooLarge => "packet too large",
            Self::MessageRateTooHigh => "message rate too high",
            Self::QuotaExceeded => "quota exceeded",
            Self::AdministrativeAction => "administrative action",
            Self::PayloadFormatInvalid => "payload format invalid",
            Self::RetainNotSupported => "retain not supported",
            Self::QoSNotSupported => "QoS not supported",
            Self::UseAnotherServer => "use another server",
            Self::ServerMoved => "server moved",
            Self::SharedSubscriptionsNotSupported => "shared subscriptions not supported",
            Self::ConnectionRateExceeded => "connection rate exceeded",
            Self::MaximumConnectTime => "maximum connect time",
            Self::SubscriptionIdentifiersNotSupported => "subscription identifiers not supported",
            Self::WildcardSubscriptionsNotSupported => "wildcard subscriptions not supported",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} 0x{:02X}", self.name(), self.as_u8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_its_code_or_none() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|&byte| ReasonCode::from_u8(byte).is_some()).collect();
        let listed: Vec<u8> = ReasonCode::ALL.iter().map(|code| code.as_u8()).collect();
        assert_eq!(known, listed);
        for &code in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_u8(code.as_u8()), Some(code));
            assert_eq!(code.is_error(), code.as_u8() >= 0x80);
        }
    }

    #[test]
    fn every_code_is_legal_somewhere_and_success_wherever_codes_are() {
        let carriers = [
            PacketType::ConnAck,
            PacketType::PubAck,
            PacketType::PubRec,
            PacketType::PubRel,
            PacketType::PubComp,
            PacketType::SubAck,
            PacketType::UnsubAck,
            PacketType::Disconnect,
            PacketType::Auth,
        ];
        for &code in ReasonCode::ALL {
            assert!(carriers.iter().any(|&packet| code.is_legal_in(packet)), "{code}");
            assert!(!code.is_legal_in(PacketType::Publish));
        }
        let legal = |packet| ReasonCode::ALL.iter().filter(|code| code.is_legal_in(packet)).count();
        // As many as the rows of the specification's tables (DISCONNECT: and 0x8C of section 2.4).
        assert_eq!(carriers.map(legal), [22, 9, 9, 2, 2, 12, 7, 30, 3]);
        assert!(carriers.iter().all(|&packet| ReasonCode::Success.is_legal_in(packet)));
    }

    #[test]
    fn return_codes_of_3_1_1_survive_the_way_there_and_back() {
        for code in 0..=5 {
            let reason = ReasonCode::from_connect_return_code(code).unwrap();
            assert_eq!(reason.connect_return_code(), code);
        }
        assert_eq!(ReasonCode::from_connect_return_code(6), None);
        assert!(ReasonCode::ALL.iter().all(|reason| reason.connect_return_code() <= 5));
        for code in [0, 1, 2, 0x80] {
            assert_eq!(ReasonCode::from_suback_return_code(code).unwrap().suback_return_code(), code);
        }
        assert_eq!(ReasonCode::from_suback_return_code(3), None);
        assert_eq!(ReasonCode::NotAuthorized.suback_return_code(), 0x80);
    }
}
