//! Rules on packets, without sockets: what a link is given, and what comes out when.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    link::{Link, Next},
    rule::{Action, Direction, RuleBook, Select},
    trace::Trace,
};
use crate::codec::{
    Ack, ConnAck, Connect, Cut, Limits, Packet, PacketType, Properties, Publish, QoS, ReasonCode, Source, Text,
    TopicName, Version, frame::cut,
};

/// One connection of client `c` in MQTT 5, and its rules.
struct World {
    link: Link,
    rules: RuleBook,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let trace = Trace::new(now, Arc::from("test"), 16);
        let mut world = Self { link: Link::new(trace, true), rules: RuleBook::new(1), now };
        world.send(Direction::ToBroker, &connect("c"));
        assert_eq!(world.types(Direction::ToBroker), [PacketType::Connect]);
        world
    }

    fn rule(&mut self, packet: PacketType, action: Action) {
        let select = Select { packets: vec![packet], ..Select::default() };
        self.rules.add(self.now, select, action).unwrap();
    }

    fn send(&mut self, way: Direction, packet: &Packet) {
        self.link.receive(self.now, way, &encoded(packet), &mut self.rules);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// All bytes that may pass now.
    fn bytes(&mut self, way: Direction) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Next::Bytes(front) = self.link.next(self.now, way, &self.rules) {
            bytes.extend_from_slice(front);
            let count = front.len();
            self.link.advance(way, count);
        }
        bytes
    }

    fn packets(&mut self, way: Direction) -> Vec<Packet> {
        let bytes = self.bytes(way);
        let mut rest = &bytes[..];
        let mut packets = Vec::new();
        while let Ok(Cut::Frame(frame, len)) = cut(rest, u32::MAX) {
            packets.push(Packet::decode(frame, Version::V5, &Limits::default(), &Source::Scratch).unwrap());
            rest = &rest[len..];
        }
        assert!(rest.is_empty(), "{} bytes of half a packet", rest.len());
        packets
    }

    fn types(&mut self, way: Direction) -> Vec<PacketType> {
        self.packets(way).iter().map(Packet::packet_type).collect()
    }

    fn payloads(&mut self, way: Direction) -> Vec<Bytes> {
        let payload = |packet: Packet| match packet {
            Packet::Publish(publish) => publish.payload,
            other => panic!("{other:?}"),
        };
        self.packets(way).into_iter().map(payload).collect()
    }
}

fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes).unwrap();
    bytes
}

fn connect(client_id: &'static str) -> Packet {
    Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: true,
        bridge: false,
        keep_alive: 60,
        client_id: Text::from_static(client_id),
        will: None,
        username: None,
        password: None,
        properties: Properties::new(),
    }))
}

fn publish(payload: &'static str, qos: QoS) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::new("t").unwrap(),
        packet_id: (qos > QoS::AtMostOnce).then(|| 1.try_into().unwrap()),
        properties: Properties::new(),
        payload: Bytes::from_static(payload.as_bytes()),
    })
}

fn puback(id: u16) -> Packet {
    Packet::PubAck(Ack::new(id.try_into().unwrap(), ReasonCode::Success))
}

const UP: Direction = Direction::ToBroker;
const DOWN: Direction = Direction::ToClient;

#[test]
fn packets_pass_whole_however_they_are_split() {
    let mut world = World::new();
    let mut bytes = encoded(&publish("one", QoS::AtMostOnce));
    bytes.extend(encoded(&publish("two", QoS::AtMostOnce)));
    for byte in &bytes {
        let (now, rules) = (world.now, &mut world.rules);
        world.link.receive(now, UP, std::slice::from_ref(byte), rules);
    }
    assert_eq!(world.bytes(UP), bytes);
    assert_eq!(world.link.held(), 0);
}

