//! The statements that bind a client, continued: the form of what it sends, and what it refuses of what it is sent.

use ferromq::{
    codec::{
        Packet, Properties, Property, QoS, ReasonCode, SubscriptionOptions, Text, TopicFilter, TopicName, Version, Will,
    },
    session::client::{AckHandle, AckMode, Event, SessionOptions},
};

use crate::{
    client::{Client, Scripted, ids, online, options, persistent, versions},
    wire::{self, Publish as Incoming, auth, p32, packet, pubrec, pubrel},
};

/// The bytes that the client has sent since.
fn raw(client: &Client) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.session.borrow_mut().take_output(*client.now.borrow(), &mut bytes);
    bytes
}

/// MQTT 5: [MQTT-1.5.5-1] [MQTT-2.2.1-2] [MQTT-2.2.2-1] [MQTT-3.3.1-2]. MQTT 3.1.1: [MQTT-2.3.1-5].
#[test]
fn packets_of_a_client_have_the_shortest_form() {
    versions(|version| {
        let client = online(version);
        client.publish("t", "x", QoS::AtMostOnce).expect("it is sent");
        // No packet identifier, DUP 0, and in MQTT 5 a property length of zero.
        let expected: &[u8] =
            if version.is_v5() { &[0x30, 5, 0, 1, b't', 0, b'x'] } else { &[0x30, 4, 0, 1, b't', b'x'] };
        assert_eq!(raw(&client), expected);
        let overhead = expected.len() - 3;
        for (length, header) in [
            (127, &[0x30, 0x7F][..]),
            (128, &[0x30, 0x80, 0x01]),
            (16_383, &[0x30, 0xFF, 0x7F]),
            (16_384, &[0x30, 0x80, 0x80, 0x01]),
        ] {
            client.publish("t", &"x".repeat(length - overhead), QoS::AtMostOnce).expect("it is sent");
            let sent = raw(&client);
            assert!(sent.starts_with(header), "{length}: {:?}", &sent[..4]);
            assert_eq!(sent.len(), header.len() + length);
        }
    });
}

/// MQTT 5: [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1].
/// MQTT 3.1.1: [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1].
#[test]
fn a_client_sets_the_reserved_flags_and_refuses_wrong_ones() {
    versions(|version| {
        let client = online(version);
        client.subscribe("t", SubscriptionOptions::default()).expect("it is sent");
        assert_eq!(raw(&client)[0], 0x82);
        let filter = TopicFilter::new("t").expect("a valid filter");
        client.session.borrow_mut().unsubscribe(vec![filter], 0).expect("it is sent");
        assert_eq!(raw(&client)[0], 0xA2);
        client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
        let id = ids(&client.published())[0];
        client.receive(pubrec(id));
        assert_eq!(raw(&client)[0], 0x62);
        client.session.borrow_mut().disconnect(ReasonCode::Success, None).expect("it is connected");
        assert_eq!(raw(&client)[0], 0xE0);
        let client = online(version);
        client.receive(packet(0x60, &[0, 1]));
        client.expect_violation(ReasonCode::MalformedPacket);
    });
    let client = online(Version::V5);
    client.receive(packet(0xE1, &[]));
    client.expect_violation(ReasonCode::MalformedPacket);
}

/// MQTT 5: [MQTT-1.5.4-3] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-3].
/// MQTT 3.1.1: [MQTT-1.5.3-3] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11] [MQTT-3.3.2-1] [MQTT-3.8.3-1]
/// [MQTT-3.10.3-1] [MQTT-4.7.3-3].
#[test]
fn a_client_cannot_be_given_a_string_that_is_none() {
    // Client identifier, user name, will topic and filters are of these types, which only valid strings become.
    let long = "x".repeat(65_536);
    for wrong in ["a\0b", long.as_str()] {
        assert!(Text::try_from(wrong).is_err() && TopicName::new(wrong).is_err() && TopicFilter::new(wrong).is_err());
    }
    assert!(Text::try_from(&long[1..]).is_ok());
    versions(|version| {
        let client = online(version);
        client.publish("a\0b", "", QoS::AtMostOnce).expect_err("no topic holds U+0000");
        client.publish(&long, "", QoS::AtMostOnce).expect_err("no topic has 65,536 bytes");
        assert!(raw(&client).is_empty());
        client.publish("\u{FEFF}t", "", QoS::AtMostOnce).expect("it is sent");
        // The topic comes first, and its byte order mark is kept.
        assert_eq!(raw(&client)[2..8], [0, 4, 0xEF, 0xBB, 0xBF, b't']);
    });
}

