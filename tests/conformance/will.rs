//! The will: sections 3.1.2.5, 3.1.3.2 and 3.14.4.

use std::time::Duration;

use ferromq::codec::{ReasonCode, Version};

use crate::{
    harness::{Bench, Peer, on_all, on_all_versions, text},
    wire::{self, Connect, Will, p32, user},
};

/// A client that watches all topics that begin with `will`.
fn watcher(bench: &Bench, version: Version) -> Peer {
    let watcher = bench.client(version, "watcher");
    watcher.subscribe("will/#", 2);
    watcher
}

fn mortal(bench: &Bench, version: Version, will: Will) -> Peer {
    bench.accepted(version, &Connect::new("mortal").will(will)).0
}

/// MQTT 5: [MQTT-3.1.2-8]. MQTT 3.1.1: [MQTT-3.1.2-8].
#[test]
fn mqtt_3_1_2_7_the_will_is_published_when_the_connection_breaks() {
    on_all_versions(|bench, version| {
        let watcher = watcher(bench, version);
        mortal(bench, version, Will::new("will/a", "broken").qos(1)).cut();
        assert_eq!(text(&watcher.message().payload), "broken");
        mortal(bench, version, Will::new("will/a", "closed").qos(2)).hang_up();
        assert_eq!(text(&watcher.message().payload), "closed");
        let offender = mortal(bench, version, Will::new("will/a", "fault"));
        offender.send(vec![0x00, 0x00]);
        assert!(offender.is_closed());
        assert_eq!(text(&watcher.message().payload), "fault");
        watcher.expect_nothing();
    });
}

/// A client that is thrown out because another takes its session over has its will published, too, if the will has no
/// delay (section 3.1.2.5: the network connection is closed by the server).
#[test]
fn mqtt_3_1_2_8_a_takeover_publishes_a_will_without_delay() {
    on_all_versions(|bench, version| {
        let watcher = watcher(bench, version);
        mortal(bench, version, Will::new("will/a", "taken over"));
        let (_, _) = bench.accepted(version, &Connect::new("mortal"));
        assert_eq!(text(&watcher.message().payload), "taken over");
        watcher.expect_nothing();
    });
}

/// MQTT 5: [MQTT-3.14.4-3]. MQTT 3.1.1: [MQTT-3.1.2-10] [MQTT-3.14.4-3].
#[test]
fn mqtt_3_1_2_10_a_normal_disconnect_forgets_the_will() {
    on_all_versions(|bench, version| {
        let watcher = watcher(bench, version);
        let peer = mortal(bench, version, Will::new("will/a", "never"));
        peer.send(wire::disconnect());
        peer.expect_closed();
        bench.advance(Duration::from_secs(10));
        watcher.expect_nothing();

        // Published once, it is gone as well: the end of the next connection publishes nothing.
        mortal(bench, version, Will::new("will/a", "once")).cut();
        assert_eq!(text(&watcher.message().payload), "once");
        bench.accepted(version, &Connect::new("mortal")).0.cut();
        watcher.expect_nothing();
    });
}

#[test]
fn disconnect_with_will_message_publishes_it() {
    on_all(|bench| {
        let watcher = watcher(bench, Version::V5);
        let peer = mortal(bench, Version::V5, Will::new("will/a", "on purpose"));
        peer.send(wire::disconnect().reason(ReasonCode::DisconnectWithWill.as_u8()));
        peer.expect_closed();
        assert_eq!(text(&watcher.message().payload), "on purpose");
    });
}

#[test]
fn mqtt311_3_1_2_12_without_a_will_flag_no_will_is_published() {
    on_all_versions(|bench, version| {
        let watcher = bench.client(version, "watcher");
        watcher.subscribe("#", 2);
        bench.client(version, "mortal").cut();
        bench.advance(Duration::from_secs(10));
        watcher.expect_nothing();
    });
}

/// MQTT 3.1.1: [MQTT-3.1.2-16].
#[test]
fn mqtt_3_1_2_14_a_will_without_retain_is_not_retained() {
    on_all_versions(|bench, version| {
        let watcher = watcher(bench, version);
        mortal(bench, version, Will::new("will/a", "x")).cut();
        assert!(!watcher.message().retain);
        let late = bench.client(version, "late");
        late.subscribe("will/#", 0);
        late.expect_nothing();
    });
}

/// MQTT 3.1.1: [MQTT-3.1.2-17].
#[test]
fn mqtt_3_1_2_15_a_will_with_retain_is_retained() {
    on_all_versions(|bench, version| {
        mortal(bench, version, Will::new("will/a", "x").qos(1).retain()).cut();
        let late = bench.client(version, "late");
        late.subscribe("will/#", 1);
        let message = late.message();
        assert!(message.retain);
        assert_eq!((text(&message.payload).as_str(), message.qos as u8), ("x", 1));
    });
}

