//! Packets that the specifications print, byte for byte, and what they mean; both directions.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

use bytes::Bytes;
use ferromq::codec::{
    Ack, Auth, ConnAck, Connect, Cut, Disconnect, Limits, Packet, PacketId, Properties, Property, Publish, QoS,
    ReasonCode, RetainHandling, Source, SubAck, Subscribe, Subscription, SubscriptionOptions, Text, TopicFilter,
    TopicName, UnsubAck, Unsubscribe,
    Version::{self, V3_1, V3_1_1, V5},
    Will, frame,
};

#[test]
fn connect_of_3_1_1_is_that_of_figure_3_6() {
    let connect = Connect { version: V3_1_1, ..connect() };
    let bytes = [
        &[0x10, 36][..],
        &[0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_1110, 0, 10],
        b"\x00\x01c\x00\x04will\x00\x03bye\x00\x04user\x00\x04pass",
    ];
    check(V3_1_1, &bytes.concat(), &Packet::Connect(Box::new(connect)));
}

#[test]
fn connect_of_5_0_is_that_of_figure_3_6_with_its_session_expiry_interval() {
    let properties = [Property::SessionExpiryInterval(10)].into_iter().collect();
    let connect = Connect { version: V5, properties, ..connect() };
    let bytes = [
        &[0x10, 43][..],
        &[0, 4, b'M', b'Q', b'T', b'T', 5, 0b1100_1110, 0, 10, 5, 17, 0, 0, 0, 10],
        b"\x00\x01c\x00\x00\x04will\x00\x03bye\x00\x04user\x00\x04pass",
    ];
    check(V5, &bytes.concat(), &Packet::Connect(Box::new(connect)));
}

#[test]
fn connect_of_3_1_names_mqisdp_and_level_3() {
    let connect = Connect { version: V3_1, ..connect() };
    let bytes = [
        &[0x10, 38][..],
        &[0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 0b1100_1110, 0, 10],
        b"\x00\x01c\x00\x04will\x00\x03bye\x00\x04user\x00\x04pass",
    ];
    check(V3_1, &bytes.concat(), &Packet::Connect(Box::new(connect)));
}

#[test]
fn connack_has_its_flags_and_code() {
    let connack = |session_present, reason| {
        Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties: Properties::new() }))
    };
    check(V3_1_1, &[0x20, 2, 1, 0], &connack(true, ReasonCode::Success));
    check(V3_1_1, &[0x20, 2, 0, 5], &connack(false, ReasonCode::NotAuthorized));
    check(V5, &[0x20, 3, 0, 0x87, 0], &connack(false, ReasonCode::NotAuthorized));
}

#[test]
fn publish_is_that_of_table_3_2() {
    let publish = |properties| {
        Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: TopicName::new("a/b").unwrap(),
            packet_id: PacketId::new(10),
            properties,
            payload: Bytes::from_static(b"hi"),
        })
    };
    check(V3_1_1, b"\x32\x09\x00\x03a/b\x00\x0Ahi", &publish(Properties::new()));
    check(V5, b"\x32\x0A\x00\x03a/b\x00\x0A\x00hi", &publish(Properties::new()));
    let pair = Property::UserProperty((Text::from_static("k"), Text::from_static("v")));
    let properties = [Property::TopicAlias(1), Property::PayloadFormatIndicator(1), pair].into_iter().collect();
    let bytes = b"\x32\x16\x00\x03a/b\x00\x0A\x0C\x23\x00\x01\x01\x01\x26\x00\x01k\x00\x01vhi";
    check(V5, bytes, &publish(properties));
}

#[test]
fn utf8_strings_are_those_of_figure_1_5() {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic: TopicName::new("A\u{2A6D4}").unwrap(),
        packet_id: None,
        properties: Properties::new(),
        payload: Bytes::new(),
    };
    check(V3_1_1, &[0x31, 7, 0x00, 0x05, 0x41, 0xF0, 0xAA, 0x9B, 0x94], &Packet::Publish(publish));
}

#[test]
fn acknowledgements_take_their_shortest_form() {
    let id = PacketId::new(0x1234).unwrap();
    for (make, header) in [
        (Packet::PubAck as fn(Ack) -> Packet, 0x40),
        (Packet::PubRec, 0x50),
        (Packet::PubRel, 0x62),
        (Packet::PubComp, 0x70),
    ] {
        for version in Version::ALL {
            check(version, &[header, 2, 0x12, 0x34], &make(Ack::new(id, ReasonCode::Success)));
        }
    }
    check(V5, &[0x40, 3, 0x12, 0x34, 0x10], &Packet::PubAck(Ack::new(id, ReasonCode::NoMatchingSubscribers)));
    let properties: Properties = [Property::ReasonString(Text::from_static("no"))].into_iter().collect();
    let ack = Ack { packet_id: id, reason: ReasonCode::PacketIdentifierNotFound, properties };
    check(V5, b"\x70\x09\x12\x34\x92\x05\x1F\x00\x02no", &Packet::PubComp(ack));
}

