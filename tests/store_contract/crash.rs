//! Crashes at random points, with random batches committed: every message that was acknowledged arrives, QoS 2 once,
//! and in order, whatever the number of shards before and after.
//!
//! Clients do what the specification asks of them: publishers send again what was not acknowledged, subscribers
//! remember QoS 2 identifiers until PUBREL. Both outlive the broker.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use ferromq::{
    codec::{Packet, QoS},
    store::Store,
};

use crate::{
    delayed::Delayed,
    rng::Rng,
    world::{World, ack, publish},
};

struct Publisher {
    name: String,
    line: usize,
    unfinished: VecDeque<Unfinished>,
    next_id: u16,
    sent: usize,
}

struct Unfinished {
    packet_id: u16,
    packet: Packet,
    is_received: bool,
}

struct Subscriber {
    name: String,
    line: usize,
    /// QoS 2 identifiers between PUBLISH and PUBREL.
    unreleased: BTreeSet<u16>,
    got: Vec<String>,
}

struct Run {
    rng: Rng,
    store: Arc<Delayed>,
    world: World,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Payloads by topic.
    published: BTreeMap<&'static str, Vec<String>>,
}

const TOPICS: [(&str, QoS); 4] = [
    ("all/1", QoS::AtLeastOnce),
    ("all/2", QoS::ExactlyOnce),
    ("one/1", QoS::AtLeastOnce),
    ("one/2", QoS::ExactlyOnce),
];

/// Subscribers of `all/#`; the others share `one/#`.
const PLAIN: usize = 3;

impl Run {
    fn new(seed: u64, shards: usize) -> Self {
        let store = Arc::new(Delayed::default());
        let mut world = World::new(Arc::clone(&store) as Arc<dyn Store>, shards);
        let publisher = |world: &mut World, n: usize| {
            let name = format!("publisher-{n}");
            let line = world.connect(&name, |_| {});
            Publisher { name, line, unfinished: VecDeque::new(), next_id: 1, sent: 0 }
        };
        let publishers = (0..2).map(|n| publisher(&mut world, n)).collect();
        let subscriber = |world: &mut World, n: usize| {
            let name = format!("subscriber-{n}");
            let line = world.connect(&name, |_| {});
            world.subscribe(line, if n < PLAIN { "all/#" } else { "$share/group/one/#" }, QoS::ExactlyOnce);
            Subscriber { name, line, unreleased: BTreeSet::new(), got: Vec::new() }
        };
        let subscribers = (0..PLAIN + 2).map(|n| subscriber(&mut world, n)).collect();
        let published = BTreeMap::new();
        let mut run = Self { rng: Rng::new(seed), store, world, publishers, subscribers, published };
        run.finish();
        run
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..=3 => self.publish(),
            4..=6 if self.store.commit_one(&mut self.rng) => {
                self.world.committed();
            }
            7..=8 => {
                self.world.carry();
            }
            9..=13 => {
                let client = self.rng.below(self.publishers.len() + self.subscribers.len());
                self.read(client);
            }
            14 => {
                let client = self.rng.below(self.publishers.len() + self.subscribers.len());
                self.reconnect(client);
            }
            _ if self.rng.once_in(4) => self.crash(),
            _ => {}
        }
    }

    fn publish(&mut self) {
        let publisher = self.rng.below(self.publishers.len());
        let (topic, qos) = TOPICS[self.rng.below(TOPICS.len())];
        let publisher = &mut self.publishers[publisher];
        publisher.sent += 1;
        let payload = format!("{} {topic} {:04}", publisher.name, publisher.sent);
        let packet_id = publisher.next_id;
        publisher.next_id += 1;
        let packet = publish(topic, &payload, qos, packet_id);
        self.published.entry(topic).or_default().push(payload);
        self.world.send(publisher.line, &packet);
        publisher.unfinished.push_back(Unfinished { packet_id, packet, is_received: false });
    }

    /// A client reads one packet; whether there was one.
    fn read(&mut self, client: usize) -> bool {
        let Some(subscriber) = client.checked_sub(self.publishers.len()) else {
            let publisher = &mut self.publishers[client];
            let Some(packet) = self.world.next(publisher.line) else { return false };
            publisher.handle(&mut self.world, &packet);
            return true;
        };
        let subscriber = &mut self.subscribers[subscriber];
        let Some(packet) = self.world.next(subscriber.line) else { return false };
        subscriber.handle(&mut self.world, &packet);
        true
    }

    /// A client loses its connection, with or without what was on its way to it, and comes back.
    fn reconnect(&mut self, client: usize) {
        while self.rng.once_in(2) && self.read(client) {}
        match client.checked_sub(self.publishers.len()) {
            None => {
                let publisher = &mut self.publishers[client];
                self.world.cut(publisher.line);
                publisher.line = self.world.connect(&publisher.name, |_| {});
                publisher.send_again(&mut self.world);
            }
            Some(subscriber) => {
                let subscriber = &mut self.subscribers[subscriber];
                self.world.cut(subscriber.line);
                subscriber.line = self.world.connect(&subscriber.name, |_| {});
            }
        }
    }

    /// The broker is gone, and what was not committed with it; perhaps another one crashes before it has done anything.
    fn crash(&mut self) {
        loop {
            let shards = [1, 3][self.rng.below(2)];
            self.store = self.store.crash();
            self.world.start(Arc::clone(&self.store) as Arc<dyn Store>, shards);
            if !self.rng.once_in(4) {
                break;
            }
        }
        for client in 0..self.publishers.len() + self.subscribers.len() {
            self.reconnect(client);
        }
    }

    /// Lets everything come to its end.
    fn finish(&mut self) {
        loop {
            self.store.commit_all();
            self.world.committed();
            self.world.carry_all();
            let clients = 0..self.publishers.len() + self.subscribers.len();
            let read = clients.filter(|client| self.read(*client)).count();
            let is_quiet = self.world.shards.iter().all(ferromq::broker::Shard::is_settled);
            if read == 0 && is_quiet && self.world.envelopes.is_empty() {
                return;
            }
        }
    }

    fn check(&self, context: &str) {
        assert!(self.publishers.iter().all(|publisher| publisher.unfinished.is_empty()), "{context}: all acknowledged");
        for (topic, qos) in TOPICS {
            let Some(published) = self.published.get(topic) else { continue };
            let of = |got: &[String]| got.iter().filter(|text| text.contains(topic)).cloned().collect::<Vec<_>>();
            if topic.starts_with("all") {
                for subscriber in &self.subscribers[..PLAIN] {
                    let got = of(&subscriber.got);
                    check_topic(&got, published, qos, &format!("{context}, {topic} at {}", subscriber.name));
                    for publisher in &self.publishers {
                        check_order(&got, &publisher.name, &format!("{context}, {topic} at {}", subscriber.name));
                    }
                }
            } else {
                let got: Vec<_> = self.subscribers[PLAIN..].iter().flat_map(|member| of(&member.got)).collect();
                check_topic(&got, published, qos, &format!("{context}, {topic} in the group"));
            }
        }
        let contents = self.store.load().unwrap();
        assert!(contents.messages.is_empty() && contents.relays.is_empty(), "{context}: left over in {contents:?}");
    }
}

