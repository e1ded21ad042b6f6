//! What rules and traces want to know of a packet, and what faults change in one.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _, sync::Arc};

use crate::codec::{
    Frame, Limits, Packet, PacketType, Property, PublishRef, QoS, ReasonCode, Source, Subscribe, Unsubscribe, Version,
};

/// What a rule selects by.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// `None` for bytes that are not looked into.
    pub(super) packet: Option<PacketType>,
    /// Topic of the message that it is or belongs to.
    pub(super) topic: Option<Arc<str>>,
    /// Filters that it is about.
    pub(super) filters: Option<Arc<[String]>>,
}

/// What has to be remembered of one direction to know the topic of what comes later.
#[derive(Debug, Default)]
pub(super) struct Memory {
    aliases: HashMap<u16, Arc<str>>,
    /// Topics of messages sent in this direction, by packet identifier.
    messages: HashMap<u16, Arc<str>>,
    /// Filters of requests sent in this direction, by packet identifier.
    requests: HashMap<u16, Arc<[String]>>,
}

/// The facts of a packet; `own` is the memory of its direction, `other` that of the opposite one.
pub(super) fn facts(frame: Frame<'_>, version: Version, own: &mut Memory, other: &mut Memory) -> Facts {
    let packet = PacketType::from_bits(frame.header >> 4, Version::V5);
    let id = frame.body.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id));
    let mut facts = Facts { packet, ..Facts::default() };
    match packet {
        Some(PacketType::Publish) => facts.topic = own.topic_of(frame, version),
        Some(PacketType::PubAck | PacketType::PubComp) => facts.topic = other.messages.remove(&id),
        Some(PacketType::PubRec) => facts.topic = other.messages.get(&id).cloned(),
        Some(PacketType::PubRel) => facts.topic = own.messages.get(&id).cloned(),
        Some(PacketType::Subscribe | PacketType::Unsubscribe) => {
            facts.filters = filters(frame, version);
            own.requests.extend(facts.filters.clone().map(|filters| (id, filters)));
        }
        Some(PacketType::SubAck | PacketType::UnsubAck) => facts.filters = other.requests.remove(&id),
        _ => {}
    }
    facts
}

impl Memory {
    fn topic_of(&mut self, frame: Frame<'_>, version: Version) -> Option<Arc<str>> {
        let publish = PublishRef::decode(frame, version, &Limits::default()).ok()?;
        let topic = match (publish.topic, publish.topic_alias) {
            ("", alias) => self.aliases.get(&alias?).cloned()?,
            (topic, alias) => {
                let topic: Arc<str> = Arc::from(topic);
                self.aliases.extend(alias.map(|alias| (alias, Arc::clone(&topic))));
                topic
            }
        };
        self.messages.extend(publish.packet_id.map(|id| (id.get(), Arc::clone(&topic))));
        Some(topic)
    }
}

fn filters(frame: Frame<'_>, version: Version) -> Option<Arc<[String]>> {
    let filters: Vec<String> = match decode(frame, version)? {
        Packet::Subscribe(Subscribe { subscriptions, .. }) => {
            subscriptions.iter().map(|subscription| subscription.filter.as_str().to_owned()).collect()
        }
        Packet::Unsubscribe(Unsubscribe { filters, .. }) => {
            filters.iter().map(|filter| filter.as_str().to_owned()).collect()
        }
        _ => return None,
    };
    Some(filters.into())
}

/// The packet, if it is one.
pub(super) fn decode(frame: Frame<'_>, version: Version) -> Option<Packet> {
    Packet::decode(frame, version, &Limits::default(), &Source::Scratch).ok()
}

/// The same packet with another reason code; `None` if it cannot carry that one.
pub(super) fn with_reason(frame: Frame<'_>, version: Version, reason: ReasonCode) -> Option<Vec<u8>> {
    let mut packet = decode(frame, version)?;
    if !version.is_v5() && !matches!(packet, Packet::ConnAck(_) | Packet::SubAck(_)) {
        return None;
    }
    match &mut packet {
        Packet::ConnAck(connack) => {
            connack.reason = reason;
            // [MQTT-3.2.2-6]
            connack.session_present &= !reason.is_error();
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => ack.reason = reason,
        Packet::SubAck(suback) => suback.reasons.fill(reason),
        Packet::UnsubAck(unsuback) => unsuback.reasons.fill(reason),
        Packet::Disconnect(disconnect) => disconnect.reason = reason,
        Packet::Auth(auth) => auth.reason = reason,
        _ => return None,
    }
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).ok().map(|()| bytes)
}

