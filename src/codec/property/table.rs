//! The table of the MQTT 5 properties, and what is made out of it.
//!
//! One row holds all there is to know about a property: identifier, name, type, getter, the packets that may hold it
//! and those that may hold it more than once. A row more is a property more. The table stands last, because the macro
//! that reads it must come first.

use bytes::Bytes;

use super::{EncodeError, Kind, PacketType, Place, Properties, Rule, Seen, Source, Text, Value, cursor, field, rule};

const WILL: u16 = Place::WILL.0;
const CONNECT: u16 = Place::of(PacketType::Connect).0;
const CONNACK: u16 = Place::of(PacketType::ConnAck).0;
const PUBLISH: u16 = Place::of(PacketType::Publish).0;
const SUBSCRIBE: u16 = Place::of(PacketType::Subscribe).0;
const DISCONNECT: u16 = Place::of(PacketType::Disconnect).0;
const AUTH: u16 = Place::of(PacketType::Auth).0;
/// The packets of enhanced authentication.
pub(super) const AUTHENTICATED: u16 = CONNECT | CONNACK | AUTH;
/// The packets that answer with a reason.
const ANSWERS: u16 = CONNACK
    | Place::of(PacketType::PubAck).0
    | Place::of(PacketType::PubRec).0
    | Place::of(PacketType::PubRel).0
    | Place::of(PacketType::PubComp).0
    | Place::of(PacketType::SubAck).0
    | Place::of(PacketType::UnsubAck).0
    | DISCONNECT
    | AUTH;
/// All packets that have properties, and the will.
const EVERYWHERE: u16 = ANSWERS | WILL | CONNECT | PUBLISH | SUBSCRIBE | Place::of(PacketType::Unsubscribe).0;

/// A type that an owned property keeps its value in.
trait Held {
    /// The value, borrowed.
    fn value(&self) -> Value<'_>;

    /// The owned form of a value that the table's type has admitted.
    fn held(value: Value<'_>, source: Source<'_>) -> Self;
}

/// Numbers of every width.
macro_rules! held_numbers {
    ($($type:ty: $from:expr;)*) => {$(
        impl Held for $type {
            fn value(&self) -> Value<'_> {
                Value::Number(u32::from(*self))
            }

            fn held(value: Value<'_>, _: Source<'_>) -> Self {
                let Value::Number(number) = value else { unreachable!("the table gives numbers a number's type") };
                $from(number)
            }
        }
    )*};
}

held_numbers! {
    u8: |number| number as u8;
    u16: |number| number as u16;
    u32: |number| number;
    bool: |number| number != 0;
}

impl Held for Text {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }

    fn held(value: Value<'_>, source: Source<'_>) -> Self {
        let Value::Text(text) = value else { unreachable!("the table gives strings a string's type") };
        Self::from_checked(text, source)
    }
}

impl Held for Bytes {
    fn value(&self) -> Value<'_> {
        Value::Binary(self)
    }

    fn held(value: Value<'_>, source: Source<'_>) -> Self {
        let Value::Binary(bytes) = value else { unreachable!("the table gives binary data a binary type") };
        source.take(bytes)
    }
}

impl Held for (Text, Text) {
    fn value(&self) -> Value<'_> {
        Value::Pair(&self.0, &self.1)
    }

    fn held(value: Value<'_>, source: Source<'_>) -> Self {
        let Value::Pair(name, value) = value else { unreachable!("the table gives pairs a pair's type") };
        (Text::from_checked(name, source), Text::from_checked(value, source))
    }
}

/// What a getter returns, and how: strings and binary data by reference, numbers by value.
macro_rules! getter {
    (type Text) => {
        &Text
    };
    (type Bytes) => {
        &Bytes
    };
    (type $number:tt) => {
        $number
    };
    (read Text $value:ident) => {
        $value
    };
    (read Bytes $value:ident) => {
        $value
    };
    (read $number:tt $value:ident) => {
        *$value
    };
}

/// Makes everything out of the table.
macro_rules! properties {
    ($($(#[$doc:meta])* $id:literal $variant:ident($type:tt) $($getter:ident)?: $kind:ident in $places:expr $(, again in $repeats:expr)?;)*) => {
        /// One property.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Property {
            $($(#[$doc])* $variant($type),)*
        }

        impl Property {
            /// The identifier on the wire.
            pub const fn id(&self) -> u8 {
                match self {
                    $(Self::$variant(_) => $id,)*
                }
            }

            /// The specification's name, without spaces.
            pub fn name(&self) -> &'static str {
                self.rule().name
            }

            pub(super) fn rule(&self) -> &'static Rule {
                rule(self.id()).expect("every variant has its row")
            }

            /// Checks what a decoder would check.
            pub(super) fn check(&self, place: Place, seen: &mut Seen) -> Result<(), EncodeError> {
                let (rule, value) = (self.rule(), self.value());
                if let Value::Binary(bytes) = value {
                    cursor::field_len(bytes.len(), rule.name)?;
                }
                rule.check(value).and_then(|()| seen.note(rule, place)).map_err(|fault| EncodeError::not_allowed(&fault))
            }

            pub(super) fn value(&self) -> Value<'_> {
                match self {
                    $(Self::$variant(value) => value.value(),)*
                }
            }

            pub(super) fn from_value(rule: &Rule, value: Value<'_>, source: Source<'_>) -> Self {
                match rule.id {
                    $($id => Self::$variant(Held::held(value, source)),)*
                    _ => unreachable!("every row has its variant"),
                }
            }
        }

        impl Properties {
            $($(
                #[doc = concat!("`", stringify!($variant), "` (", stringify!($id), "), if it is there.")]
                pub fn $getter(&self) -> Option<getter!(type $type)> {
                    self.0.iter().find_map(|property| match property {
                        Property::$variant(value) => Some(getter!(read $type value)),
                        _ => None,
                    })
                }
            )?)*
        }

        /// The table, in the order of the identifiers.
        pub(super) static RULES: &[Rule] = &[$(Rule {
            id: $id,
            kind: Kind::$kind,
            places: $places,
            repeats: 0 $(| $repeats)?,
            name: stringify!($variant),
            field: field!("the property ", stringify!($variant)),
            misplaced: concat!("the property ", stringify!($variant), " does not belong in this packet"),
            repeated: concat!("the property ", stringify!($variant), " occurs more than once"),
            unfit: concat!("the property ", stringify!($variant), " has a value that it must not have"),
        },)*];
    };
}

