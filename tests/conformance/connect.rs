//! Sections 3.1 and 3.2: CONNECT and CONNACK.

use std::{collections::HashSet, time::Duration};

use ferromq::{
    auth::{Authenticator, ConnectInfo, Verdict},
    broker::Hooks,
    codec::{Packet, PacketType, QoS, ReasonCode, Version},
};

use crate::{
    harness::{Bench, Peer, SUBSCRIBE_ID, on_all, on_all_hooked, on_all_versions, on_all_with, text},
    wire::{self, Connect, Publish, Subscribe, Will, Wire, binary, p8, p16, p32, packet, string, user},
};

/// CONNECT made of its parts: level, flags, and what follows the keep-alive and the properties.
fn connect_bytes(name: &str, version: Version, level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = string(name);
    body.extend([level, flags, 0, 0]);
    body.extend(wire::properties(version, &[]));
    body.extend(payload);
    packet(0x10, &body)
}

fn name_of(version: Version) -> &'static str {
    if version == Version::V3_1 { "MQIsdp" } else { "MQTT" }
}

/// A CONNECT that is wrong is refused with this code in MQTT 5 and closed without an answer before
/// [MQTT 3.1.1: MQTT-3.1.4-1].
#[track_caller]
fn expect_bad_connect(bench: &Bench, version: Version, bytes: Vec<u8>, reason: ReasonCode) {
    let peer = bench.connect_raw(version);
    peer.send(bytes);
    if version.is_v5() {
        peer.expect_refused(reason);
    } else {
        peer.expect_closed();
    }
}

/// MQTT 3.1.1: [MQTT-3.1.0-1].
#[test]
fn mqtt_3_1_0_1_the_first_packet_of_a_client_is_connect() {
    on_all_versions(|bench, version| {
        let packets: [Vec<u8>; 6] = [
            Publish::new("t", "").wire(version),
            Subscribe::new(1).filter("t", 0).wire(version),
            wire::PINGREQ.to_vec(),
            wire::disconnect().wire(version),
            wire::puback(1).wire(version),
            wire::pubrel(1).wire(version),
        ];
        let healthy = bench.client(version, "healthy");
        healthy.subscribe("t", 0);
        for bytes in packets {
            let peer = bench.connect_raw(version);
            peer.send(bytes);
            // Section 3.14: no DISCONNECT before an accepting CONNACK. The close says it all.
            peer.expect_closed();
        }
        healthy.expect_healthy();
    });
}

/// MQTT 3.1.1: [MQTT-3.1.0-2].
#[test]
fn mqtt_3_1_0_2_a_second_connect_is_a_protocol_error() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "twice");
        peer.send(Connect::new("twice"));
        peer.expect_fault(ReasonCode::ProtocolError);
    });
}

/// MQTT 3.1.1: [MQTT-3.1.2-1].
#[test]
fn mqtt_3_1_2_1_another_protocol_name_is_not_served() {
    on_all_versions(|bench, version| {
        for name in ["MQTTX", "mqtt", "HTTP", "", "MQIsdpX"] {
            let peer = bench.connect_raw(version);
            peer.send(connect_bytes(name, version, version as u8, 2, &string("id")));
            let packets = peer.received();
            let refused = |packet: &Packet| matches!(packet, Packet::ConnAck(connack) if connack.reason.is_error());
            assert!(packets.iter().all(refused), "{name}: {packets:?}");
            assert!(peer.is_closed(), "{name}");
        }
    });
}

#[test]
fn mqtt_3_1_2_2_an_unknown_protocol_version_is_refused_with_0x84() {
    on_all(|bench| {
        for level in [6, 7, 127] {
            let peer = bench.connect_raw(Version::V5);
            peer.send(connect_bytes("MQTT", Version::V5, level, 2, &string("id")));
            peer.expect_refused(ReasonCode::UnsupportedProtocolVersion);
        }
    });
}

