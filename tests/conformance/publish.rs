//! Sections 3.3 to 3.7, 4.3 to 4.6: PUBLISH, its acknowledgements, the QoS exchanges, order.

use std::{sync::Arc, time::Duration};

use ferromq::{
    auth::{Access, Authenticator, Authorizer, ConnectInfo, OwnedAccess, Permit, Verdict},
    broker::{Event, EventSink, Hooks},
    codec::{Packet, PacketType, QoS, ReasonCode, Version},
};

use crate::{
    harness::{Bench, Peer, on_all, on_all_hooked, on_all_versions, text},
    wire::{self, Connect, Publish, Subscribe, Wire, p32, packet, pstr, puback, pubcomp, pubrec, pubrel},
};

/// A persistent client that subscribes to `t` with this QoS.
fn persistent(bench: &Bench, version: Version, qos: u8) -> Peer {
    let peer = bench.accepted(version, &Connect::persistent("subscriber")).0;
    peer.subscribe("t", qos);
    peer
}

/// The same client, connected anew.
fn again(bench: &Bench, version: Version) -> Peer {
    bench.accepted(version, &Connect::persistent("subscriber")).0
}

/// MQTT 5: [MQTT-3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2]. MQTT 3.1.1: [MQTT-3.3.1-1] [MQTT-3.3.1-3].
#[test]
fn mqtt_3_3_1_1_dup_is_set_on_a_repeated_publish_and_on_no_other() {
    on_all_versions(|bench, version| {
        let subscriber = persistent(bench, version, 2);
        let publisher = bench.client(version, "publisher");
        // DUP of the incoming packet says nothing about the outgoing one.
        publisher.send(Publish::new("t", "one").qos1(1).dup());
        publisher.send(Publish::new("t", "two").qos2(2).dup());
        let first: Vec<_> = (0..2).map(|_| subscriber.expect_publish()).collect();
        assert!(first.iter().all(|publish| !publish.dup));
        subscriber.cut();
        let subscriber = again(bench, version);
        for sent in first {
            let repeated = subscriber.expect_publish();
            assert!(repeated.dup);
            assert_eq!((repeated.packet_id, repeated.payload), (sent.packet_id, sent.payload));
        }
    });
}

/// MQTT 5: [MQTT-4.3.1-1]. MQTT 3.1.1: [MQTT-3.3.1-2] [MQTT-4.3.1-1].
#[test]
fn mqtt_3_3_1_2_qos0_has_dup_0_both_ways() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 0);
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "x", 1);
        let publish = subscriber.expect_publish();
        assert_eq!((publish.qos, publish.dup, publish.packet_id), (QoS::AtMostOnce, false, None));
        publisher.send(Publish::new("t", "x").dup());
        publisher.expect_fault(ReasonCode::MalformedPacket);
        subscriber.expect_nothing();
    });
}

/// MQTT 3.1.1: [MQTT-3.3.1-4].
#[test]
fn mqtt_3_3_1_4_qos_3_is_malformed() {
    on_all_versions(|bench, version| {
        for flags in [0x06, 0x07, 0x0E, 0x0F] {
            let mut bytes = Publish::new("t", "").qos1(1).wire(version);
            bytes[0] = 0x30 | flags;
            let peer = bench.client(version, "offender");
            peer.send(bytes);
            peer.expect_fault(ReasonCode::MalformedPacket);
        }
    });
}

/// MQTT 3.1.1: [MQTT-3.3.2-3].
#[test]
fn mqtt_3_3_2_3_the_topic_delivered_is_the_topic_published() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("a/+/c/#", 0);
        let publisher = bench.client(version, "publisher");
        for topic in ["a/b/c", "a//c/d", "a/$x/c/d/e", "a/b/c/"] {
            publisher.publish(topic, "", 0);
            assert_eq!(subscriber.expect_publish().topic.as_str(), topic);
        }
        for topic in ["a/b/d", "b/b/c", "a/b", "a/b/b/c"] {
            publisher.publish(topic, "", 0);
        }
        subscriber.expect_nothing();
    });
}

/// MQTT 5: [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]. MQTT 3.1.1: [MQTT-3.3.4-1].
#[test]
fn mqtt_3_3_4_1_a_publish_is_answered_as_its_qos_demands() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "publisher");
        peer.send(Publish::new("t", ""));
        peer.expect_nothing();
        peer.send(Publish::new("t", "").qos1(7));
        peer.expect_ack(PacketType::PubAck, 7);
        peer.send(Publish::new("t", "").qos2(8));
        peer.expect_ack(PacketType::PubRec, 8);
        peer.expect_nothing();
        peer.send(pubrel(8));
        peer.expect_ack(PacketType::PubComp, 8);
        peer.expect_nothing();
    });
}

