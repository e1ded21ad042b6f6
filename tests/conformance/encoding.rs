//! Sections 1.5, 2 and 4.7 (3.1.1: 1.5, 2, 4.7): data types, fixed header, packet identifiers, topics.

use ferromq::codec::{PacketType, ReasonCode, Version};

use crate::{
    harness::{PUBLISH_ID, SUBSCRIBE_ID, on_all, on_all_versions, text},
    wire::{self, Connect, Publish, Subscribe, Unsubscribe, Wire, binary, p8, packet, pstr, string, user},
};

/// Bytes that are no UTF-8: a surrogate, an overlong form, a lone continuation byte, a code point above U+10FFFF.
const ILL_FORMED: [&[u8]; 4] = [b"a\xED\xA0\x80", b"\xC0\xAF", b"a\x80", b"\xF4\x90\x80\x80"];

/// A QoS 0 PUBLISH with these bytes for a topic.
fn publish_to(topic: &[u8], version: Version) -> Vec<u8> {
    let mut body = binary(topic);
    body.extend(wire::properties(version, &[]));
    body.extend(b"payload");
    packet(0x30, &body)
}

/// A SUBSCRIBE with these bytes for a filter.
fn subscribe_to(filter: &[u8], version: Version) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(wire::properties(version, &[]));
    body.extend(binary(filter));
    body.push(0);
    packet(0x82, &body)
}

/// MQTT 3.1.1: [MQTT-1.5.3-1].
#[test]
fn mqtt_1_5_4_1_ill_formed_utf8_is_a_malformed_packet() {
    on_all_versions(|bench, version| {
        for bytes in ILL_FORMED {
            let peer = bench.client(version, "offender");
            peer.send(publish_to(bytes, version));
            peer.expect_fault(ReasonCode::MalformedPacket);

            let peer = bench.client(version, "offender");
            peer.send(subscribe_to(bytes, version));
            peer.expect_fault(ReasonCode::MalformedPacket);
        }
    });
}

/// MQTT 3.1.1: [MQTT-1.5.3-2].
#[test]
fn mqtt_1_5_4_2_the_null_character_is_a_malformed_packet() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "offender");
        peer.send(publish_to(b"a\0b", version));
        peer.expect_fault(ReasonCode::MalformedPacket);

        let peer = bench.client(version, "offender");
        peer.send(subscribe_to(b"a\0b", version));
        peer.expect_fault(ReasonCode::MalformedPacket);
    });
}

/// MQTT 3.1.1: [MQTT-1.5.3-3].
#[test]
fn mqtt_1_5_4_3_a_byte_order_mark_is_part_of_the_string() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("\u{FEFF}a", 0);
        let publisher = bench.client(version, "publisher");
        publisher.publish("a", "without", 0);
        publisher.publish("\u{FEFF}a", "with", 0);
        let message = subscriber.expect_publish();
        assert_eq!((message.topic.as_str(), text(&message.payload).as_str()), ("\u{FEFF}a", "with"));
        subscriber.expect_nothing();
    });
}

#[test]
fn mqtt_1_5_5_1_integers_are_written_with_as_few_bytes_as_possible() {
    on_all(|bench| {
        let subscriber = bench.client(Version::V5, "subscriber");
        // The greatest identifier of each length, and the least of the next.
        for identifier in [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
            let subscribe =
                Subscribe::new(SUBSCRIBE_ID).filter("t", 0).with(wire::pvar(wire::SUBSCRIPTION_ID, identifier));
            subscriber.subscribe_with(subscribe);
            subscriber.send(Publish::new("t", ""));
            let (_, size) = subscriber.next_sized().expect("the message comes back");
            // Header, length, topic, property length, the property and its identifier.
            assert_eq!(size, 2 + 3 + 1 + 1 + wire::variable(identifier).len());
        }
    });
}

