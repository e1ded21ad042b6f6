//! The statements that bind a client, continued: exchanges, order, windows, faults of the server.

use std::{num::NonZeroU16, time::Duration};

use bytes::BytesMut;
use ferromq::{
    codec::{Limits, Packet, PacketType, Property, QoS, ReasonCode, SubscriptionOptions, Version},
    session::client::{AckMode, CloseReason, Event, SessionOptions, SubscribeRequest},
};

use crate::{
    client::{Client, ids, online, options, persistent, versions},
    wire::{self, Publish as Incoming, Wire, p16, p32, packet, puback, pubcomp, pubrec, pubrel},
};

/// MQTT 5: [MQTT-4.3.2-1] [MQTT-4.3.3-1]. MQTT 3.1.1: [MQTT-2.3.1-1] [MQTT-2.3.1-2].
#[test]
fn mqtt_2_2_1_3_identifiers_of_a_client_are_not_zero_and_not_in_use() {
    versions(|version| {
        let client = online(version);
        for round in 0..3 {
            client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
            client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
            client.subscribe(&format!("t/{round}"), SubscriptionOptions::default()).expect("it is sent");
        }
        let id = |packet: &Packet| match packet {
            Packet::Publish(publish) => publish.packet_id.map(NonZeroU16::get),
            Packet::Subscribe(subscribe) => Some(subscribe.packet_id.get()),
            other => panic!("{other:?}"),
        };
        let sent = client.sent();
        let used: std::collections::HashSet<u16> = sent.iter().filter_map(id).collect();
        assert_eq!(used.len(), 9, "{sent:?}");
        // An identifier is used again only when its exchange is over.
        client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
        assert!(!used.contains(&ids(&client.published())[0]));
    });
}

/// MQTT 5: [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.3.1-1] [MQTT-4.4.0-1].
/// MQTT 3.1.1: [MQTT-3.3.1-1] [MQTT-3.3.1-2] [MQTT-2.3.1-3] [MQTT-4.3.1-1] [MQTT-4.4.0-1].
#[test]
fn mqtt_3_3_1_1_a_client_sets_dup_on_repetitions_only() {
    versions(|version| {
        let client = online(version);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            client.publish("t", "", qos).expect("it is sent");
        }
        let first = client.published();
        assert!(first.iter().all(|publish| !publish.dup));
        client.advance(Duration::from_hours(1));
        assert_eq!(client.sent(), [], "nothing is repeated on the same connection");
        client.lost();
        client.online(true, &[]);
        let again = client.published();
        assert!(again.iter().all(|publish| publish.dup));
        assert_eq!(ids(&again), ids(&first));
    });
}

/// MQTT 5: [MQTT-4.3.2-3]. MQTT 3.1.1: [MQTT-4.6.0-1] [MQTT-4.3.2-1].
#[test]
fn mqtt_4_6_0_1_a_client_repeats_publications_in_their_order() {
    versions(|version| {
        let client = online(version);
        for n in 0..20 {
            let qos = if n % 3 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            client.publish("t", &n.to_string(), qos).expect("it is sent");
        }
        let first = ids(&client.published());
        client.receive(puback(first[4]));
        client.receive(puback(first[1]));
        client.lost();
        client.publish("t", "new", QoS::AtLeastOnce).expect("it is queued");
        client.online(true, &[]);
        let again: Vec<String> =
            client.published().iter().map(|publish| String::from_utf8_lossy(&publish.payload).into_owned()).collect();
        let mut expected: Vec<String> = (0..20).filter(|n| ![1, 4].contains(n)).map(|n| n.to_string()).collect();
        expected.push("new".into());
        assert_eq!(again, expected);
    });
}

/// MQTT 5: [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-3.3.4-1] [MQTT-2.2.1-5].
/// MQTT 3.1.1: [MQTT-4.5.0-2] [MQTT-3.3.4-1] [MQTT-2.3.1-6].
#[test]
fn mqtt_4_5_0_2_a_client_acknowledges_every_publish() {
    versions(|version| {
        let client = online(version);
        // It has no subscription at all: it acknowledges nevertheless.
        client.receive(Incoming::new("t", "").qos1(7));
        client.receive(Incoming::new("t", "").qos2(8));
        client.receive(Incoming::new("t", ""));
        assert_eq!(client.acks(), [(PacketType::PubAck, 7), (PacketType::PubRec, 8)]);
    });
}