/// MQTT 5: [MQTT-3.5.2-1] [MQTT-3.7.2-1].
#[test]
fn mqtt_3_4_2_1_acknowledgements_use_the_codes_listed_for_them() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "publisher");
        peer.send(Publish::new("nobody", "").qos1(1));
        assert_eq!(peer.expect_ack(PacketType::PubAck, 1).reason, ReasonCode::NoMatchingSubscribers);
        peer.send(Publish::new("nobody", "").qos2(2));
        assert_eq!(peer.expect_ack(PacketType::PubRec, 2).reason, ReasonCode::NoMatchingSubscribers);
        peer.send(pubrel(2));
        assert_eq!(peer.expect_ack(PacketType::PubComp, 2).reason, ReasonCode::Success);
        peer.send(pubrel(2));
        assert_eq!(peer.expect_ack(PacketType::PubComp, 2).reason, ReasonCode::PacketIdentifierNotFound);
        peer.subscribe("t", 0);
        peer.send(Publish::new("t", "").qos1(3));
        assert!(matches!(peer.next(), Some(Packet::Publish(_) | Packet::PubAck(_))));

        // Codes that are not listed are refused in the other direction.
        for (header, code) in [(0x40, 0x92), (0x50, 0x92), (0x62, 0x10), (0x70, 0x10), (0x40, 0x01), (0x62, 0xFF)] {
            let offender = bench.client(Version::V5, "offender");
            offender.send(packet(header, &[0, 1, code]));
            offender.expect_disconnect(ReasonCode::ProtocolError);
        }
    });
}

/// A PUBREC for a message the server does not know is answered with PUBREL 0x92, and the connection lives.
#[test]
fn mqtt_3_6_2_1_pubrel_says_when_the_identifier_is_unknown() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "peer");
        peer.send(pubrec(99));
        assert_eq!(peer.expect_ack(PacketType::PubRel, 99).reason, ReasonCode::PacketIdentifierNotFound);
        peer.expect_healthy();
    });
}

/// Acknowledgements that fit nothing are ignored: a duplicate or a late one must not hurt (section 4.3).
#[test]
fn unknown_acknowledgements_do_no_harm() {
    on_all_versions(|bench, version| {
        let peer = bench.client(version, "peer");
        peer.send(puback(5));
        peer.send(pubcomp(6));
        peer.expect_healthy();
    });
}

/// MQTT 5: [MQTT-4.3.2-3] [MQTT-4.4.0-1]. MQTT 3.1.1: [MQTT-4.3.2-1] [MQTT-4.4.0-1] [MQTT-2.3.1-4].
#[test]
fn mqtt_4_3_2_1_a_qos1_message_is_unacknowledged_until_its_puback() {
    on_all_versions(|bench, version| {
        let subscriber = persistent(bench, version, 1);
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "one", 1);
        publisher.publish("t", "two", 1);
        let one = subscriber.expect_publish().packet_id.expect("QoS 1").get();
        let two = subscriber.expect_publish().packet_id.expect("QoS 1").get();
        assert_ne!(one, two, "an identifier in use is not used again");
        bench.advance(Duration::from_hours(1));
        subscriber.expect_nothing();
        subscriber.send(puback(one));
        subscriber.cut();

        let subscriber = again(bench, version);
        let repeated = subscriber.message();
        assert_eq!((repeated.packet_id.map(std::num::NonZeroU16::get), repeated.dup), (Some(two), true));
        subscriber.expect_nothing();
        subscriber.cut();
        again(bench, version).expect_nothing();
    });
}

/// MQTT 3.1.1: [MQTT-4.3.2-2].
#[test]
fn mqtt_4_3_2_5_after_puback_the_identifier_means_a_new_message() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 0);
        let publisher = bench.client(version, "publisher");
        publisher.send(Publish::new("t", "one").qos1(1));
        publisher.send(Publish::new("t", "two").qos1(1).dup());
        assert_eq!(subscriber.payloads(), ["one", "two"]);
    });
}