#[test]
fn mqtt_1_5_7_1_both_strings_of_a_pair_are_checked() {
    on_all(|bench| {
        let (good, bad): (&[u8], &[u8]) = (b"good", b"\xFF");
        for (name, value) in [(bad, good), (good, bad), (b"a\0" as &[u8], good), (good, b"\0")] {
            let peer = bench.client(Version::V5, "offender");
            let property = [&[wire::USER_PROPERTY][..], &binary(name), &binary(value)].concat();
            peer.send(Publish::new("t", "").with(property));
            peer.expect_disconnect(ReasonCode::MalformedPacket);
        }
    });
}

/// MQTT 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1].
/// MQTT 5: [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1].
#[test]
fn mqtt_2_1_3_1_reserved_flags_of_the_fixed_header_must_be_as_listed() {
    on_all_versions(|bench, version| {
        let packets: [(Vec<u8>, u8); 7] = [
            (wire::puback(1).wire(version), 0),
            (wire::pubrec(1).wire(version), 0),
            (wire::pubrel(1).wire(version), 2),
            (wire::pubcomp(1).wire(version), 0),
            (Subscribe::new(1).filter("t", 0).wire(version), 2),
            (Unsubscribe::new(1).filter("t").wire(version), 2),
            (wire::disconnect().wire(version), 0),
        ];
        for (mut bytes, right) in packets.into_iter().chain([(wire::PINGREQ.to_vec(), 0)]) {
            for wrong in (0..16).filter(|flags| *flags != right) {
                bytes[0] = bytes[0] & 0xF0 | wrong;
                let peer = bench.client(version, "offender");
                peer.send(bytes.clone());
                peer.expect_fault(ReasonCode::MalformedPacket);
            }
        }
    });
}

/// MQTT 3.1.1: [MQTT-2.3.1-5].
#[test]
fn mqtt_2_2_1_2_a_qos0_publish_has_no_packet_identifier() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 2);
        // Two bytes that would be the identifier belong to the payload of a QoS 0 PUBLISH, in both directions.
        subscriber.send(Publish::new("t", [0, 1, b'x']));
        let (packet, size) = subscriber.next_sized().expect("the message comes back");
        assert_eq!(packet.packet_type(), PacketType::Publish);
        assert_eq!(size, 2 + 3 + usize::from(version.is_v5()) + 3);
    });
}

/// MQTT 3.1.1: [MQTT-2.3.1-1].
#[test]
fn mqtt_2_2_1_3_packet_identifier_zero_is_refused() {
    on_all_versions(|bench, version| {
        let packets: [Vec<u8>; 4] = [
            Publish::new("t", "").qos1(0).wire(version),
            Publish::new("t", "").qos2(0).wire(version),
            Subscribe::new(0).filter("t", 0).wire(version),
            Unsubscribe::new(0).filter("t").wire(version),
        ];
        for bytes in packets {
            let peer = bench.client(version, "offender");
            peer.send(bytes);
            peer.expect_fault(ReasonCode::ProtocolError);
        }
    });
}

/// MQTT 3.1.1: [MQTT-2.3.1-4].
#[test]
fn mqtt_2_2_1_4_identifiers_of_a_server_are_not_zero_and_not_in_use() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 2);
        let publisher = bench.client(version, "publisher");
        let mut used = std::collections::HashSet::new();
        for round in 0..50 {
            publisher.publish("t", "", 1 + round % 2);
            let id = subscriber.expect_publish().packet_id.expect("QoS 1 and 2 carry an identifier").get();
            assert!(used.insert(id), "identifier {id} is in use");
        }
    });
}

/// MQTT 3.1.1: [MQTT-2.3.1-6].
#[test]
fn mqtt_2_2_1_5_acknowledgements_repeat_the_identifier_of_the_publish() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "publisher");
        for id in [1, 2, 0x1234, u16::MAX] {
            peer.send(Publish::new("t", "").qos1(id));
            peer.expect_ack(PacketType::PubAck, id);
            peer.send(Publish::new("t", "").qos2(id));
            peer.expect_ack(PacketType::PubRec, id);
            peer.send(wire::pubrel(id));
            peer.expect_ack(PacketType::PubComp, id);
        }
        peer.subscribe("t", 2);
        bench.client(version, "other").publish("t", "", 2);
        let id = peer.expect_publish().packet_id.expect("QoS 2 carries an identifier").get();
        peer.send(wire::pubrec(id));
        peer.expect_ack(PacketType::PubRel, id);
    });
}

