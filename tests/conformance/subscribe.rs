//! Sections 3.8 to 3.12: SUBSCRIBE, UNSUBSCRIBE and their answers; PINGREQ.

use ferromq::codec::{Packet, PacketType, QoS, ReasonCode, Version};

use crate::{
    harness::{PUBLISH_ID, SUBSCRIBE_ID, on_all, on_all_versions, on_all_with, text},
    wire::{self, Connect, Publish, Subscribe, Unsubscribe, Wire, packet, puback, pubcomp, pubrec, string},
};

/// MQTT 3.1.1: [MQTT-3.8.3-3].
#[test]
fn mqtt_3_8_3_2_a_subscribe_holds_at_least_one_filter() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "offender");
        peer.send(Subscribe::new(1));
        peer.expect_fault(ReasonCode::ProtocolError);
    });
}

#[test]
fn mqtt_3_8_3_3_no_local_keeps_a_client_s_own_messages_from_it() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "peer");
        peer.subscribe("t", 1 | wire::NO_LOCAL);
        peer.publish("t", "own", 1);
        peer.expect_nothing();
        bench.client(Version::V5, "other").publish("t", "other's", 1);
        assert_eq!(peer.payloads(), ["other's"]);
        peer.subscribe("t", 1);
        peer.publish("t", "own", 1);
        assert_eq!(peer.payloads(), ["own"]);
    });
}

/// No Local is about the client identifier: messages published on an earlier connection are the client's own, too.
#[test]
fn no_local_holds_across_connections() {
    on_all(|bench| {
        let connect = Connect::persistent("peer");
        let peer = bench.accepted(Version::V5, &connect).0;
        peer.subscribe("t", 1 | wire::NO_LOCAL);
        peer.cut();
        let peer = bench.accepted(Version::V5, &connect).0;
        peer.publish("t", "own", 1);
        peer.expect_nothing();
    });
}

#[test]
fn mqtt_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "offender");
        peer.send(Subscribe::new(1).filter("$share/group/t", wire::NO_LOCAL));
        peer.expect_disconnect(ReasonCode::ProtocolError);
    });
}

/// Retain handling 3 is a protocol error; QoS 3 and the two highest bits make the packet malformed.
#[test]
fn mqtt_3_8_3_5_reserved_option_bits_are_malformed() {
    on_all(|bench| {
        for (options, reason) in [
            (0x40, ReasonCode::MalformedPacket),
            (0x80, ReasonCode::MalformedPacket),
            (0xC1, ReasonCode::MalformedPacket),
            (0x03, ReasonCode::ProtocolError),
            (0x30, ReasonCode::ProtocolError),
        ] {
            let peer = bench.client(Version::V5, "offender");
            peer.send(Subscribe::new(1).filter("t", options));
            peer.expect_disconnect(reason);
        }
    });
}

/// MQTT 3.1.1: [MQTT-3-8.3-4].
#[test]
fn mqtt311_3_8_3_4_reserved_bits_and_qos_3_close_the_connection() {
    on_all(|bench| {
        for options in [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF] {
            let peer = bench.client(Version::V3_1_1, "offender");
            peer.send(Subscribe::new(1).filter("t", options));
            peer.expect_closed();
        }
    });
}

#[test]
fn mqtt311_3_8_3_2_wildcards_are_refused_where_they_are_not_supported() {
    on_all_with(
        |settings| settings.capabilities.wildcard_subscription_available = false,
        |bench| {
            let peer = bench.client(Version::V3_1_1, "subscriber");
            peer.send(Subscribe::new(1).filter("a/#", 0).filter("a/b", 0).filter("+", 0));
            let failure = ReasonCode::UnspecifiedError;
            assert_eq!(peer.expect_suback(1).reasons, [failure, ReasonCode::Success, failure]);
        },
    );
}

/// MQTT 5: [MQTT-3.8.4-6] [MQTT-3.8.4-7]. MQTT 3.1.1: [MQTT-3.8.4-1] [MQTT-3.8.4-5].
#[test]
fn mqtt_3_8_4_1_every_subscribe_is_answered_with_the_granted_qos() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "subscriber");
        for (qos, granted) in [(0, ReasonCode::Success), (1, ReasonCode::GrantedQoS1), (2, ReasonCode::GrantedQoS2)] {
            assert_eq!(peer.subscribe("t", qos), granted);
        }
    });
}