/// MQTT 5: [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6]. MQTT 3.1.1: [MQTT-4.3.3-1].
#[test]
fn mqtt_4_3_3_1_the_sender_of_qos2_repeats_publish_until_pubrec_and_pubrel_until_pubcomp() {
    on_all_versions(|bench, version| {
        let subscriber = persistent(bench, version, 2);
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "one", 2);
        let sent = subscriber.expect_publish();
        let id = sent.packet_id.expect("QoS 2").get();
        assert!(!sent.dup);
        subscriber.cut();

        let subscriber = again(bench, version);
        let repeated = subscriber.expect_publish();
        assert_eq!((repeated.packet_id, repeated.dup), (sent.packet_id, true));
        subscriber.send(pubrec(id));
        subscriber.expect_ack(PacketType::PubRel, id);
        subscriber.cut();

        let subscriber = again(bench, version);
        subscriber.expect_ack(PacketType::PubRel, id);
        subscriber.expect_nothing();
        publisher.publish("t", "two", 2);
        let two = subscriber.expect_publish();
        assert_ne!(two.packet_id, sent.packet_id, "the identifier is in use until PUBCOMP");
        subscriber.send(pubcomp(id));
        subscriber.cut();

        let subscriber = again(bench, version);
        assert_eq!(subscriber.payloads(), ["two"]);
        subscriber.cut();
        again(bench, version).expect_nothing();
    });
}

#[test]
fn mqtt_4_3_3_7_a_qos2_message_once_sent_does_not_expire() {
    on_all(|bench| {
        let subscriber = persistent(bench, Version::V5, 2);
        let publisher = bench.client(Version::V5, "publisher");
        publisher.publish_with(
            Publish::new("t", "x").qos2(crate::harness::PUBLISH_ID).with(p32(wire::MESSAGE_EXPIRY, 5)),
            2,
        );
        let id = subscriber.expect_publish().packet_id.expect("QoS 2").get();
        subscriber.cut();
        bench.advance(Duration::from_mins(1));
        let subscriber = again(bench, Version::V5);
        assert_eq!(subscriber.message().packet_id.map(std::num::NonZeroU16::get), Some(id));
    });
}

/// MQTT 5: [MQTT-4.3.3-12]. MQTT 3.1.1: [MQTT-4.3.3-2].
#[test]
fn mqtt_4_3_3_10_a_repeated_qos2_publish_is_acknowledged_and_not_delivered_again() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 0);
        let connect = Connect::persistent("publisher");
        let publisher = bench.accepted(version, &connect).0;
        publisher.send(Publish::new("t", "once").qos2(1));
        publisher.expect_ack(PacketType::PubRec, 1);
        publisher.send(Publish::new("t", "once").qos2(1).dup());
        assert!(!publisher.expect_ack(PacketType::PubRec, 1).reason.is_error());
        publisher.cut();
        // The identifier is part of the session: the repetition may come on another connection.
        let publisher = bench.accepted(version, &connect).0;
        publisher.send(Publish::new("t", "once").qos2(1).dup());
        assert!(!publisher.expect_ack(PacketType::PubRec, 1).reason.is_error());
        assert_eq!(subscriber.payloads(), ["once"]);
        publisher.send(pubrel(1));
        publisher.expect_ack(PacketType::PubComp, 1);
        publisher.send(Publish::new("t", "new").qos2(1));
        publisher.expect_ack(PacketType::PubRec, 1);
        assert_eq!(subscriber.payloads(), ["new"]);
    });
}

#[test]
fn mqtt_4_3_3_9_after_a_failing_pubrec_the_identifier_means_a_new_message() {
    on_all_hooked(
        |_| {},
        hooks,
        |bench| {
            let subscriber = bench.client(Version::V5, "subscriber");
            subscriber.subscribe("#", 0);
            let publisher = bench.client(Version::V5, "publisher");
            publisher.send(Publish::new("forbidden", "x").qos2(1));
            assert_eq!(publisher.expect_ack(PacketType::PubRec, 1).reason, ReasonCode::NotAuthorized);
            publisher.send(Publish::new("allowed", "y").qos2(1));
            assert_eq!(publisher.expect_ack(PacketType::PubRec, 1).reason, ReasonCode::Success);
            assert_eq!(subscriber.payloads(), ["y"]);
            publisher.send(Publish::new("forbidden", "x").qos1(2));
            assert_eq!(publisher.expect_ack(PacketType::PubAck, 2).reason, ReasonCode::NotAuthorized);
        },
    );
}