/// MQTT 5: [MQTT-3.8.4-2] [MQTT-3.10.4-5]. MQTT 3.1.1: [MQTT-2.3.1-7] [MQTT-3.8.4-2] [MQTT-3.10.4-4].
#[test]
fn mqtt_2_2_1_6_suback_and_unsuback_repeat_the_identifier_of_their_request() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "subscriber");
        for id in [1, 0x1234, u16::MAX] {
            peer.send(Subscribe::new(id).filter("t", 0));
            peer.expect_suback(id);
            peer.send(Unsubscribe::new(id).filter("t"));
            peer.expect_unsuback(id);
        }
    });
}

#[test]
fn mqtt_2_2_2_1_packets_without_properties_have_a_property_length_of_zero() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "peer");
        // The decoder of the harness reads a property length in all of these; sizes show that it is one byte.
        peer.send(Subscribe::new(1).filter("t", 1));
        assert_eq!(peer.next_sized().map(|(_, size)| size), Some(2 + 2 + 1 + 1));
        peer.send(Publish::new("t", "p"));
        assert_eq!(peer.next_sized().map(|(_, size)| size), Some(2 + 3 + 1 + 1));
        // A PUBLISH without the length is no PUBLISH: its first payload byte would be taken for it.
        peer.send(packet(0x30, &string("t")));
        peer.expect_disconnect(ReasonCode::MalformedPacket);
    });
}

/// MQTT 5: [MQTT-3.3.2-2]. MQTT 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1].
#[test]
fn mqtt_4_7_0_1_wildcards_are_refused_in_a_topic_name() {
    on_all_versions(|bench, version| {
        for topic in ["+", "#", "a/+", "a/#", "a/+/b", "a+", "#/a", "a#"] {
            let peer = bench.client(version, "offender");
            peer.send(Publish::new(topic, ""));
            peer.expect_fault(ReasonCode::TopicNameInvalid);
        }
    });
}

/// MQTT 5: [MQTT-4.7.1-2]. MQTT 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3].
#[test]
fn mqtt_4_7_1_1_wildcards_stand_alone_in_their_level_and_a_multi_level_one_at_the_end() {
    on_all_versions(|bench, version| {
        for filter in ["a/#/b", "#/a", "a#", "a/b#", "#a", "a+", "+a", "a/+b/c", "a/b+/c", "++", "##", "+#"] {
            let peer = bench.client(version, "offender");
            peer.send(Subscribe::new(1).filter(filter, 0));
            peer.expect_fault(ReasonCode::TopicFilterInvalid);
        }
        for filter in ["#", "+", "a/#", "+/#", "a/+/b", "+/a", "/+", "+/+", "/#", "a/+"] {
            let peer = bench.client(version, "subscriber");
            assert_eq!(peer.subscribe(filter, 0), ReasonCode::Success, "{filter}");
        }
    });
}

/// MQTT 3.1.1: [MQTT-4.7.2-1].
#[test]
fn mqtt_4_7_2_1_a_leading_wildcard_does_not_match_a_leading_dollar() {
    on_all_versions(|bench, version| {
        let publisher = bench.client(version, "publisher");
        for (filter, topic, matches) in [
            ("#", "$internal/a", false),
            ("+/a", "$internal/a", false),
            ("+", "$internal", false),
            ("$internal/#", "$internal/a", true),
            ("$internal/+", "$internal/a", true),
            ("+/$internal", "a/$internal", true),
            ("#", "a/$internal", true),
        ] {
            let subscriber = bench.client(version, "subscriber");
            subscriber.subscribe(filter, 0);
            publisher.publish(topic, "", 0);
            assert_eq!(subscriber.received().len(), usize::from(matches), "{filter} and {topic}");
        }
    });
}

