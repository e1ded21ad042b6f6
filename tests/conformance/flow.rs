//! Flow control, packet sizes and topic aliases: sections 3.1.2.11, 3.3.2.3.4, 3.3.4 and 4.9.

use ferromq::codec::{PacketType, Publish as Delivered, ReasonCode, Version};

use crate::{
    harness::{Bench, Peer, on_all, on_all_versions, on_all_with},
    wire::{self, Connect, Publish, p16, p32, puback, pubcomp, pubrec, pubrel},
};

fn subscriber(bench: &Bench, property: Vec<u8>) -> Peer {
    let peer = bench.accepted(Version::V5, &Connect::persistent("subscriber").with(property)).0;
    peer.subscribe("t/#", 2);
    peer
}

fn publish(bench: &Bench, count: usize, qos: u8) {
    let publisher = bench.client(Version::V5, "publisher");
    for n in 0..count {
        publisher.publish("t/x", &n.to_string(), qos);
    }
}

fn id_of(publish: &Delivered) -> u16 {
    publish.packet_id.expect("QoS 1 and 2 carry an identifier").get()
}

#[test]
fn mqtt_3_1_2_24_server_does_not_send_packets_larger_than_the_maximum_packet_size() {
    on_all(|bench| {
        let peer = subscriber(bench, p32(wire::MAXIMUM_PACKET_SIZE, 40));
        let publisher = bench.client(Version::V5, "publisher");
        for qos in 0..=2 {
            for len in 0..60 {
                publisher.publish("t/x", &"p".repeat(len), qos);
            }
            let mut most = 0;
            while let Some((packet, size)) = peer.next_sized() {
                assert!(size <= 40, "{packet:?} has {size} bytes");
                most = most.max(size);
                match packet {
                    ferromq::codec::Packet::Publish(publish) if qos == 1 => peer.send(puback(id_of(&publish))),
                    ferromq::codec::Packet::Publish(publish) if qos == 2 => peer.send(pubrec(id_of(&publish))),
                    ferromq::codec::Packet::PubRel(ack) => peer.send(pubcomp(ack.packet_id.get())),
                    _ => {}
                }
            }
            assert_eq!(most, 40, "what fits exactly is sent");
        }
    });
}

#[test]
fn mqtt_3_1_2_25_a_message_too_large_for_a_client_counts_as_delivered() {
    on_all(|bench| {
        let peer = subscriber(bench, [p32(wire::MAXIMUM_PACKET_SIZE, 40), p16(wire::RECEIVE_MAXIMUM, 2)].concat());
        let other = bench.client(Version::V5, "other");
        other.subscribe("t/#", 1);
        let publisher = bench.client(Version::V5, "publisher");
        // Were one of these kept in flight, the window of two would soon be shut.
        for n in 0..10 {
            publisher.publish("t/x", &"large".repeat(20), 1);
            publisher.publish("t/x", &n.to_string(), 1);
        }
        assert_eq!(peer.payloads().len(), 10);
        assert_eq!(other.payloads().len(), 20);
        peer.cut();
        bench.accepted(Version::V5, &Connect::persistent("subscriber")).0.expect_nothing();
    });
}

/// MQTT 5: [MQTT-3.3.2-11].
#[test]
fn mqtt_3_1_2_26_server_keeps_to_the_topic_alias_maximum_of_the_client() {
    on_all(|bench| {
        let peer = subscriber(bench, p16(wire::TOPIC_ALIAS_MAXIMUM, 2));
        let publisher = bench.client(Version::V5, "publisher");
        let mut names = std::collections::HashMap::new();
        for n in 0..40 {
            let topic = format!("t/topic/number/{}", n % 4);
            publisher.publish(&topic, &topic, 0);
            let message = peer.expect_publish();
            let alias = message.properties.topic_alias();
            assert!(alias.is_none_or(|alias| (1..=2).contains(&alias)), "{alias:?}");
            let named = message.topic.as_str().to_owned();
            let meant = match alias {
                Some(alias) if named.is_empty() => names.get(&alias).cloned().expect("the alias was set"),
                Some(alias) => names.entry(alias).insert_entry(named).get().clone(),
                None => named,
            };
            assert_eq!(meant, crate::harness::text(&message.payload));
        }
    });
}

#[test]
fn mqtt_3_1_2_27_without_a_maximum_the_server_sends_no_alias() {
    on_all(|bench| {
        for property in [Vec::new(), p16(wire::TOPIC_ALIAS_MAXIMUM, 0)] {
            let peer = subscriber(bench, property);
            publish(bench, 5, 0);
            for message in peer.messages() {
                assert_eq!(message.properties.topic_alias(), None);
                assert_eq!(message.topic.as_str(), "t/x");
            }
        }
    });
}