#[test]
fn mqtt311_3_3_5_2_a_publication_that_is_not_authorised_is_acknowledged_or_ends_the_connection() {
    on_all_hooked(
        |_| {},
        hooks,
        |bench| {
            let subscriber = bench.client(Version::V3_1_1, "subscriber");
            subscriber.subscribe("#", 0);
            for qos in [1, 2] {
                let publisher = bench.client(Version::V3_1_1, "publisher");
                publisher.send(Publish::new("forbidden", "x").qos(qos, 1));
                let answer = publisher.next().map(|packet| packet.packet_type());
                assert!(
                    matches!(answer, Some(PacketType::PubAck | PacketType::PubRec)) || publisher.is_closed(),
                    "QoS {qos}: {answer:?}"
                );
            }
            subscriber.expect_nothing();
        },
    );
}

/// MQTT 3.1.1: [MQTT-4.3.2-2] [MQTT-3.10.4-1]. It has no code for an identifier in use, so nothing may be acknowledged that
/// is not done.
#[test]
fn mqtt311_an_identifier_of_an_unreleased_message_hides_nothing() {
    on_all(|bench| {
        for version in [Version::V3_1, Version::V3_1_1] {
            let subscriber = bench.client(version, "subscriber");
            subscriber.subscribe("t", 0);
            let publisher = bench.client(version, "publisher");
            publisher.subscribe("own", 0);
            publisher.send(Publish::new("t", "first").qos2(7));
            publisher.expect_ack(PacketType::PubRec, 7);
            publisher.send(Publish::new("t", "second").qos1(7));
            publisher.expect_ack(PacketType::PubAck, 7);
            assert_eq!(subscriber.payloads(), ["first", "second"]);
            publisher.send(wire::Unsubscribe::new(7).filter("own"));
            publisher.expect_unsuback(7);
            subscriber.publish("own", "x", 0);
            publisher.expect_nothing();
            publisher.send(pubrel(7));
            publisher.expect_ack(PacketType::PubComp, 7);
        }
    });
}

/// Panics over whatever is called `broken`.
#[derive(Debug)]
struct Clumsy;

impl Authenticator for Clumsy {
    fn authenticate(&self, info: &ConnectInfo) -> Verdict {
        assert!(info.client_id.as_str() != "broken", "this panic is part of the test");
        Verdict::Accept
    }
}

impl Authorizer for Clumsy {
    fn authorize(&self, _: &ConnectInfo, access: Access<'_>) -> Permit {
        let (Access::Publish { topic: name, .. } | Access::Subscribe { filter: name, .. }) = access;
        assert!(name != "broken", "this panic is part of the test");
        Permit::Allow
    }
}

impl EventSink for Clumsy {
    fn event(&self, _: &Event<'_>) {
        panic!("this panic is part of the test");
    }
}

#[test]
fn a_hook_that_panics_refuses_and_hurts_nobody_else() {
    let clumsy = || Hooks {
        authenticator: Some(Arc::new(Clumsy)),
        authorizer: Some(Arc::new(Clumsy)),
        events: Some(Arc::new(Clumsy)),
        ..Hooks::default()
    };
    on_all_hooked(
        |_| {},
        clumsy,
        |bench| {
            let subscriber = bench.client(Version::V5, "subscriber");
            subscriber.subscribe("#", 0);
            assert_eq!(subscriber.subscribe("broken", 0), ReasonCode::NotAuthorized);
            let refused = bench.connect(Version::V5, &Connect::new("broken"));
            refused.expect_refused(ReasonCode::UnspecifiedError);
            let publisher = bench.client(Version::V5, "publisher");
            assert_eq!(publisher.publish("broken", "x", 1), ReasonCode::NotAuthorized);
            publisher.publish("whole", "y", 1);
            assert_eq!(subscriber.payloads(), ["y"]);
        },
    );
}

/// An authorizer that never knows at once.
#[derive(Debug)]
struct Slow;

impl Authorizer for Slow {
    fn authorize(&self, _: &ConnectInfo, access: Access<'_>) -> Permit {
        match access {
            Access::Publish { topic: "open", .. } => Permit::Allow,
            _ => Permit::Defer,
        }
    }
}

fn slow() -> Hooks {
    Hooks { authorizer: Some(Arc::new(Slow)), ..Hooks::default() }
}