/// Marks a PUBLISH above QoS 0 as sent again, as a sender that repeats it does.
pub(super) fn mark_duplicate(bytes: &mut [u8]) {
    if let Some(header) = bytes.first_mut()
        && *header >> 4 == PacketType::Publish as u8
        && *header & QOS_BITS != 0
    {
        *header |= DUP;
    }
}

/// One line about a packet, for people.
pub(super) fn describe(frame: Frame<'_>, version: Version) -> String {
    let name = PacketType::from_bits(frame.header >> 4, Version::V5).map_or("packet of type 0", PacketType::name);
    let Some(packet) = decode(frame, version) else {
        return format!("{name} malformed, {} B {}", frame.body.len(), preview(frame.body));
    };
    let mut line = name.to_owned();
    match &packet {
        Packet::Connect(connect) => {
            let _ = write!(line, " {} {:?}", version_name(connect.version), connect.client_id.as_str());
            let _ = write!(line, " keep-alive={}", connect.keep_alive);
            line.push_str(if connect.clean_start { " clean" } else { "" });
            if let Some(username) = &connect.username {
                let _ = write!(line, " user={:?}", username.as_str());
            }
            if let Some(will) = &connect.will {
                let _ = write!(line, " will={:?}", will.topic.as_str());
            }
        }
        Packet::ConnAck(connack) => {
            let _ = write!(line, " {}", reason(connack.reason));
            line.push_str(if connack.session_present { " session-present" } else { "" });
        }
        Packet::Publish(publish) => describe_publish(&mut line, publish),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            let _ = write!(line, " id={} {}", ack.packet_id, reason(ack.reason));
        }
        Packet::Subscribe(subscribe) => {
            let _ = write!(line, " id={}", subscribe.packet_id);
            for subscription in &subscribe.subscriptions {
                let _ = write!(line, " {:?} q{}", subscription.filter.as_str(), subscription.options.qos as u8);
            }
        }
        Packet::Unsubscribe(unsubscribe) => {
            let _ = write!(line, " id={}", unsubscribe.packet_id);
            for filter in &unsubscribe.filters {
                let _ = write!(line, " {:?}", filter.as_str());
            }
        }
        Packet::SubAck(suback) => describe_reasons(&mut line, suback.packet_id.get(), &suback.reasons),
        Packet::UnsubAck(unsuback) => describe_reasons(&mut line, unsuback.packet_id.get(), &unsuback.reasons),
        Packet::Disconnect(disconnect) => {
            let _ = write!(line, " {}", reason(disconnect.reason));
        }
        Packet::Auth(auth) => {
            let _ = write!(line, " {}", reason(auth.reason));
        }
        Packet::PingReq | Packet::PingResp => {}
    }
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line.push('…');
    }
    line
}

fn describe_publish(line: &mut String, publish: &crate::codec::Publish) {
    let _ = write!(line, " q{}", publish.qos as u8);
    if let Some(id) = publish.packet_id {
        let _ = write!(line, " id={id}");
    }
    line.push_str(if publish.dup && publish.qos > QoS::AtMostOnce { " dup" } else { "" });
    line.push_str(if publish.retain { " retain" } else { "" });
    let alias = publish.properties.iter().find_map(|property| match property {
        Property::TopicAlias(alias) => Some(alias),
        _ => None,
    });
    match (publish.topic.as_str(), alias) {
        ("", Some(alias)) => {
            let _ = write!(line, " alias={alias}");
        }
        (topic, _) => {
            let _ = write!(line, " {topic:?}");
        }
    }
    let _ = write!(line, " {} B {}", publish.payload.len(), preview(&publish.payload));
}

fn describe_reasons(line: &mut String, id: u16, reasons: &[ReasonCode]) {
    let _ = write!(line, " id={id}");
    for code in reasons {
        let _ = write!(line, " 0x{:02X}", code.as_u8());
    }
}

fn reason(code: ReasonCode) -> Cow<'static, str> {
    if code == ReasonCode::Success { "ok".into() } else { format!("0x{:02X} {}", code.as_u8(), code.name()).into() }
}