#[test]
fn mqtt_3_3_2_7_topic_aliases_end_with_the_connection() {
    on_all(|bench| {
        let connect = Connect::persistent("publisher");
        let peer = bench.accepted(Version::V5, &connect).0;
        peer.send(Publish::new("a", "").with(p16(wire::TOPIC_ALIAS, 1)));
        peer.cut();
        let peer = bench.accepted(Version::V5, &connect).0;
        peer.send(Publish::new("", "").with(p16(wire::TOPIC_ALIAS, 1)));
        peer.expect_disconnect(ReasonCode::ProtocolError);

        // In the other direction as well: the first message of a connection names its topic.
        let property = p16(wire::TOPIC_ALIAS_MAXIMUM, 10);
        let peer = subscriber(bench, property.clone());
        publish(bench, 2, 0);
        assert_eq!(peer.messages()[0].topic.as_str(), "t/x");
        peer.cut();
        let peer = subscriber(bench, property);
        publish(bench, 2, 0);
        assert_eq!(peer.messages()[0].topic.as_str(), "t/x");
    });
}

/// The broker's side of [MQTT-3.3.2-9], [MQTT-3.2.2-17] is part of it.
#[test]
fn mqtt_3_3_2_8_alias_0_and_aliases_above_the_maximum_are_refused() {
    on_all_with(
        |settings| settings.capabilities.topic_alias_maximum = 3,
        |bench| {
            for alias in [0, 4, u16::MAX] {
                let peer = bench.client(Version::V5, "offender");
                peer.send(Publish::new("t", "").with(p16(wire::TOPIC_ALIAS, alias)));
                peer.expect_disconnect(ReasonCode::TopicAliasInvalid);
            }
        },
    );
    on_all_with(
        |settings| settings.capabilities.topic_alias_maximum = 0,
        |bench| {
            let peer = bench.client(Version::V5, "offender");
            peer.send(Publish::new("t", "").with(p16(wire::TOPIC_ALIAS, 1)));
            peer.expect_disconnect(ReasonCode::TopicAliasInvalid);
        },
    );
}

#[test]
fn mqtt_3_3_2_12_server_accepts_all_aliases_up_to_its_maximum() {
    on_all_with(
        |settings| settings.capabilities.topic_alias_maximum = 50,
        |bench| {
            let peer = bench.client(Version::V5, "peer");
            peer.subscribe("#", 0);
            for alias in 1..=50u16 {
                peer.send(Publish::new(&format!("t/{alias}"), "").with(p16(wire::TOPIC_ALIAS, alias)));
                assert_eq!(peer.expect_publish().topic.as_str(), format!("t/{alias}"));
            }
            for alias in (1..=50u16).rev() {
                peer.send(Publish::new("", "").with(p16(wire::TOPIC_ALIAS, alias)));
                let message = peer.expect_publish();
                assert_eq!(message.topic.as_str(), format!("t/{alias}"));
                assert_eq!(message.properties.topic_alias(), None, "an alias belongs to its own connection");
            }
            peer.send(Publish::new("other", "").with(p16(wire::TOPIC_ALIAS, 7)));
            peer.expect_publish();
            peer.send(Publish::new("", "").with(p16(wire::TOPIC_ALIAS, 7)));
            assert_eq!(peer.expect_publish().topic.as_str(), "other", "an alias may be set anew");
        },
    );
}

/// The broker's side of it: a client that exceeds the receive maximum is disconnected with 0x93.
#[test]
fn mqtt_3_3_4_7_a_client_that_exceeds_the_receive_maximum_is_disconnected() {
    on_all_with(
        |settings| settings.capabilities.receive_maximum = 3,
        |bench| {
            let peer = bench.client(Version::V5, "offender");
            for id in 1..=3 {
                peer.send(Publish::new("t", "").qos2(id));
                peer.expect_ack(PacketType::PubRec, id);
            }
            peer.send(pubrel(2));
            peer.expect_ack(PacketType::PubComp, 2);
            peer.send(Publish::new("t", "").qos2(4));
            peer.expect_ack(PacketType::PubRec, 4);
            peer.send(Publish::new("t", "").qos2(5));
            peer.expect_disconnect(ReasonCode::ReceiveMaximumExceeded);
        },
    );
}

/// MQTT 5: [MQTT-4.9.0-1] [MQTT-4.9.0-2].
#[test]
fn mqtt_3_3_4_9_server_keeps_to_the_receive_maximum_of_the_client() {
    on_all(|bench| {
        for maximum in [1, 2, 5] {
            let peer = subscriber(bench, p16(wire::RECEIVE_MAXIMUM, maximum));
            publish(bench, 10, 1);
            let mut sent: Vec<Delivered> = (0..maximum).map(|_| peer.expect_publish()).collect();
            peer.expect_nothing();
            for n in usize::from(maximum)..10 {
                peer.send(puback(id_of(&sent.remove(0))));
                sent.push(peer.expect_publish());
                assert_eq!(crate::harness::text(&sent[sent.len() - 1].payload), n.to_string());
                peer.expect_nothing();
            }
            for publish in &sent {
                peer.send(puback(id_of(publish)));
            }
            peer.expect_nothing();
        }
    });
}