/// MQTT 5: [MQTT-4.6.0-3]. MQTT 3.1.1: [MQTT-4.6.0-2] [MQTT-4.6.0-3].
#[test]
fn mqtt_4_6_0_2_a_client_acknowledges_in_the_order_of_arrival() {
    versions(|version| {
        let manual = SessionOptions { ack_mode: AckMode::Application, ..options(version) };
        let client = Client::new(manual);
        client.online(false, &[]);
        for id in [5, 3, 9, 1] {
            client.receive(Incoming::new("t", "").qos(if id == 3 { 2 } else { 1 }, id));
        }
        let message = |event| match event {
            Event::Message(message) => message.ack_handle(),
            _ => None,
        };
        let handles: Vec<_> = client.events().into_iter().filter_map(message).collect();
        // The application finishes in another order.
        for handle in [handles[3], handles[1], handles[0], handles[2]] {
            client.session.borrow_mut().acknowledge(handle, ReasonCode::Success);
        }
        let acks = [(PacketType::PubAck, 5), (PacketType::PubRec, 3), (PacketType::PubAck, 9), (PacketType::PubAck, 1)];
        assert_eq!(client.acks(), acks);
    });
}

/// MQTT 5: [MQTT-4.3.3-4]. MQTT 3.1.1: [MQTT-4.6.0-4].
#[test]
fn mqtt_4_6_0_4_a_client_sends_pubrel_in_the_order_of_the_pubrecs() {
    versions(|version| {
        let client = online(version);
        for _ in 0..4 {
            client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
        }
        let sent = ids(&client.published());
        let order = [sent[2], sent[0], sent[3], sent[1]];
        for id in &order {
            client.receive(pubrec(*id));
        }
        assert_eq!(client.acks(), order.map(|id| (PacketType::PubRel, id)));
    });
}

/// MQTT 5: [MQTT-4.3.3-3] [MQTT-4.3.3-5]. MQTT 3.1.1: [MQTT-4.3.3-1].
#[test]
fn mqtt_4_3_3_6_after_pubrel_a_client_repeats_pubrel_and_not_the_publish() {
    versions(|version| {
        let client = online(version);
        client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
        let id = ids(&client.published())[0];
        client.lost();
        client.online(true, &[]);
        assert!(client.published()[0].dup, "PUBLISH is repeated until PUBREC");
        client.receive(pubrec(id));
        client.sent();
        client.lost();
        client.online(true, &[]);
        assert_eq!(client.acks(), [(PacketType::PubRel, id)]);
        client.receive(pubcomp(id));
        client.lost();
        client.online(true, &[]);
        assert_eq!(client.sent(), []);
    });
}

/// MQTT 5: [MQTT-4.3.3-11] [MQTT-4.3.3-12]. MQTT 3.1.1: [MQTT-4.3.3-2].
#[test]
fn mqtt_4_3_3_10_a_client_hands_a_repeated_qos2_message_out_once() {
    versions(|version| {
        let client = online(version);
        client.receive(Incoming::new("t", "once").qos2(1));
        client.receive(Incoming::new("t", "once").qos2(1).dup());
        assert_eq!(client.acks(), [(PacketType::PubRec, 1); 2]);
        client.lost();
        client.online(true, &[]);
        client.receive(Incoming::new("t", "once").qos2(1).dup());
        assert_eq!(client.messages(), ["once"]);
        client.receive(pubrel(1));
        assert_eq!(client.acks(), [(PacketType::PubRec, 1), (PacketType::PubComp, 1)]);
        client.receive(Incoming::new("t", "new").qos2(1));
        assert_eq!(client.messages(), ["new"]);
    });
}

/// MQTT 3.1.1: [MQTT-4.3.2-2].
#[test]
fn mqtt_4_3_2_5_after_puback_a_client_takes_the_identifier_for_a_new_message() {
    versions(|version| {
        let client = online(version);
        client.receive(Incoming::new("t", "one").qos1(1));
        client.receive(Incoming::new("t", "two").qos1(1).dup());
        assert_eq!(client.messages(), ["one", "two"]);
    });
}

/// MQTT 5: [MQTT-4.3.3-9].
#[test]
fn mqtt_4_4_0_2_a_failing_acknowledgement_ends_a_client_s_publication() {
    let client = online(Version::V5);
    client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
    client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
    let sent = ids(&client.published());
    client.receive(puback(sent[0]).reason(0x87));
    client.receive(pubrec(sent[1]).reason(0x97));
    assert_eq!(client.sent(), [], "no PUBREL follows a failing PUBREC");
    let failed = |event: &Event| matches!(event, Event::Published(_, Ok(ack)) if ack.reason.is_error());
    assert_eq!(client.events().iter().filter(|event| failed(event)).count(), 2);
    client.lost();
    client.online(true, &[]);
    assert_eq!(client.sent(), []);
}

