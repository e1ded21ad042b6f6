//! What a delivery costs in the sans-IO broker: bytes in, bytes out, no sockets. Prints nanoseconds of CPU a delivery
//! and bytes of heap an idle connection. `cargo bench --bench delivery [-- --test]`

mod world;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ferromq::codec::QoS;
use world::{BATCH, Subscriber, World, batch};

fn main() {
    // `cargo test --all-targets` runs this once, small.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let rounds = if is_test { 1 } else { 200 };
    println!("{:<44} {:>12}", "layout", "ns/delivery");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        report(&format!("1:1, 50 pairs, 16 B, {qos:?}"), pairs(50, 16, qos, rounds));
    }
    report("1:1, 10 pairs, 64 KiB, AtMostOnce", pairs(10, 64 << 10, QoS::AtMostOnce, rounds / 10 + 1));
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
            world.read(*publisher, batch);
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
