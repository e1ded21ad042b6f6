//! What a delivery costs in the sans-IO broker: bytes in, bytes out, no sockets. Prints nanoseconds of CPU a delivery
//! and bytes of heap an idle connection. `cargo bench --bench delivery [-- --test]`

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::IoSlice,
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromq::{
    broker::{ConnId, Hooks, Peer, Settings, Shard, Shared},
    codec::{
        Ack, Connect, Packet, Properties, Publish, QoS, ReasonCode, Subscribe, Subscription, SubscriptionOptions, Text,
        TopicFilter, TopicName, Version,
    },
    router::ShardId,
};

fn main() {
    // `cargo test --all-targets` runs this once, small.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let rounds = if is_test { 1 } else { 2_000 };
    println!("{:<44} {:>12}", "layout", "ns/delivery");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        report(&format!("1:1, 50 pairs, 16 B, {qos:?}"), pairs(50, 16, qos, rounds));
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        report(&format!("fan-in 100:1, 16 B, {qos:?}"), fan_in(100, 16, qos, rounds));
        report(&format!("fan-out 1:100, 64 B, {qos:?}"), fan_out(100, 64, qos, rounds));
        report(&format!("fan-out 1:1000, 64 B, {qos:?}"), fan_out(1000, 64, qos, rounds / 10 + 1));
        report(&format!("fan-out 1:100, 4 KiB, {qos:?}"), fan_out(100, 4096, qos, rounds));
    }
    let connections = if is_test { 100 } else { 100_000 };
    println!("{:<44} {:>12}", "idle connection, one subscription", format!("{} B", idle(connections)));
}

fn report(name: &str, cost: Duration) {
    println!("{name:<44} {:>12.1}", cost.as_nanos() as f64 / 10.0);
}

/// Cost of one delivery, tenfold.
fn pairs(count: usize, payload: usize, qos: QoS, rounds: usize) -> Duration {
    let mut world = World::new();
    let pairs: Vec<_> = (0..count)
        .map(|n| {
            let topic = format!("bench/pair/{n}");
            (world.client(&format!("p{n}"), None), world.client(&format!("s{n}"), Some((&topic, qos))), topic)
        })
        .collect();
    measure(rounds, count * BATCH, |round| {
        for (publisher, subscriber, topic) in &pairs {
            world.publish(*publisher, topic, payload, qos);
            world.acknowledge(*publisher, *subscriber, qos, round);
        }
        world.flush();
    })
}

fn fan_in(count: usize, payload: usize, qos: QoS, rounds: usize) -> Duration {
    let mut world = World::new();
    let subscriber = world.client("sink", Some(("bench/in/+", qos)));
    let publishers: Vec<_> =
        (0..count).map(|n| (world.client(&format!("p{n}"), None), format!("bench/in/{n}"))).collect();
    measure(rounds, count * BATCH, |round| {
        for (publisher, topic) in &publishers {
            world.publish(*publisher, topic, payload, qos);
            world.acknowledge(*publisher, subscriber, qos, round);
        }
        world.flush();
    })
}

fn fan_out(count: usize, payload: usize, qos: QoS, rounds: usize) -> Duration {
    let mut world = World::new();
    let publisher = world.client("source", None);
    let subscribers: Vec<_> = (0..count).map(|n| world.client(&format!("s{n}"), Some(("bench/out", qos)))).collect();
    measure(rounds, count * BATCH, |round| {
        world.publish(publisher, "bench/out", payload, qos);
        for subscriber in &subscribers {
            world.acknowledge(publisher, *subscriber, qos, round);
        }
        world.flush();
    })
}

/// Heap bytes of a connection with one exact subscription and nothing to do.
fn idle(count: usize) -> usize {
    let mut world = World::new();
    let before = HEAP_BYTES.load(Ordering::Relaxed);
    for n in 0..count {
        world.client(&format!("device-{n:06}"), Some((&format!("devices/{n:06}/commands"), QoS::AtLeastOnce)));
    }
    (HEAP_BYTES.load(Ordering::Relaxed) - before) / count
}

fn measure(rounds: usize, deliveries: usize, mut round: impl FnMut(usize)) -> Duration {
    round(0);
    let start = Instant::now();
    (1..=rounds).for_each(&mut round);
    start.elapsed() * 10 / (rounds * deliveries) as u32
}