/// MQTT 3.1.1: [MQTT-3.8.4-3].
#[test]
fn mqtt_3_8_4_3_the_same_filter_replaces_the_subscription() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "subscriber");
        peer.subscribe("t", 2);
        peer.subscribe("t", 0);
        bench.client(version, "publisher").publish("t", "x", 2);
        assert_eq!(peer.expect_publish().qos, QoS::AtMostOnce);
        peer.expect_nothing();
        peer.unsubscribe("t");
        bench.client(version, "publisher").publish("t", "x", 2);
        peer.expect_nothing();
    });
}

/// MQTT 5: [MQTT-3.9.3-1] [MQTT-3.9.3-2]. MQTT 3.1.1: [MQTT-3.8.4-4] [MQTT-3.9.3-1] [MQTT-3.9.3-2].
#[test]
fn mqtt_3_8_4_5_many_filters_are_answered_together_and_in_order() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "subscriber");
        peer.send(Subscribe::new(1).filter("a", 2).filter("b", 0).filter("c", 1).filter("a", 1));
        let granted = [ReasonCode::GrantedQoS2, ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1];
        assert_eq!(peer.expect_suback(1).reasons, granted);
        peer.expect_nothing();
        let publisher = bench.client(version, "publisher");
        publisher.publish("a", "x", 2);
        assert_eq!(peer.message().qos, QoS::AtLeastOnce, "the last of the same filters counts");
        peer.expect_nothing();
    });
}

/// MQTT 3.1.1: [MQTT-3.8.4-6].
#[test]
fn mqtt_3_8_4_8_delivery_uses_the_lesser_qos() {
    on_all_versions(|bench, version| {
        for granted in 0..=2 {
            let subscriber = bench.client(version, "subscriber");
            subscriber.subscribe("t", granted);
            let publisher = bench.client(version, "publisher");
            for published in 0..=2 {
                publisher.publish("t", "x", published);
                assert_eq!(subscriber.message().qos as u8, granted.min(published));
            }
        }
    });
}

/// MQTT 5: [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3]
/// [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3].
#[test]
fn mqtt_3_9_2_1_no_answer_exceeds_the_maximum_packet_size() {
    on_all_with(
        |settings| settings.capabilities.shared_subscription_available = false,
        |bench| {
            let mut explained = 0;
            for maximum in 20..60 {
                let connect = Connect::new("small").with(wire::p32(wire::MAXIMUM_PACKET_SIZE, maximum));
                let peer = bench.connect(Version::V5, &connect);
                peer.send(Subscribe::new(1).filter("$share/g/t", 1).filter("t", 2));
                peer.send(Unsubscribe::new(2).filter("nothing"));
                peer.send(Publish::new("x", "").qos1(3));
                peer.send(Publish::new("x", "").qos2(4));
                // These are refused with a reason string, as far as there is room for one.
                peer.send(Publish::new("$SYS/x", "").qos1(7));
                peer.send(Publish::new("$SYS/x", "").qos2(8));
                peer.send(wire::pubrel(4));
                peer.send(wire::pubrel(5));
                peer.send(pubrec(6));
                while let Some((packet, size)) = peer.next_sized() {
                    assert!(size <= maximum as usize, "{packet:?} of {size} bytes, maximum {maximum}");
                    if let Packet::PubAck(ack) | Packet::PubRec(ack) = &packet
                        && ack.reason == ReasonCode::NotAuthorized
                    {
                        let text = ack.properties.reason_string().map_or(0, |text| text.len());
                        explained += usize::from(text > 0);
                        assert!(text > 0 || size + 4 + REFUSAL_BYTES > maximum as usize, "there was room at {maximum}");
                    }
                }
                assert!(!peer.is_closed());
            }
            assert!(explained > 0, "no answer ever had a reason string to leave out");
        },
    );
}

/// MQTT 3.1.1: [MQTT-3.10.3-2].
#[test]
fn mqtt_3_10_3_2_an_unsubscribe_holds_at_least_one_filter() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "offender");
        peer.send(Unsubscribe::new(1));
        peer.expect_fault(ReasonCode::ProtocolError);
    });
}