/// What a client sent behind the packet in question waits with it, and nothing is asked or counted twice.
#[test]
fn a_connection_waits_at_the_packet_that_an_authorizer_has_to_think_about() {
    on_all_hooked(
        |_| {},
        slow,
        |bench| {
            for version in [Version::V5, Version::V3_1_1] {
                let subscriber = bench.client(version, "subscriber");
                subscriber.send(Subscribe::new(1).filter("no", 0).filter("#", 2).filter("$share/g/x", 0));
                subscriber.expect_nothing();
                assert_eq!(bench.permit_deferred(|access| filter(access) != "no").len(), 3);
                let failure = if version.is_v5() { ReasonCode::NotAuthorized } else { ReasonCode::UnspecifiedError };
                let granted = [failure, ReasonCode::GrantedQoS2, ReasonCode::Success];
                assert_eq!(subscriber.expect_suback(1).reasons, granted);
                let publisher = bench.client(version, "publisher");
                let mut bytes = Publish::new("open", "first").wire(version);
                bytes.extend(Publish::new("may", "second").qos2(1).wire(version));
                bytes.extend(Publish::new("may", "third").qos1(2).wire(version));
                bytes.extend(Publish::new("not", "fourth").qos1(3).wire(version));
                bytes.extend(Publish::new("open", "fifth").wire(version));
                publisher.send_split(bytes, 5);
                assert_eq!(subscriber.payloads(), ["first"]);
                assert_eq!(bench.permit_deferred(|access| filter(access) == "may").len(), 1);
                publisher.expect_ack(PacketType::PubRec, 1);
                publisher.expect_ack(PacketType::PubAck, 2);
                assert_eq!(subscriber.payloads(), ["second", "third"], "what is allowed is remembered");
                assert_eq!(bench.permit_deferred(|access| filter(access) == "may").len(), 1);
                let refused = publisher.expect_ack(PacketType::PubAck, 3).reason;
                assert_eq!(refused, if version.is_v5() { ReasonCode::NotAuthorized } else { ReasonCode::Success });
                assert_eq!(subscriber.payloads(), ["fifth"]);
                assert_eq!(bench.permit_deferred(|_| false).len(), 0);
            }
        },
    );
}

/// Knows at once what it has been asked before.
#[derive(Debug, Default)]
struct Learning(std::sync::Mutex<Vec<String>>);

impl Authorizer for Learning {
    fn authorize(&self, _: &ConnectInfo, access: Access<'_>) -> Permit {
        let (Access::Publish { topic: name, .. } | Access::Subscribe { filter: name, .. }) = access;
        let mut known = self.0.lock().expect("one thread");
        if known.iter().any(|known| known == name) {
            return Permit::Allow;
        }
        known.push(name.into());
        Permit::Defer
    }
}

/// An answer is for the packet that was asked about, and for no later one.
#[test]
fn an_answer_is_used_once_and_for_what_was_asked() {
    let learning = || Hooks { authorizer: Some(Arc::new(Learning::default())), ..Hooks::default() };
    on_all_hooked(
        |_| {},
        learning,
        |bench| {
            let peer = bench.client(Version::V5, "c");
            peer.send(Publish::new("first", "").qos1(1));
            assert_eq!(bench.permit_deferred(|_| true).len(), 1);
            peer.expect_ack(PacketType::PubAck, 1);
            peer.send(Publish::new("second", "").qos1(2));
            assert_eq!(bench.permit_deferred(|_| false).len(), 1, "asked anew");
            assert_eq!(peer.expect_ack(PacketType::PubAck, 2).reason, ReasonCode::NotAuthorized);
            peer.send(Subscribe::new(3).filter("first", 0).filter("third", 0).filter("fourth", 0));
            assert_eq!(bench.permit_deferred(|access| filter(access) == "fourth").len(), 2);
            let expected = [ReasonCode::Success, ReasonCode::NotAuthorized, ReasonCode::Success];
            assert_eq!(peer.expect_suback(3).reasons, expected);
        },
    );
}

#[test]
fn who_may_not_publish_his_will_is_not_let_in() {
    let connect = |id: &str| Connect::new(id).will(wire::Will::new("will", "gone").qos(1));
    on_all_hooked(
        |_| {},
        slow,
        |bench| {
            let watcher = bench.client(Version::V5, "watcher");
            watcher.send(Subscribe::new(1).filter("will", 1));
            bench.permit_deferred(|_| true);
            watcher.expect_suback(1);
            let refused = bench.connect(Version::V5, &connect("refused"));
            refused.expect_nothing();
            assert_eq!(bench.permit_deferred(|_| false).len(), 1);
            refused.expect_refused(ReasonCode::NotAuthorized);
            watcher.expect_nothing();
            let allowed = bench.connect(Version::V5, &connect("allowed"));
            assert_eq!(bench.permit_deferred(|_| true).len(), 1);
            allowed.expect_connack();
            allowed.cut();
            assert_eq!(watcher.payloads(), ["gone"]);
            // Gone before the answer: nothing is left of it.
            bench.connect(Version::V5, &connect("impatient")).cut();
            bench.permit_deferred(|_| true);
            watcher.expect_nothing();
            assert_eq!(bench.sessions(), 1);
        },
    );
    on_all_hooked(
        |_| {},
        hooks,
        |bench| {
            let forbidden = Connect::new("c").will(wire::Will::new("forbidden", "gone"));
            bench.connect(Version::V5, &forbidden).expect_refused(ReasonCode::NotAuthorized);
        },
    );
}

