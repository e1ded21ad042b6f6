//! Sessions and their ends: sections 3.1.2.11.2, 3.14, 4.1 and 4.13.

use std::time::Duration;

use ferromq::codec::{Packet, PacketType, ReasonCode, Version};

use crate::{
    harness::{Bench, on_all, on_all_versions, on_all_with},
    wire::{self, Connect, Publish, Subscribe, Wire, p32, packet, puback},
};

/// MQTT 5: [MQTT-4.1.0-1]. MQTT 3.1.1: [MQTT-4.1.0-1] [MQTT-4.1.0-2].
#[test]
fn mqtt_4_1_0_1_session_state_lasts_as_long_as_the_connection() {
    on_all_versions(|bench, version| {
        // No expiry interval, clean start: the session still lives while the connection does.
        let peer = bench.client(version, "client");
        peer.subscribe("t", 1);
        bench.advance(Duration::from_hours(720));
        bench.client(version, "publisher").publish("t", "x", 1);
        assert_eq!(peer.payloads(), ["x"]);
    });
}

#[test]
fn mqtt_4_1_0_2_a_session_is_discarded_when_its_expiry_interval_is_over() {
    on_all(|bench| {
        for (expiry, away, present) in [(100, 90, true), (100, 110, false), (u32::MAX, 1_000_000, true)] {
            let connect = Connect::new("client").resume().with(p32(wire::SESSION_EXPIRY, expiry));
            let clean = connect.clone().clean();
            bench.accepted(Version::V5, &clean).0.cut();
            bench.advance(Duration::from_secs(away));
            let (_, connack) = bench.accepted(Version::V5, &connect);
            assert_eq!(connack.session_present, present, "{expiry} s, away for {away} s");
        }
        // An interval of zero, or none, ends the session with the connection.
        bench.accepted(Version::V5, &Connect::new("other")).0.cut();
        let (_, connack) = bench.accepted(Version::V5, &Connect::new("other").resume());
        assert!(!connack.session_present);
    });
}

#[test]
fn mqtt311_3_1_2_6_a_clean_session_ends_with_its_connection() {
    on_all(|bench| {
        let peer = bench.client(Version::V3_1_1, "client");
        peer.subscribe("t", 1);
        peer.cut();
        let (peer, connack) = bench.accepted(Version::V3_1_1, &Connect::new("client").resume());
        assert!(!connack.session_present);
        bench.client(Version::V3_1_1, "publisher").publish("t", "x", 1);
        peer.expect_nothing();
    });
}

/// The interval may be changed when the connection ends, but 0 may not become more.
#[test]
fn mqtt_3_14_2_2_session_expiry_may_change_at_disconnect_and_the_server_sends_none() {
    on_all(|bench| {
        let connect = Connect::new("client").resume().with(p32(wire::SESSION_EXPIRY, 10));
        let peer = bench.accepted(Version::V5, &connect).0;
        peer.send(wire::disconnect().with(p32(wire::SESSION_EXPIRY, 1000)));
        peer.expect_closed();
        bench.advance(Duration::from_secs(500));
        let (peer, connack) = bench.accepted(Version::V5, &connect);
        assert!(connack.session_present);
        peer.send(wire::disconnect().with(p32(wire::SESSION_EXPIRY, 0)));
        let (peer, connack) = bench.accepted(Version::V5, &Connect::new("client").resume());
        assert!(!connack.session_present);
        peer.send(wire::disconnect().with(p32(wire::SESSION_EXPIRY, 5)));
        let disconnect = peer.expect_disconnect(ReasonCode::ProtocolError);
        assert_eq!(disconnect.properties.session_expiry_interval(), None);
    });
}