/// MQTT 5: [MQTT-3.10.4-2]. MQTT 3.1.1: [MQTT-3.10.4-1] [MQTT-3.10.4-2].
#[test]
fn mqtt_3_10_4_1_filters_to_unsubscribe_are_compared_byte_by_byte() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        let publisher = bench.client(version, "publisher");
        subscriber.subscribe("a/+", 0);
        for other in ["a/b", "a/#", "A/+", "a/+/", "#"] {
            subscriber.unsubscribe(other);
        }
        publisher.publish("a/b", "still", 0);
        assert_eq!(subscriber.payloads(), ["still"]);
        subscriber.unsubscribe("a/+");
        publisher.publish("a/b", "gone", 0);
        subscriber.expect_nothing();
    });
}

/// MQTT 3.1.1: [MQTT-3.10.4-3].
#[test]
fn mqtt_3_10_4_3_deliveries_that_began_are_completed() {
    on_all_versions(|bench, version| {
        let connect = Connect::persistent("subscriber");
        let subscriber = bench.accepted(version, &connect).0;
        subscriber.subscribe("t", 2);
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "one", 1);
        publisher.publish("t", "two", 2);
        let one = subscriber.expect_publish().packet_id.expect("QoS 1").get();
        let two = subscriber.expect_publish().packet_id.expect("QoS 2").get();
        subscriber.unsubscribe("t");
        subscriber.send(pubrec(two));
        subscriber.expect_ack(PacketType::PubRel, two);
        subscriber.cut();
        let subscriber = bench.accepted(version, &connect).0;
        assert_eq!(text(&subscriber.expect_publish().payload), "one");
        subscriber.expect_ack(PacketType::PubRel, two);
        subscriber.send(puback(one));
        subscriber.send(pubcomp(two));
        subscriber.cut();
        bench.accepted(version, &connect).0.expect_nothing();
    });
}

/// MQTT 5: [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]. MQTT 3.1.1: [MQTT-3.10.4-5] [MQTT-3.10.4-6].
#[test]
fn mqtt_3_10_4_4_every_unsubscribe_is_answered_once_and_in_order() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "subscriber");
        peer.send(Subscribe::new(1).filter("a", 0).filter("b", 0));
        peer.expect_suback(1);
        peer.send(Unsubscribe::new(2).filter("x").filter("a").filter("b").filter("b"));
        let none = ReasonCode::NoSubscriptionExisted;
        let reasons = peer.expect_unsuback(2).reasons;
        if version.is_v5() {
            assert_eq!(reasons, [none, ReasonCode::Success, ReasonCode::Success, none]);
        }
        peer.publish("a", "", 0);
        peer.publish("b", "", 0);
        peer.expect_nothing();
    });
}

/// MQTT 3.1.1: [MQTT-3.12.4-1].
#[test]
fn mqtt_3_12_4_1_pingreq_is_answered_with_pingresp() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "peer");
        for _ in 0..3 {
            peer.expect_healthy();
        }
    });
}

/// MQTT 5: [MQTT-3.3.4-3] [MQTT-3.3.4-4]. MQTT 3.1.1: [MQTT-3.3.5-1].
#[test]
fn mqtt_3_3_4_2_overlapping_subscriptions_deliver_with_the_greatest_qos_and_all_identifiers() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "subscriber");
        for (filter, qos, id) in [("a/b", 0, 1), ("a/+", 2, 2), ("a/#", 1, 3), ("#", 0, 268_435_455), ("c", 2, 9)] {
            let subscribe = Subscribe::new(SUBSCRIBE_ID).filter(filter, qos);
            let with_id = subscribe.clone().with(wire::pvar(wire::SUBSCRIPTION_ID, id));
            peer.subscribe_with(if version.is_v5() { with_id } else { subscribe });
        }
        bench.client(version, "publisher").publish("a/b", "x", 2);
        let copies = peer.messages();
        assert_eq!(copies.iter().map(|copy| copy.qos).max(), Some(QoS::ExactlyOnce));
        assert!(copies.len() == 1 || copies.len() == 4, "one copy, or one for each subscription");
        if version.is_v5() {
            let mut ids: Vec<u32> = copies.iter().flat_map(|c| c.properties.subscription_identifiers()).collect();
            ids.sort_unstable();
            assert_eq!(ids, [1, 2, 3, 268_435_455]);
        }
    });
}

