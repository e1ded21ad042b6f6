//! MQTT 5 properties (section 2.2.2.2): one table of identifier, type, packets and repetition.
//!
//! The table in `property/table.rs` is all there is to know about a property. It makes [`Property`], the getters of
//! [`Properties`] and the rules, and those drive decoding, checking and encoding, both owned and in place (`Scan`).

use super::{
    DecodeError, EncodeError, Limits, PacketType, ReasonCode, Source, Text, Version,
    cursor::{self, Field, Reader, field, violation},
    packet::Context,
    text,
};

pub use table::Property;
use table::{AUTHENTICATED, RULES};

mod table;

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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
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

    /// Reads the length of the properties and them, checked for the packets of `place`; before MQTT 5 there is nothing
    /// to read.
    pub(super) fn decode(reader: &mut Reader<'_>, place: Place, context: &Context<'_>) -> Result<Self, DecodeError> {
        if !context.version.is_v5() {
            return Ok(Self::new());
        }
        let mut scan = Scan::new(read_block(reader)?, place, context.limits);
        let mut properties = Self::new();
        while let Some(entry) = scan.next()? {
            properties.push(entry.to_property(context.source));
        }
        if place.has_authentication() && scan.saw(AUTHENTICATION_DATA) && !scan.saw(AUTHENTICATION_METHOD) {
            return Err(DecodeError::protocol(DATA_WITHOUT_METHOD));
        }
        Ok(properties)
    }

    /// As [`Self::block_len`] in MQTT 5; before it nothing is written.
    pub(super) fn block_len_in(&self, version: Version, place: Place) -> Result<usize, EncodeError> {
        if version.is_v5() { self.block_len(place) } else { Ok(0) }
    }

    /// As [`Self::put_block`] in MQTT 5; before it nothing is written.
    pub(super) fn put_block_in(&self, version: Version, out: &mut Vec<u8>) {
        if version.is_v5() {
            self.put_block(out);
        }
    }

    /// Bytes on the wire with the length before them; an error if the packets of `place` cannot hold them.
    pub(super) fn block_len(&self, place: Place) -> Result<usize, EncodeError> {
        let len = self.content_len(place)?;
        Ok(cursor::varint_len(len) + len)
    }

    /// Appends the length and the properties, which have passed [`Self::block_len`].
    pub(super) fn put_block(&self, out: &mut Vec<u8>) {
        cursor::put_varint(out, self.iter().map(|property| property.rule().wire_len(property.value())).sum());
        for property in self {
            property.rule().put(property.value(), out);
        }
    }

    /// Appends those for which `keep` holds, without a length. On error `out` is as it was.
    pub(super) fn put_where(
        &self,
        place: Place,
        keep: impl Fn(&Property) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let mut seen = Seen::default();
        let kept = self.iter().filter(|property| keep(property));
        kept.clone().try_for_each(|property| property.check(place, &mut seen))?;
        kept.for_each(|property| property.rule().put(property.value(), out));
        Ok(())
    }

    fn content_len(&self, place: Place) -> Result<usize, EncodeError> {
        let mut seen = Seen::default();
        let mut len = 0;
        for property in self {
            property.check(place, &mut seen)?;
            len += property.rule().wire_len(property.value());
        }
        if place.has_authentication() && seen.has(AUTHENTICATION_DATA) && !seen.has(AUTHENTICATION_METHOD) {
            return Err(EncodeError::NotAllowed(DATA_WITHOUT_METHOD));
        }
        Ok(len)
    }
}

impl FromIterator<Property> for Properties {
    fn from_iter<I: IntoIterator<Item = Property>>(properties: I) -> Self {
        Self(properties.into_iter().collect())
    }
}

impl Extend<Property> for Properties {
    fn extend<I: IntoIterator<Item = Property>>(&mut self, properties: I) {
        self.0.extend(properties);
    }
}

impl<'a> IntoIterator for &'a Properties {
    type Item = &'a Property;
    type IntoIter = std::slice::Iter<'a, Property>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Reads the length of the properties and cuts them out.
#[inline]
pub(super) fn read_block<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let len = reader.varint(field!("the property length"))?;
    reader.take(len as usize, field!("the list of properties"))
}

/// Where properties stand: a packet type, or the will in a CONNECT, as one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    /// The will properties in the payload of CONNECT.
    pub(super) const WILL: Self = Self(1);

    /// The properties of a packet.
    pub(super) const fn of(packet: PacketType) -> Self {
        Self(1 << packet as u16)
    }

    /// Whether authentication may stand here; its data needs its method (sections 3.1.2.11.10 and 3.15.2.2.3).
    const fn has_authentication(self) -> bool {
        self.0 & AUTHENTICATED != 0
    }
}

/// The row of the table for one property.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: u8,
    pub(super) kind: Kind,
    /// Bits of the places that may hold it, and of those that may hold it more than once.
    places: u16,
    repeats: u16,
    name: &'static str,
    field: &'static Field,
    misplaced: &'static str,
    repeated: &'static str,
    unfit: &'static str,
}

