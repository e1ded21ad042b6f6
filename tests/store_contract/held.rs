//! What waits for which commit.

use std::sync::Arc;

use ferromq::{
    codec::{Packet, PacketType, QoS},
    store::{LogId, Store},
};

use crate::{
    delayed::Delayed,
    world::{World, ack},
};

/// A publisher, and a subscriber with a session; both connected, everything so far committed and read.
fn pair(shards: usize, store: &Arc<Delayed>) -> (World, usize, usize) {
    let mut world = World::new(Arc::clone(store) as Arc<dyn Store>, shards);
    settle(&mut world, store);
    let publisher = world.connect("publisher", |_| {});
    // With several shards, a subscriber that lives elsewhere.
    let mut n = 0;
    let subscriber = loop {
        let line = world.connect(&format!("subscriber-{n}"), |_| {});
        if shards == 1 || world.shard_of(line) != world.shard_of(publisher) {
            break line;
        }
        n += 1;
    };
    world.subscribe(subscriber, "t/#", QoS::ExactlyOnce);
    settle(&mut world, store);
    world.take(publisher);
    world.take(subscriber);
    (world, publisher, subscriber)
}

fn settle(world: &mut World, store: &Delayed) {
    for _ in 0..8 {
        store.commit_all();
        world.committed();
        world.carry_all();
    }
}

fn types(world: &mut World, line: usize) -> Vec<(PacketType, u16)> {
    let of = |packet: Packet| {
        let id = match &packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                ack.packet_id.get()
            }
            Packet::Publish(publish) => publish.packet_id.map_or(0, std::num::NonZeroU16::get),
            Packet::SubAck(suback) => suback.packet_id.get(),
            _ => 0,
        };
        (packet.packet_type(), id)
    };
    world.take(line).into_iter().map(of).collect()
}

#[test]
fn puback_waits_for_its_own_batch_and_keeps_its_place() {
    let store = Arc::new(Delayed::default());
    let (mut world, publisher, subscriber) = pair(1, &store);
    world.publish(publisher, "t/1", "a", QoS::AtLeastOnce, 1);
    world.publish(publisher, "t/1", "b", QoS::AtLeastOnce, 2);
    // Nobody wants this one, but its PUBACK must not overtake.
    world.publish(publisher, "nobody", "c", QoS::AtLeastOnce, 3);
    assert_eq!(types(&mut world, publisher), []);
    // QoS 1 goes out at once: should the broker crash, its publisher sends it again.
    assert_eq!(types(&mut world, subscriber), [(PacketType::Publish, 1), (PacketType::Publish, 2)]);
    assert!(store.commit(LogId(0)));
    assert_eq!(types(&mut world, publisher), []);
    world.committed();
    assert_eq!(types(&mut world, publisher), [(PacketType::PubAck, 1)]);
    assert!(store.commit(LogId(0)));
    world.committed();
    assert_eq!(types(&mut world, publisher), [(PacketType::PubAck, 2), (PacketType::PubAck, 3)]);
}

#[test]
fn puback_waits_for_what_another_shard_stores() {
    let store = Arc::new(Delayed::default());
    let (mut world, publisher, subscriber) = pair(3, &store);
    world.publish(publisher, "t/1", "a", QoS::AtLeastOnce, 1);
    world.carry_all();
    assert_eq!(types(&mut world, subscriber), [(PacketType::Publish, 1)]);
    assert_eq!(types(&mut world, publisher), []);
    assert!(store.commit(LogId(world.shard_of(subscriber) as u8)));
    world.committed();
    assert_eq!(types(&mut world, publisher), []);
    world.carry_all();
    assert_eq!(types(&mut world, publisher), [(PacketType::PubAck, 1)]);
}

#[test]
fn what_nobody_stores_is_acknowledged_at_once() {
    let store = Arc::new(Delayed::default());
    let (mut world, publisher, _) = pair(1, &store);
    let passing = world.connect("passing", |connect| {
        connect.properties = ferromq::codec::Properties::new();
        connect.clean_start = true;
    });
    world.subscribe(passing, "live/#", QoS::AtLeastOnce);
    world.take(passing);
    world.publish(publisher, "live/1", "a", QoS::AtLeastOnce, 1);
    assert_eq!(types(&mut world, passing), [(PacketType::Publish, 1)]);
    assert_eq!(types(&mut world, publisher), [(PacketType::PubAck, 1)]);
}

#[test]
fn a_qos2_exchange_goes_step_by_step_with_the_commits() {
    for shards in [1, 3] {
        let store = Arc::new(Delayed::default());
        let (mut world, publisher, subscriber) = pair(shards, &store);
        let next = |world: &mut World, line: usize, expected: (PacketType, u16)| {
            world.carry_all();
            assert_eq!(types(world, line), [], "{expected:?} waits, {shards} shards");
            settle(world, &store);
            assert_eq!(types(world, line), [expected], "{shards} shards");
        };
        world.publish(publisher, "t/2", "a", QoS::ExactlyOnce, 1);
        world.carry_all();
        assert_eq!(types(&mut world, subscriber), []);
        next(&mut world, publisher, (PacketType::PubRec, 1));
        assert_eq!(types(&mut world, subscriber), [(PacketType::Publish, 1)]);
        world.send(publisher, &Packet::PubRel(ack(1)));
        next(&mut world, publisher, (PacketType::PubComp, 1));
        world.send(subscriber, &Packet::PubRec(ack(1)));
        next(&mut world, subscriber, (PacketType::PubRel, 1));
        world.send(subscriber, &Packet::PubComp(ack(1)));
        settle(&mut world, &store);
        assert!(world.shards.iter().all(ferromq::broker::Shard::is_settled));
        let contents = store.load().unwrap();
        assert!(contents.messages.is_empty() && contents.relays.is_empty(), "{contents:?}");
    }
}

#[test]
fn suback_of_a_stored_session_waits() {
    let store = Arc::new(Delayed::default());
    let (mut world, _, subscriber) = pair(1, &store);
    world.subscribe(subscriber, "more", QoS::AtLeastOnce);
    assert_eq!(types(&mut world, subscriber), []);
    settle(&mut world, &store);
    assert_eq!(types(&mut world, subscriber), [(PacketType::SubAck, 999)]);
}

#[test]
fn a_retained_message_is_acknowledged_when_the_shared_log_has_it() {
    let store = Arc::new(Delayed::default());
    let (mut world, publisher, _) = pair(1, &store);
    let Packet::Publish(mut retained) = crate::world::publish("state", "on", QoS::AtLeastOnce, 5) else {
        unreachable!("it makes a PUBLISH")
    };
    retained.retain = true;
    world.send(publisher, &Packet::Publish(retained));
    assert!(!store.commit(LogId(0)));
    world.committed();
    assert_eq!(types(&mut world, publisher), []);
    assert!(store.commit(LogId::SHARED));
    world.committed();
    assert_eq!(types(&mut world, publisher), [(PacketType::PubAck, 5)]);
    assert_eq!(store.load().unwrap().retained.len(), 1);
}

#[test]
fn nothing_is_submitted_before_the_start_is_committed() {
    let store = Arc::new(Delayed::default());
    let mut world = World::new(Arc::clone(&store) as Arc<dyn Store>, 1);
    let line = world.connect("early", |_| {});
    world.subscribe(line, "t", QoS::AtLeastOnce);
    assert!(!store.commit(LogId(0)));
    assert_eq!(types(&mut world, line), [(PacketType::ConnAck, 0)]);
    settle(&mut world, &store);
    assert_eq!(types(&mut world, line), [(PacketType::SubAck, 999)]);
}