/// MQTT 3.1.1: [MQTT-4.7.3-1].
#[test]
fn mqtt_4_7_3_1_a_topic_has_at_least_one_character() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "offender");
        peer.send(Publish::new("", "x"));
        // MQTT 5, section 3.3.2.3.4: an empty topic without an alias is a protocol error.
        peer.expect_fault(ReasonCode::ProtocolError);

        let peer = bench.client(version, "offender");
        peer.send(Subscribe::new(1).filter("", 0));
        peer.expect_fault(ReasonCode::TopicFilterInvalid);

        let peer = bench.client(version, "offender");
        peer.send(Unsubscribe::new(1).filter(""));
        peer.expect_fault(ReasonCode::TopicFilterInvalid);

        let peer = bench.client(version, "slash");
        peer.subscribe("/", 0);
        peer.publish("/", "x", 0);
        assert_eq!(peer.expect_publish().topic.as_str(), "/");
    });
}

/// MQTT 3.1.1: [MQTT-4.7.3-2].
#[test]
fn mqtt_4_7_3_2_a_topic_holds_no_null_character() {
    on_all_versions(|bench, version| {
        for topic in [&b"\0"[..], b"a/\0", b"\0/a"] {
            let peer = bench.client(version, "offender");
            peer.send(publish_to(topic, version));
            peer.expect_fault(ReasonCode::MalformedPacket);
            let peer = bench.client(version, "offender");
            peer.send(subscribe_to(topic, version));
            peer.expect_fault(ReasonCode::MalformedPacket);
        }
    });
}

/// MQTT 3.1.1: [MQTT-4.7.3-3].
#[test]
fn mqtt_4_7_3_3_a_topic_has_65535_bytes_at_most() {
    on_all_versions(|bench, version| {
        // The length field ends there; what can be tested is that the greatest length works.
        let topic = "t".repeat(usize::from(u16::MAX));
        let peer = bench.client(version, "peer");
        peer.subscribe(&topic, 0);
        peer.publish(&topic, "x", 0);
        assert_eq!(peer.expect_publish().topic.as_str().len(), usize::from(u16::MAX));
    });
}

/// MQTT 3.1.1: [MQTT-4.7.3-4].
#[test]
fn mqtt_4_7_3_4_matching_normalises_nothing() {
    on_all_versions(|bench, version| {
        let publisher = bench.client(version, "publisher");
        // Case, Unicode composition, empty levels, spaces, dots and percent signs are all just characters.
        for (filter, topic) in [
            ("ACCOUNTS", "Accounts"),
            ("\u{E9}", "e\u{301}"),
            ("a/b", "a//b"),
            ("a", "/a"),
            ("a", "a/"),
            ("a/b", "a/./b"),
            ("a b", "a%20b"),
            ("a", " a"),
        ] {
            let subscriber = bench.client(version, "subscriber");
            subscriber.subscribe(filter, 0);
            publisher.publish(topic, "", 0);
            subscriber.expect_nothing();
            publisher.publish(filter, "", 0);
            assert_eq!(subscriber.expect_publish().topic.as_str(), filter);
        }
    });
}

/// The rules for strings hold wherever a string stands.
/// MQTT 5: [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12] [MQTT-3.1.4-1].
/// MQTT 3.1.1: [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11] [MQTT-3.1.4-1].
#[test]
fn mqtt_3_1_3_4_strings_of_a_connect_are_valid_utf8() {
    on_all_versions(|bench, version| {
        for bad in ILL_FORMED.into_iter().chain([&b"a\0"[..]]) {
            let head = |flags: u8| {
                let mut body = string("MQTT");
                body.extend([version as u8, flags, 0, 0]);
                body.extend(wire::properties(version, &[]));
                body
            };
            let id = [head(0x02), binary(bad)].concat();
            let none = wire::properties(version, &[]);
            let will = [head(0x06), string("id"), none, binary(bad), binary(b"payload")].concat();
            let username = [head(0x82), string("id"), binary(bad)].concat();
            for body in [id, will, username] {
                let peer = bench.connect_raw(version);
                peer.send(packet(0x10, &body));
                if version.is_v5() {
                    peer.expect_refused(ReasonCode::MalformedPacket);
                } else {
                    peer.expect_closed();
                }
            }
        }
    });
}