#[test]
fn subscribe_and_suback_are_those_of_sections_3_8_and_3_9() {
    let subscription = |filter, qos| Subscription {
        filter: TopicFilter::new(filter).unwrap(),
        options: SubscriptionOptions::new(qos),
    };
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(10).unwrap(),
        properties: Properties::new(),
        subscriptions: vec![subscription("a/b", QoS::AtLeastOnce), subscription("c/d", QoS::ExactlyOnce)],
    });
    check(V3_1_1, b"\x82\x0E\x00\x0A\x00\x03a/b\x01\x00\x03c/d\x02", &subscribe);
    check(V5, b"\x82\x0F\x00\x0A\x00\x00\x03a/b\x01\x00\x03c/d\x02", &subscribe);
    let suback = |failure| {
        let reasons = vec![ReasonCode::Success, ReasonCode::GrantedQoS2, failure];
        Packet::SubAck(SubAck { packet_id: PacketId::new(10).unwrap(), properties: Properties::new(), reasons })
    };
    check(V3_1_1, &[0x90, 5, 0, 10, 0x00, 0x02, 0x80], &suback(ReasonCode::UnspecifiedError));
    check(V5, &[0x90, 6, 0, 10, 0, 0x00, 0x02, 0x87], &suback(ReasonCode::NotAuthorized));
}

#[test]
fn subscription_options_are_those_of_section_3_8_3_1() {
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        properties: [Property::SubscriptionIdentifier(128)].into_iter().collect(),
        subscriptions: vec![Subscription { filter: TopicFilter::new("#").unwrap(), options }],
    });
    check(V5, &[0x82, 10, 0, 1, 3, 0x0B, 0x80, 0x01, 0, 1, b'#', 0b0010_1110], &subscribe);
}

#[test]
fn unsubscribe_and_unsuback_are_those_of_sections_3_10_and_3_11() {
    let filters = vec![TopicFilter::new("a/b").unwrap(), TopicFilter::new("c/d").unwrap()];
    let packet_id = PacketId::new(10).unwrap();
    let unsubscribe = Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::new(), filters });
    check(V3_1_1, b"\xA2\x0C\x00\x0A\x00\x03a/b\x00\x03c/d", &unsubscribe);
    check(V5, b"\xA2\x0D\x00\x0A\x00\x00\x03a/b\x00\x03c/d", &unsubscribe);
    let unsuback = |reasons| Packet::UnsubAck(UnsubAck { packet_id, properties: Properties::new(), reasons });
    check(V3_1_1, &[0xB0, 2, 0, 10], &unsuback(Vec::new()));
    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    check(V5, &[0xB0, 5, 0, 10, 0, 0x00, 0x11], &unsuback(reasons));
}

#[test]
fn pings_disconnect_and_auth_are_as_short_as_they_can_be() {
    for version in Version::ALL {
        check(version, &[0xC0, 0], &Packet::PingReq);
        check(version, &[0xD0, 0], &Packet::PingResp);
        check(version, &[0xE0, 0], &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    }
    check(V5, &[0xE0, 1, 0x8E], &Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver)));
    check(V5, &[0xF0, 0], &Packet::Auth(Auth { reason: ReasonCode::Success, properties: Properties::new() }));
    let method = Property::AuthenticationMethod(Text::from_static("GS2-KRB5"));
    let auth = Auth { reason: ReasonCode::ContinueAuthentication, properties: [method].into_iter().collect() };
    check(V5, b"\xF0\x0D\x18\x0B\x15\x00\x08GS2-KRB5", &Packet::Auth(auth));
}

#[test]
fn before_mqtt_5_failures_become_return_codes_and_the_rest_is_left_out() {
    let mut out = Vec::new();
    let reason = Property::ReasonString(Text::from_static("not you"));
    let properties = || -> Properties { [reason.clone()].into_iter().collect() };
    let id = PacketId::new(7).unwrap();
    let packets = [
        Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason: ReasonCode::BadAuthenticationMethod,
            properties: properties(),
        })),
        Packet::PubAck(Ack { packet_id: id, reason: ReasonCode::NotAuthorized, properties: properties() }),
        Packet::SubAck(SubAck {
            packet_id: id,
            properties: properties(),
            reasons: vec![ReasonCode::GrantedQoS1, ReasonCode::QuotaExceeded],
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: id,
            properties: properties(),
            reasons: vec![ReasonCode::NoSubscriptionExisted],
        }),
        Packet::Disconnect(Disconnect { reason: ReasonCode::ServerBusy, properties: properties() }),
    ];
    for packet in packets {
        packet.encode(V3_1_1, &mut out).unwrap();
    }
    let expected = [&[0x20, 2, 0, 5][..], &[0x40, 2, 0, 7], &[0x90, 4, 0, 7, 0x01, 0x80], &[0xB0, 2, 0, 7], &[0xE0, 0]];
    assert_eq!(out, expected.concat());
}