#[test]
fn mqtt311_3_1_2_2_an_unknown_protocol_level_gets_return_code_1_and_a_close() {
    on_all(|bench| {
        for level in [0, 1, 2, 3] {
            let peer = bench.connect_raw(Version::V3_1_1);
            peer.send(connect_bytes("MQTT", Version::V3_1_1, level, 2, &string("id")));
            peer.expect_refused(ReasonCode::UnsupportedProtocolVersion);
        }
    });
}

/// MQTT 3.1.1: [MQTT-3.1.2-3].
#[test]
fn mqtt_3_1_2_3_the_reserved_connect_flag_must_be_zero() {
    on_all_versions(|bench, version| {
        let bytes = connect_bytes(name_of(version), version, version as u8, 3, &string("id"));
        expect_bad_connect(bench, version, bytes, ReasonCode::MalformedPacket);
    });
}

/// MQTT 5: [MQTT-3.1.4-4] [MQTT-3.2.2-2]. MQTT 3.1.1: [MQTT-3.1.2-6] [MQTT-3.1.4-3] [MQTT-3.2.2-1].
#[test]
fn mqtt_3_1_2_4_a_clean_start_discards_the_session_there_was() {
    on_all_versions(|bench, version| {
        let (first, _) = bench.accepted(version, &Connect::persistent("client"));
        first.subscribe("t", 1);
        first.hang_up();
        bench.client(version, "publisher").publish("t", "queued", 1);

        let (second, connack) = bench.accepted(version, &Connect::persistent("client").clean());
        assert!(!connack.session_present);
        bench.client(version, "publisher").publish("t", "later", 1);
        second.expect_nothing();
    });
}

/// MQTT 5: [MQTT-3.2.2-3] [MQTT-3.1.2-23] [MQTT-4.5.0-1] [MQTT-4.1.0-1].
/// MQTT 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.2.2-2] [MQTT-4.5.0-1] [MQTT-4.1.0-1].
#[test]
fn mqtt_3_1_2_5_without_clean_start_the_session_is_resumed() {
    on_all_versions(|bench, version| {
        let (first, connack) = bench.accepted(version, &Connect::persistent("client"));
        assert!(!connack.session_present);
        first.subscribe("t", 2);
        first.hang_up();
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "one", 1);
        publisher.publish("t", "two", 2);

        let (second, connack) = bench.accepted(version, &Connect::persistent("client"));
        assert!(connack.session_present);
        assert_eq!(second.payloads(), ["one", "two"]);
        publisher.publish("t", "three", 1);
        assert_eq!(second.payloads(), ["three"], "the subscription is part of the session");
    });
}

/// MQTT 3.1.1: [MQTT-3.2.2-3].
#[test]
fn mqtt_3_1_2_6_without_a_stored_session_a_new_one_begins() {
    on_all_versions(|bench, version| {
        let (peer, connack) = bench.accepted(version, &Connect::persistent("nobody"));
        assert!(!connack.session_present);
        peer.expect_healthy();
    });
}

/// The will fields are there if and only if the flags say so.
/// MQTT 5: [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13].
/// MQTT 3.1.1: [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15].
#[test]
fn mqtt_3_1_2_9_will_flags_and_will_fields_must_agree() {
    on_all_versions(|bench, version| {
        let none = wire::properties(version, &[]);
        let id = string("id");
        let will = [id.clone(), none, string("will"), binary(b"payload")].concat();
        for (flags, payload) in [
            (0x06, &id),   // will flag, no will
            (0x02, &will), // a will, no will flag
            (0x1E, &will), // will QoS 3
            (0x0A, &id),   // will QoS 1 without will flag
            (0x12, &id),   // will QoS 2 without will flag
            (0x22, &id),   // will retain without will flag
        ] {
            let bytes = connect_bytes(name_of(version), version, version as u8, flags, payload);
            expect_bad_connect(bench, version, bytes, ReasonCode::MalformedPacket);
        }
    });
}