fn filter(access: &OwnedAccess) -> &str {
    let (OwnedAccess::Publish { topic: name, .. } | OwnedAccess::Subscribe { filter: name, .. }) = access;
    name
}

fn hooks() -> Hooks {
    Hooks { authorizer: Some(Arc::new(Forbid)), ..Hooks::default() }
}

/// Nobody may publish to, or subscribe to, `forbidden`.
#[derive(Debug)]
struct Forbid;

impl Authorizer for Forbid {
    fn authorize(&self, _: &ConnectInfo, access: Access<'_>) -> Permit {
        let (Access::Publish { topic: name, .. } | Access::Subscribe { filter: name, .. }) = access;
        Permit::from(name != "forbidden")
    }
}

#[test]
fn a_subscription_that_is_not_authorised_fails_in_the_suback() {
    on_all_hooked(
        |_| {},
        hooks,
        |bench| {
            for (version, failure) in
                [(Version::V5, ReasonCode::NotAuthorized), (Version::V3_1_1, ReasonCode::UnspecifiedError)]
            {
                let peer = bench.client(version, "subscriber");
                peer.send(Subscribe::new(1).filter("forbidden", 0).filter("allowed", 0));
                assert_eq!(peer.expect_suback(1).reasons, [failure, ReasonCode::Success]);
                peer.expect_healthy();
            }
        },
    );
}

#[test]
fn mqtt_4_3_3_13_expiry_does_not_stop_an_incoming_qos2_exchange() {
    on_all(|bench| {
        let publisher = bench.accepted(Version::V5, &Connect::persistent("publisher")).0;
        publisher.send(Publish::new("t", "x").qos2(1).with(p32(wire::MESSAGE_EXPIRY, 1)));
        publisher.expect_ack(PacketType::PubRec, 1);
        bench.advance(Duration::from_secs(10));
        publisher.send(Publish::new("t", "x").qos2(1).dup());
        publisher.expect_ack(PacketType::PubRec, 1);
        publisher.send(pubrel(1));
        assert_eq!(publisher.expect_ack(PacketType::PubComp, 1).reason, ReasonCode::Success);
    });
}

#[test]
fn mqtt_4_4_0_2_a_failing_acknowledgement_ends_the_message() {
    on_all(|bench| {
        let subscriber = persistent(bench, Version::V5, 2);
        let publisher = bench.client(Version::V5, "publisher");
        publisher.publish("t", "one", 1);
        publisher.publish("t", "two", 2);
        let one = subscriber.expect_publish().packet_id.expect("QoS 1").get();
        let two = subscriber.expect_publish().packet_id.expect("QoS 2").get();
        subscriber.send(puback(one).reason(ReasonCode::UnspecifiedError.as_u8()));
        subscriber.send(pubrec(two).reason(ReasonCode::QuotaExceeded.as_u8()));
        subscriber.expect_nothing();
        subscriber.cut();
        again(bench, Version::V5).expect_nothing();
    });
}

/// MQTT 5: [MQTT-4.6.0-6]. MQTT 3.1.1: [MQTT-4.6.0-5] [MQTT-4.6.0-6].
#[test]
fn mqtt_4_6_0_5_messages_are_delivered_in_the_order_received() {
    on_all_versions(|bench, version| {
        for qos in [0, 1, 2] {
            let subscriber = bench.client(version, "subscriber");
            subscriber.subscribe("t/+", qos);
            let publisher = bench.client(version, "publisher");
            let other = bench.client(version, "other publisher");
            for n in 0..100 {
                // Order holds per publisher and topic [MQTT-4.6.0-6].
                publisher.publish(&format!("t/{}", n % 3), &format!("{n}"), qos);
                other.publish(&format!("t/{}", n % 3), &format!("{}", 1000 + n), qos);
            }
            let received: Vec<u32> = subscriber.payloads().iter().map(|payload| payload.parse().unwrap()).collect();
            assert_eq!(received.len(), 200);
            for (first, topic) in [(0, 0), (0, 1), (0, 2), (1000, 0), (1000, 1), (1000, 2)] {
                let of_both = |n: &u32| (first..first + 100).contains(n) && (n - first) % 3 == topic;
                let order: Vec<u32> = received.iter().copied().filter(of_both).collect();
                assert_eq!(order, (first..first + 100).filter(of_both).collect::<Vec<_>>());
            }
        }
    });
}

