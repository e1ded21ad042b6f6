//! MQTT 5 properties (section 2.2.2.2): one table of identifier, type, packets and repetition.

use bytes::Bytes;

use super::Text;

/// One property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// 0x01, byte.
    PayloadFormatIndicator(u8),
    /// 0x02, four byte integer, seconds.
    MessageExpiryInterval(u32),
    /// 0x03, UTF-8 string.
    ContentType(Text),
    /// 0x08, UTF-8 string.
    ResponseTopic(Text),
    /// 0x09, binary data.
    CorrelationData(Bytes),
    /// 0x0B, variable byte integer.
    SubscriptionIdentifier(u32),
    /// 0x11, four byte integer, seconds.
    SessionExpiryInterval(u32),
    /// 0x12, UTF-8 string.
    AssignedClientIdentifier(Text),
    /// 0x13, two byte integer, seconds.
    ServerKeepAlive(u16),
    /// 0x15, UTF-8 string.
    AuthenticationMethod(Text),
    /// 0x16, binary data.
    AuthenticationData(Bytes),
    /// 0x17, byte 0 or 1.
    RequestProblemInformation(bool),
    /// 0x18, four byte integer, seconds.
    WillDelayInterval(u32),
    /// 0x19, byte 0 or 1.
    RequestResponseInformation(bool),
    /// 0x1A, UTF-8 string.
    ResponseInformation(Text),
    /// 0x1C, UTF-8 string.
    ServerReference(Text),
    /// 0x1F, UTF-8 string.
    ReasonString(Text),
    /// 0x21, two byte integer.
    ReceiveMaximum(u16),
    /// 0x22, two byte integer.
    TopicAliasMaximum(u16),
    /// 0x23, two byte integer.
    TopicAlias(u16),
    /// 0x24, byte 0 or 1.
    MaximumQoS(u8),
    /// 0x25, byte 0 or 1.
    RetainAvailable(bool),
    /// 0x26, UTF-8 string pair.
    UserProperty((Text, Text)),
    /// 0x27, four byte integer, bytes.
    MaximumPacketSize(u32),
    /// 0x28, byte 0 or 1.
    WildcardSubscriptionAvailable(bool),
    /// 0x29, byte 0 or 1.
    SubscriptionIdentifierAvailable(bool),
    /// 0x2A, byte 0 or 1.
    SharedSubscriptionAvailable(bool),
}

/// The properties of a packet, in the order of the wire. Empty takes no heap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(Vec<Property>);

impl Properties {
    /// No properties.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a property.
    pub fn push(&mut self, property: Property) {
        self.0.push(property);
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Property> {
        self.0.iter()
    }

    /// Keeps those for which `keep` holds.
    pub fn retain(&mut self, keep: impl FnMut(&Property) -> bool) {
        self.0.retain(keep);
    }

    /// User properties, in order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&Text, &Text)> {
        self.0.iter().filter_map(|property| match property {
            Property::UserProperty((name, value)) => Some((name, value)),
            _ => None,
        })
    }

    /// Subscription identifiers, in order: several in a PUBLISH from a server.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(*id),
            _ => None,
        })
    }
}

impl FromIterator<Property> for Properties {
    fn from_iter<I: IntoIterator<Item = Property>>(properties: I) -> Self {
        Self(properties.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Properties {
    type Item = &'a Property;
    type IntoIter = std::slice::Iter<'a, Property>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Getters for the properties that occur at most once.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $variant:ident => $type:ty, $value:ident => $read:expr;)*) => {
        impl Properties {
            $($(#[$doc])*
            pub fn $name(&self) -> Option<$type> {
                self.0.iter().find_map(|property| match property {
                    Property::$variant($value) => Some($read),
                    _ => None,
                })
            })*
        }
    };
}

getters! {
    /// 0x01, byte.
    payload_format_indicator: PayloadFormatIndicator => u8, value => *value;
    /// 0x02, four byte integer, seconds.
    message_expiry_interval: MessageExpiryInterval => u32, value => *value;
    /// 0x03, UTF-8 string.
    content_type: ContentType => &Text, value => value;
    /// 0x08, UTF-8 string.
    response_topic: ResponseTopic => &Text, value => value;
    /// 0x09, binary data.
    correlation_data: CorrelationData => &Bytes, value => value;
    /// 0x11, four byte integer, seconds.
    session_expiry_interval: SessionExpiryInterval => u32, value => *value;
    /// 0x12, UTF-8 string.
    assigned_client_identifier: AssignedClientIdentifier => &Text, value => value;
    /// 0x13, two byte integer, seconds.
    server_keep_alive: ServerKeepAlive => u16, value => *value;
    /// 0x15, UTF-8 string.
    authentication_method: AuthenticationMethod => &Text, value => value;
    /// 0x16, binary data.
    authentication_data: AuthenticationData => &Bytes, value => value;
    /// 0x17, byte 0 or 1.
    request_problem_information: RequestProblemInformation => bool, value => *value;
    /// 0x18, four byte integer, seconds.
    will_delay_interval: WillDelayInterval => u32, value => *value;
    /// 0x19, byte 0 or 1.
    request_response_information: RequestResponseInformation => bool, value => *value;
    /// 0x1A, UTF-8 string.
    response_information: ResponseInformation => &Text, value => value;
    /// 0x1C, UTF-8 string.
    server_reference: ServerReference => &Text, value => value;
    /// 0x1F, UTF-8 string.
    reason_string: ReasonString => &Text, value => value;
    /// 0x21, two byte integer.
    receive_maximum: ReceiveMaximum => u16, value => *value;
    /// 0x22, two byte integer.
    topic_alias_maximum: TopicAliasMaximum => u16, value => *value;
    /// 0x23, two byte integer.
    topic_alias: TopicAlias => u16, value => *value;
    /// 0x24, byte 0 or 1.
    maximum_qos: MaximumQoS => u8, value => *value;
    /// 0x25, byte 0 or 1.
    retain_available: RetainAvailable => bool, value => *value;
    /// 0x27, four byte integer, bytes.
    maximum_packet_size: MaximumPacketSize => u32, value => *value;
    /// 0x28, byte 0 or 1.
    wildcard_subscription_available: WildcardSubscriptionAvailable => bool, value => *value;
    /// 0x29, byte 0 or 1.
    subscription_identifier_available: SubscriptionIdentifierAvailable => bool, value => *value;
    /// 0x2A, byte 0 or 1.
    shared_subscription_available: SharedSubscriptionAvailable => bool, value => *value;
}