/// Section 3.8.3.1: the identifier belongs to the subscription, and a replacement replaces it or takes it away.
#[test]
fn a_replaced_subscription_has_the_new_identifier_or_none() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "peer");
        for id in [Some(7), Some(8), None] {
            let subscribe = Subscribe::new(SUBSCRIBE_ID).filter("t", 0);
            let subscribe = id.into_iter().fold(subscribe, |s, id| s.with(wire::pvar(wire::SUBSCRIPTION_ID, id)));
            peer.subscribe_with(subscribe);
            peer.publish("t", "", 0);
            let ids: Vec<u32> = peer.message().properties.subscription_identifiers().collect();
            assert_eq!(ids, id.into_iter().collect::<Vec<_>>());
        }
    });
}

/// The broker's side of [MQTT-3.3.4-6].
#[test]
fn mqtt_3_3_4_6_a_client_s_publish_has_no_subscription_identifier() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "offender");
        peer.send(Publish::new("t", "").with(wire::pvar(wire::SUBSCRIPTION_ID, 1)));
        peer.expect_disconnect(ReasonCode::ProtocolError);
    });
}

#[test]
fn subscription_identifier_zero_and_two_identifiers_are_protocol_errors() {
    on_all(|bench| {
        let one = wire::pvar(wire::SUBSCRIPTION_ID, 1);
        for property in [wire::pvar(wire::SUBSCRIPTION_ID, 0), [one.clone(), one.clone()].concat()] {
            let peer = bench.client(Version::V5, "offender");
            peer.send(Subscribe::new(1).filter("t", 0).with(property));
            peer.expect_disconnect(ReasonCode::ProtocolError);
        }
    });
}

/// Subscriptions beyond the limit are refused one by one with 0x97, and those there are stay.
#[test]
fn subscriptions_are_bounded() {
    on_all_with(
        |settings| settings.session.subscriptions_max = 2,
        |bench| {
            let peer = bench.client(Version::V5, "greedy");
            peer.send(Subscribe::new(1).filter("a", 0).filter("b", 0).filter("c", 0).filter("a", 1));
            let granted =
                [ReasonCode::Success, ReasonCode::Success, ReasonCode::QuotaExceeded, ReasonCode::GrantedQoS1];
            assert_eq!(peer.expect_suback(1).reasons, granted);
            peer.unsubscribe("b");
            assert_eq!(peer.subscribe("c", 0), ReasonCode::Success);
        },
    );
}

/// Deep topics and long ones are refused at the limits that the settings name.
#[test]
fn topics_beyond_the_limits_are_refused() {
    on_all_with(
        |settings| settings.limits.topic_levels_max = 4,
        |bench| {
            let healthy = bench.client(Version::V5, "healthy");
            let peer = bench.client(Version::V5, "deep");
            peer.send(Publish::new("a/b/c/d/e", "").qos(1, PUBLISH_ID));
            let ended = peer.received();
            assert!(!ended.is_empty(), "the publisher is told");
            let peer = bench.client(Version::V5, "deep");
            peer.send(Subscribe::new(1).filter("a/b/c/d/e", 0));
            assert!(!peer.received().is_empty(), "the subscriber is told");
            assert_eq!(healthy.subscribe("a/b/c/d", 0), ReasonCode::Success);
        },
    );
}

/// An UNSUBSCRIBE in a form that only its length gives away.
#[test]
fn truncated_filters_are_malformed() {
    on_all_versions(|bench, version| {
        let none = wire::properties(version, &[]);
        let head = [vec![0, 1], none].concat();
        let subscribe = [head.clone(), string("t")].concat();
        let unsubscribe = [head, vec![0, 9, b't']].concat();
        for bytes in [packet(0x82, &subscribe), packet(0xA2, &unsubscribe), packet(0x82, &[0]), packet(0xA2, &[])] {
            let peer = bench.client(version, "offender");
            peer.send(bytes);
            peer.expect_fault(ReasonCode::MalformedPacket);
        }
        let whole = Subscribe::new(1).filter("t", 0).wire(version);
        bench.client(version, "fine").send(whole);
    });
}

#[test]
fn the_sys_topics_are_there_from_the_start() {
    on_all_with(
        |settings| settings.sys_interval = Some(std::time::Duration::from_secs(10)),
        |bench| {
            bench.advance(std::time::Duration::ZERO);
            let peer = bench.client(Version::V5, "reader");
            peer.subscribe("$SYS/broker/version", 0);
            assert!(peer.message().retain);
        },
    );
}

/// The text with which publishing below `$SYS` is refused.
const REFUSAL_BYTES: usize = "only the server publishes below $SYS".len();
