//! A broker that is started anew over the same memory store goes on where the last one stopped.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ferromq::{
    codec::{Limits, Packet, Properties, Property, QoS, TopicName, Will},
    store::{MemoryStore, Store},
};

use crate::world::{World, ack, publish};

/// Runs a test over one and three shards, before and after.
fn on_all(test: impl Fn(&mut World, &dyn Fn(&mut World))) {
    for (before, after) in [(1, 1), (3, 3), (1, 3), (3, 1)] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut world = World::new(Arc::clone(&store), before);
        test(&mut world, &|world| world.start(Arc::clone(&store), after));
    }
}

fn payloads(packets: &[Packet]) -> Vec<(String, bool, bool)> {
    let of = |packet: &Packet| match packet {
        Packet::Publish(p) => Some((String::from_utf8(p.payload.to_vec()).unwrap(), p.dup, p.retain)),
        _ => None,
    };
    packets.iter().filter_map(of).collect()
}

fn was_present(packets: &[Packet]) -> bool {
    packets.iter().any(|packet| matches!(packet, Packet::ConnAck(connack) if connack.session_present))
}

fn sessions(world: &World) -> usize {
    world.shards.iter().map(|shard| shard.clients().len()).sum()
}

#[test]
fn a_session_resumes_with_queue_and_messages_in_flight() {
    on_all(|world, restart| {
        let alice = world.connect("alice", |_| {});
        let bob = world.connect("bob", |_| {});
        world.subscribe(bob, "t/+", QoS::AtLeastOnce);
        world.publish(alice, "t/1", "unacknowledged", QoS::AtLeastOnce, 1);
        world.carry_all();
        world.cut(bob);
        world.publish(alice, "t/1", "queued", QoS::AtLeastOnce, 2);
        world.carry_all();
        restart(world);
        let alice = world.connect("alice", |_| {});
        world.publish(alice, "t/1", "after", QoS::AtLeastOnce, 3);
        world.carry_all();
        let bob = world.connect("bob", |_| {});
        let packets = world.take(bob);
        assert!(was_present(&packets));
        let expected = [("unacknowledged", true), ("queued", false), ("after", false)];
        assert_eq!(payloads(&packets), expected.map(|(text, dup)| (text.to_owned(), dup, false)));
        (1..=3).for_each(|id| world.send(bob, &Packet::PubAck(ack(id))));
        world.carry_all();
        restart(world);
        let bob = world.connect("bob", |_| {});
        assert_eq!(payloads(&world.take(bob)), []);
    });
}

#[test]
fn a_received_qos2_identifier_is_remembered() {
    on_all(|world, restart| {
        let alice = world.connect("alice", |_| {});
        let bob = world.connect("bob", |_| {});
        world.subscribe(bob, "t", QoS::ExactlyOnce);
        world.publish(alice, "t", "once", QoS::ExactlyOnce, 7);
        world.carry_all();
        assert_eq!(payloads(&world.take(bob)).len(), 1);
        world.send(bob, &Packet::PubRec(ack(1)));
        restart(world);
        let alice = world.connect("alice", |_| {});
        let Packet::Publish(mut again) = publish("t", "once", QoS::ExactlyOnce, 7) else {
            unreachable!("it makes a PUBLISH")
        };
        again.dup = true;
        world.send(alice, &Packet::Publish(again));
        world.carry_all();
        assert!(world.take(alice).iter().any(|packet| matches!(packet, Packet::PubRec(_))));
        let bob = world.connect("bob", |_| {});
        let packets = world.take(bob);
        assert_eq!(payloads(&packets), []);
        assert!(matches!(packets.last(), Some(Packet::PubRel(ack)) if ack.packet_id.get() == 1));
    });
}

#[test]
fn retained_messages_are_there_and_removed_ones_are_not() {
    on_all(|world, restart| {
        let alice = world.connect("alice", |_| {});
        for (topic, payload, id) in [("a", "1", 1), ("b", "2", 2), ("a", "", 3)] {
            let Packet::Publish(mut retained) = publish(topic, payload, QoS::AtLeastOnce, id) else {
                unreachable!("it makes a PUBLISH")
            };
            retained.retain = true;
            world.send(alice, &Packet::Publish(retained));
        }
        restart(world);
        let bob = world.connect("bob", |_| {});
        world.subscribe(bob, "#", QoS::AtLeastOnce);
        assert_eq!(payloads(&world.take(bob)), [("2".to_owned(), false, true)]);
    });
}