/// The order of sending is the order of resending, unacknowledged messages before queued ones.
#[test]
fn resent_messages_keep_their_order_and_come_before_new_ones() {
    on_all_versions(|bench, version| {
        let subscriber = persistent(bench, version, 2);
        let publisher = bench.client(version, "publisher");
        for n in 0..10 {
            publisher.publish("t", &n.to_string(), 1 + n % 2);
        }
        let ids: Vec<u16> = (0..10).map(|_| subscriber.expect_publish().packet_id.expect("QoS > 0").get()).collect();
        subscriber.send(puback(ids[2]));
        subscriber.cut();
        publisher.publish("t", "queued", 1);
        let subscriber = again(bench, version);
        assert_eq!(subscriber.payloads(), ["0", "1", "3", "4", "5", "6", "7", "8", "9", "queued"]);
    });
}

#[test]
fn mqtt_3_3_2_4_properties_of_the_message_are_passed_on() {
    on_all(|bench| {
        let subscriber = bench.client(Version::V5, "subscriber");
        subscriber.subscribe("t", 1);
        let publisher = bench.client(Version::V5, "publisher");
        publisher.send(
            Publish::new("t", "payload")
                .qos1(1)
                .with(wire::p8(wire::PAYLOAD_FORMAT, 1))
                .with(pstr(wire::CONTENT_TYPE, "text/plain"))
                .with(pstr(wire::RESPONSE_TOPIC, "answer/here"))
                .with(wire::pbin(wire::CORRELATION_DATA, &[0, 255, 1])),
        );
        let properties = subscriber.message().properties;
        assert_eq!(properties.payload_format_indicator(), Some(1));
        assert_eq!(properties.content_type().map(ferromq::codec::Text::as_str), Some("text/plain"));
        assert_eq!(properties.response_topic().map(ferromq::codec::Text::as_str), Some("answer/here"));
        assert_eq!(properties.correlation_data().map(|data| data.to_vec()), Some(vec![0, 255, 1]));
        publisher.send(Publish::new("t", "payload").with(wire::p8(wire::PAYLOAD_FORMAT, 0)));
        assert!(matches!(subscriber.message().properties.payload_format_indicator(), None | Some(0)));
    });
}

/// MQTT 5: [MQTT-3.3.2-16] [MQTT-3.3.2-20]. They reach subscribers of shards and sessions alike, also when queued.
#[test]
fn mqtt_3_3_2_15_properties_survive_the_queue_of_a_client_that_is_away() {
    on_all(|bench| {
        persistent(bench, Version::V5, 1).cut();
        bench.client(Version::V5, "publisher").send(
            Publish::new("t", "payload")
                .qos1(1)
                .with(pstr(wire::RESPONSE_TOPIC, "answer"))
                .with(wire::pbin(wire::CORRELATION_DATA, b"7"))
                .with(pstr(wire::CONTENT_TYPE, "a/b")),
        );
        let properties = again(bench, Version::V5).message().properties;
        assert_eq!(properties.response_topic().map(ferromq::codec::Text::as_str), Some("answer"));
        assert_eq!(properties.correlation_data().map(|data| data.to_vec()), Some(b"7".to_vec()));
        assert_eq!(properties.content_type().map(ferromq::codec::Text::as_str), Some("a/b"));
    });
}

/// MQTT 5: [MQTT-3.3.2-18].
#[test]
fn mqtt_3_3_2_17_user_properties_are_passed_on_in_their_order() {
    on_all(|bench| {
        let subscriber = bench.client(Version::V5, "subscriber");
        subscriber.subscribe("t", 1);
        let pairs = [("z", "1"), ("a", "2"), ("z", "1"), ("", ""), ("ü", "\u{1F680}")];
        let publish =
            pairs.iter().fold(Publish::new("t", ""), |publish, (name, value)| publish.with(wire::user(name, value)));
        subscriber.send(publish);
        let message = subscriber.message();
        let passed: Vec<_> = message.properties.user_properties().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(passed, pairs);
    });
}