#[test]
fn a_duplicate_is_marked_as_sent_again_and_the_first_is_not() {
    let mut world = World::new();
    world.rule(PacketType::Publish, Action::Duplicate { copies: 2 });
    world.send(UP, &publish("one", QoS::AtLeastOnce));
    let dups: Vec<_> = world.packets(UP).into_iter().map(|p| matches!(p, Packet::Publish(p) if p.dup)).collect();
    assert_eq!(dups, [false, true, true]);
}

#[test]
fn delays_add_up_and_those_behind_wait() {
    let mut world = World::new();
    let delay = |seconds| Action::Delay { by: Duration::from_secs(seconds), jitter: Duration::ZERO };
    world.rule(PacketType::Publish, delay(2));
    world.rule(PacketType::Publish, delay(3));
    world.send(UP, &publish("late", QoS::AtMostOnce));
    world.send(UP, &Packet::PingReq);
    assert_eq!(world.types(UP), []);
    assert_eq!(world.link.deadline(world.now, &world.rules), Some(world.now + Duration::from_secs(5)));
    world.pass(4);
    assert_eq!((world.types(UP).len(), world.link.held()), (0, 2));
    world.pass(1);
    assert_eq!(world.types(UP), [PacketType::Publish, PacketType::PingReq]);
}

#[test]
fn jitter_is_random_and_at_most_what_was_said() {
    let dues = |seed| {
        let mut world = World::new();
        world.rules = RuleBook::new(seed);
        world.rule(PacketType::PingReq, Action::Delay { by: Duration::ZERO, jitter: Duration::from_secs(10) });
        world.send(UP, &Packet::PingReq);
        world.link.deadline(world.now, &world.rules).unwrap() - world.now
    };
    let all: Vec<_> = (0..20).map(dues).collect();
    assert!(all.iter().all(|due| *due <= Duration::from_secs(10)));
    assert!(all.iter().max().unwrap().saturating_sub(*all.iter().min().unwrap()) > Duration::from_secs(3), "{all:?}");
}

#[test]
fn a_throttle_spaces_packets_by_their_size() {
    let mut world = World::new();
    world.rule(PacketType::PubAck, Action::Throttle { rate: 4.0 }); // a PUBACK has 4 bytes
    for id in 1..=3 {
        world.send(DOWN, &puback(id));
    }
    let mut passed = Vec::new();
    for _ in 0..4 {
        passed.push(world.types(DOWN).len());
        world.pass(1);
    }
    assert_eq!(passed, [0, 1, 1, 1]);
}

#[test]
fn a_cut_counts_the_bytes_of_what_it_selects_and_then_ends_the_connection() {
    let mut world = World::new();
    world.rule(PacketType::PubAck, Action::Cut { after_bytes: 6 });
    world.send(DOWN, &puback(1));
    world.send(DOWN, &Packet::PingResp);
    assert!(!world.link.is_over());
    world.send(DOWN, &puback(2));
    world.send(DOWN, &puback(3));
    let bytes = world.bytes(DOWN);
    assert_eq!(bytes, [0x40, 2, 0, 1, 0xD0, 0, 0x40, 2]);
    assert!(world.link.is_over());
}

#[test]
fn corruption_turns_as_many_bits_as_asked_and_keeps_the_frame() {
    let mut world = World::new();
    world.rule(PacketType::Publish, Action::Corrupt { bits: 5 });
    let sent = encoded(&publish("a payload", QoS::AtMostOnce));
    world.link.receive(world.now, DOWN, &sent, &mut world.rules);
    let got = world.bytes(DOWN);
    assert_eq!((got.len(), &got[..2]), (sent.len(), &sent[..2]));
    let turned: u32 = sent.iter().zip(&got).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!(turned, 5);
}

