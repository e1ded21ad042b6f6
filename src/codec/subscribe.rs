//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use super::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, QoS, ReasonCode, Text, TopicFilter, Version,
    ack::{check_reason, read_reason},
    cursor::{self, Reader, field, violation},
    packet::{Context, Wire},
    property::Place,
};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
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

impl SubscriptionOptions {
    /// The options of `qos`, all else as it was before MQTT 5.
    pub const fn new(qos: QoS) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Send }
    }

    fn from_byte(byte: u8, version: Version) -> Result<Self, DecodeError> {
        // [MQTT-3.8.3-5]; before MQTT 5 all but the QoS is reserved, [MQTT-3.8.3-4] of 3.1.1.
        let reserved = if version.is_v5() { 0b1100_0000 } else { 0b1111_1100 };
        if byte & reserved != 0 && version != Version::V3_1 {
            return Err(DecodeError::malformed("the subscription options have reserved bits set"));
        }
        let what = "a subscription asks for QoS 3";
        // Section 3.8.3.1 names it a protocol error; before MQTT 5 nobody tells the two apart.
        let fault = if version.is_v5() { DecodeError::protocol(what) } else { DecodeError::malformed(what) };
        let qos = QoS::from_bits(byte & 0b11).ok_or(fault)?;
        if !version.is_v5() {
            return Ok(Self::new(qos));
        }
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::protocol("a subscription has retain handling 3")),
        };
        Ok(Self { qos, no_local: byte & NO_LOCAL != 0, retain_as_published: byte & AS_PUBLISHED != 0, retain_handling })
    }

    const fn as_byte(self) -> u8 {
        let no_local = if self.no_local { NO_LOCAL } else { 0 };
        let as_published = if self.retain_as_published { AS_PUBLISHED } else { 0 };
        self.qos as u8 | no_local | as_published | (self.retain_handling as u8) << 4
    }
}

impl Subscription {
    fn decode(reader: &mut Reader<'_>, context: &Context<'_>) -> Result<Self, DecodeError> {
        let filter = read_filter(reader, context)?;
        let byte = reader.u8(field!("the subscription options"))?;
        let subscription = Self { filter, options: SubscriptionOptions::from_byte(byte, context.version)? };
        subscription.check_no_local().map_err(DecodeError::protocol)?;
        Ok(subscription)
    }

    /// No Local makes no sense where another member of the group may be the one to receive [MQTT-3.8.3-4].
    fn check_no_local(&self) -> Result<(), &'static str> {
        if self.options.no_local && self.filter.shared().is_some() {
            return Err("a shared subscription has No Local set [MQTT-3.8.3-4]");
        }
        Ok(())
    }
}

impl Subscribe {
    pub(super) fn decode(body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id(field!("the packet identifier of SUBSCRIBE"))?;
        let properties = Properties::decode(&mut reader, SUBSCRIBE, context)?;
        let mut subscriptions = Vec::new();
        while !reader.is_empty() {
            check_count(subscriptions.len(), context)?;
            subscriptions.push(Subscription::decode(&mut reader, context)?);
        }
        if subscriptions.is_empty() {
            return Err(DecodeError::protocol(NO_SUBSCRIPTION));
        }
        Ok(Self { packet_id, properties, subscriptions })
    }
}

impl Wire for Subscribe {
    fn header(&self) -> u8 {
        PacketType::Subscribe.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if self.subscriptions.is_empty() {
            return Err(EncodeError::NotAllowed(NO_SUBSCRIPTION));
        }
        let mut len = 2 + self.properties.block_len_in(version, SUBSCRIBE)?;
        for subscription in &self.subscriptions {
            subscription.check_no_local().map_err(EncodeError::NotAllowed)?;
            if !version.is_v5() && subscription.options != SubscriptionOptions::new(subscription.options.qos) {
                return Err(EncodeError::NotInVersion("subscription options but the QoS exist only in MQTT 5"));
            }
            len += 2 + subscription.filter.as_str().len() + 1;
        }
        Ok(len)
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        cursor::put_u16(out, self.packet_id.get());
        self.properties.put_block_in(version, out);
        for subscription in &self.subscriptions {
            cursor::put_field(out, subscription.filter.as_text().as_bytes());
            out.push(subscription.options.as_byte());
        }
    }
}

impl SubAck {
    pub(super) fn decode(body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id(field!("the packet identifier of SUBACK"))?;
        let properties = Properties::decode(&mut reader, SUBACK, context)?;
        let reasons = if context.version.is_v5() {
            read_reasons(&mut reader, PacketType::SubAck, context)?
        } else {
            let return_codes = reader.rest().iter();
            return_codes
                .map(|&code| ReasonCode::from_suback_return_code(code).ok_or(DecodeError::malformed(RESERVED_CODE)))
                .collect::<Result<Vec<_>, _>>()?
        };
        if reasons.is_empty() {
            return Err(DecodeError::malformed(NO_REASON));
        }
        Ok(Self { packet_id, properties, reasons })
    }
}