properties! {
    /// 0x01, byte 0 or 1: whether the payload is UTF-8.
    0x01 PayloadFormatIndicator(u8) payload_format_indicator: Bit in PUBLISH | WILL;
    /// 0x02, four byte integer, seconds.
    0x02 MessageExpiryInterval(u32) message_expiry_interval: Four in PUBLISH | WILL;
    /// 0x03, UTF-8 string.
    0x03 ContentType(Text) content_type: Text in PUBLISH | WILL;
    /// 0x08, UTF-8 string, a topic name.
    0x08 ResponseTopic(Text) response_topic: Topic in PUBLISH | WILL;
    /// 0x09, binary data.
    0x09 CorrelationData(Bytes) correlation_data: Binary in PUBLISH | WILL;
    /// 0x0B, variable byte integer above 0.
    0x0B SubscriptionIdentifier(u32): VarAboveZero in PUBLISH | SUBSCRIBE, again in PUBLISH;
    /// 0x11, four byte integer, seconds.
    0x11 SessionExpiryInterval(u32) session_expiry_interval: Four in CONNECT | CONNACK | DISCONNECT;
    /// 0x12, UTF-8 string.
    0x12 AssignedClientIdentifier(Text) assigned_client_identifier: Text in CONNACK;
    /// 0x13, two byte integer, seconds.
    0x13 ServerKeepAlive(u16) server_keep_alive: Two in CONNACK;
    /// 0x15, UTF-8 string.
    0x15 AuthenticationMethod(Text) authentication_method: Text in AUTHENTICATED;
    /// 0x16, binary data.
    0x16 AuthenticationData(Bytes) authentication_data: Binary in AUTHENTICATED;
    /// 0x17, byte 0 or 1.
    0x17 RequestProblemInformation(bool) request_problem_information: Bit in CONNECT;
    /// 0x18, four byte integer, seconds.
    0x18 WillDelayInterval(u32) will_delay_interval: Four in WILL;
    /// 0x19, byte 0 or 1.
    0x19 RequestResponseInformation(bool) request_response_information: Bit in CONNECT;
    /// 0x1A, UTF-8 string.
    0x1A ResponseInformation(Text) response_information: Text in CONNACK;
    /// 0x1C, UTF-8 string.
    0x1C ServerReference(Text) server_reference: Text in CONNACK | DISCONNECT;
    /// 0x1F, UTF-8 string.
    0x1F ReasonString(Text) reason_string: Text in ANSWERS;
    /// 0x21, two byte integer above 0.
    0x21 ReceiveMaximum(u16) receive_maximum: TwoAboveZero in CONNECT | CONNACK;
    /// 0x22, two byte integer.
    0x22 TopicAliasMaximum(u16) topic_alias_maximum: Two in CONNECT | CONNACK;
    /// 0x23, two byte integer above 0.
    0x23 TopicAlias(u16) topic_alias: Alias in PUBLISH;
    /// 0x24, byte 0 or 1.
    0x24 MaximumQoS(u8) maximum_qos: Bit in CONNACK;
    /// 0x25, byte 0 or 1.
    0x25 RetainAvailable(bool) retain_available: Bit in CONNACK;
    /// 0x26, UTF-8 string pair.
    0x26 UserProperty((Text, Text)): Pair in EVERYWHERE, again in EVERYWHERE;
    /// 0x27, four byte integer above 0, bytes.
    0x27 MaximumPacketSize(u32) maximum_packet_size: FourAboveZero in CONNECT | CONNACK;
    /// 0x28, byte 0 or 1.
    0x28 WildcardSubscriptionAvailable(bool) wildcard_subscription_available: Bit in CONNACK;
    /// 0x29, byte 0 or 1.
    0x29 SubscriptionIdentifierAvailable(bool) subscription_identifier_available: Bit in CONNACK;
    /// 0x2A, byte 0 or 1.
    0x2A SharedSubscriptionAvailable(bool) shared_subscription_available: Bit in CONNACK;
}
