//! Malformed packets and protocol errors, each with the reason code that the specification names for it.
//!
//! Bytes are written as they travel, fixed header included. Where the specification leaves the code open, 0x81 is
//! for what cannot be parsed and 0x82 for what can but is not allowed (section 4.13.1).

#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

use ferromq::codec::{
    Connect, Cut, DecodeError, Decoder, Limits, Packet, PublishRef,
    ReasonCode::{
        MalformedPacket, PacketTooLarge, ProtocolError, QuotaExceeded, Success, TopicFilterInvalid, TopicNameInvalid,
    },
    Version::{self, V3_1_1, V5},
    frame,
};

use rows::{ACCEPTED, ACKNOWLEDGEMENTS, CONNACK, CONNECT, DISCONNECT, FRAMES, PUBLISH, Row, SUBSCRIBE, UNSUBSCRIBE};

#[path = "codec_malformed/rows.rs"]
mod rows;

#[test]
fn every_malformed_packet_is_refused_with_its_reason() {
    let mut wrong = Vec::new();
    for &(name, version, hex, expected) in rows() {
        let reason = decode(version, &bytes(hex), &Limits::default()).map_or_else(|fault| fault.reason(), |_| Success);
        if reason != expected {
            wrong.push(format!("{version:?}: {name}: {hex}: {reason} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_publish_is_refused_in_place_as_it_is_owned() {
    for &(name, version, hex, expected) in PUBLISH {
        let packet = bytes(hex);
        let Ok(Cut::Frame(frame, _)) = frame::cut(&packet, u32::MAX) else { panic!("{name}: a whole packet") };
        let refused = PublishRef::decode(frame, version, &Limits::default()).unwrap_err();
        assert_eq!(refused.reason(), expected, "{name}");
    }
}

#[test]
fn what_only_looks_wrong_is_accepted() {
    for &(name, version, hex) in ACCEPTED {
        let decoded = decode(version, &bytes(hex), &Limits::default());
        assert!(decoded.is_ok(), "{version:?}: {name}: {hex}: {decoded:?}");
    }
}

#[test]
fn a_row_fails_however_its_bytes_arrive() {
    for &(name, version, hex, expected) in rows() {
        let mut decoder = Decoder::new();
        let refused = bytes(hex).iter().find_map(|byte| {
            decoder.feed(&[*byte]);
            decoder.poll(version, &Limits::default()).err()
        });
        assert_eq!(refused.map(|fault| fault.reason()), Some(expected), "{version:?}: {name}");
    }
}

#[test]
fn properties_stand_where_the_table_of_section_2_2_2_2_has_them_and_nowhere_else() {
    for id in 0..=u8::MAX {
        let known = PROPERTIES.iter().find(|&&(known, ..)| known == id);
        for &(place, before, after) in PLACES {
            let value = known.map_or("00", |&(_, value, _)| value);
            let property = format!("{id:02X} {value}");
            // AUTH needs a method, and so does authentication data wherever it stands.
            let needs_method = id != 0x15 && place == "AUTH" || id == 0x16 && ["CONNECT", "CONNACK"].contains(&place);
            let method = if needs_method { "15 00 01 6D " } else { "" };
            let allowed = known.is_some_and(|(_, _, places)| places.contains(&place));
            let once = decode(V5, &with_properties(before, &format!("{method}{property}"), after), &Limits::default());
            let expected = if allowed { Success } else { MalformedPacket };
            let reason = once.map_or_else(|fault| fault.reason(), |_| Success);
            assert_eq!(reason, expected, "property 0x{id:02X} in {place}");
            if allowed {
                let twice = with_properties(before, &format!("{method}{property} {property}"), after);
                let may_repeat = id == 0x26 || (id == 0x0B && place == "PUBLISH");
                let reason = decode(V5, &twice, &Limits::default()).map_or_else(|fault| fault.reason(), |_| Success);
                let expected = if may_repeat { Success } else { ProtocolError };
                assert_eq!(reason, expected, "property 0x{id:02X} twice in {place}");
            }
        }
    }
}

#[test]
fn limits_are_refused_with_their_own_reasons() {
    let limits = Limits {
        packet_bytes_max: 40,
        topic_levels_max: 3,
        topic_bytes_max: 8,
        filters_max: 2,
        user_properties_max: 2,
    };
    let cases = [
        ("a header that announces too much", V3_1_1, "30 27", PacketTooLarge),
        ("a header that announces the most", V5, "30 FF FF FF 7F", PacketTooLarge),
        ("a deep topic", V3_1_1, "30 09 00 07 61 2F 62 2F 63 2F 64", TopicNameInvalid),
        ("a long topic", V3_1_1, "30 0B 00 09 61 61 61 61 61 61 61 61 61", TopicNameInvalid),
        ("a deep filter", V3_1_1, "82 0C 00 01 00 07 61 2F 62 2F 2B 2F 64 00", TopicFilterInvalid),
        ("a long filter", V3_1_1, "A2 0D 00 01 00 09 61 61 61 61 61 61 61 61 61", TopicFilterInvalid),
        ("three subscriptions", V3_1_1, "82 0E 00 01 00 01 61 00 00 01 62 00 00 01 63 00", QuotaExceeded),
        ("three filters to unsubscribe", V5, "A2 0C 00 01 00 00 01 61 00 01 62 00 01 63", QuotaExceeded),
        ("three user properties", V5, "E0 11 00 0F 26 00 00 00 00 26 00 00 00 00 26 00 00 00 00", QuotaExceeded),
    ];
    for (name, version, hex, expected) in cases {
        let refused = decode(version, &bytes(hex), &limits).unwrap_err();
        assert_eq!(refused.reason(), expected, "{name}");
    }
    let within = ["30 09 00 05 61 2F 62 2F 63 78 79", "82 0A 00 01 00 01 61 00 00 01 62 00", "30 26 00 01 61"];
    for hex in within {
        let mut packet = bytes(hex);
        packet.resize(packet[1] as usize + 2, b'x');
        assert!(decode(V3_1_1, &packet, &limits).is_ok(), "{hex}");
    }
}

#[test]
fn a_client_is_told_the_level_it_asked_for() {
    let level = |hex| Connect::peek_level(&bytes(hex));
    assert_eq!(level("00 04 4D 51 54 54 06"), Some(6));
    assert_eq!(level("00 06 4D 51 49 73 64 70 83 FF FF"), Some(0x83));
    assert_eq!(level("00 04 4D 51 54 54"), None);
    assert_eq!(level("00 09 4D"), None);
}

fn rows() -> impl Iterator<Item = &'static Row> {
    [FRAMES, CONNECT, CONNACK, PUBLISH, ACKNOWLEDGEMENTS, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT].into_iter().flatten()
}

/// Decodes the one packet that `packet` must be, or what there is of it.
fn decode(version: Version, packet: &[u8], limits: &Limits) -> Result<Packet, DecodeError> {
    let mut decoder = Decoder::new();
    decoder.feed(packet);
    decoder.poll(version, limits).map(|decoded| {
        assert_eq!(decoder.buffered(), 0, "more than a packet: {packet:02X?}");
        decoded.unwrap_or_else(|| panic!("less than a packet: {packet:02X?}"))
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// A packet of a header byte and a start of its body, the properties, and the rest of the body. None needs more than
/// one byte for a length.
fn with_properties(before: &str, properties: &str, after: &str) -> Vec<u8> {
    let (mut packet, properties) = (bytes(before), bytes(properties));
    packet.push(u8::try_from(properties.len()).unwrap());
    packet.extend(properties);
    packet.extend(bytes(after));
    packet.insert(1, u8::try_from(packet.len() - 1).unwrap());
    packet
}

/// Identifier, a valid value, and the packets of the specification's table 2-4.
const PROPERTIES: &[(u8, &str, &[&str])] = &[
    (0x01, "01", &["PUBLISH", "will"]),
    (0x02, "00 00 00 01", &["PUBLISH", "will"]),
    (0x03, "00 01 61", &["PUBLISH", "will"]),
    (0x08, "00 01 61", &["PUBLISH", "will"]),
    (0x09, "00 01 61", &["PUBLISH", "will"]),
    (0x0B, "01", &["PUBLISH", "SUBSCRIBE"]),
    (0x11, "00 00 00 01", &["CONNECT", "CONNACK", "DISCONNECT"]),
    (0x12, "00 01 61", &["CONNACK"]),
    (0x13, "00 01", &["CONNACK"]),
    (0x15, "00 01 61", &["CONNECT", "CONNACK", "AUTH"]),
    (0x16, "00 01 61", &["CONNECT", "CONNACK", "AUTH"]),
    (0x17, "01", &["CONNECT"]),
    (0x18, "00 00 00 01", &["will"]),
    (0x19, "01", &["CONNECT"]),
    (0x1A, "00 01 61", &["CONNACK"]),
    (0x1C, "00 01 61", &["CONNACK", "DISCONNECT"]),
    (0x1F, "00 01 61", ANSWERS),
    (0x21, "00 01", &["CONNECT", "CONNACK"]),
    (0x22, "00 01", &["CONNECT", "CONNACK"]),
    (0x23, "00 01", &["PUBLISH"]),
    (0x24, "01", &["CONNACK"]),
    (0x25, "01", &["CONNACK"]),
    (0x26, "00 01 61 00 01 62", EVERYWHERE),
    (0x27, "00 00 00 01", &["CONNECT", "CONNACK"]),
    (0x28, "01", &["CONNACK"]),
    (0x29, "01", &["CONNACK"]),
    (0x2A, "01", &["CONNACK"]),
];

const ANSWERS: &[&str] =
    &["CONNACK", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "DISCONNECT", "AUTH"];

const EVERYWHERE: &[&str] = &[
    "CONNECT",
    "will",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "DISCONNECT",
    "AUTH",
];

/// Where properties stand: the packet up to their length, without its own, and what follows them.
const PLACES: &[(&str, &str, &str)] = &[
    ("CONNECT", "10 00 04 4D 51 54 54 05 02 00 3C", "00 01 70"),
    ("will", "10 00 04 4D 51 54 54 05 06 00 3C 00 00 01 70", "00 01 77 00 01 78"),
    ("CONNACK", "20 00 00", ""),
    ("PUBLISH", "30 00 01 74", "78"),
    ("PUBACK", "40 00 01 00", ""),
    ("PUBREC", "50 00 01 00", ""),
    ("PUBREL", "62 00 01 00", ""),
    ("PUBCOMP", "70 00 01 00", ""),
    ("SUBSCRIBE", "82 00 01", "00 01 61 00"),
    ("SUBACK", "90 00 01", "00"),
    ("UNSUBSCRIBE", "A2 00 01", "00 01 61"),
    ("UNSUBACK", "B0 00 01", "00"),
    ("DISCONNECT", "E0 00", ""),
    ("AUTH", "F0 18", ""),
];