/// MQTT 5: [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19].
/// MQTT 3.1.1: [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21].
#[test]
fn mqtt_3_1_2_16_user_name_and_password_are_present_exactly_as_flagged() {
    on_all_versions(|bench, version| {
        let id = string("id");
        let one = [id.clone(), string("name")].concat();
        let two = [one.clone(), binary(b"password")].concat();
        for (flags, payload) in [
            (0x02, &one), // a user name without its flag
            (0x82, &id),  // the flag without a user name
            (0x82, &two), // a password without its flag
            (0xC2, &one), // the flag without a password
        ] {
            let bytes = connect_bytes(name_of(version), version, version as u8, flags, payload);
            expect_bad_connect(bench, version, bytes, ReasonCode::MalformedPacket);
        }
        bench.accepted(version, &Connect::new("id").username("name").password(b"password"));
        bench.accepted(version, &Connect::new("id").username("name"));
    });
}

#[test]
fn mqtt311_3_1_2_22_a_password_needs_a_user_name() {
    on_all(|bench| {
        let version = Version::V3_1_1;
        let payload = [string("id"), binary(b"password")].concat();
        expect_bad_connect(
            bench,
            version,
            connect_bytes("MQTT", version, 4, 0x42, &payload),
            ReasonCode::MalformedPacket,
        );
        // MQTT 5 lifts this: a password alone may be a token.
        bench.accepted(Version::V5, &Connect::new("id").password(b"token"));
    });
}

/// MQTT 3.1.1: [MQTT-3.1.2-24].
#[test]
fn mqtt_3_1_2_22_silence_for_one_and_a_half_keep_alives_ends_the_connection() {
    on_all_versions(|bench, version| {
        let watcher = bench.client(version, "watcher");
        watcher.subscribe("will", 0);
        let connect = Connect::new("silent").keep_alive(10).will(Will::new("will", "gone"));
        let (peer, _) = bench.accepted(version, &connect);
        bench.advance(Duration::from_secs(14));
        peer.expect_nothing();
        assert!(!peer.is_closed(), "not before one and a half times the keep-alive");
        peer.expect_healthy();
        bench.advance(Duration::from_secs(14));
        assert!(!peer.is_closed(), "any packet starts the time anew");
        bench.advance(Duration::from_secs(3));
        peer.expect_fault(ReasonCode::KeepAliveTimeout);
        assert_eq!(text(&watcher.expect_publish().payload), "gone", "as if the network had failed");
    });
}

/// Any packet counts, and a keep-alive of zero switches the mechanism off.
#[test]
fn mqtt_3_2_2_22_the_client_s_keep_alive_holds_unless_the_server_gives_one() {
    on_all(|bench| {
        let (peer, connack) = bench.accepted(Version::V5, &Connect::new("client").keep_alive(60));
        assert_eq!(connack.properties.server_keep_alive(), None);
        bench.advance(Duration::from_secs(89));
        assert!(!peer.is_closed());
        bench.advance(Duration::from_secs(3));
        peer.expect_disconnect(ReasonCode::KeepAliveTimeout);

        let (never, _) = bench.accepted(Version::V5, &Connect::new("never").keep_alive(0));
        bench.advance(Duration::from_hours(24));
        never.expect_healthy();
    });
}

#[test]
fn a_server_keep_alive_replaces_the_one_of_the_client() {
    on_all_with(
        |settings| settings.capabilities.keep_alive_max = 20,
        |bench| {
            for (wanted, told) in [(0, Some(20)), (60, Some(20)), (20, None), (10, None)] {
                let (peer, connack) = bench.accepted(Version::V5, &Connect::new("client").keep_alive(wanted));
                assert_eq!(connack.properties.server_keep_alive(), told, "keep-alive {wanted}");
                bench.advance(Duration::from_secs(u64::from(told.unwrap_or(wanted)) * 3 / 2 + 2));
                peer.expect_disconnect(ReasonCode::KeepAliveTimeout);
            }
        },
    );
}