#[test]
fn what_no_peer_would_take_is_not_written() {
    let id = PacketId::new(1).unwrap();
    let publish = |qos, packet_id| Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::new("t").unwrap(),
        packet_id,
        properties: Properties::new(),
        payload: Bytes::new(),
    };
    let with = |property| Publish { properties: [property].into_iter().collect(), ..publish(QoS::AtMostOnce, None) };
    let long = Bytes::from(vec![0; 65_536]);
    let shared = Subscription {
        filter: TopicFilter::new("$share/g/t").unwrap(),
        options: SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() },
    };
    let plain = Subscription { filter: TopicFilter::new("t").unwrap(), options: shared.options };
    let subscribe = |subscriptions| Subscribe { packet_id: id, properties: Properties::new(), subscriptions };
    let alias_only = Publish { topic: TopicName::empty(), ..with(Property::TopicAlias(1)) };
    let refused = [
        (V5, Packet::Publish(publish(QoS::AtLeastOnce, None))),
        (V5, Packet::Publish(publish(QoS::AtMostOnce, Some(id)))),
        (V5, Packet::Publish(Publish { dup: true, ..publish(QoS::AtMostOnce, None) })),
        (V5, Packet::Publish(Publish { topic: TopicName::empty(), ..publish(QoS::AtMostOnce, None) })),
        (V3_1_1, Packet::Publish(alias_only)),
        (V5, Packet::Publish(with(Property::TopicAlias(0)))),
        (V5, Packet::Publish(with(Property::ReceiveMaximum(1)))),
        (V5, Packet::Publish(with(Property::SubscriptionIdentifier(268_435_456)))),
        (V5, Packet::Publish(with(Property::CorrelationData(long.clone())))),
        (V5, Packet::Connect(Box::new(Connect { password: Some(long), ..connect() }))),
        (V5, Packet::Connect(Box::new(Connect { version: V3_1_1, username: None, ..connect() }))),
        (V5, Packet::PubRel(Ack::new(id, ReasonCode::QuotaExceeded))),
        (V5, Packet::Subscribe(subscribe(Vec::new()))),
        (V5, Packet::Subscribe(subscribe(vec![shared]))),
        (V3_1_1, Packet::Subscribe(subscribe(vec![plain]))),
        (V5, Packet::Disconnect(Disconnect::new(ReasonCode::GrantedQoS1))),
        (V5, Packet::Auth(Auth { reason: ReasonCode::ReAuthenticate, properties: Properties::new() })),
        (V3_1_1, Packet::Auth(Auth { reason: ReasonCode::Success, properties: Properties::new() })),
    ];
    for (version, packet) in refused {
        let mut out = vec![0xAA];
        assert!(packet.encode(version, &mut out).is_err(), "{version:?}: {packet:?}");
        assert!(packet.encoded_len(version).is_err());
        assert_eq!(out, [0xAA], "something was written: {packet:?}");
    }
}

/// The CONNECT of figure 3.6: user name, password, will at QoS 1, clean, keep-alive 10.
fn connect() -> Connect {
    Connect {
        version: V5,
        clean_start: true,
        bridge: false,
        keep_alive: 10,
        client_id: Text::from_static("c"),
        will: Some(Will {
            topic: TopicName::new("will").expect("a topic"),
            payload: Bytes::from_static(b"bye"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::new(),
        }),
        username: Some(Text::from_static("user")),
        password: Some(Bytes::from_static(b"pass")),
        properties: Properties::new(),
    }
}

fn check(version: Version, bytes: &[u8], packet: &Packet) {
    let mut out = Vec::new();
    packet.encode(version, &mut out).expect("a valid packet");
    assert_eq!(out, bytes, "{version:?}: {packet:?}");
    let Ok(Cut::Frame(frame, used)) = frame::cut(bytes, u32::MAX) else { panic!("no frame: {bytes:02X?}") };
    assert_eq!(used, bytes.len());
    let decoded = Packet::decode(frame, version, &Limits::default(), &Source::Scratch);
    assert_eq!(decoded.as_ref(), Ok(packet));
}
