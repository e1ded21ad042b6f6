//! The connections, and what the broker has taken at each step.

use std::{
    error::Error,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroU16,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromq::codec::{
    Connect, Packet, Properties, Publish, QoS, Subscribe, Subscription, SubscriptionOptions, Text, TopicFilter,
    TopicName, Version, Will,
};

use super::broker::Broker;

/// How many connections, and for how long they do nothing but ping.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) idle_seconds: u64,
    /// They send as many PINGREQ together as this many connections would with a keep-alive of 60 s.
    pub(crate) pings_as: usize,
}

/// What pings took while nothing else was said, and what nothing at all did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Idle {
    /// CPU while PINGREQ come, per cent of a core.
    pub(crate) percent: f64,
    /// The same for each PINGREQ, microseconds.
    pub(crate) ping_us: f64,
    /// CPU while nothing comes, per cent of a core.
    pub(crate) silent_percent: f64,
}

/// What one broker took in one run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Resident memory for each connection with a subscription, bytes.
    pub(crate) bytes: f64,
    /// The same before it had subscribed.
    pub(crate) bytes_unsubscribed: f64,
    /// CPU for each connect and each subscribe, microseconds.
    pub(crate) connect_us: f64,
    pub(crate) subscribe_us: f64,
    pub(crate) connects_per_second: f64,
    pub(crate) idle: Idle,
    /// One message to each: CPU for each, microseconds, and the time until the last had its own, milliseconds.
    pub(crate) deliver_us: f64,
    pub(crate) deliver_ms: f64,
    /// All go at once, without wills and with: CPU for each, microseconds.
    pub(crate) close_us: f64,
    pub(crate) will_us: f64,
    /// What of the memory is still there for each connection when all have gone, bytes.
    pub(crate) left_bytes: f64,
}

impl Plan {
    /// Below 20,000 descriptors, which is all that some machines give a process.
    pub(crate) const FULL: Self = Self { connections: 19_000, idle_seconds: 30, pings_as: 100_000 };
    pub(crate) const SMALL: Self = Self { connections: 100, idle_seconds: 0, pings_as: 100_000 };

    /// PINGREQ in a second.
    pub(crate) fn pings_per_second(&self) -> f64 {
        self.pings_as as f64 / KEEP_ALIVE_SECONDS as f64
    }
}

/// Measures one broker.
pub(crate) fn run(broker: &Broker, plan: &Plan) -> Result<Measured, Box<dyn Error>> {
    let count = plan.connections as f64;
    let mut watcher = Client::connect(broker.address(), "watcher", None)?;
    watcher.subscribe("wills/+")?;
    watcher.ping()?;
    let start = Snapshot::of(broker);
    let clients = connect_all(broker.address(), plan.connections, false)?;
    let connected = Snapshot::of(broker);
    subscribe_all(&clients)?;
    watcher.ping()?;
    let subscribed = Snapshot::of(broker);
    let idle = idle(broker, &clients, plan)?;
    let before = Snapshot::of(broker);
    deliver_all(&mut watcher, &clients)?;
    let delivered = Snapshot::of(broker);
    drop(clients);
    settle(broker, &mut watcher)?;
    let closed = Snapshot::of(broker);
    let clients = connect_all(broker.address(), plan.connections, true)?;
    subscribe_all(&clients)?;
    settle(broker, &mut watcher)?;
    let with_wills = Snapshot::of(broker);
    drop(clients);
    watcher.read_publications(plan.connections)?;
    let willed = Snapshot::of(broker);
    if plan.idle_seconds > 0 {
        // Memory comes back at the latest with the next sweep.
        thread::sleep(SWEEP);
    }
    let left = Snapshot::of(broker);
    let per = |a: Duration, b: Duration| (b.saturating_sub(a)).as_nanos() as f64 / 1e3 / count;
    Ok(Measured {
        bytes: (subscribed.resident as f64 - start.resident as f64) / count,
        bytes_unsubscribed: (connected.resident as f64 - start.resident as f64) / count,
        connect_us: per(start.cpu, connected.cpu),
        subscribe_us: per(connected.cpu, subscribed.cpu),
        connects_per_second: count / (connected.at - start.at).as_secs_f64(),
        idle,
        deliver_us: per(before.cpu, delivered.cpu),
        deliver_ms: (delivered.at - before.at).as_secs_f64() * 1e3,
        close_us: per(delivered.cpu, closed.cpu),
        will_us: per(with_wills.cpu, willed.cpu),
        left_bytes: (left.resident as f64 - start.resident as f64) / count,
    })
}