#[test]
fn mqtt_3_1_2_28_response_information_is_given_only_on_request() {
    on_all(|bench| {
        let given = |connect: &Connect| {
            let (_, connack) = bench.accepted(Version::V5, connect);
            connack.properties.response_information().is_some()
        };
        assert!(!given(&Connect::new("a")));
        assert!(!given(&Connect::new("b").with(p8(wire::REQUEST_RESPONSE_INFORMATION, 0))));
        assert!(given(&Connect::new("c").with(p8(wire::REQUEST_RESPONSE_INFORMATION, 1))));
    });
}

#[test]
fn mqtt_3_1_2_29_without_request_problem_information_reasons_are_not_explained() {
    on_all(|bench| {
        let quiet = Connect::new("quiet").with(p8(wire::REQUEST_PROBLEM_INFORMATION, 0));
        let (peer, _) = bench.accepted(Version::V5, &quiet);
        peer.send(Subscribe::new(1).filter("$share/g/t", wire::NO_LOCAL | 1));
        // That is a protocol error, whose DISCONNECT may explain itself; what comes before it may not.
        for packet in peer.received() {
            match packet {
                Packet::SubAck(suback) => assert!(suback.properties.is_empty()),
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, ReasonCode::ProtocolError),
                other => panic!("{other:?}"),
            }
        }
        let (peer, _) = bench.accepted(Version::V5, &quiet);
        peer.send(Publish::new("nobody", "").qos1(1));
        assert!(peer.expect_ack(PacketType::PubAck, 1).properties.is_empty());
        peer.send(Publish::new("$SYS/x", "").qos1(3));
        assert!(peer.expect_ack(PacketType::PubAck, 3).properties.is_empty());
        // The same refusal explains itself to those who want it.
        let curious = bench.client(Version::V5, "curious");
        curious.send(Publish::new("$SYS/x", "").qos1(3));
        assert!(curious.expect_ack(PacketType::PubAck, 3).properties.reason_string().is_some());
        peer.send(wire::pubrel(9));
        assert!(peer.expect_ack(PacketType::PubComp, 9).properties.is_empty());
        peer.send(wire::Unsubscribe::new(2).filter("nothing"));
        assert!(peer.expect_unsuback(2).properties.is_empty());
    });
}

/// MQTT 5: [MQTT-3.1.3-3]. MQTT 3.1.1: [MQTT-3.1.3-1] [MQTT-3.1.3-3].
#[test]
fn mqtt_3_1_3_1_the_payload_has_its_fields_in_order() {
    on_all_versions(|bench, version| {
        let watcher = bench.client(version, "watcher");
        watcher.subscribe("the/will", 0);
        let connect = Connect::new("ordered").will(Will::new("the/will", "last words")).username("n").password(b"p");
        let (peer, _) = bench.accepted(version, &connect);
        peer.cut();
        assert_eq!(text(&watcher.expect_publish().payload), "last words");
        // Nothing at all where the client identifier should be.
        let bytes = connect_bytes(name_of(version), version, version as u8, 2, &[]);
        expect_bad_connect(bench, version, bytes, ReasonCode::MalformedPacket);
    });
}

/// MQTT 3.1.1: [MQTT-3.1.3-2].
#[test]
fn mqtt_3_1_3_2_session_state_belongs_to_the_client_identifier() {
    on_all_versions(|bench, version| {
        bench.accepted(version, &Connect::persistent("one")).0.subscribe("t", 1);
        let (_, connack) = bench.accepted(version, &Connect::persistent("two"));
        assert!(!connack.session_present, "another identifier has another session");
        let (_, connack) = bench.accepted(version, &Connect::persistent("One"));
        assert!(!connack.session_present, "identifiers are compared byte by byte");
        let (_, connack) = bench.accepted(version, &Connect::persistent("one"));
        assert!(connack.session_present);
    });
}

/// MQTT 3.1.1: [MQTT-3.1.3-5].
#[test]
fn mqtt_3_1_3_5_identifiers_of_1_to_23_letters_and_digits_are_accepted() {
    on_all_versions(|bench, version| {
        for id in ["0", "z", "Q", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            bench.client(version, id).expect_healthy();
        }
    });
}