#[test]
fn expiry_goes_on_while_the_broker_is_away() {
    on_all(|world, restart| {
        let short = world.connect("short", |connect| {
            connect.properties = [Property::SessionExpiryInterval(60)].into_iter().collect();
        });
        let ends = world.connect("ends", |connect| connect.properties = Properties::new());
        world.cut(short);
        world.advance(Duration::from_secs(40));
        assert!(world.is_open(ends));
        restart(world);
        assert_eq!(sessions(world), 1);
        world.advance(Duration::from_secs(15));
        assert_eq!(sessions(world), 1);
        world.advance(Duration::from_secs(6));
        assert_eq!(sessions(world), 0);
        restart(world);
        assert_eq!(sessions(world), 0);
    });
}

#[test]
fn a_message_expires_while_the_broker_is_away() {
    on_all(|world, restart| {
        let alice = world.connect("alice", |_| {});
        let bob = world.connect("bob", |_| {});
        world.subscribe(bob, "t", QoS::AtLeastOnce);
        world.cut(bob);
        for (payload, seconds, id) in [("short", 10, 1), ("long", 100, 2)] {
            let Packet::Publish(mut message) = publish("t", payload, QoS::AtLeastOnce, id) else {
                unreachable!("it makes a PUBLISH")
            };
            message.properties.push(Property::MessageExpiryInterval(seconds));
            world.send(alice, &Packet::Publish(message));
        }
        world.carry_all();
        world.now += Duration::from_secs(30);
        world.unix += Duration::from_secs(30);
        restart(world);
        let bob = world.connect("bob", |_| {});
        let packets = world.take(bob);
        assert_eq!(payloads(&packets), [("long".to_owned(), false, false)]);
        let left = packets.iter().find_map(|packet| match packet {
            Packet::Publish(publish) => publish.properties.message_expiry_interval(),
            _ => None,
        });
        assert_eq!(left, Some(70));
    });
}

#[test]
fn the_will_of_a_client_that_the_broker_left_is_published() {
    on_all(|world, restart| {
        let watcher = world.connect("watcher", |_| {});
        world.subscribe(watcher, "will", QoS::AtLeastOnce);
        world.connect("mortal", |connect| {
            connect.will = Some(Will {
                topic: TopicName::parse(ferromq::codec::Text::from_static("will"), &Limits::default()).unwrap(),
                payload: Bytes::from_static(b"gone"),
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: [Property::WillDelayInterval(5)].into_iter().collect(),
            });
        });
        restart(world);
        let watcher = world.connect("watcher", |_| {});
        world.advance(Duration::from_secs(4));
        world.carry_all();
        assert_eq!(payloads(&world.take(watcher)), []);
        world.advance(Duration::from_secs(1));
        world.carry_all();
        assert_eq!(payloads(&world.take(watcher)).len(), 1);
        restart(world);
        world.advance(Duration::from_mins(1));
        world.carry_all();
        let watcher = world.connect("watcher", |_| {});
        // Sent again because it was not acknowledged; not published again.
        assert_eq!(payloads(&world.take(watcher)), [("gone".to_owned(), true, false)]);
    });
}

#[test]
fn a_session_that_ended_is_gone() {
    on_all(|world, restart| {
        let bob = world.connect("bob", |_| {});
        world.subscribe(bob, "t", QoS::AtLeastOnce);
        world.connect("bob", |connect| {
            connect.clean_start = true;
            connect.properties = Properties::new();
        });
        restart(world);
        assert_eq!(sessions(world), 0);
        let bob = world.connect("bob", |_| {});
        assert!(!was_present(&world.take(bob)));
    });
}

#[test]
fn shared_subscriptions_come_back_with_their_group() {
    on_all(|world, restart| {
        let alice = world.connect("alice", |_| {});
        for name in ["one", "two"] {
            let member = world.connect(name, |_| {});
            world.subscribe(member, "$share/group/job", QoS::AtLeastOnce);
            world.cut(member);
        }
        world.publish(alice, "job", "early", QoS::AtLeastOnce, 1);
        world.carry_all();
        restart(world);
        let alice = world.connect("alice", |_| {});
        world.publish(alice, "job", "late", QoS::AtLeastOnce, 2);
        world.carry_all();
        let mut got = Vec::new();
        for name in ["one", "two"] {
            let member = world.connect(name, |_| {});
            got.extend(payloads(&world.take(member)).into_iter().map(|(payload, ..)| payload));
        }
        got.sort();
        assert_eq!(got, ["early", "late"]);
    });
}