#[test]
fn nothing_passes_a_partition_and_the_end_waits_too() {
    let mut world = World::new();
    let select = Select { client: Some("c".into()), lasts: Some(Duration::from_secs(9)), ..Select::default() };
    world.rules.add(world.now, select, Action::Partition).unwrap();
    world.send(UP, &publish("held", QoS::AtMostOnce));
    world.link.finish(world.now, UP, "end");
    assert_eq!(world.link.next(world.now, UP, &world.rules), Next::Nothing);
    assert_eq!(world.link.held(), 1);
    assert_eq!(world.link.deadline(world.now, &world.rules), Some(world.now + Duration::from_secs(9)));
    world.pass(9);
    assert_eq!(world.payloads(UP), ["held"]);
    assert_eq!(world.link.next(world.now, UP, &world.rules), Next::End);
}

#[test]
fn a_partition_of_another_client_is_none() {
    let mut world = World::new();
    let select = Select { client: Some("d".into()), ..Select::default() };
    world.rules.add(world.now, select, Action::Partition).unwrap();
    world.send(UP, &publish("free", QoS::AtMostOnce));
    assert_eq!(world.payloads(UP), ["free"]);
}

#[test]
fn what_is_dead_swallows_everything_and_tells_nobody() {
    let mut world = World::new();
    world.link.kill();
    world.send(UP, &publish("lost", QoS::AtMostOnce));
    world.link.finish(world.now, UP, "end");
    assert_eq!(world.link.next(world.now, UP, &world.rules), Next::Nothing);
    assert!(!world.link.is_over() && !world.link.is_buried());
    assert_eq!(world.link.held(), 0);
    world.link.finish(world.now, DOWN, "end");
    assert!(world.link.is_buried());
}

#[test]
fn a_refusal_answers_connect_in_the_brokers_place() {
    let now = Instant::now();
    let mut world = World::new();
    world.link = Link::new(Trace::new(now, Arc::from("test"), 16), true);
    world.rules.add(now, Select::default(), Action::Refuse(Some(ReasonCode::ServerBusy))).unwrap();
    world.send(UP, &connect("c"));
    assert_eq!(world.types(UP), []);
    let answer = world.packets(DOWN);
    let busy = ConnAck { session_present: false, reason: ReasonCode::ServerBusy, properties: Properties::new() };
    assert_eq!(answer, [Packet::ConnAck(Box::new(busy))]);
    assert!(world.link.is_over());
}

#[test]
fn what_is_not_mqtt_passes_unseen_and_so_does_what_is_too_large() {
    let mut world = World::new();
    world.rule(PacketType::Publish, Action::Drop);
    world.link.receive(world.now, UP, &[0x00, 0xFF, 0x00], &mut world.rules);
    assert_eq!(world.bytes(UP), [0x00, 0xFF, 0x00]);
    let mut world = World::new();
    world.rule(PacketType::Publish, Action::Drop);
    // 256 MiB are announced: they are not waited for.
    let start = [0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't'];
    world.link.receive(world.now, UP, &start, &mut world.rules);
    assert_eq!(world.bytes(UP), start);
    assert!(world.link.trace.record().lines.last().unwrap().contains("passes unseen"));
}

#[test]
fn a_sender_waits_when_too_much_is_held_back() {
    let mut world = World::new();
    let chunk = encoded(&publish(Box::leak("x".repeat(60_000).into_boxed_str()), QoS::AtMostOnce));
    world.link.receive(world.now, UP, &chunk, &mut world.rules);
    assert!(world.link.wants_read(world.now, UP, &world.rules));
    world.link.receive(world.now, UP, &chunk, &mut world.rules);
    assert!(!world.link.wants_read(world.now, UP, &world.rules), "a receiver that is slow slows the sender");
    world.rules.add(world.now, Select::default(), Action::Partition).unwrap();
    let mut read = 0;
    while world.link.wants_read(world.now, UP, &world.rules) {
        world.link.receive(world.now, UP, &chunk, &mut world.rules);
        read += 1;
        assert!(read < 1000, "a partition must not hold back without bound");
    }
    assert!(read > 200, "a partition takes in what is on its way");
}