impl Publisher {
    fn handle(&mut self, world: &mut World, packet: &Packet) {
        match packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                self.unfinished.retain(|unfinished| unfinished.packet_id != ack.packet_id.get());
            }
            Packet::PubRec(received) => {
                let id = received.packet_id.get();
                for unfinished in self.unfinished.iter_mut().filter(|unfinished| unfinished.packet_id == id) {
                    unfinished.is_received = true;
                }
                world.send(self.line, &Packet::PubRel(ack(id)));
            }
            _ => {}
        }
    }

    fn send_again(&mut self, world: &mut World) {
        for unfinished in &mut self.unfinished {
            if unfinished.is_received {
                world.send(self.line, &Packet::PubRel(ack(unfinished.packet_id)));
                continue;
            }
            if let Packet::Publish(publish) = &mut unfinished.packet {
                publish.dup = true;
            }
            world.send(self.line, &unfinished.packet);
        }
    }
}

impl Subscriber {
    fn handle(&mut self, world: &mut World, packet: &Packet) {
        match packet {
            Packet::Publish(publish) => {
                let id = publish.packet_id.map_or(0, std::num::NonZeroU16::get);
                let is_new = publish.qos != QoS::ExactlyOnce || self.unreleased.insert(id);
                if is_new {
                    self.got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                }
                let answer =
                    if publish.qos == QoS::ExactlyOnce { Packet::PubRec(ack(id)) } else { Packet::PubAck(ack(id)) };
                world.send(self.line, &answer);
            }
            Packet::PubRel(released) => {
                let id = released.packet_id.get();
                self.unreleased.remove(&id);
                world.send(self.line, &Packet::PubComp(ack(id)));
            }
            _ => {}
        }
    }
}

fn check_topic(got: &[String], published: &[String], qos: QoS, context: &str) {
    for payload in published {
        let times = got.iter().filter(|text| *text == payload).count();
        assert!(times >= 1, "{context}: {payload} was acknowledged and is lost");
        assert!(times == 1 || qos == QoS::AtLeastOnce, "{context}: {payload} came {times} times");
    }
}

/// First receipts of one publisher's messages are in the order of sending.
fn check_order(got: &[String], publisher: &str, context: &str) {
    let mut seen = BTreeSet::new();
    let first: Vec<_> = got.iter().filter(|text| text.starts_with(publisher) && seen.insert(*text)).collect();
    assert!(first.is_sorted(), "{context}: out of order: {first:?}");
}

fn run(seed: u64, shards: usize) {
    let mut run = Run::new(seed, shards);
    for _ in 0..150 {
        run.step();
    }
    run.crash();
    run.finish();
    run.check(&format!("seed {seed}, {shards} shards"));
}

#[test]
fn acknowledged_messages_survive_crashes_of_one_shard() {
    (0..SEEDS).for_each(|seed| run(seed, 1));
}

#[test]
fn acknowledged_messages_survive_crashes_of_three_shards() {
    (0..SEEDS).for_each(|seed| run(seed, 3));
}

const SEEDS: u64 = 300;