/// MQTT 5: [MQTT-3.8.3-1] [MQTT-3.10.3-1]. MQTT 3.1.1: [MQTT-3.8.3-1] [MQTT-3.10.3-1].
#[test]
fn mqtt_3_8_3_1_filters_are_valid_utf8() {
    on_all_versions(|bench, version| {
        for bad in ILL_FORMED {
            let peer = bench.client(version, "offender");
            peer.send(subscribe_to(bad, version));
            peer.expect_fault(ReasonCode::MalformedPacket);

            let peer = bench.client(version, "offender");
            peer.send(packet(0xA2, &[vec![0, 1], wire::properties(version, &[]), binary(bad)].concat()));
            peer.expect_fault(ReasonCode::MalformedPacket);
        }
    });
}

/// MQTT 3.1.1: [MQTT-3.3.2-1].
#[test]
fn mqtt_3_3_2_1_the_topic_name_is_first_and_valid_utf8() {
    on_all_versions(|bench, version| {
        for bad in ILL_FORMED {
            let peer = bench.client(version, "offender");
            peer.send(publish_to(bad, version));
            peer.expect_fault(ReasonCode::MalformedPacket);
        }
        // A topic longer than its packet cannot be first in it.
        let peer = bench.client(version, "offender");
        peer.send(packet(0x30, &[0, 5, b'a', b'b']));
        peer.expect_fault(ReasonCode::MalformedPacket);
    });
}

/// MQTT 5: [MQTT-3.3.2-19].
#[test]
fn mqtt_3_3_2_13_response_topic_and_content_type_are_valid_utf8() {
    on_all(|bench| {
        for property in [wire::RESPONSE_TOPIC, wire::CONTENT_TYPE] {
            for bad in ILL_FORMED {
                let peer = bench.client(Version::V5, "offender");
                peer.send(Publish::new("t", "").with([&[property][..], &binary(bad)].concat()));
                peer.expect_disconnect(ReasonCode::MalformedPacket);
            }
        }
    });
}

#[test]
fn mqtt_3_3_2_14_a_response_topic_holds_no_wildcards() {
    on_all(|bench| {
        for topic in ["#", "a/+", "a/#", "+/a"] {
            let peer = bench.client(Version::V5, "offender");
            peer.send(Publish::new("t", "").with(pstr(wire::RESPONSE_TOPIC, topic)));
            // Section 4.7 forbids wildcards in a topic name; 3.3.2.3.5 calls the response topic one.
            peer.expect_disconnect(ReasonCode::ProtocolError);
        }
    });
}

/// A packet that came through split at every byte, or glued to others, is the same packet.
#[test]
fn packets_may_be_split_and_joined_anywhere() {
    on_all_versions(|bench, version| {
        let peer = bench.connect_raw(version);
        let mut bytes = Connect::new("split").wire(version);
        bytes.extend(Subscribe::new(1).filter("t", 1).wire(version));
        bytes.extend(Publish::new("t", "hello").qos(1, PUBLISH_ID).with(user("name", "value")).wire(version));
        bytes.extend(Publish::new("t", "again").with(p8(wire::PAYLOAD_FORMAT, 1)).wire(version));
        for piece in [1, 2, 3, 7, usize::MAX] {
            let peer = bench.connect_raw(version);
            peer.send_split(bytes.clone(), piece);
            peer.expect_connack();
            peer.expect_suback(1);
            let kinds: Vec<_> = peer.received().iter().map(ferromq::codec::Packet::packet_type).collect();
            assert_eq!(kinds.iter().filter(|kind| **kind == PacketType::Publish).count(), 2, "{kinds:?}");
            assert_eq!(kinds.iter().filter(|kind| **kind == PacketType::PubAck).count(), 1, "{kinds:?}");
        }
        assert!(!peer.is_closed(), "a connection beside them is not touched");
    });
}