#[test]
fn mqtt_4_3_3_7_a_client_s_qos2_message_once_sent_does_not_expire() {
    let client = online(Version::V5);
    let expiry = [Property::MessageExpiryInterval(5)].into_iter().collect();
    client.publish_with("t", "x", QoS::ExactlyOnce, false, &expiry).expect("it is sent");
    client.published();
    client.lost();
    client.advance(Duration::from_secs(100));
    client.online(true, &[]);
    assert_eq!(client.published().len(), 1);
}

#[test]
fn mqtt_4_3_3_13_a_client_completes_qos2_whatever_the_expiry() {
    let client = online(Version::V5);
    client.receive(Incoming::new("t", "x").qos2(1).with(p32(wire::MESSAGE_EXPIRY, 1)));
    client.advance(Duration::from_secs(100));
    client.receive(pubrel(1));
    assert_eq!(client.acks(), [(PacketType::PubRec, 1), (PacketType::PubComp, 1)]);
}

#[test]
fn mqtt_3_3_4_6_a_client_s_publish_carries_no_subscription_identifier() {
    let client = online(Version::V5);
    let properties = [Property::SubscriptionIdentifier(1)].into_iter().collect();
    assert!(client.publish_with("t", "", QoS::AtMostOnce, false, &properties).is_err());
}

/// MQTT 5: [MQTT-4.9.0-1] [MQTT-4.9.0-2].
#[test]
fn mqtt_3_3_4_7_a_client_keeps_to_the_server_s_receive_maximum() {
    let client = Client::new(persistent(Version::V5));
    client.online(false, &[p16(wire::RECEIVE_MAXIMUM, 3)]);
    for n in 0..10 {
        let qos = if n % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        client.publish("t", "", qos).expect("it is sent or queued");
    }
    let sent = ids(&client.published());
    assert_eq!(sent.len(), 3);
    client.receive(pubrec(sent[1]));
    assert_eq!(client.acks(), [(PacketType::PubRel, sent[1])], "PUBREC gives no room");
    client.receive(pubcomp(sent[1]));
    assert_eq!(client.published().len(), 1);
    client.receive(puback(sent[0]));
    assert_eq!(client.published().len(), 1);
    client.lost();
    client.online(true, &[p16(wire::RECEIVE_MAXIMUM, 2)]);
    assert_eq!(client.published().len(), 2, "the maximum of this connection counts");
}

/// MQTT 5: [MQTT-4.9.0-3].
#[test]
fn mqtt_3_3_4_8_at_the_receive_maximum_a_client_still_sends_all_else() {
    let client = Client::new(SessionOptions { keep_alive: 10, ..options(Version::V5) });
    client.online(false, &[p16(wire::RECEIVE_MAXIMUM, 1)]);
    client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
    client.sent();
    client.subscribe("t", SubscriptionOptions::default()).expect("it is sent");
    client.receive(Incoming::new("t", "").qos1(7));
    client.advance(Duration::from_secs(10));
    let sent: Vec<_> = client.sent().iter().map(Packet::packet_type).collect();
    assert_eq!(sent, [PacketType::Subscribe, PacketType::PubAck, PacketType::PingReq]);
}

/// MQTT 5: [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2].
/// MQTT 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1] [MQTT-4.7.3-2].
#[test]
fn mqtt_4_7_0_1_a_client_refuses_topics_that_are_none() {
    versions(|version| {
        let client = online(version);
        for topic in ["", "a/+", "#", "a\0"] {
            assert!(client.publish(topic, "", QoS::AtMostOnce).is_err(), "{topic:?}");
        }
        for filter in ["", "a#", "a/#/b", "a+/b", "\0", "$share//t", "$share/g+/t", "$share/g"] {
            assert!(client.subscribe(filter, SubscriptionOptions::default()).is_err(), "{filter:?}");
        }
        assert_eq!(client.sent(), []);
    });
}

#[test]
fn mqtt_3_8_3_4_a_client_does_not_ask_for_no_local_on_a_shared_subscription() {
    let client = online(Version::V5);
    let no_local = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    assert!(client.subscribe("$share/g/t", no_local).is_err());
    assert_eq!(client.sent(), []);
}

/// MQTT 5: [MQTT-3.10.3-2]. MQTT 3.1.1: [MQTT-3.8.3-3] [MQTT-3.10.3-2].
#[test]
fn mqtt_3_8_3_2_a_client_s_requests_hold_at_least_one_filter() {
    versions(|version| {
        let client = online(version);
        assert!(client.session.borrow_mut().subscribe(SubscribeRequest::default(), 0).is_err());
        assert!(client.session.borrow_mut().unsubscribe(Vec::new(), 0).is_err());
        assert_eq!(client.sent(), []);
    });
}