/// The quota of a QoS 2 message comes back with PUBCOMP, or with a PUBREC that fails, not with PUBREC (section 4.9).
#[test]
fn the_quota_of_qos2_comes_back_with_pubcomp() {
    on_all(|bench| {
        let peer = subscriber(bench, p16(wire::RECEIVE_MAXIMUM, 1));
        publish(bench, 3, 2);
        let one = id_of(&peer.expect_publish());
        peer.send(pubrec(one));
        peer.expect_ack(PacketType::PubRel, one);
        peer.expect_nothing();
        peer.send(pubcomp(one));
        let two = id_of(&peer.expect_publish());
        peer.expect_nothing();
        peer.send(pubrec(two).reason(ReasonCode::UnspecifiedError.as_u8()));
        assert_eq!(peer.payloads(), ["2"]);
    });
}

/// MQTT 5: [MQTT-4.9.0-3].
#[test]
fn mqtt_3_3_4_10_at_the_receive_maximum_all_else_is_still_sent() {
    on_all(|bench| {
        let peer = subscriber(bench, p16(wire::RECEIVE_MAXIMUM, 1));
        publish(bench, 2, 1);
        let held = id_of(&peer.expect_publish());
        peer.expect_healthy();
        peer.send(Publish::new("elsewhere", "").qos2(1));
        peer.expect_ack(PacketType::PubRec, 1);
        peer.send(pubrel(1));
        peer.expect_ack(PacketType::PubComp, 1);
        peer.subscribe("other", 0);
        bench.client(Version::V5, "publisher").publish("other", "qos0", 0);
        assert_eq!(peer.payloads(), ["qos0"]);
        peer.unsubscribe("other");
        peer.send(puback(held));
        assert_eq!(peer.payloads(), ["1"]);
    });
}

/// The receive maximum belongs to a connection, not to the session.
#[test]
fn a_new_connection_brings_its_own_receive_maximum() {
    on_all(|bench| {
        let peer = subscriber(bench, p16(wire::RECEIVE_MAXIMUM, 5));
        publish(bench, 8, 1);
        for _ in 0..5 {
            peer.expect_publish();
        }
        peer.cut();
        let connect = Connect::persistent("subscriber").with(p16(wire::RECEIVE_MAXIMUM, 2));
        let peer = bench.accepted(Version::V5, &connect).0;
        let first = [peer.expect_publish(), peer.expect_publish()];
        peer.expect_nothing();
        for publish in &first {
            peer.send(puback(id_of(publish)));
        }
        assert_eq!(peer.payloads(), ["2", "3", "4", "5", "6", "7"]);
    });
}

/// The broker's side of [MQTT-3.2.2-15]: a packet above the server's maximum gets 0x95, however much of it is sent.
#[test]
fn mqtt_3_2_2_15_a_packet_above_the_server_s_maximum_is_refused() {
    on_all_with(
        |settings| settings.limits.packet_bytes_max = 100,
        |bench| {
            for version in [Version::V5, Version::V3_1_1] {
                let healthy = bench.client(version, "healthy");
                let peer = bench.client(version, "offender");
                peer.send(Publish::new("t", "x".repeat(200)));
                peer.expect_fault(ReasonCode::PacketTooLarge);
                let peer = bench.client(version, "offender");
                // The header alone says it.
                peer.send(vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
                peer.expect_fault(ReasonCode::PacketTooLarge);
                let peer = bench.client(version, "fine");
                let overhead = 2 + 3 + usize::from(version.is_v5());
                peer.send(Publish::new("t", "x".repeat(100 - overhead)));
                peer.expect_healthy();
                healthy.expect_healthy();
            }
        },
    );
}

/// A consumer that takes nothing off its connection loses QoS 0 first, keeps QoS 1 within its queue, and in the end its
/// connection; nobody else notices.
#[test]
fn a_stalled_consumer_hurts_only_itself() {
    on_all_with(
        |settings| {
            settings.slow_consumer.outbox_soft_bytes = 4096;
            settings.session.queued_messages_max = 100;
        },
        |bench| {
            let slow = subscriber(bench, Vec::new());
            let fast = bench.client(Version::V5, "fast");
            fast.subscribe("t/#", 2);
            slow.stall(true);
            let publisher = bench.client(Version::V5, "publisher");
            for n in 0..500 {
                publisher.publish("t/x", &format!("{n:0>100}"), u8::from(n % 2 == 0));
            }
            assert_eq!(fast.payloads().len(), 500);
            bench.advance(std::time::Duration::from_mins(1));
            assert!(slow.is_closed(), "nothing could be written for the stall timeout");
            fast.expect_healthy();
        },
    );
}

/// A lasting stream in both directions: windows open and shut, nothing is lost, all in order.
#[test]
fn a_small_window_delivers_everything_in_order() {
    on_all_versions(|bench, version| {
        let connect = Connect::persistent("subscriber").with(p16(wire::RECEIVE_MAXIMUM, 1));
        let peer = bench.accepted(version, &connect).0;
        peer.subscribe("t/#", 2);
        publish(bench, 200, 2);
        let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        assert_eq!(peer.payloads(), expected);
    });
}