#[test]
fn mqtt_3_1_2_8_a_delayed_will_waits_for_the_delay_or_the_end_of_the_session() {
    on_all(|bench| {
        let watcher = watcher(bench, Version::V5);
        let will = |delay| Will::new("will/a", "late").with(p32(wire::WILL_DELAY, delay));
        for (delay, session, due) in [(10, 100, 10), (100, 10, 10), (10, 0, 0), (0, 100, 0), (7, 7, 7)] {
            let connect = Connect::new("mortal").with(p32(wire::SESSION_EXPIRY, session)).will(will(delay));
            bench.accepted(Version::V5, &connect).0.cut();
            if due > 0 {
                bench.advance(Duration::from_secs(due - 1));
                watcher.expect_nothing();
                bench.advance(Duration::from_secs(3));
            }
            assert_eq!(text(&watcher.message().payload), "late", "delay {delay}, session {session}");
            bench.advance(Duration::from_secs(200));
            watcher.expect_nothing();
        }
    });
}

#[test]
fn mqtt_3_1_3_9_a_new_connection_within_the_delay_cancels_the_will() {
    on_all(|bench| {
        let watcher = watcher(bench, Version::V5);
        let will = Will::new("will/a", "late").with(p32(wire::WILL_DELAY, 10));
        let connect = Connect::new("mortal").resume().with(p32(wire::SESSION_EXPIRY, 100));
        bench.accepted(Version::V5, &connect.clone().will(will)).0.cut();
        bench.advance(Duration::from_secs(5));
        let (peer, connack) = bench.accepted(Version::V5, &connect);
        assert!(connack.session_present);
        bench.advance(Duration::from_secs(100));
        watcher.expect_nothing();
        peer.cut();
        bench.advance(Duration::from_secs(200));
        watcher.expect_nothing();
    });
}

/// A clean start ends the old session, and with it the wait for the delay (section 3.1.3.2.2).
#[test]
fn a_clean_start_publishes_a_delayed_will_at_once() {
    on_all(|bench| {
        let watcher = watcher(bench, Version::V5);
        let will = Will::new("will/a", "session over").with(p32(wire::WILL_DELAY, 50));
        let connect = Connect::new("mortal").with(p32(wire::SESSION_EXPIRY, 100)).will(will);
        bench.accepted(Version::V5, &connect).0.cut();
        bench.accepted(Version::V5, &Connect::new("mortal"));
        assert_eq!(text(&watcher.message().payload), "session over");
    });
}

/// MQTT 5: [MQTT-3.3.2-17].
#[test]
fn mqtt_3_1_3_10_user_properties_of_a_will_keep_their_order() {
    on_all(|bench| {
        let watcher = watcher(bench, Version::V5);
        let will = Will::new("will/a", "x")
            .with(user("b", "1"))
            .with(user("a", "2"))
            .with(user("b", "1"))
            .with(wire::pstr(wire::CONTENT_TYPE, "text/plain"))
            .with(wire::pbin(wire::CORRELATION_DATA, b"id"))
            .with(p32(wire::WILL_DELAY, 0));
        mortal(bench, Version::V5, will).cut();
        let message = watcher.message();
        let properties: Vec<_> =
            message.properties.user_properties().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(properties, [("b", "1"), ("a", "2"), ("b", "1")]);
        assert_eq!(message.properties.content_type().map(ferromq::codec::Text::as_str), Some("text/plain"));
        assert_eq!(message.properties.correlation_data().map(|data| &data[..]), Some(&b"id"[..]));
        assert!(message.properties.iter().all(|p| !matches!(p, ferromq::codec::Property::WillDelayInterval(_))));
    });
}

/// Section 4.7.2: what a client may not publish, its will may not either.
#[test]
fn a_will_below_sys_is_refused() {
    on_all(|bench| {
        let connect = Connect::new("forger").will(Will::new("$SYS/broker/version", "forged").retain());
        bench.connect(Version::V5, &connect).expect_refused(ReasonCode::NotAuthorized);
        let old = bench.connect(Version::V3_1_1, &connect);
        assert_eq!(old.expect_connack().reason, ReasonCode::NotAuthorized);
        old.expect_closed();
        let (peer, _) = bench.accepted(Version::V5, &Connect::new("other").will(Will::new("$other/x", "fine")));
        peer.expect_healthy();
    });
}
