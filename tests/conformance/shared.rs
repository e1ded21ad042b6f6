//! Shared subscriptions: section 4.8.2.

use std::collections::HashMap;

use ferromq::codec::{PacketType, QoS, ReasonCode, Version};

use crate::{
    harness::{Bench, Peer, SUBSCRIBE_ID, on_all},
    wire::{self, Connect, Subscribe, p32, puback, pubcomp, pubrec},
};

fn members(bench: &Bench, filter: &str, qos: u8, count: usize) -> Vec<Peer> {
    let member = |n| {
        let peer = bench.accepted(Version::V5, &Connect::persistent(&format!("member{n}"))).0;
        peer.subscribe(filter, qos);
        peer
    };
    (0..count).map(member).collect()
}

fn publish(bench: &Bench, topic: &str, count: usize, qos: u8) {
    let publisher = bench.client(Version::V5, "publisher");
    for n in 0..count {
        publisher.publish(topic, &n.to_string(), qos);
    }
}

#[test]
fn mqtt_4_8_2_1_a_shared_filter_needs_a_share_name() {
    on_all(|bench| {
        for filter in ["$share//t", "$share/", "$share"] {
            let peer = bench.client(Version::V5, "offender");
            peer.send(Subscribe::new(1).filter(filter, 0));
            if filter == "$share" {
                // That is an ordinary filter of one level.
                assert_eq!(peer.expect_suback(1).reasons, [ReasonCode::Success]);
            } else {
                peer.expect_disconnect(ReasonCode::TopicFilterInvalid);
            }
        }
    });
}

#[test]
fn mqtt_4_8_2_2_a_share_name_has_no_wildcards_and_is_followed_by_a_filter() {
    on_all(|bench| {
        for filter in ["$share/g+/t", "$share/+/t", "$share/#/t", "$share/g#/t", "$share/g", "$share/g/"] {
            let peer = bench.client(Version::V5, "offender");
            peer.send(Subscribe::new(1).filter(filter, 0));
            peer.expect_disconnect(ReasonCode::TopicFilterInvalid);
        }
        let peer = bench.client(Version::V5, "fine");
        assert_eq!(peer.subscribe("$share/g/a/+/#", 0), ReasonCode::Success);
    });
}

#[test]
fn each_message_goes_to_one_member_of_each_group() {
    on_all(|bench| {
        let first = members(bench, "$share/first/t/#", 1, 3);
        let outsider = bench.client(Version::V5, "outsider");
        outsider.subscribe("$share/second/t/#", 1);
        outsider.subscribe("$share/first/+/x", 1);
        publish(bench, "t/x", 30, 1);
        let mut seen: HashMap<String, usize> = HashMap::new();
        for member in &first {
            let payloads = member.payloads();
            assert!(!payloads.is_empty(), "round-robin leaves nobody out");
            for payload in payloads {
                *seen.entry(payload).or_default() += 1;
            }
        }
        assert!(seen.len() == 30 && seen.values().all(|count| *count == 1), "{seen:?}");
        // A group is a name and a filter: the outsider is alone in two other groups.
        assert_eq!(outsider.payloads().len(), 60);
    });
}

#[test]
fn mqtt_4_8_2_3_each_member_receives_with_its_own_granted_qos() {
    on_all(|bench| {
        let peers: Vec<Peer> = (0..3).map(|n| bench.client(Version::V5, &format!("member{n}"))).collect();
        for (qos, peer) in peers.iter().enumerate() {
            peer.subscribe("$share/g/t", qos as u8);
        }
        publish(bench, "t", 9, 2);
        for (qos, peer) in peers.iter().enumerate() {
            let messages = peer.messages();
            assert!(!messages.is_empty());
            assert!(messages.iter().all(|message| message.qos as usize == qos));
        }
    });
}

#[test]
fn mqtt_4_8_2_4_a_qos2_delivery_is_completed_with_the_member_it_began_with() {
    on_all(|bench| {
        let peers = members(bench, "$share/g/t", 2, 2);
        publish(bench, "t", 2, 2);
        let sent = peers[0].expect_publish();
        let other = peers[1].expect_publish();
        peers[0].cut();
        bench.advance(std::time::Duration::from_secs(10));
        peers[1].expect_nothing();
        let back = bench.accepted(Version::V5, &Connect::persistent("member0")).0;
        let repeated = back.message();
        assert_eq!((repeated.payload, repeated.packet_id, repeated.dup), (sent.payload, sent.packet_id, true));
        assert_eq!(other.qos, QoS::ExactlyOnce);
        back.expect_nothing();
    });
}