/// MQTT 5: [MQTT-3.14.4-2] [MQTT-4.13.2-1]. MQTT 3.1.1: [MQTT-3.14.4-1] [MQTT-3.14.4-2].
#[test]
fn mqtt_3_14_4_1_a_client_sends_nothing_after_disconnect_and_closes() {
    versions(|version| {
        let client = online(version);
        client.session.borrow_mut().disconnect(ReasonCode::Success, None).expect("it may");
        let _ = client.publish("t", "", QoS::AtLeastOnce);
        client.receive(Incoming::new("t", "").qos1(1));
        let sent: Vec<_> = client.sent().iter().map(Packet::packet_type).collect();
        assert_eq!(sent, [PacketType::Disconnect]);
        let closed = |event: &Event| matches!(event, Event::Closed(close) if **close == CloseReason::Requested);
        assert!(client.events().iter().any(closed));
    });
}

/// MQTT 5: [MQTT-2.1.3-1] [MQTT-3.3.1-4] [MQTT-3.3.2-1] [MQTT-1.5.4-2]. MQTT 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2]
/// [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.3.1-4] [MQTT-4.8.0-1].
#[test]
fn mqtt_1_5_4_1_a_client_closes_on_malformed_packets() {
    versions(|version| {
        let none = wire::properties(version, &[]);
        let bad_topic = packet(0x30, &[wire::binary(b"\xFF"), none.clone()].concat());
        let null_topic = packet(0x30, &[wire::binary(b"a\0"), none].concat());
        let mut qos3 = Incoming::new("t", "").qos1(1).wire(version);
        qos3[0] |= 0x06;
        for bytes in
            [bad_topic, null_topic, qos3, vec![0xD1, 0], vec![0x41, 2, 0, 1], vec![0x00, 0], vec![0x60, 2, 0, 1]]
        {
            let client = online(version);
            client.receive(bytes);
            client.expect_violation(ReasonCode::MalformedPacket);
            match client.sent().as_slice() {
                [] if !version.is_v5() => {}
                [Packet::Disconnect(sent)] if version.is_v5() => assert_eq!(sent.reason, ReasonCode::MalformedPacket),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// MQTT 5: [MQTT-3.3.4-9]. The client's side: a server that exceeds the receive maximum is told so.
#[test]
fn a_client_disconnects_a_server_that_exceeds_its_receive_maximum() {
    let client = Client::new(SessionOptions { receive_maximum: 2, ..options(Version::V5) });
    assert_eq!(client.connect().properties.receive_maximum(), Some(2));
    client.accept(false, &[]);
    for id in 1..=3 {
        client.receive(Incoming::new("t", "").qos2(id));
    }
    client.expect_violation(ReasonCode::ReceiveMaximumExceeded);
}

/// MQTT 5: [MQTT-3.1.2-24]. The client's side: what is larger than it said it takes.
#[test]
fn mqtt311_4_8_0_2_a_client_closes_on_a_packet_that_it_has_no_room_for() {
    versions(|version| {
        let limits = Limits { packet_bytes_max: 30, ..Limits::default() };
        let client = Client::new(SessionOptions { limits, ..options(version) });
        client.online(false, &[]);
        client.receive(Incoming::new("t", "fits"));
        let too_large = Incoming::new("t", "x".repeat(30)).wire(version);
        client.receive_some(&too_large);
        client.expect_violation(ReasonCode::PacketTooLarge);
        match client.sent().as_slice() {
            [] if !version.is_v5() => {}
            [Packet::Disconnect(sent)] if version.is_v5() => assert_eq!(sent.reason, ReasonCode::PacketTooLarge),
            other => panic!("{other:?}"),
        }
    });
}

/// MQTT 5: [MQTT-3.2.0-1].
#[test]
fn a_client_refuses_packets_before_connack() {
    versions(|version| {
        let client = Client::new(options(version));
        client.connect();
        client.receive(Incoming::new("t", ""));
        client.expect_violation(ReasonCode::ProtocolError);
    });
}

/// A packet that came in pieces, or several in one piece, is the same to a client.
#[test]
fn a_client_takes_packets_split_and_joined_anywhere() {
    versions(|version| {
        let mut bytes = Incoming::new("t", "one").qos1(1).wire(version);
        bytes.extend(Incoming::new("t", "two").qos2(2).wire(version));
        for piece in 1..bytes.len() {
            let client = online(version);
            let mut kept = BytesMut::new();
            for part in bytes.chunks(piece) {
                kept.extend_from_slice(part);
                let input = kept.clone().freeze();
                let used = client.session.borrow_mut().handle_bytes(*client.now.borrow(), &input);
                let _ = kept.split_to(used);
            }
            assert_eq!(client.messages(), ["one", "two"], "pieces of {piece} bytes");
        }
    });
}