/// One shard and its clients.
struct World {
    now: Instant,
    shard: Shard,
    bytes: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let shared = Shared::new(Settings::default(), Hooks::default(), 1, 1, now);
        Self { now, shard: Shard::new(ShardId(0), Arc::clone(&shared), now, 1), bytes: Vec::new() }
    }

    fn client(&mut self, id: &str, subscription: Option<(&str, QoS)>) -> ConnId {
        let peer = Peer { address: "bench".into(), listener: "bench".into() };
        let conn = self.shard.open(self.now, peer);
        let connect = Connect {
            version: Version::V3_1_1,
            clean_start: true,
            bridge: false,
            keep_alive: 60,
            client_id: Text::try_from(id).expect("short"),
            will: None,
            username: None,
            password: None,
            properties: Properties::new(),
        };
        self.send(conn, &Packet::Connect(Box::new(connect)));
        if let Some((filter, qos)) = subscription {
            let filter = TopicFilter::new(filter).expect("a valid filter");
            let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
            let subscriptions = vec![Subscription { filter, options }];
            let packet_id = NonZeroU16::MIN;
            let subscribe = Subscribe { packet_id, properties: Properties::new(), subscriptions };
            self.send(conn, &Packet::Subscribe(subscribe));
        }
        self.flush();
        conn
    }

    fn send(&mut self, conn: ConnId, packet: &Packet) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        packet.encode(Version::V3_1_1, &mut bytes).expect("encodes");
        self.shard.receive(self.now, conn, &bytes);
        self.bytes = bytes;
    }

    /// A batch of publications in one read.
    fn publish(&mut self, conn: ConnId, topic: &str, payload: usize, qos: QoS) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        for n in 1..=BATCH as u16 {
            let packet_id = if qos == QoS::AtMostOnce { None } else { NonZeroU16::new(n) };
            let topic = TopicName::new(topic).expect("a valid topic");
            let payload = Bytes::from(vec![b'x'; payload]);
            let publish =
                Publish { dup: false, qos, retain: false, topic, packet_id, properties: Properties::new(), payload };
            publish.encode(Version::V3_1_1, &mut bytes).expect("encodes");
        }
        self.shard.receive(self.now, conn, &bytes);
        self.bytes = bytes;
    }

    /// The subscriber's answers to a batch, and the publisher's PUBRELs.
    fn acknowledge(&mut self, publisher: ConnId, subscriber: ConnId, qos: QoS, _round: usize) {
        if qos == QoS::AtMostOnce {
            return;
        }
        let ids = self.delivered_ids(subscriber);
        for id in ids {
            let ack = Ack::new(id, ReasonCode::Success);
            if qos == QoS::AtLeastOnce {
                self.send(subscriber, &Packet::PubAck(ack));
            } else {
                self.send(subscriber, &Packet::PubRec(ack.clone()));
                self.send(subscriber, &Packet::PubComp(ack));
            }
        }
        if qos == QoS::ExactlyOnce {
            for n in 1..=BATCH as u16 {
                let id = NonZeroU16::new(n).expect("not zero");
                self.send(publisher, &Packet::PubRel(Ack::new(id, ReasonCode::Success)));
            }
        }
    }

    /// Packet identifiers of the PUBLISH packets in a subscriber's outbox, which is written.
    fn delivered_ids(&mut self, subscriber: ConnId) -> Vec<NonZeroU16> {
        let mut ids = Vec::new();
        let Some(outbox) = self.shard.outbox(subscriber) else { return ids };
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = outbox.io_slices(&mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut rest = &bytes[..];
        while let Ok(ferromq::codec::Cut::Frame(frame, used)) = ferromq::codec::frame::cut(rest, u32::MAX) {
            if frame.header >> 4 == 3 {
                let topic = usize::from(u16::from_be_bytes([frame.body[0], frame.body[1]]));
                ids.extend(NonZeroU16::new(u16::from_be_bytes([frame.body[2 + topic], frame.body[3 + topic]])));
            }
            rest = &rest[used..];
        }
        let written = bytes.len();
        outbox.advance(written);
        self.shard.flushed(self.now, subscriber, written);
        ids
    }

    fn flush(&mut self) {
        while let Some(conn) = self.shard.next_dirty() {
            while let Some(outbox) = self.shard.outbox(conn).filter(|outbox| !outbox.is_empty()) {
                let mut slices = [IoSlice::new(&[]); 64];
                let filled = outbox.io_slices(&mut slices);
                let written: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
                outbox.advance(written);
                self.shard.flushed(self.now, conn, written);
            }
        }
        while self.shard.poll_output().is_some() {}
    }
}

/// Publications a read brings.
const BATCH: usize = 32;

static HEAP_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Counts the bytes that are allocated.
struct Counting;

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system allocator unchanged; only a counter is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HEAP_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
