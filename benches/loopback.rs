//! What a delivery costs the broker over TCP on this machine: CPU time of its shard threads for each message that left
//! it. The load comes from two other threads that write and read in batches, and is not counted.
//!
//! `cargo bench --bench loopback`, with `-- --shards 2`, `-- --seconds 5`, `-- fan-out` to choose; `-- --test` runs each
//! scenario once.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ferromq::{
    broker::Settings,
    net::listener::ListenerUrl,
    server::{Broker, BrokerHandle},
};
use mio::{Events, Interest, Poll, Token};

/// Who publishes to whom.
struct Scenario {
    name: &'static str,
    publishers: usize,
    /// Subscribers of each topic.
    fan_out: usize,
    /// Topics; publishers take turns on them.
    topics: usize,
    payload_bytes: usize,
    qos: u8,
    /// Messages written in one go.
    batch: usize,
    /// Messages on their way at most.
    window: u64,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lone 1:1",
        publishers: 1,
        fan_out: 1,
        topics: 1,
        payload_bytes: 128,
        qos: 0,
        batch: 1,
        window: 1,
    },
    Scenario {
        name: "pairs 16x1:1",
        publishers: 16,
        fan_out: 1,
        topics: 16,
        payload_bytes: 128,
        qos: 0,
        batch: 32,
        window: 16_384,
    },
    Scenario {
        name: "pairs 16x1:1 qos1",
        publishers: 16,
        fan_out: 1,
        topics: 16,
        payload_bytes: 128,
        qos: 1,
        batch: 32,
        window: 4096,
    },
    Scenario {
        name: "fan-in 32:1",
        publishers: 32,
        fan_out: 1,
        topics: 1,
        payload_bytes: 128,
        qos: 0,
        batch: 32,
        window: 4096,
    },
    Scenario {
        name: "fan-out 1:10",
        publishers: 1,
        fan_out: 10,
        topics: 1,
        payload_bytes: 128,
        qos: 0,
        batch: 32,
        window: 2048,
    },
    Scenario {
        name: "fan-out 1:100",
        publishers: 1,
        fan_out: 100,
        topics: 1,
        payload_bytes: 128,
        qos: 0,
        batch: 32,
        window: 2048,
    },
    Scenario {
        name: "fan-out 1:500",
        publishers: 1,
        fan_out: 500,
        topics: 1,
        payload_bytes: 128,
        qos: 0,
        batch: 32,
        window: 2048,
    },
    Scenario {
        name: "fan-out 1:100 4 KiB",
        publishers: 1,
        fan_out: 100,
        topics: 1,
        payload_bytes: 4096,
        qos: 0,
        batch: 8,
        window: 128,
    },
];

fn main() {
    let options = Options::from_args();
    println!(
        "{:<22} {:>6} {:>12} {:>14} {:>16} {:>14}",
        "scenario", "shards", "deliveries", "deliveries/s", "CPU ns/delivery", "us/message"
    );
    for scenario in SCENARIOS.iter().filter(|scenario| options.wants(scenario.name)) {
        for &shards in &options.shards {
            run(scenario, shards, options.duration);
        }
    }
}

struct Options {
    shards: Vec<usize>,
    duration: Duration,
    filter: Option<String>,
}

impl Options {
    fn from_args() -> Self {
        let mut options = Self { shards: vec![1, 2], duration: Duration::from_secs(2), filter: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--test" => options.duration = Duration::from_millis(20),
                "--shards" => {
                    options.shards = vec![args.next().and_then(|n| n.parse().ok()).expect("a number of shards")];
                }
                "--seconds" => {
                    let seconds = args.next().and_then(|n| n.parse().ok()).expect("a number of seconds");
                    options.duration = Duration::from_secs_f64(seconds);
                }
                name if !name.starts_with('-') => options.filter = Some(name.to_owned()),
                _ => {}
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }
}

fn run(scenario: &Scenario, shards: usize, duration: Duration) {
    let settings = Settings { sys_interval: None, ..Settings::default() };
    let url: ListenerUrl = "tcp://127.0.0.1:0".parse().expect("a valid URL");
    let broker = Broker::builder().settings(settings).shards(shards).listen(url).start().expect("a free port");
    let port = broker.listeners()[0].port().expect("a network listener");
    let load = Arc::new(Load::default());
    let subscribers: Vec<_> = (0..scenario.topics * scenario.fan_out)
        .map(|n| {
            let mut stream = connect(port, &format!("s{n}"));
            subscribe(&mut stream, &topic(n % scenario.topics));
            stream
        })
        .collect();
    let publishers: Vec<_> = (0..scenario.publishers).map(|n| connect(port, &format!("p{n}"))).collect();
    let frame_bytes = frame(&topic(0), scenario.payload_bytes, 0, 1).len() as u64;
    let reader = thread::spawn({
        let load = Arc::clone(&load);
        let main = thread::current();
        move || read_all(subscribers, frame_bytes, &load, &main)
    });
    let cpu_before = shard_cpu();
    let start = Instant::now();
    let sent = write_all(scenario, publishers, &load, duration);
    let expected = sent * scenario.fan_out as u64;
    while load.delivered.load(Ordering::Acquire) < expected {
        thread::park_timeout(Duration::from_millis(100));
        check_no_drops(&broker.handle());
    }
    let elapsed = start.elapsed();
    let cpu = shard_cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    load.is_over.store(true, Ordering::Release);
    broker.shutdown();
    reader.join().expect("the reader ends with its connections");
    report(scenario, shards, expected, sent, elapsed, cpu);
}

#[derive(Debug, Default)]
struct Load {
    delivered: AtomicU64,
    is_over: AtomicBool,
}

#[allow(clippy::cast_precision_loss, reason = "for the reader's eye")]
fn report(scenario: &Scenario, shards: usize, delivered: u64, sent: u64, elapsed: Duration, cpu: Option<Duration>) {
    let per_second = delivered as f64 / elapsed.as_secs_f64();
    let cpu = cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{:.0}", cpu.as_nanos() as f64 / delivered as f64));
    let per_message = elapsed.as_secs_f64() * 1e6 / sent as f64;
    println!("{:<22} {shards:>6} {delivered:>12} {per_second:>14.0} {cpu:>16} {per_message:>14.2}", scenario.name);
}

/// CPU time of all shard threads of this process, where the system tells it by thread.
fn shard_cpu() -> Option<Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let mut total = 0;
    for task in tasks {
        let path = task.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        if name.starts_with("ferromq-shard") {
            let schedstat = std::fs::read_to_string(path.join("schedstat")).ok()?;
            total += schedstat.split(' ').next()?.parse::<u64>().ok()?;
        }
    }
    Some(Duration::from_nanos(total))
}