/// MQTT 5: [MQTT-3.1.3-7] [MQTT-3.2.2-16]. MQTT 3.1.1: [MQTT-3.1.3-6].
#[test]
fn mqtt_3_1_3_6_an_empty_identifier_is_replaced_by_a_unique_one() {
    on_all_versions(|bench, version| {
        let mut seen = HashSet::new();
        let mut peers = Vec::new();
        for _ in 0..20 {
            let (peer, connack) = bench.accepted(version, &Connect::new(""));
            if version.is_v5() {
                let id = connack.properties.assigned_client_identifier().expect("it is told").as_str().to_owned();
                assert!(!id.is_empty() && seen.insert(id), "every identifier is another");
            }
            peers.push(peer);
        }
        peers.iter().for_each(Peer::expect_healthy);
    });
}

/// The assigned identifier names the session: the client can come back to it.
#[test]
fn mqtt_3_1_3_7_the_assigned_identifier_is_as_good_as_the_client_s_own() {
    on_all(|bench| {
        let (peer, connack) = bench.accepted(Version::V5, &Connect::persistent(""));
        let id = connack.properties.assigned_client_identifier().expect("it is told").as_str().to_owned();
        peer.subscribe("t", 1);
        peer.hang_up();
        let (_, connack) = bench.accepted(Version::V5, &Connect::persistent(&id));
        assert!(connack.session_present);
        assert_eq!(connack.properties.assigned_client_identifier(), None, "the client gave one");
    });
}

/// MQTT 3.1.1: [MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5].
#[test]
fn mqtt311_3_1_3_8_an_empty_identifier_with_clean_session_0_is_rejected() {
    on_all(|bench| {
        let peer = bench.connect(Version::V3_1_1, &Connect::new("").resume());
        let connack = peer.expect_refused(ReasonCode::ClientIdentifierNotValid);
        assert!(!connack.session_present);
    });
}

#[test]
fn mqtt_3_1_3_8_a_refused_identifier_gets_0x85_and_a_close() {
    on_all_hooked(
        |_| {},
        || Hooks { authenticator: Some(std::sync::Arc::new(RefuseIds)), ..Hooks::default() },
        |bench| {
            for version in [Version::V5, Version::V3_1_1] {
                bench.connect(version, &Connect::new("bad")).expect_refused(ReasonCode::ClientIdentifierNotValid);
                bench.client(version, "good").expect_healthy();
            }
        },
    );
}

/// Dislikes one identifier, and one user name.
#[derive(Debug)]
struct RefuseIds;

impl Authenticator for RefuseIds {
    fn authenticate(&self, info: &ConnectInfo) -> Verdict {
        let reason = match (info.client_id.as_str(), info.username.as_deref()) {
            ("bad", _) => ReasonCode::ClientIdentifierNotValid,
            (_, Some("mallory")) => ReasonCode::BadUserNameOrPassword,
            (_, Some("eve")) => ReasonCode::NotAuthorized,
            (_, Some("later")) => return Verdict::Defer,
            _ => return Verdict::Accept,
        };
        Verdict::Refuse { reason, message: Some("not you".into()) }
    }
}

/// MQTT 5: [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-3.1.4-6] [MQTT-4.13.2-1].
/// MQTT 3.1.1: [MQTT-3.2.2-4] [MQTT-3.2.2-5] [MQTT-3.1.4-5].
#[test]
fn mqtt_3_1_4_2_failed_authentication_refuses_and_closes() {
    on_all_hooked(
        |_| {},
        || Hooks { authenticator: Some(std::sync::Arc::new(RefuseIds)), ..Hooks::default() },
        |bench| {
            for version in [Version::V5, Version::V3_1_1] {
                let watcher = bench.client(version, "watcher");
                watcher.subscribe("#", 0);
                for (name, reason) in
                    [("mallory", ReasonCode::BadUserNameOrPassword), ("eve", ReasonCode::NotAuthorized)]
                {
                    let mut bytes = Connect::new("client").username(name).password(b"x").wire(version);
                    // What follows a refused CONNECT in the same bytes must not be processed.
                    bytes.extend(Publish::new("t", "smuggled").wire(version));
                    let peer = bench.connect_raw(version);
                    peer.send(bytes);
                    assert!(!peer.expect_refused(reason).session_present);
                }
                watcher.expect_nothing();
            }
        },
    );
}