#[test]
fn mqtt_3_14_0_1_no_disconnect_is_sent_before_the_connection_is_accepted() {
    on_all(|bench| {
        for bytes in [
            vec![0xFF, 0x00],
            wire::PINGREQ.to_vec(),
            packet(0x10, &[0, 4, b'M', b'Q']),
            Connect::new("client").with(wire::p16(wire::RECEIVE_MAXIMUM, 0)).wire(Version::V5),
            vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ] {
            let peer = bench.connect_raw(Version::V5);
            peer.send(bytes);
            let sent = peer.received();
            assert!(sent.iter().all(|packet| packet.packet_type() != PacketType::Disconnect), "{sent:?}");
            assert!(peer.is_closed());
        }
    });
}

/// MQTT 5: [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.2-1]. MQTT 3.1.1: [MQTT-4.8.0-1].
#[test]
fn mqtt_4_13_1_1_a_fault_ends_the_connection_and_nothing_follows() {
    on_all_versions(|bench, version| {
        let watcher = bench.client(version, "watcher");
        watcher.subscribe("#", 0);
        let peer = bench.client(version, "offender");
        let mut bytes = vec![0x00, 0x00];
        bytes.extend(Publish::new("t", "after the fault").wire(version));
        bytes.extend(wire::PINGREQ);
        peer.send(bytes);
        peer.expect_fault(ReasonCode::MalformedPacket);
        watcher.expect_nothing();
        watcher.expect_healthy();
    });
}

/// MQTT 5: [MQTT-3.14.4-2].
#[test]
fn mqtt_3_14_4_1_after_disconnect_nothing_is_processed_or_sent() {
    on_all_versions(|bench, version| {
        let watcher = bench.client(version, "watcher");
        watcher.subscribe("#", 0);
        let peer = bench.client(version, "client");
        peer.subscribe("#", 0);
        let mut bytes = wire::disconnect().wire(version);
        bytes.extend(Publish::new("t", "after").wire(version));
        bytes.extend(wire::PINGREQ);
        peer.send(bytes);
        peer.expect_closed();
        watcher.expect_nothing();
    });
}

#[test]
fn mqtt_3_14_2_1_disconnect_uses_the_codes_listed_for_it() {
    on_all(|bench| {
        for code in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
            let peer = bench.client(Version::V5, "client");
            peer.send(packet(0xE0, &[code]));
            peer.expect_closed();
        }
        for code in [0x01, 0x02, 0x10, 0x11, 0x18, 0x84, 0x85, 0x91, 0xFF] {
            let peer = bench.client(Version::V5, "offender");
            peer.send(packet(0xE0, &[code]));
            peer.expect_disconnect(ReasonCode::ProtocolError);
        }
    });
}

/// MQTT 5: [MQTT-3.14.2-4]. What would make DISCONNECT too large is left out of it.
#[test]
fn mqtt_3_14_2_3_disconnect_keeps_to_the_maximum_packet_size() {
    on_all(|bench| {
        for maximum in 20..60 {
            let connect = Connect::new("client").with(p32(wire::MAXIMUM_PACKET_SIZE, maximum));
            let peer = bench.connect(Version::V5, &connect);
            peer.received();
            peer.send(Connect::new("client"));
            let (packet, size) = peer.next_sized().expect("DISCONNECT fits without its reason string");
            assert!(matches!(packet, Packet::Disconnect(_)) && size <= maximum as usize, "{packet:?}");
            peer.expect_closed();
        }
    });
}

#[test]
fn a_disconnect_may_explain_itself() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "client");
        peer.send(
            wire::disconnect().with(wire::pstr(wire::REASON_STRING, "going home")).with(wire::user("key", "value")),
        );
        peer.expect_closed();
    });
}

/// Another version may resume the session: it belongs to the identifier.
#[test]
fn a_session_may_be_resumed_in_another_version() {
    on_all(|bench| {
        let peer = bench.accepted(Version::V3_1_1, &Connect::persistent("client")).0;
        peer.subscribe("t", 1);
        peer.cut();
        bench.client(Version::V5, "publisher").publish("t", "x", 1);
        let (peer, connack) = bench.accepted(Version::V5, &Connect::persistent("client"));
        assert!(connack.session_present);
        assert_eq!(peer.payloads(), ["x"]);
    });
}