/// Type of a property's value, with what it must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A byte that is 0 or 1.
    Bit,
    /// Two byte integer.
    Two,
    /// Two byte integer above 0.
    TwoAboveZero,
    /// Two byte integer above 0 that is a topic alias: it has a reason code of its own.
    Alias,
    /// Four byte integer.
    Four,
    /// Four byte integer above 0.
    FourAboveZero,
    /// Variable byte integer above 0.
    VarAboveZero,
    /// UTF-8 string.
    Text,
    /// UTF-8 string that is a topic name.
    Topic,
    /// Binary data.
    Binary,
    /// Two UTF-8 strings.
    Pair,
}

/// A property's value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl Rule {
    fn read<'a>(&self, reader: &mut Reader<'a>) -> Result<Value<'a>, DecodeError> {
        let field = self.field;
        Ok(match self.kind {
            Kind::Bit => Value::Number(reader.u8(field)?.into()),
            Kind::Two | Kind::TwoAboveZero | Kind::Alias => Value::Number(reader.u16(field)?.into()),
            Kind::Four | Kind::FourAboveZero => Value::Number(reader.u32(field)?),
            Kind::VarAboveZero => Value::Number(reader.varint(field)?),
            Kind::Text | Kind::Topic => Value::Text(reader.text(field)?),
            Kind::Binary => Value::Binary(reader.binary(field)?),
            Kind::Pair => Value::Pair(reader.text(field)?, reader.text(field)?),
        })
    }

    fn check(&self, value: Value<'_>) -> Result<(), DecodeError> {
        let fits = match (self.kind, value) {
            (Kind::Bit, Value::Number(bit)) => bit <= 1,
            (Kind::TwoAboveZero | Kind::Alias | Kind::FourAboveZero, Value::Number(number)) => number > 0,
            (Kind::VarAboveZero, Value::Number(number)) => number > 0 && number as usize <= cursor::VARINT_MAX,
            // [MQTT-3.3.2-14], and [MQTT-4.7.3-1]: every topic name has at least one character
            (Kind::Topic, Value::Text(topic)) => {
                !topic.is_empty() && !topic.contains(['+', '#']) && !text::has_disallowed(topic)
            }
            _ => true,
        };
        match (fits, self.kind) {
            (true, _) => Ok(()),
            (false, Kind::Alias) => Err(violation(ReasonCode::TopicAliasInvalid, self.unfit)), // [MQTT-3.3.2-8]
            (false, _) => Err(DecodeError::protocol(self.unfit)),
        }
    }

    fn wire_len(&self, value: Value<'_>) -> usize {
        1 + match (self.kind, value) {
            (Kind::Bit, _) => 1,
            (Kind::VarAboveZero, Value::Number(number)) => cursor::varint_len(number as usize),
            (Kind::Four | Kind::FourAboveZero, _) => 4,
            (_, Value::Number(_)) => 2,
            (_, Value::Text(text)) => 2 + text.len(),
            (_, Value::Binary(bytes)) => 2 + bytes.len(),
            (_, Value::Pair(name, value)) => 4 + name.len() + value.len(),
        }
    }

    fn put(&self, value: Value<'_>, out: &mut Vec<u8>) {
        out.push(self.id);
        match (self.kind, value) {
            (Kind::Bit, Value::Number(bit)) => out.push(bit as u8),
            (Kind::VarAboveZero, Value::Number(number)) => cursor::put_varint(out, number as usize),
            (Kind::Four | Kind::FourAboveZero, Value::Number(number)) => cursor::put_u32(out, number),
            (_, Value::Number(number)) => cursor::put_u16(out, number as u16),
            (_, Value::Text(text)) => cursor::put_field(out, text.as_bytes()),
            (_, Value::Binary(bytes)) => cursor::put_field(out, bytes),
            (_, Value::Pair(name, value)) => {
                cursor::put_field(out, name.as_bytes());
                cursor::put_field(out, value.as_bytes());
            }
        }
    }
}

/// Which properties have occurred, a bit to an identifier (the greatest is 0x2A).
#[derive(Debug, Clone, Copy, Default)]
struct Seen(u64);

impl Seen {
    fn note(&mut self, rule: &Rule, place: Place) -> Result<(), DecodeError> {
        if rule.places & place.0 == 0 {
            return Err(violation(MISPLACED, rule.misplaced));
        }
        let bit = 1 << rule.id;
        if self.0 & bit != 0 && rule.repeats & place.0 == 0 {
            return Err(DecodeError::protocol(rule.repeated));
        }
        self.0 |= bit;
        Ok(())
    }

    const fn has(self, id: u8) -> bool {
        self.0 & (1 << id) != 0
    }
}

/// A walk over encoded properties in place that checks each: nothing is copied or allocated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    reader: Reader<'a>,
    place: Place,
    seen: Seen,
    user_properties_left: u16,
}

/// One property found by a [`Scan`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) rule: &'static Rule,
    pub(super) value: Value<'a>,
    /// Identifier and value as they were on the wire.
    pub(super) wire: &'a [u8],
}

impl Entry<'_> {
    /// The owned form.
    pub(super) fn to_property(self, source: Source<'_>) -> Property {
        Property::from_value(self.rule, self.value, source)
    }
}

