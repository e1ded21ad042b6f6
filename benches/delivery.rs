//! What a delivery costs in the sans-IO broker: bytes in, bytes out, no sockets. Prints nanoseconds of CPU a delivery
//! and bytes of heap an idle connection. `cargo bench --bench delivery [-- --test]`

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::IoSlice,
    num::NonZeroU16,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromq::{
    broker::{ConnId, Hooks, Peer, Settings, Shard, Shared},
    codec::{
        Connect, Packet, Properties, Publish, QoS, Subscribe, Subscription, SubscriptionOptions, Text, TopicFilter,
        TopicName, Version,
    },
    router::ShardId,
};

fn main() {
    // `cargo test --all-targets` runs this once, small.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let rounds = if is_test { 1 } else { 200 };
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
    let mut pairs: Vec<_> = (0..count)
        .map(|n| {
            let topic = format!("bench/pair/{n}");
            let publisher = world.client(&format!("p{n}"), None);
            (publisher, Subscriber::new(&mut world, &format!("s{n}"), &topic, qos), batch(&topic, payload, qos))
        })
        .collect();
    measure(rounds, count * BATCH, || {
        for (publisher, _, batch) in &pairs {
            world.receive(*publisher, batch);
        }
        world.flush();
        for (publisher, subscriber, _) in &mut pairs {
            subscriber.acknowledge(&mut world, BATCH);
            world.release(*publisher, qos);
        }
        world.flush();
    })
}

fn fan_in(count: usize, payload: usize, qos: QoS, rounds: usize) -> Duration {
    let mut world = World::new();
    let mut subscriber = Subscriber::new(&mut world, "sink", "bench/in/+", qos);
    let publishers: Vec<_> = (0..count)
        .map(|n| (world.client(&format!("p{n}"), None), batch(&format!("bench/in/{n}"), payload, qos)))
        .collect();
    measure(rounds, count * BATCH, || {
        for (publisher, batch) in &publishers {
            world.receive(*publisher, batch);
            subscriber.acknowledge(&mut world, BATCH);
        }
        world.flush();
    })
}

fn fan_out(count: usize, payload: usize, qos: QoS, rounds: usize) -> Duration {
    let mut world = World::new();
    let publisher = world.client("source", None);
    let mut subscribers: Vec<_> =
        (0..count).map(|n| Subscriber::new(&mut world, &format!("s{n}"), "bench/out", qos)).collect();
    let batch = batch("bench/out", payload, qos);
    measure(rounds, count * BATCH, || {
        world.receive(publisher, &batch);
        world.flush();
        for subscriber in &mut subscribers {
            subscriber.acknowledge(&mut world, BATCH);
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

fn measure(rounds: usize, deliveries: usize, mut round: impl FnMut()) -> Duration {
    round();
    let start = cpu_time();
    (0..rounds).for_each(|_| round());
    cpu_time().saturating_sub(start) * 10 / (rounds * deliveries) as u32
}

/// CPU time of this process, which a busy machine does not change; the clock on the wall where it cannot be had.
fn cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    match schedstat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()) {
        Some(nanoseconds) => Duration::from_nanos(nanoseconds),
        None => STARTED.get_or_init(Instant::now).elapsed(),
    }
}

/// A batch of publications as one read brings them.
fn batch(topic: &str, payload: usize, qos: QoS) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 1..=BATCH as u16 {
        let packet_id = if qos == QoS::AtMostOnce { None } else { NonZeroU16::new(n) };
        let topic = TopicName::new(topic).expect("a valid topic");
        let payload = Bytes::from(vec![b'x'; payload]);
        let properties = Properties::new();
        let publish = Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload };
        publish.encode(Version::V3_1_1, &mut bytes).expect("encodes");
    }
    bytes
}

/// A subscriber that knows which packet identifiers come next.
struct Subscriber {
    conn: ConnId,
    qos: QoS,
    next_id: u32,
}

impl Subscriber {
    fn new(world: &mut World, id: &str, filter: &str, qos: QoS) -> Self {
        Self { conn: world.client(id, Some((filter, qos))), qos, next_id: 0 }
    }

    /// Answers the next `count` deliveries, all in one read.
    fn acknowledge(&mut self, world: &mut World, count: usize) {
        let answers: &[u8] = match self.qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => &[0x40],
            QoS::ExactlyOnce => &[0x50, 0x70],
        };
        let mut bytes = std::mem::take(&mut world.bytes);
        bytes.clear();
        for _ in 0..count {
            let [high, low] = (self.next_id as u16 + 1).to_be_bytes();
            self.next_id = (self.next_id + 1) % 65_535;
            for answer in answers {
                bytes.extend([*answer, 2, high, low]);
            }
        }
        world.receive(self.conn, &bytes);
        world.bytes = bytes;
    }
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

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.shard.receive(self.now, conn, bytes);
    }

    /// The publisher's PUBRELs for a batch of QoS 2.
    fn release(&mut self, publisher: ConnId, qos: QoS) {
        if qos != QoS::ExactlyOnce {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        for n in 1..=BATCH as u16 {
            let [high, low] = n.to_be_bytes();
            bytes.extend([0x62, 2, high, low]);
        }
        self.receive(publisher, &bytes);
        self.bytes = bytes;
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

static STARTED: OnceLock<Instant> = OnceLock::new();

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
