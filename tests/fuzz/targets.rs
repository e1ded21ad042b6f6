//! What must hold for any bytes at all. Each function panics if it does not.

use bytes::Bytes;
use ferromq::codec::{
    Cut, Decoder, Frame, Limits, Packet, PublishRef, Source, Version, frame,
    publish::forward_owned,
    topic::{check_filter, check_name, matches},
};

/// The first byte picks version and piece size, the rest is a stream. Decoding never panics and depends neither on the
/// pieces nor on whether bytes are shared; what was decoded can be encoded, and decodes to the same again.
pub(super) fn decode(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else { return };
    let version = version(choice);
    let whole = decode_all(version, stream, usize::MAX);
    let pieces = decode_all(version, stream, usize::from(choice >> 2) + 1);
    assert_eq!(whole, pieces, "the pieces decide");
    for packet in &whole.0 {
        // A CONNECT tells its own version.
        let mut encoded = Vec::new();
        packet
            .encode(version, &mut encoded)
            .unwrap_or_else(|error| panic!("decoded, not encoded: {error}: {packet:?}"));
        assert_eq!(packet.encoded_len(version), Ok(encoded.len()));
        let Ok(Cut::Frame(frame, used)) = frame::cut(&encoded, u32::MAX) else {
            panic!("encoded no frame: {packet:?}")
        };
        assert_eq!(used, encoded.len());
        let again = Packet::decode(frame, version, &LIMITS, &Source::Scratch);
        assert_eq!(again.as_ref(), Ok(packet), "encoding changed it");
    }
}

/// The first byte picks the version, the second the flags, the rest is a PUBLISH. The view in place and the owned
/// packet tell the same, and forward the same.
pub(super) fn publish(data: &[u8]) {
    let &[choice, flags, ref body @ ..] = data else { return };
    let version = version(choice);
    let shared = Bytes::copy_from_slice(body);
    let frame = Frame::new(0x30 | flags & 0x0F, &shared);
    let view = PublishRef::decode(frame, version, &LIMITS);
    let owned = Packet::decode(frame, version, &LIMITS, &Source::Shared(&shared));
    let (Ok(view), Ok(Packet::Publish(owned))) = (&view, &owned) else {
        assert_eq!(view.err(), owned.err(), "one refuses what the other takes");
        return;
    };
    assert_eq!((view.dup, view.qos, view.retain), (owned.dup, owned.qos, owned.retain));
    assert_eq!((view.topic, view.packet_id), (owned.topic.as_str(), owned.packet_id));
    assert_eq!(view.payload, &owned.payload);
    assert_eq!(view.topic_alias, owned.properties.topic_alias());
    assert_eq!(view.message_expiry, owned.properties.message_expiry_interval());
    assert_eq!(view.payload_is_utf8, owned.properties.payload_format_indicator() == Some(1));
    assert_eq!(view.has_subscription_identifier, owned.properties.subscription_identifiers().next().is_some());
    let (mut from_view, mut from_owned) = (Vec::new(), Vec::new());
    view.forward_properties(&mut from_view);
    forward_owned(&owned.properties, &mut from_owned).expect("decoded properties can be encoded");
    assert_eq!(from_view, from_owned);
    assert_eq!(&view.to_publish(&Source::Scratch), owned);
}

/// A filter and a topic, separated by a newline. Checks and matching agree with a naive reading of section 4.7.
pub(super) fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (filter, topic) = text.split_once('\n').unwrap_or((text, "a/b"));
    let name_is_valid = check_name(topic, &LIMITS).is_ok();
    let filter_is_valid = check_filter(filter, &LIMITS).is_ok();
    assert_eq!(name_is_valid, naive_name(topic), "the name {topic:?}");
    assert_eq!(filter_is_valid, naive_filter(filter), "the filter {filter:?}");
    if name_is_valid && filter_is_valid && !filter.starts_with("$share/") {
        let (filter_levels, topic_levels): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
        let naive = naive_matches(&filter_levels, &topic_levels);
        assert_eq!(matches(filter, topic), naive, "{filter:?} on {topic:?}");
    }
}

/// The packets of a stream that arrives in pieces, and the fault that ends it.
fn decode_all(version: Version, stream: &[u8], piece: usize) -> (Vec<Packet>, Option<String>) {
    let mut decoder = Decoder::new();
    let mut packets = Vec::new();
    for bytes in stream.chunks(piece.min(stream.len().max(1))) {
        decoder.feed(bytes);
        loop {
            match decoder.poll(version, &LIMITS) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(fault) => return (packets, Some(fault.to_string())),
            }
        }
    }
    (packets, None)
}

const fn version(choice: u8) -> Version {
    match choice & 0b11 {
        0 => Version::V3_1,
        1 => Version::V3_1_1,
        _ => Version::V5,
    }
}

fn naive_name(topic: &str) -> bool {
    let levels = topic.split('/').count();
    !topic.is_empty()
        && topic.len() <= usize::from(LIMITS.topic_bytes_max)
        && levels <= usize::from(LIMITS.topic_levels_max)
        && topic.chars().all(|character| character != '+' && character != '#' && is_allowed(character))
}

fn naive_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let plain = match levels.as_slice() {
        ["$share", _, ..] => {
            let (group, plain) = (levels[1], &levels[2..]);
            if group.is_empty() || group.contains(['+', '#']) || plain.is_empty() || plain == [""] {
                return false;
            }
            plain
        }
        all => all,
    };
    let wildcards_alone = plain.iter().enumerate().all(|(at, level)| match *level {
        "+" => true,
        "#" => at + 1 == plain.len(),
        other => !other.contains(['+', '#']),
    });
    wildcards_alone
        && !filter.is_empty()
        && filter.len() <= usize::from(LIMITS.topic_bytes_max)
        && levels.len() <= usize::from(LIMITS.topic_levels_max)
        && filter.chars().all(is_allowed)
}

fn naive_matches(filter: &[&str], topic: &[&str]) -> bool {
    let hidden = topic.first().is_some_and(|level| level.starts_with('$'));
    match (filter, topic) {
        (["#" | "+", ..], _) if hidden => false,
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => naive_matches_below(filter, topic),
        ([level, filter @ ..], [other, topic @ ..]) => level == other && naive_matches_below(filter, topic),
        _ => false,
    }
}

/// Below the first level a `$` is a character like any other.
fn naive_matches_below(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        ([level, filter @ ..], [other, topic @ ..]) => {
            (*level == "+" || level == other) && naive_matches_below(filter, topic)
        }
        _ => false,
    }
}

/// Section 1.5.4, with all that a receiver may refuse.
fn is_allowed(character: char) -> bool {
    let code = u32::from(character);
    !matches!(code, 0..=0x1F | 0x7F..=0x9F | 0xFDD0..=0xFDEF) && code % 0x1_0000 < 0xFFFE
}

/// Small enough that short inputs reach every limit.
const LIMITS: Limits =
    Limits { packet_bytes_max: 4096, topic_levels_max: 6, topic_bytes_max: 40, filters_max: 4, user_properties_max: 4 };