/// MQTT 5: [MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-3.3.2-19].
#[test]
fn a_client_checks_the_strings_of_properties_both_ways() {
    let client = online(Version::V5);
    let wild: Properties = [Property::ResponseTopic(Text::from_static("a/#"))].into_iter().collect();
    client.publish_with("t", "", QoS::AtMostOnce, false, &wild).expect_err("a response topic holds no wildcards");
    assert!(raw(&client).is_empty());
    for (name, property) in [
        ("content type", vec![0x03, 0, 1, 0xFF]),
        ("response topic", vec![0x08, 0, 1, 0xFF]),
        ("name of a pair", vec![0x26, 0, 1, 0xFF, 0, 1, b'v']),
        ("value of a pair", vec![0x26, 0, 1, b'n', 0, 1, 0xFF]),
    ] {
        let client = online(Version::V5);
        client.receive(Incoming::new("t", "x").with(property));
        assert!(client.messages().is_empty(), "{name}");
        assert!(!client.session.borrow().is_online(), "{name}");
    }
}

/// MQTT 5: [MQTT-3.4.2-1] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-1] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-1]
/// [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-1] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.14.2-1] [MQTT-3.14.2-3]
/// [MQTT-3.14.2-4].
#[test]
fn what_a_client_answers_has_its_codes_and_always_fits() {
    let client = Client::new(SessionOptions { ack_mode: AckMode::Application, ..persistent(Version::V5) });
    client.online(false, &[p32(wire::MAXIMUM_PACKET_SIZE, MAXIMUM)]);
    client.receive(Incoming::new("t", "one").qos1(1));
    client.receive(Incoming::new("t", "two").qos2(2));
    let handle = |event| match event {
        Event::Message(message) => message.ack_handle(),
        _ => None,
    };
    let handles: Vec<AckHandle> = client.events().into_iter().filter_map(handle).collect();
    let codes = [ReasonCode::NotAuthorized, ReasonCode::QuotaExceeded];
    for (handle, code) in handles.into_iter().zip(codes) {
        assert!(client.session.borrow_mut().acknowledge(handle, code));
    }
    client.receive(pubrec(9));
    client.receive(pubrel(9));
    client.session.borrow_mut().disconnect(ReasonCode::DisconnectWithWill, None).expect("it is connected");
    let sent = client.sent_sized();
    let told: Vec<(ReasonCode, bool)> = sent
        .iter()
        .map(|(packet, size)| {
            assert!(*size <= MAXIMUM as usize, "{packet:?}");
            match packet {
                Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                    (ack.reason, ack.properties.is_empty())
                }
                Packet::Disconnect(disconnect) => (disconnect.reason, disconnect.properties.is_empty()),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let unknown = ReasonCode::PacketIdentifierNotFound;
    let expected = [codes[0], codes[1], unknown, unknown, ReasonCode::DisconnectWithWill];
    assert_eq!(told, expected.map(|code| (code, true)));
}

/// MQTT 5: [MQTT-3.15.1-1] [MQTT-3.15.2-1] [MQTT-3.15.2-2] [MQTT-3.15.2-3].
#[test]
fn an_auth_of_a_client_has_no_flags_and_nothing_that_could_be_left_out() {
    let challenged = || {
        let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
        client.connect();
        client.receive(auth(0x18, "scripted", Some(b"challenge")));
        client
    };
    assert_eq!(raw(&challenged())[0], 0xF0);
    match challenged().sent().as_slice() {
        [Packet::Auth(sent)] => {
            assert_eq!(sent.reason, ReasonCode::ContinueAuthentication);
            let optional =
                |property: &Property| matches!(property, Property::ReasonString(_) | Property::UserProperty(_));
            assert!(!sent.properties.iter().any(optional), "{sent:?}");
        }
        other => panic!("{other:?}"),
    }
    let client = challenged();
    client.receive(packet(0xF1, &[]));
    client.expect_violation(ReasonCode::MalformedPacket);
}

/// MQTT 5: [MQTT-3.1.2-12]. MQTT 3.1.1: [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15].
#[test]
fn will_flags_of_a_client_agree_with_its_will() {
    versions(|version| {
        let flags = |will: Option<Will>| {
            let client = Client::new(SessionOptions { will, ..options(version) });
            client.session.borrow_mut().connect(*client.now.borrow()).expect("the options are valid");
            // Fixed header, protocol name and level come before.
            raw(&client)[2 + 6 + 1]
        };
        assert_eq!(flags(None) & 0b0011_1100, 0);
        for (qos, retain) in [(QoS::AtMostOnce, false), (QoS::AtLeastOnce, true), (QoS::ExactlyOnce, false)] {
            let topic = TopicName::new("w").expect("a valid topic");
            let will = Will { topic, payload: "gone".into(), qos, retain, properties: Properties::new() };
            assert_eq!(flags(Some(will)) & 0b0011_1100, 0b100 | (qos as u8) << 3 | u8::from(retain) << 5);
        }
    });
}

/// The server's maximum packet size: room for an acknowledgement with a code, and for nothing beside it.
const MAXIMUM: u32 = 8;