/// What was in flight when another connection took the session over is sent again on that connection.
#[test]
fn a_takeover_keeps_what_was_in_flight() {
    on_all_versions(|bench, version| {
        let connect = Connect::persistent("client");
        let first = bench.accepted(version, &connect).0;
        first.subscribe("t", 1);
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "one", 1);
        let id = first.expect_publish().packet_id;
        let (second, connack) = bench.accepted(version, &connect);
        assert!(connack.session_present);
        first.expect_fault(ReasonCode::SessionTakenOver);
        let repeated = second.message();
        assert_eq!((repeated.packet_id, repeated.dup), (id, true));
        // A late acknowledgement on the old connection is nobody's.
        first.send(puback(id.expect("QoS 1").get()));
        second.expect_healthy();
    });
}

#[test]
fn queues_are_bounded_and_the_policy_says_what_goes() {
    use ferromq::broker::DropPolicy;

    for (policy, expected) in [(DropPolicy::New, ["0", "1", "2"]), (DropPolicy::Oldest, ["7", "8", "9"])] {
        on_all_with(
            |settings| {
                settings.session.queued_messages_max = 3;
                settings.session.drop_policy = policy;
            },
            |bench| {
                queue_ten(bench);
                let peer = bench.accepted(Version::V5, &Connect::persistent("client")).0;
                assert_eq!(peer.payloads(), expected);
            },
        );
    }
}

fn queue_ten(bench: &Bench) {
    let peer = bench.accepted(Version::V5, &Connect::persistent("client")).0;
    peer.subscribe("t", 1);
    peer.cut();
    let publisher = bench.client(Version::V5, "publisher");
    for n in 0..10 {
        publisher.publish("t", &n.to_string(), 1);
    }
}

#[test]
fn qos0_is_not_kept_for_a_client_that_is_away_unless_so_set() {
    for (keep, expected) in [(false, &["two"][..]), (true, &["one", "two"])] {
        on_all_with(
            |settings| settings.session.queue_qos0_offline = keep,
            |bench| {
                let peer = bench.accepted(Version::V5, &Connect::persistent("client")).0;
                peer.subscribe("t", 1);
                peer.cut();
                let publisher = bench.client(Version::V5, "publisher");
                publisher.publish("t", "one", 0);
                publisher.publish("t", "two", 1);
                let peer = bench.accepted(Version::V5, &Connect::persistent("client")).0;
                assert_eq!(peer.payloads(), expected);
            },
        );
    }
}

/// A shutdown tells MQTT 5 clients 0x8B, closes the others, and publishes the wills.
#[test]
fn shutting_down_is_told() {
    on_all(|bench| {
        let new = bench.client(Version::V5, "new");
        let old = bench.client(Version::V3_1_1, "old");
        let waiting = bench.connect_raw(Version::V5);
        bench.shutdown();
        new.expect_disconnect(ReasonCode::ServerShuttingDown);
        old.expect_closed();
        assert!(waiting.is_closed());
    });
}

#[test]
fn an_administrator_may_end_a_connection() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "client");
        bench.kick("client", ReasonCode::AdministrativeAction);
        peer.expect_disconnect(ReasonCode::AdministrativeAction);
    });
}

/// MQTT 3.1.1: [MQTT-4.8.0-2].
#[test]
fn more_connections_than_allowed_are_told_that_the_server_is_busy() {
    on_all_with(
        |settings| settings.connections_max = 2,
        |bench| {
            let peers = [bench.client(Version::V5, "a"), bench.client(Version::V3_1_1, "b")];
            bench.connect(Version::V5, &Connect::new("c")).expect_refused(ReasonCode::ServerBusy);
            bench.connect(Version::V3_1_1, &Connect::new("d")).expect_refused(ReasonCode::ServerUnavailable);
            peers.iter().for_each(crate::harness::Peer::expect_healthy);
            // Who comes back before its old connection is missed adds none.
            let again = bench.client(Version::V5, "a");
            again.expect_healthy();
            again.hang_up();
            bench.client(Version::V5, "c").send(Subscribe::new(1).filter("t", 0));
        },
    );
}
