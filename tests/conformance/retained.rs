//! Retained messages: section 3.3.1.3.

use std::time::Duration;

use ferromq::codec::{QoS, Version};

use crate::{
    harness::{Bench, PUBLISH_ID, Peer, SUBSCRIBE_ID, on_all, on_all_versions, text},
    wire::{self, Connect, Publish, Subscribe, Unsubscribe, p32},
};

fn retain(bench: &Bench, version: Version, topic: &str, payload: &str, qos: u8) {
    let publisher = bench.client(version, "publisher");
    publisher.publish_with(Publish::new(topic, payload).qos(qos, PUBLISH_ID).retain(), qos);
}

/// What a new subscription to `filter` receives: topic, payload, QoS and RETAIN, sorted.
fn snapshot(bench: &Bench, version: Version, filter: &str) -> Vec<(String, String, QoS, bool)> {
    let late = bench.client(version, "late");
    late.subscribe(filter, 2);
    let seen = late.messages().into_iter();
    let mut seen: Vec<_> = seen.map(|m| (m.topic.as_str().to_owned(), text(&m.payload), m.qos, m.retain)).collect();
    seen.sort();
    seen
}

/// MQTT 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT-3.1.2-7].
#[test]
fn mqtt_3_3_1_5_retained_messages_are_kept_for_later_subscribers() {
    on_all_versions(|bench, version| {
        retain(bench, version, "a/1", "old", 0);
        retain(bench, version, "a/1", "new", 1);
        retain(bench, version, "a/2", "two", 2);
        bench.client(version, "publisher").hang_up();
        let (one, two) = (("a/1", "new", QoS::AtLeastOnce, true), ("a/2", "two", QoS::ExactlyOnce, true));
        let expected = [one, two].map(|(t, p, q, r)| (t.to_owned(), p.to_owned(), q, r));
        assert_eq!(snapshot(bench, version, "a/+"), expected);
        assert_eq!(snapshot(bench, version, "#"), expected);
        assert_eq!(snapshot(bench, version, "a/1"), expected[..1]);
        assert_eq!(snapshot(bench, version, "b/#"), []);
    });
}

#[test]
fn mqtt311_3_3_1_7_a_qos0_retained_message_replaces_the_one_there_was() {
    on_all_versions(|bench, version| {
        retain(bench, version, "t", "one", 1);
        retain(bench, version, "t", "zero", 0);
        assert_eq!(snapshot(bench, version, "t"), [("t".into(), "zero".into(), QoS::AtMostOnce, true)]);
    });
}

/// MQTT 5: [MQTT-3.3.1-7]. MQTT 3.1.1: [MQTT-3.3.1-10] [MQTT-3.3.1-11].
#[test]
fn mqtt_3_3_1_6_an_empty_payload_removes_the_retained_message() {
    on_all_versions(|bench, version| {
        retain(bench, version, "t", "x", 1);
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 1);
        subscriber.message();
        retain(bench, version, "t", "", 1);
        let message = subscriber.message();
        assert!(message.payload.is_empty() && !message.retain, "it is delivered like any other");
        assert_eq!(snapshot(bench, version, "t"), []);
        retain(bench, version, "never", "", 1);
        assert_eq!(snapshot(bench, version, "#"), []);
    });
}

/// MQTT 3.1.1: [MQTT-3.3.1-12].
#[test]
fn mqtt_3_3_1_8_without_retain_nothing_is_stored_or_replaced() {
    on_all_versions(|bench, version| {
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "plain", 1);
        assert_eq!(snapshot(bench, version, "t"), []);
        retain(bench, version, "t", "kept", 1);
        let publisher = bench.client(version, "publisher");
        publisher.publish("t", "plain", 1);
        publisher.publish("t", "", 1);
        assert_eq!(snapshot(bench, version, "t").len(), 1);
    });
}

/// Counts the retained messages that each SUBSCRIBE brings.
fn counts(peer: &Peer, filter: &str, options: u8) -> [usize; 3] {
    let first = subscribe_and_count(peer, filter, options);
    let again = subscribe_and_count(peer, filter, options);
    peer.send(Unsubscribe::new(1).filter(filter));
    peer.expect_unsuback(1);
    [first, again, subscribe_and_count(peer, filter, options)]
}

fn subscribe_and_count(peer: &Peer, filter: &str, options: u8) -> usize {
    peer.subscribe(filter, options);
    peer.payloads().len()
}