/// The same of a relay, which is no broker: what pings alone take.
pub(crate) fn run_relay(relay: &Broker, plan: &Plan) -> Result<Idle, Box<dyn Error>> {
    let clients = connect_all(relay.address(), plan.connections, false)?;
    subscribe_all(&clients)?;
    idle(relay, &clients, plan)
}

/// What a broker has taken until now.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    at: Instant,
    cpu: Duration,
    resident: u64,
}

impl Snapshot {
    fn of(broker: &Broker) -> Self {
        Self { at: Instant::now(), cpu: broker.cpu(), resident: broker.resident() }
    }
}

/// Connects all, as many at a time as a backlog holds.
fn connect_all(address: SocketAddr, count: usize, with_will: bool) -> Result<Vec<TcpStream>, Box<dyn Error>> {
    let mut clients = Vec::with_capacity(count);
    for start in (0..count).step_by(BATCH) {
        for n in start..count.min(start + BATCH) {
            let mut stream = TcpStream::connect(address)?;
            let will = with_will.then(|| format!("wills/{n:06}"));
            stream.write_all(&connect(&format!("device-{n:06}"), will.as_deref())?)?;
            clients.push(stream);
        }
        for stream in &clients[start..] {
            expect(stream, &CONNACK)?;
        }
    }
    Ok(clients)
}

fn subscribe_all(clients: &[TcpStream]) -> Result<(), Box<dyn Error>> {
    for (batch, streams) in clients.chunks(BATCH).enumerate() {
        for (at, mut stream) in streams.iter().enumerate() {
            stream.write_all(&subscribe(&topic(batch * BATCH + at))?)?;
        }
        for stream in streams {
            expect(stream, &SUBACK)?;
        }
    }
    Ok(())
}

/// Connection after connection pings, each PINGREQ when it is due and by itself, as those of independent clients come.
fn idle(broker: &Broker, clients: &[TcpStream], plan: &Plan) -> Result<Idle, Box<dyn Error>> {
    if plan.idle_seconds == 0 {
        return Ok(Idle::default());
    }
    // What follows the last SUBSCRIBE, and a sweep, is over by then.
    thread::sleep(SWEEP);
    let silence = Duration::from_secs(plan.idle_seconds) / 3;
    let before = broker.cpu();
    thread::sleep(silence);
    let silent = broker.cpu().saturating_sub(before);
    let pings = plan.pings_as as u64 * plan.idle_seconds / KEEP_ALIVE_SECONDS;
    let (start, before) = (Instant::now(), broker.cpu());
    for (sent, mut stream) in (0..pings).zip(clients.iter().cycle()) {
        let due = start + Duration::from_secs_f64(sent as f64 / plan.pings_per_second());
        // One that is late is sent at once: the rate stays.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(&PINGREQ)?;
    }
    let (took, elapsed) = (broker.cpu().saturating_sub(before), start.elapsed());
    for (_, stream) in (0..pings).zip(clients.iter().cycle()) {
        expect(stream, &PINGRESP)?;
    }
    Ok(Idle {
        percent: took.as_secs_f64() / elapsed.as_secs_f64() * 100.0,
        ping_us: took.as_secs_f64() / pings as f64 * 1e6,
        silent_percent: silent.as_secs_f64() / silence.as_secs_f64() * 100.0,
    })
}

/// One message to each.
fn deliver_all(publisher: &mut Client, clients: &[TcpStream]) -> Result<(), Box<dyn Error>> {
    let mut length = 0;
    for start in (0..clients.len()).step_by(BATCH) {
        let mut bytes = Vec::new();
        for n in start..clients.len().min(start + BATCH) {
            let before = bytes.len();
            bytes.extend(publish(&topic(n))?);
            length = bytes.len() - before;
        }
        publisher.stream.write_all(&bytes)?;
        let mut got = vec![0; length];
        for mut stream in &clients[start..clients.len().min(start + BATCH)] {
            stream.read_exact(&mut got)?;
            if got[0] != PUBLISH {
                return Err("something else than a PUBLISH came".into());
            }
        }
    }
    Ok(())
}