/// A verdict that takes its time: what the client sends meanwhile waits for it.
#[test]
fn a_deferred_verdict_accepts_or_refuses_later() {
    on_all_hooked(
        |_| {},
        || Hooks { authenticator: Some(std::sync::Arc::new(RefuseIds)), ..Hooks::default() },
        |bench| {
            for version in [Version::V5, Version::V3_1_1] {
                let peer = bench.connect_raw(version);
                let mut bytes = Connect::new("patient").username("later").wire(version);
                bytes.extend(Subscribe::new(1).filter("t", 0).wire(version));
                peer.send(bytes);
                peer.expect_nothing();
                assert_eq!(bench.judge_deferred(|_| Verdict::Accept), 1);
                assert_eq!(peer.expect_connack().reason, ReasonCode::Success);
                peer.expect_suback(1);

                let peer = bench.connect(version, &Connect::new("impatient").username("later"));
                bench.judge_deferred(|_| Verdict::Refuse { reason: ReasonCode::NotAuthorized, message: None });
                peer.expect_refused(ReasonCode::NotAuthorized);
            }
        },
    );
}

/// MQTT 3.1.1: [MQTT-3.1.4-2].
#[test]
fn mqtt_3_1_4_3_a_second_connection_takes_the_session_over() {
    on_all_versions(|bench, version| {
        let first = bench.client(version, "same");
        let second = bench.client(version, "same");
        first.expect_fault(ReasonCode::SessionTakenOver);
        second.expect_healthy();
    });
}

/// MQTT 5: [MQTT-3.2.0-1] [MQTT-3.2.0-2]. MQTT 3.1.1: [MQTT-3.1.4-4] [MQTT-3.2.0-1].
#[test]
fn mqtt_3_1_4_5_acceptance_is_one_connack_before_everything_else() {
    on_all_versions(|bench, version| {
        bench.accepted(version, &Connect::persistent("client")).0.subscribe("t", 1);
        bench.client(version, "publisher").publish("t", "queued", 1);
        let peer = bench.connect(version, &Connect::persistent("client"));
        let packets = peer.received();
        assert!(matches!(&packets[0], Packet::ConnAck(connack) if connack.reason == ReasonCode::Success));
        let connacks = packets.iter().filter(|packet| packet.packet_type() == PacketType::ConnAck).count();
        assert_eq!(connacks, 1);
    });
}

#[test]
fn mqtt_3_2_2_1_connack_sets_no_reserved_flag() {
    on_all_versions(|bench, version| {
        // The decoder refuses other bits than the lowest; a resumed session shows that one alone.
        bench.accepted(version, &Connect::persistent("client"));
        let (_, connack) = bench.accepted(version, &Connect::persistent("client"));
        assert!(connack.session_present);
    });
}

#[test]
fn mqtt311_3_2_2_6_where_no_return_code_fits_the_connection_is_closed_without_connack() {
    on_all(|bench| {
        let peer = bench.connect_raw(Version::V3_1_1);
        peer.send(connect_bytes("MQTT", Version::V3_1_1, 4, 3, &string("id")));
        peer.expect_closed();
    });
}

#[test]
fn mqtt_3_2_2_9_a_lower_maximum_qos_is_announced() {
    for (maximum, told) in [(QoS::AtMostOnce, Some(0)), (QoS::AtLeastOnce, Some(1)), (QoS::ExactlyOnce, None)] {
        on_all_with(
            |settings| settings.capabilities.maximum_qos = maximum,
            |bench| {
                let (_, connack) = bench.accepted(Version::V5, &Connect::new("client"));
                assert_eq!(connack.properties.maximum_qos(), told);
            },
        );
    }
}