/// The start of some bytes: as text if they are, else in hexadecimal.
fn preview(bytes: &[u8]) -> String {
    let (shown, more) = match bytes.get(..PREVIEW_BYTES_MAX) {
        Some(start) if bytes.len() > PREVIEW_BYTES_MAX => (start, "…"),
        _ => (bytes, ""),
    };
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() && !more.is_empty() => {
            std::str::from_utf8(shown.get(..error.valid_up_to()).unwrap_or_default()).ok()
        }
        Err(_) => None,
    };
    match text {
        Some(text) => format!("{text:?}{more}"),
        None => shown.iter().fold("0x".to_owned(), |hex, byte| format!("{hex}{byte:02x}")) + more,
    }
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

const QOS_BITS: u8 = 0b0110;
const DUP: u8 = 0b1000;

/// Payload bytes shown in a trace: enough to know a small document by.
const PREVIEW_BYTES_MAX: usize = 48;

/// One line of a trace.
const LINE_BYTES_MAX: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Ack, Cut, Properties, Publish, TopicName, frame::cut};

    fn publish(topic: &str, id: u16, alias: Option<u16>) -> Vec<u8> {
        let topic = if topic.is_empty() { TopicName::empty() } else { TopicName::new(topic).unwrap() };
        let mut properties = Properties::new();
        if let Some(alias) = alias {
            properties.push(Property::TopicAlias(alias));
        }
        let packet_id = std::num::NonZeroU16::new(id);
        let qos = if id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let payload = "21.5 °C".into();
        encoded(&Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload }))
    }

    fn encoded(packet: &Packet) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        bytes
    }

    fn frame(bytes: &[u8]) -> Frame<'_> {
        match cut(bytes, u32::MAX) {
            Ok(Cut::Frame(frame, _)) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_topic_is_known_behind_an_alias_and_of_an_acknowledgement() {
        let (mut up, mut down) = (Memory::default(), Memory::default());
        let mut topic = |bytes: Vec<u8>, upward| {
            let (own, other) = if upward { (&mut up, &mut down) } else { (&mut down, &mut up) };
            facts(frame(&bytes), Version::V5, own, other).topic.map(|topic| topic.to_string())
        };
        assert_eq!(topic(publish("a/b", 0, Some(4)), true).as_deref(), Some("a/b"));
        assert_eq!(topic(publish("", 7, Some(4)), true).as_deref(), Some("a/b"));
        let ack = || encoded(&Packet::PubAck(Ack::new(7.try_into().unwrap(), ReasonCode::Success)));
        assert_eq!(topic(ack(), true), None, "an acknowledgement of the other direction's message 7");
        assert_eq!(topic(ack(), false).as_deref(), Some("a/b"));
        assert_eq!(topic(ack(), false), None, "it was acknowledged");
    }

    #[test]
    fn lines_tell_what_a_reader_of_a_failure_wants_to_know() {
        let line = |bytes: &[u8]| describe(frame(bytes), Version::V5);
        assert_eq!(line(&publish("a/b", 7, None)), "PUBLISH q1 id=7 \"a/b\" 8 B \"21.5 °C\"");
        let ack = encoded(&Packet::PubAck(Ack::new(7.try_into().unwrap(), ReasonCode::QuotaExceeded)));
        assert_eq!(line(&ack), format!("PUBACK id=7 0x97 {}", ReasonCode::QuotaExceeded.name()));
        assert_eq!(line(&[0xC0, 0]), "PINGREQ");
        assert_eq!(line(&[0x40, 1, 9]), "PUBACK malformed, 1 B \"\\t\"");
    }

    #[test]
    fn a_reason_is_replaced_where_there_is_one() {
        let ack = encoded(&Packet::PubAck(Ack::new(7.try_into().unwrap(), ReasonCode::Success)));
        let faked = with_reason(frame(&ack), Version::V5, ReasonCode::QuotaExceeded).unwrap();
        let Some(Packet::PubAck(ack)) = decode(frame(&faked), Version::V5) else { panic!("a PUBACK") };
        assert_eq!(ack.reason, ReasonCode::QuotaExceeded);
        let old = [0x40, 2, 0, 7];
        assert_eq!(with_reason(frame(&old), Version::V3_1_1, ReasonCode::QuotaExceeded), None);
        assert_eq!(with_reason(frame(&[0xC0, 0]), Version::V5, ReasonCode::QuotaExceeded), None);
    }
}