/// Waits until the broker has nothing more to do: what it takes for two looks in a row is what the looks cost.
fn settle(broker: &Broker, watcher: &mut Client) -> Result<(), Box<dyn Error>> {
    let mut before = broker.cpu();
    for _ in 0..SETTLE_LOOKS_MAX {
        thread::sleep(Duration::from_millis(100));
        watcher.ping()?;
        let now = broker.cpu();
        if now.saturating_sub(before) < Duration::from_millis(2) {
            return Ok(());
        }
        before = now;
    }
    Err("the broker does not come to rest".into())
}

/// One client that is looked at.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
}

impl Client {
    fn connect(address: SocketAddr, client_id: &str, will: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&connect(client_id, will)?)?;
        expect(&stream, &CONNACK)?;
        Ok(Self { stream })
    }

    fn subscribe(&mut self, filter: &str) -> Result<(), Box<dyn Error>> {
        self.stream.write_all(&subscribe(filter)?)?;
        expect(&self.stream, &SUBACK)
    }

    fn ping(&mut self) -> Result<(), Box<dyn Error>> {
        self.stream.write_all(&PINGREQ)?;
        expect(&self.stream, &PINGRESP)
    }

    /// Reads this many PUBLISH packets, each shorter than 128 bytes.
    fn read_publications(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        let (mut left, mut bytes, mut scratch) = (count, Vec::new(), vec![0; 64 << 10]);
        while left > 0 {
            let got = self.stream.read(&mut scratch)?;
            if got == 0 {
                return Err("the broker has closed the connection".into());
            }
            bytes.extend_from_slice(&scratch[..got]);
            let mut at = 0;
            while let Some(length) = bytes.get(at + 1).map(|length| usize::from(*length) + 2)
                && at + length <= bytes.len()
            {
                left -= 1;
                at += length;
            }
            bytes.drain(..at);
        }
        Ok(())
    }
}

pub(crate) fn topic(n: usize) -> String {
    format!("devices/{n:06}/commands")
}

pub(crate) fn connect(client_id: &str, will: Option<&str>) -> Result<Vec<u8>, Box<dyn Error>> {
    let will = match will {
        Some(topic) => Some(Will {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: TopicName::new(topic)?,
            payload: Bytes::from_static(b"gone"),
            properties: Properties::new(),
        }),
        None => None,
    };
    let connect = Connect {
        version: Version::V3_1_1,
        clean_start: true,
        bridge: false,
        keep_alive: KEEP_ALIVE_MAX_SECONDS,
        client_id: Text::try_from(client_id)?,
        will,
        username: None,
        password: None,
        properties: Properties::new(),
    };
    encode(&Packet::Connect(Box::new(connect)))
}

pub(crate) fn subscribe(filter: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let options = SubscriptionOptions { qos: QoS::AtMostOnce, ..SubscriptionOptions::default() };
    let subscriptions = vec![Subscription { filter: TopicFilter::new(filter)?, options }];
    encode(&Packet::Subscribe(Subscribe { packet_id: NonZeroU16::MIN, properties: Properties::new(), subscriptions }))
}

pub(crate) fn publish(topic: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TopicName::new(topic)?,
        packet_id: None,
        properties: Properties::new(),
        payload: Bytes::from_static(&[b'x'; 64]),
    };
    encode(&Packet::Publish(publish))
}

fn encode(packet: &Packet) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    packet.encode(Version::V3_1_1, &mut bytes)?;
    Ok(bytes)
}

fn expect(mut stream: &TcpStream, expected: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut got = [0; 8];
    let got = got.get_mut(..expected.len()).expect("answers are short");
    stream.read_exact(got)?;
    if got != expected {
        return Err(format!("the broker answered {got:02x?} instead of {expected:02x?}").into());
    }
    Ok(())
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 0];
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];
const PUBLISH: u8 = 0x30;

/// mosquitto's backlog is 100.
const BATCH: usize = 100;
/// How often each connection pings while it is idle.
pub(crate) const KEEP_ALIVE_SECONDS: u64 = 60;

/// What it tells the broker: on a busy machine, more time may pass until all are there.
const KEEP_ALIVE_MAX_SECONDS: u16 = 600;

/// A little more than what a broker takes to look at everything it holds.
const SWEEP: Duration = Duration::from_secs(35);
const SETTLE_LOOKS_MAX: usize = 300;