/// The broker's side of [MQTT-3.2.2-11] is part of it: a PUBLISH above the maximum is refused with 0x9B.
#[test]
fn mqtt_3_2_2_10_subscriptions_of_any_qos_are_accepted_below_the_maximum() {
    on_all_with(
        |settings| settings.capabilities.maximum_qos = QoS::AtLeastOnce,
        |bench| {
            let peer = bench.client(Version::V5, "subscriber");
            for (asked, granted) in
                [(0, ReasonCode::Success), (1, ReasonCode::GrantedQoS1), (2, ReasonCode::GrantedQoS1)]
            {
                assert_eq!(peer.subscribe("t", asked), granted);
            }
            let peer = bench.client(Version::V5, "publisher");
            peer.send(Publish::new("t", "").qos2(1));
            peer.expect_disconnect(ReasonCode::QoSNotSupported);
        },
    );
}

#[test]
fn mqtt_3_2_2_12_a_will_above_the_maximum_qos_is_refused() {
    on_all_with(
        |settings| settings.capabilities.maximum_qos = QoS::AtMostOnce,
        |bench| {
            let connect = Connect::new("client").will(Will::new("will", "").qos(1));
            bench.connect(Version::V5, &connect).expect_refused(ReasonCode::QoSNotSupported);
            bench.accepted(Version::V5, &Connect::new("client").will(Will::new("will", "")));
        },
    );
}

/// The broker's side of [MQTT-3.2.2-14] is part of it: RETAIN 1 is refused with 0x9A.
#[test]
fn mqtt_3_2_2_13_a_retained_will_is_refused_where_retain_is_not_available() {
    on_all_with(
        |settings| settings.capabilities.retain_available = false,
        |bench| {
            let (peer, connack) = bench.accepted(Version::V5, &Connect::new("client"));
            assert_eq!(connack.properties.retain_available(), Some(false));
            peer.send(Publish::new("t", "x").retain());
            peer.expect_disconnect(ReasonCode::RetainNotSupported);
            let connect = Connect::new("client").will(Will::new("will", "").retain());
            bench.connect(Version::V5, &connect).expect_refused(ReasonCode::RetainNotSupported);
        },
    );
}

/// MQTT 5: [MQTT-3.2.2-20]. What does not fit is left out of CONNACK, or CONNACK itself is.
#[test]
fn mqtt_3_2_2_19_connack_keeps_to_the_maximum_packet_size() {
    on_all_hooked(
        |_| {},
        || Hooks { authenticator: Some(std::sync::Arc::new(RefuseIds)), ..Hooks::default() },
        |bench| {
            for maximum in [8, 10, 12, 16, 32, 64, 200] {
                let connect = Connect::new("client").username("mallory").with(p32(wire::MAXIMUM_PACKET_SIZE, maximum));
                let peer = bench.connect(Version::V5, &connect);
                if let Some((packet, size)) = peer.next_sized() {
                    assert!(size <= maximum as usize, "{size} bytes with a maximum of {maximum}");
                    let Packet::ConnAck(connack) = packet else { panic!("{packet:?}") };
                    assert_eq!(connack.reason, ReasonCode::BadUserNameOrPassword);
                    assert_eq!(connack.properties.reason_string().is_some(), maximum >= 16, "maximum {maximum}");
                }
                peer.expect_closed();
            }
        },
    );
}

/// Receive maximum and maximum packet size of zero, booleans above one, and repeated properties are protocol errors.
/// MQTT 5: [MQTT-3.1.4-1] [MQTT-4.13.1-1].
#[test]
fn mqtt_3_1_4_1_properties_of_a_connect_are_checked() {
    on_all(|bench| {
        let bad = [
            p16(wire::RECEIVE_MAXIMUM, 0),
            p32(wire::MAXIMUM_PACKET_SIZE, 0),
            p8(wire::REQUEST_PROBLEM_INFORMATION, 2),
            p8(wire::REQUEST_RESPONSE_INFORMATION, 2),
            [p32(wire::SESSION_EXPIRY, 1), p32(wire::SESSION_EXPIRY, 1)].concat(),
            [p16(wire::RECEIVE_MAXIMUM, 1), p16(wire::RECEIVE_MAXIMUM, 1)].concat(),
            wire::pbin(wire::AUTHENTICATION_DATA, b"without a method"),
        ];
        for property in bad {
            let peer = bench.connect(Version::V5, &Connect::new("offender").with(property));
            peer.expect_refused(ReasonCode::ProtocolError);
        }
        let fine = Connect::new("fine").with(user("a", "1")).with(user("a", "1"));
        bench.accepted(Version::V5, &fine).0.expect_healthy();
    });
}