/// A message that was dropped would be waited for for ever.
fn check_no_drops(handle: &BrokerHandle) {
    let stats = handle.stats();
    assert_eq!(stats.dropped_total(), 0, "the window is too large for the queues: {:?}", stats.dropped);
}

/// Writes batches for `duration`, as far as the window allows; returns how many messages.
fn write_all(scenario: &Scenario, mut publishers: Vec<TcpStream>, load: &Load, duration: Duration) -> u64 {
    let batches: Vec<Vec<u8>> = (0..publishers.len())
        .map(|n| {
            let topic = topic(n % scenario.topics);
            (1..=scenario.batch).flat_map(|id| frame(&topic, scenario.payload_bytes, scenario.qos, id as u16)).collect()
        })
        .collect();
    let mut sent = 0_u64;
    let mut acks = vec![0; scenario.batch * ACK_BYTES];
    let deadline = Instant::now() + duration;
    while Instant::now() < deadline {
        for (stream, batch) in publishers.iter_mut().zip(&batches) {
            while sent.saturating_sub(load.delivered.load(Ordering::Acquire) / scenario.fan_out as u64)
                >= scenario.window
            {
                thread::park_timeout(Duration::from_millis(1));
            }
            stream.write_all(batch).expect("the broker reads");
            sent += scenario.batch as u64;
            if scenario.qos > 0 {
                stream.read_exact(&mut acks).expect("the broker acknowledges");
            }
        }
    }
    sent
}

/// Reads everything; all frames have the same length, so bytes are messages.
fn read_all(subscribers: Vec<TcpStream>, frame_bytes: u64, load: &Load, publisher: &thread::Thread) {
    let mut poll = Poll::new().expect("a readiness source");
    let mut streams: Vec<_> = subscribers
        .into_iter()
        .enumerate()
        .map(|(token, stream)| {
            stream.set_nonblocking(true).expect("a socket");
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(token), Interest::READABLE).expect("room for a registration");
            stream
        })
        .collect();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    while !load.is_over.load(Ordering::Acquire) {
        poll.poll(&mut events, Some(Duration::from_millis(50))).expect("a readiness source");
        for event in &events {
            while let Ok(len @ 1..) = streams[event.token().0].read(&mut buffer) {
                bytes += len as u64;
            }
        }
        load.delivered.store(bytes / frame_bytes, Ordering::Release);
        publisher.unpark();
    }
}

fn connect(port: u16, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    stream.set_nodelay(true).expect("a socket");
    let mut packet = vec![0x10, (12 + id.len()) as u8];
    packet.extend(b"\x00\x04MQTT\x04\x02\x00\x00\x00");
    packet.push(id.len() as u8);
    packet.extend(id.as_bytes());
    stream.write_all(&packet).expect("the broker reads");
    stream.read_exact(&mut [0; 4]).expect("CONNACK");
    stream
}

fn subscribe(stream: &mut TcpStream, topic: &str) {
    let mut packet = vec![0x82, (5 + topic.len()) as u8, 0, 1, 0, topic.len() as u8];
    packet.extend(topic.as_bytes());
    packet.push(0);
    stream.write_all(&packet).expect("the broker reads");
    stream.read_exact(&mut [0; 5]).expect("SUBACK");
}

fn topic(n: usize) -> String {
    format!("bench/{n:04}")
}

/// A PUBLISH; subscribers have QoS 0, so what they get is as long as one of QoS 0.
fn frame(topic: &str, payload_bytes: usize, qos: u8, id: u16) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.resize(body.len() + payload_bytes, b'x');
    let mut frame = vec![0x30 | qos << 1];
    let mut rest = body.len();
    loop {
        let more = if rest >= 128 { 0x80 } else { 0 };
        frame.push((rest % 128) as u8 | more);
        rest /= 128;
        if rest == 0 {
            break;
        }
    }
    frame.extend(body);
    frame
}

/// A PUBACK without properties.
const ACK_BYTES: usize = 4;