/// MQTT 5: [MQTT-3.8.4-4]. MQTT 3.1.1: [MQTT-3.8.4-3].
#[test]
fn mqtt_3_3_1_9_retain_handling_0_always_sends_retained_messages() {
    on_all_versions(|bench, version| {
        retain(bench, version, "t", "x", 1);
        let peer = bench.client(version, "subscriber");
        assert_eq!(counts(&peer, "t", 1), [1, 1, 1]);
    });
}

#[test]
fn mqtt_3_3_1_10_retain_handling_1_sends_them_for_new_subscriptions_only() {
    on_all(|bench| {
        retain(bench, Version::V5, "t", "x", 1);
        let peer = bench.client(Version::V5, "subscriber");
        assert_eq!(counts(&peer, "t", 1 | wire::RETAIN_IF_NEW), [1, 0, 1]);
        // A subscription that came back with its session is not new.
        let connect = Connect::persistent("returning");
        let (peer, _) = bench.accepted(Version::V5, &connect);
        assert_eq!(subscribe_and_count(&peer, "t", 1 | wire::RETAIN_IF_NEW), 1);
        peer.cut();
        let (peer, _) = bench.accepted(Version::V5, &connect);
        assert_eq!(subscribe_and_count(&peer, "t", 1 | wire::RETAIN_IF_NEW), 0);
    });
}

#[test]
fn mqtt_3_3_1_11_retain_handling_2_sends_none() {
    on_all(|bench| {
        retain(bench, Version::V5, "t", "x", 1);
        let peer = bench.client(Version::V5, "subscriber");
        assert_eq!(counts(&peer, "t", 1 | wire::RETAIN_NEVER), [0, 0, 0]);
    });
}

/// MQTT 3.1.1: [MQTT-3.3.1-9].
#[test]
fn mqtt_3_3_1_12_live_messages_have_retain_0() {
    on_all_versions(|bench, version| {
        let subscriber = bench.client(version, "subscriber");
        subscriber.subscribe("t", 1);
        retain(bench, version, "t", "x", 1);
        assert!(!subscriber.message().retain);
    });
}

#[test]
fn mqtt_3_3_1_13_retain_as_published_keeps_the_flag() {
    on_all(|bench| {
        let subscriber = bench.client(Version::V5, "subscriber");
        subscriber.subscribe("t", 1 | wire::RETAIN_AS_PUBLISHED);
        retain(bench, Version::V5, "t", "retained", 1);
        assert!(subscriber.message().retain);
        bench.client(Version::V5, "publisher").publish("t", "plain", 1);
        assert!(!subscriber.message().retain);
        retain(bench, Version::V5, "t", "", 1);
        assert!(subscriber.message().retain);
    });
}

#[test]
fn a_retained_message_expires_and_its_interval_counts_down() {
    on_all(|bench| {
        let publisher = bench.client(Version::V5, "publisher");
        publisher.send(Publish::new("t", "x").retain().with(p32(wire::MESSAGE_EXPIRY, 60)));
        bench.advance(Duration::from_secs(20));
        let late = bench.client(Version::V5, "late");
        late.subscribe("t", 0);
        assert_eq!(late.message().properties.message_expiry_interval(), Some(40));
        bench.advance(Duration::from_secs(50));
        late.subscribe("#", 0);
        late.expect_nothing();
    });
}

#[test]
fn retained_messages_carry_the_subscription_identifier_and_their_properties() {
    on_all(|bench| {
        let publisher = bench.client(Version::V5, "publisher");
        publisher.send(Publish::new("t", "x").retain().with(wire::user("k", "v")));
        let late = bench.client(Version::V5, "late");
        late.subscribe_with(Subscribe::new(SUBSCRIBE_ID).filter("t", 0).with(wire::pvar(wire::SUBSCRIPTION_ID, 9)));
        let message = late.message();
        assert_eq!(message.properties.subscription_identifiers().collect::<Vec<_>>(), [9]);
        assert_eq!(message.properties.user_properties().count(), 1);
    });
}

/// Section 3.3.1.3: a shared subscription receives no retained messages when it is made.
#[test]
fn shared_subscriptions_get_no_retained_messages() {
    on_all(|bench| {
        retain(bench, Version::V5, "t", "x", 1);
        let peer = bench.client(Version::V5, "subscriber");
        peer.subscribe("$share/g/t", 1);
        peer.expect_nothing();
    });
}