/// CONNACK tells the capabilities that differ from the protocol's defaults.
#[test]
fn connack_announces_what_the_server_can_do() {
    on_all_with(
        |settings| {
            settings.capabilities.receive_maximum = 7;
            settings.capabilities.topic_alias_maximum = 5;
            settings.capabilities.wildcard_subscription_available = false;
            settings.capabilities.subscription_identifier_available = false;
            settings.capabilities.shared_subscription_available = false;
            settings.capabilities.session_expiry_max = 100;
            settings.limits.packet_bytes_max = 1000;
        },
        |bench| {
            let connect = Connect::new("client").with(p32(wire::SESSION_EXPIRY, 200));
            let (peer, connack) = bench.accepted(Version::V5, &connect);
            let told = &connack.properties;
            assert_eq!(told.receive_maximum(), Some(7));
            assert_eq!(told.topic_alias_maximum(), Some(5));
            assert_eq!(told.wildcard_subscription_available(), Some(false));
            assert_eq!(told.subscription_identifier_available(), Some(false));
            assert_eq!(told.shared_subscription_available(), Some(false));
            assert_eq!(told.session_expiry_interval(), Some(100));
            assert_eq!(told.maximum_packet_size(), Some(1000));

            assert_eq!(peer.subscribe("a/#", 0), ReasonCode::WildcardSubscriptionsNotSupported);
            assert_eq!(peer.subscribe("$share/g/a", 0), ReasonCode::SharedSubscriptionsNotSupported);
            let subscribe = Subscribe::new(SUBSCRIBE_ID).filter("a", 0).with(wire::pvar(wire::SUBSCRIPTION_ID, 1));
            peer.send(subscribe);
            let refused = match peer.next() {
                Some(Packet::SubAck(suback)) => suback.reasons[0],
                Some(Packet::Disconnect(disconnect)) => disconnect.reason,
                other => panic!("{other:?}"),
            };
            assert_eq!(refused, ReasonCode::SubscriptionIdentifiersNotSupported);
        },
    );
}

/// A client of MQTT 3.1 is served: `MQIsdp`, level 3.
#[test]
fn mqtt_3_1_clients_are_served_by_the_rules_of_3_1_1() {
    on_all(|bench| {
        let (peer, connack) = bench.accepted(Version::V3_1, &Connect::persistent("old"));
        assert!(!connack.session_present);
        peer.subscribe("t", 2);
        peer.publish("t", "hello", 2);
        assert_eq!(peer.payloads(), ["hello"]);
        peer.cut();
        bench.client(Version::V5, "new").publish("t", "queued", 1);
        let (peer, _) = bench.accepted(Version::V3_1, &Connect::persistent("old"));
        assert_eq!(peer.payloads(), ["queued"]);
    });
}

/// Without a complete CONNECT the connection ends after the connect timeout, however slowly bytes trickle in.
#[test]
fn a_connect_that_never_completes_times_out() {
    on_all_versions(|bench, version| {
        let peer = bench.connect_raw(version);
        let silent = bench.connect_raw(version);
        for byte in Connect::new("slow").wire(version).iter().take(8) {
            bench.advance(Duration::from_secs(1));
            peer.send(vec![*byte]);
        }
        assert!(!peer.is_closed());
        bench.advance(Duration::from_secs(3));
        peer.expect_closed();
        silent.expect_closed();
    });
}