impl Wire for SubAck {
    fn header(&self) -> u8 {
        PacketType::SubAck.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if self.reasons.is_empty() {
            return Err(EncodeError::NotAllowed(NO_REASON));
        }
        for &reason in &self.reasons {
            check_reason(reason, PacketType::SubAck)?;
        }
        Ok(2 + self.properties.block_len_in(version, SUBACK)? + self.reasons.len())
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        cursor::put_u16(out, self.packet_id.get());
        self.properties.put_block_in(version, out);
        let byte = |reason: &ReasonCode| if version.is_v5() { reason.as_u8() } else { reason.suback_return_code() };
        out.extend(self.reasons.iter().map(byte));
    }
}

impl Unsubscribe {
    pub(super) fn decode(body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id(field!("the packet identifier of UNSUBSCRIBE"))?;
        let properties = Properties::decode(&mut reader, UNSUBSCRIBE, context)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            check_count(filters.len(), context)?;
            filters.push(read_filter(&mut reader, context)?);
        }
        if filters.is_empty() {
            return Err(DecodeError::protocol(NO_FILTER));
        }
        Ok(Self { packet_id, properties, filters })
    }
}

impl Wire for Unsubscribe {
    fn header(&self) -> u8 {
        PacketType::Unsubscribe.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::NotAllowed(NO_FILTER));
        }
        let filters_len: usize = self.filters.iter().map(|filter| 2 + filter.as_str().len()).sum();
        Ok(2 + self.properties.block_len_in(version, UNSUBSCRIBE)? + filters_len)
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        cursor::put_u16(out, self.packet_id.get());
        self.properties.put_block_in(version, out);
        for filter in &self.filters {
            cursor::put_field(out, filter.as_text().as_bytes());
        }
    }
}

impl UnsubAck {
    pub(super) fn decode(body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id(field!("the packet identifier of UNSUBACK"))?;
        let mut unsuback = Self { packet_id, properties: Properties::new(), reasons: Vec::new() };
        if !context.version.is_v5() {
            reader.finish(field!("the packet identifier of UNSUBACK"))?;
            return Ok(unsuback);
        }
        unsuback.properties = Properties::decode(&mut reader, UNSUBACK, context)?;
        unsuback.reasons = read_reasons(&mut reader, PacketType::UnsubAck, context)?;
        if unsuback.reasons.is_empty() {
            return Err(DecodeError::malformed(NO_REASON));
        }
        Ok(unsuback)
    }
}

impl Wire for UnsubAck {
    fn header(&self) -> u8 {
        PacketType::UnsubAck.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if !version.is_v5() {
            return Ok(2);
        }
        if self.reasons.is_empty() {
            return Err(EncodeError::NotAllowed(NO_REASON));
        }
        for &reason in &self.reasons {
            check_reason(reason, PacketType::UnsubAck)?;
        }
        Ok(2 + self.properties.block_len(UNSUBACK)? + self.reasons.len())
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        cursor::put_u16(out, self.packet_id.get());
        if version.is_v5() {
            self.properties.put_block(out);
            out.extend(self.reasons.iter().map(|reason| reason.as_u8()));
        }
    }
}

fn read_filter(reader: &mut Reader<'_>, context: &Context<'_>) -> Result<TopicFilter, DecodeError> {
    let filter = reader.topic_filter(field!("a topic filter"), context.limits)?;
    Ok(TopicFilter::from_checked(Text::from_checked(filter, context.source)))
}

fn check_count(count: usize, context: &Context<'_>) -> Result<(), DecodeError> {
    if count < usize::from(context.limits.filters_max) {
        return Ok(());
    }
    Err(violation(ReasonCode::QuotaExceeded, "more topic filters in one packet than this receiver takes"))
}

/// The rest of the body, one reason code a byte. As many filters at most can have been asked for.
fn read_reasons(
    reader: &mut Reader<'_>,
    packet_type: PacketType,
    context: &Context<'_>,
) -> Result<Vec<ReasonCode>, DecodeError> {
    let mut reasons = Vec::new();
    while !reader.is_empty() {
        check_count(reasons.len(), context)?;
        reasons.push(read_reason(reader, packet_type, field!("a reason code"))?);
    }
    Ok(reasons)
}

const SUBSCRIBE: Place = Place::of(PacketType::Subscribe);
const SUBACK: Place = Place::of(PacketType::SubAck);
const UNSUBSCRIBE: Place = Place::of(PacketType::Unsubscribe);
const UNSUBACK: Place = Place::of(PacketType::UnsubAck);

/// Bits of the subscription options, section 3.8.3.1.
const NO_LOCAL: u8 = 0b0100;
const AS_PUBLISHED: u8 = 0b1000;

const NO_SUBSCRIPTION: &str = "SUBSCRIBE has no topic filter [MQTT-3.8.3-2]";
const NO_FILTER: &str = "UNSUBSCRIBE has no topic filter [MQTT-3.10.3-2]";
const NO_REASON: &str = "the acknowledgement has no reason code";
const RESERVED_CODE: &str = "SUBACK has a reserved return code [MQTT-3.9.3-2]";