impl<'a> Scan<'a> {
    /// Walks `block`, properties without their length.
    pub(super) const fn new(block: &'a [u8], place: Place, limits: &Limits) -> Self {
        let user_properties_left = limits.user_properties_max;
        Self { reader: Reader::new(block), place, seen: Seen(0), user_properties_left }
    }

    /// The next property, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a>>, DecodeError> {
        let before = self.reader.rest();
        let Some(&id) = before.first() else { return Ok(None) };
        // Identifiers are variable byte integers, but all that exist take one byte: larger ones are unknown.
        let rule = rule(id).ok_or(DecodeError::malformed("a property has an identifier that does not exist"))?;
        self.reader.u8(rule.field)?;
        self.seen.note(rule, self.place)?;
        let value = rule.read(&mut self.reader)?;
        rule.check(value)?;
        if rule.kind == Kind::Pair {
            self.user_properties_left = self
                .user_properties_left
                .checked_sub(1)
                .ok_or(violation(ReasonCode::QuotaExceeded, "more user properties than this receiver takes"))?;
        }
        let (wire, _) = before.split_at(before.len() - self.reader.rest().len());
        Ok(Some(Entry { rule, value, wire }))
    }

    /// Whether the property has occurred so far.
    pub(super) const fn saw(&self, id: u8) -> bool {
        self.seen.has(id)
    }
}

/// The row of an identifier.
fn rule(id: u8) -> Option<&'static Rule> {
    let row = *ROWS.get(usize::from(id))?;
    RULES.get(usize::from(row))
}

/// Identifiers that code elsewhere asks for.
pub(super) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
pub(super) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(super) const WILL_DELAY_INTERVAL: u8 = 0x18;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;

/// A known property in a packet that has none such: "An identifier which is not valid for its packet type [..] is a
/// Malformed Packet", section 2.2.2.2.
const MISPLACED: ReasonCode = ReasonCode::MalformedPacket;

const DATA_WITHOUT_METHOD: &str = "authentication data stands without an authentication method";

/// Entry of [`ROWS`] for identifiers that do not exist.
const NO_ROW: u8 = u8::MAX;

/// Index into [`RULES`] by identifier.
#[allow(clippy::indexing_slicing)] // runs when this is compiled
static ROWS: [u8; 0x2B] = {
    let mut rows = [NO_ROW; 0x2B];
    let mut row = 0;
    while row < RULES.len() {
        rows[RULES[row].id as usize] = row as u8;
        row += 1;
    }
    rows
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Version;

    const PUBLISH: Place = Place::of(PacketType::Publish);

    #[test]
    fn the_table_is_in_the_order_of_the_identifiers_and_complete() {
        assert!(RULES.is_sorted_by_key(|rule| rule.id));
        assert_eq!(RULES.len(), 27, "section 2.2.2.2 lists 27 properties");
        for row in RULES {
            assert_eq!(rule(row.id).map(|found| found.id), Some(row.id));
            assert_ne!(row.places, 0, "{} belongs somewhere", row.name);
            assert_eq!(row.repeats & !row.places, 0, "{} repeats where it may stand", row.name);
        }
        assert!((0..=u8::MAX).filter(|id| rule(*id).is_some()).count() == RULES.len());
    }

    #[test]
    fn getters_find_the_first_of_their_kind_among_others() {
        let properties: Properties = [
            Property::TopicAlias(7),
            Property::ContentType(Text::from_static("json")),
            Property::SubscriptionIdentifier(1),
        ]
        .into_iter()
        .collect();
        assert_eq!(properties.topic_alias(), Some(7));
        assert_eq!(properties.content_type().map(Text::as_str), Some("json"));
        assert_eq!(properties.message_expiry_interval(), None);
        assert_eq!(properties.subscription_identifiers().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_block_is_as_long_as_was_counted() {
        let properties: Properties = [
            Property::SubscriptionIdentifier(128),
            Property::MessageExpiryInterval(9),
            Property::UserProperty((Text::from_static("name"), Text::from_static("x"))),
        ]
        .into_iter()
        .collect();
        let mut out = Vec::new();
        properties.put_block(&mut out);
        assert_eq!(properties.block_len(PUBLISH), Ok(out.len()));
        let limits = Limits::default();
        let context = Context { version: Version::V5, limits: &limits, source: Source::Scratch };
        assert_eq!(Properties::decode(&mut Reader::new(&out), PUBLISH, &context), Ok(properties));
    }

    #[test]
    fn a_scan_hands_out_each_property_as_it_was_on_the_wire() {
        let block = [0x01, 1, 0x23, 0, 5, 0x0B, 0x80, 0x01];
        let mut scan = Scan::new(&block, PUBLISH, &Limits::default());
        let mut wires = Vec::new();
        while let Some(entry) = scan.next().unwrap() {
            wires.push(entry.wire);
        }
        assert_eq!(wires, [&block[..2], &block[2..5], &block[5..]]);
        assert!(scan.saw(TOPIC_ALIAS) && !scan.saw(MESSAGE_EXPIRY_INTERVAL));
    }
}