#[test]
fn mqtt_4_8_2_5_a_qos2_delivery_ends_with_the_session_of_its_member() {
    on_all(|bench| {
        let connect = Connect::new("mortal").with(p32(wire::SESSION_EXPIRY, 5));
        let mortal = bench.accepted(Version::V5, &connect).0;
        mortal.subscribe("$share/g/t", 2);
        publish(bench, "t", 1, 2);
        mortal.expect_publish();
        let other = bench.client(Version::V5, "other");
        other.subscribe("$share/g/t", 2);
        mortal.cut();
        bench.advance(std::time::Duration::from_secs(20));
        other.expect_nothing();
        publish(bench, "t", 1, 2);
        assert_eq!(other.payloads().len(), 1);
    });
}

#[test]
fn mqtt_4_8_2_6_a_refused_message_goes_to_no_other_member() {
    on_all(|bench| {
        let peers = members(bench, "$share/g/t", 2, 2);
        publish(bench, "t", 2, 1);
        publish(bench, "t", 2, 2);
        for peer in &peers {
            let one = peer.expect_publish().packet_id.expect("QoS 1").get();
            let two = peer.expect_publish().packet_id.expect("QoS 2").get();
            peer.send(puback(one).reason(ReasonCode::UnspecifiedError.as_u8()));
            peer.send(pubrec(two).reason(ReasonCode::QuotaExceeded.as_u8()));
        }
        peers.iter().for_each(Peer::expect_nothing);
        peers.iter().for_each(Peer::cut);
        for n in 0..2 {
            bench.accepted(Version::V5, &Connect::persistent(&format!("member{n}"))).0.expect_nothing();
        }
    });
}

/// Section 4.8.2 allows it, and this broker does it: QoS 1 work that a member leaves behind goes to another.
#[test]
fn unacknowledged_qos1_work_of_a_member_that_leaves_goes_to_another() {
    on_all(|bench| {
        let leaver = bench.client(Version::V5, "leaver");
        leaver.subscribe("$share/g/t", 1);
        publish(bench, "t", 3, 1);
        let stayer = bench.client(Version::V5, "stayer");
        stayer.subscribe("$share/g/t", 1);
        for _ in 0..3 {
            leaver.expect_publish();
        }
        leaver.cut();
        assert_eq!(stayer.payloads(), ["0", "1", "2"]);
    });
}

#[test]
fn a_member_that_unsubscribes_completes_what_began_and_gets_no_more() {
    on_all(|bench| {
        let peers = members(bench, "$share/g/t", 2, 2);
        publish(bench, "t", 2, 2);
        let id = peers[0].expect_publish().packet_id.expect("QoS 2").get();
        peers[0].unsubscribe("$share/g/t");
        peers[0].send(pubrec(id));
        peers[0].expect_ack(PacketType::PubRel, id);
        peers[0].send(pubcomp(id));
        publish(bench, "t", 4, 1);
        peers[0].expect_nothing();
        assert_eq!(peers[1].payloads().len(), 1 + 4);
    });
}

/// A shared and a plain subscription of one client are two subscriptions: both deliver.
#[test]
fn shared_and_plain_subscriptions_are_independent() {
    on_all(|bench| {
        let peer = bench.client(Version::V5, "peer");
        peer.subscribe_with(Subscribe::new(SUBSCRIBE_ID).filter("t", 1).with(wire::pvar(wire::SUBSCRIPTION_ID, 1)));
        peer.subscribe_with(
            Subscribe::new(SUBSCRIBE_ID).filter("$share/g/t", 1).with(wire::pvar(wire::SUBSCRIPTION_ID, 2)),
        );
        publish(bench, "t", 1, 1);
        let mut ids: Vec<u32> =
            peer.messages().iter().flat_map(|m| m.properties.subscription_identifiers().collect::<Vec<_>>()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
        peer.unsubscribe("t");
        publish(bench, "t", 1, 1);
        assert_eq!(peer.payloads().len(), 1);
    });
}

/// A client of MQTT 3.1.1 may use shared subscriptions as well: the filter is all it takes.
#[test]
fn clients_of_3_1_1_may_share() {
    on_all(|bench| {
        let peers = ["a", "b"].map(|id| {
            let peer = bench.client(Version::V3_1_1, id);
            assert_eq!(peer.subscribe("$share/g/t", 1), ReasonCode::GrantedQoS1);
            peer
        });
        publish(bench, "t", 10, 1);
        assert_eq!(peers.iter().map(|peer| peer.payloads().len()).sum::<usize>(), 10);
    });
}