#[test]
fn mqtt_3_3_2_5_a_message_that_waited_too_long_is_deleted() {
    on_all(|bench| {
        persistent(bench, Version::V5, 1).cut();
        let publisher = bench.client(Version::V5, "publisher");
        publisher.send(Publish::new("t", "short").qos1(1).with(p32(wire::MESSAGE_EXPIRY, 5)));
        publisher.send(Publish::new("t", "long").qos1(2).with(p32(wire::MESSAGE_EXPIRY, 500)));
        publisher.send(Publish::new("t", "ever").qos1(3));
        bench.advance(Duration::from_secs(10));
        assert_eq!(again(bench, Version::V5).payloads(), ["long", "ever"]);
    });
}

#[test]
fn mqtt_3_3_2_6_the_expiry_interval_is_reduced_by_the_time_spent_waiting() {
    on_all(|bench| {
        persistent(bench, Version::V5, 1).cut();
        let publisher = bench.client(Version::V5, "publisher");
        publisher.send(Publish::new("t", "x").qos1(1).with(p32(wire::MESSAGE_EXPIRY, 100)));
        bench.advance(Duration::from_secs(30));
        let subscriber = again(bench, Version::V5);
        assert_eq!(subscriber.message().properties.message_expiry_interval(), Some(70));
        publisher.send(Publish::new("t", "x").qos1(1).with(p32(wire::MESSAGE_EXPIRY, 100)));
        assert_eq!(subscriber.message().properties.message_expiry_interval(), Some(100));
        publisher.send(Publish::new("t", "x").qos1(1));
        assert_eq!(subscriber.message().properties.message_expiry_interval(), None);
    });
}

/// A packet type that only a server sends, sent by a client, is a protocol error.
#[test]
fn packets_of_a_server_are_refused_from_a_client() {
    on_all_versions(|bench, version| {
        let none = wire::properties(version, &[]);
        let suback = packet(0x90, &[vec![0, 1], none.clone(), vec![0]].concat());
        let unsuback = match version {
            Version::V5 => packet(0xB0, &[vec![0, 1], none.clone(), vec![0]].concat()),
            _ => packet(0xB0, &[0, 1]),
        };
        let connack = packet(0x20, &[vec![0, 0], none].concat());
        for bytes in [connack, suback, unsuback, vec![0xD0, 0]] {
            let peer = bench.client(version, "offender");
            peer.send(bytes);
            peer.expect_fault(ReasonCode::ProtocolError);
        }
    });
}

/// A payload may be anything, of any length, and is passed on as it is.
#[test]
fn payloads_are_opaque() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 2);
        let publisher = bench.client(version, "publisher");
        let all: Vec<u8> = (0..=255).collect();
        for payload in [vec![], vec![0], all.clone(), all.repeat(1000)] {
            publisher.send(Publish::new("t", &payload).qos1(1));
            assert_eq!(subscriber.message().payload.to_vec(), payload);
        }
        publisher.send(Publish::new("t", "text"));
        assert_eq!(text(&subscriber.message().payload), "text");
    });
}

/// A retained message that waits for the window and is replaced meanwhile must not come after its successor.
#[test]
fn a_retained_message_that_was_replaced_is_not_sent_after_the_newer_one() {
    on_all(|bench| {
        let publisher = bench.client(Version::V5, "publisher");
        for n in 0..5 {
            publisher.publish_with(Publish::new(&format!("r/{n}"), "old").retain().qos1(1), 1);
        }
        let connect = Connect::persistent("subscriber").with(wire::p16(wire::RECEIVE_MAXIMUM, 1));
        let subscriber = bench.accepted(Version::V5, &connect).0;
        subscriber.subscribe("r/+", 1);
        let first = subscriber.expect_publish();
        for n in 0..5 {
            publisher.publish_with(Publish::new(&format!("r/{n}"), "new").retain().qos1(1), 1);
        }
        subscriber.send(puback(first.packet_id.expect("QoS 1").get()));
        let rest = subscriber.messages();
        for n in 0..5 {
            let topic = format!("r/{n}");
            let of_topic: Vec<String> = rest
                .iter()
                .filter(|message| message.topic.as_str() == topic)
                .map(|message| text(&message.payload))
                .collect();
            assert_eq!(of_topic.last().map(String::as_str), Some("new"), "{topic}: {of_topic:?}");
        }
    });
}
