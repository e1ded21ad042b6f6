//! What a message costs in the client: nanoseconds of CPU over all of its threads, the scripted server's not counted.
//! The server writes in blocks of 64 KiB over a loopback socket. `cargo bench --bench client [-- --test | receive |
//! publish | acknowledged]`

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use ferromq::{
    client::{
        Client, ClientOptions, Completion, CompletionSink, Error, MailboxOptions, Outgoing, Payload, RequestError,
        ServerUrl, SubscribeRequest,
    },
    codec::{
        Ack, ConnAck, Cut, Limits, Packet, PacketId, Properties, Publish, PublishRef, QoS, ReasonCode, Source, SubAck,
        SubscriptionOptions, Text, TopicFilter, TopicName, Version, frame::cut,
    },
};

fn main() {
    // `cargo test --all-targets` runs this once, small.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let scale = if is_test { 1 } else { 100 };
    println!("{:<44} {:>14} {:>14}", "path", "CPU ns/message", "k messages/s");
    let only = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let wants = |name| only.as_deref().is_none_or(|only| only == name);
    if wants("receive") {
        for (qos, payload) in [(QoS::AtMostOnce, 16), (QoS::AtMostOnce, 1024), (QoS::AtLeastOnce, 16)] {
            receive(qos, payload, 20_000 * scale);
        }
    }
    if wants("publish") {
        for payload in [16, 1024] {
            publish_one_by_one(payload, 20_000 * scale);
            publish_many(payload, 20_000 * scale);
        }
    }
    if wants("acknowledged") {
        publish_acknowledged(16, 10_000 * scale);
    }
}

fn receive(qos: QoS, payload: usize, count: usize) {
    let (url, server) = serve(move |mut peer| {
        peer.await_subscribe();
        peer.flood(qos, payload, count);
        peer
    });
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(ClientOptions::new(url))).expect("the server is there");
    let filter = TopicFilter::parse(Text::from_static("bench/#"), &Limits::default()).expect("a valid filter");
    let request = SubscribeRequest::new(filter, SubscriptionOptions { qos, ..SubscriptionOptions::default() });
    let cost = Cost::begin();
    runtime.block_on(async {
        let mut subscription = client.subscribe(request, MailboxOptions::default()).await.expect("granted");
        let mut bytes = 0;
        for _ in 0..count {
            let message = subscription.recv().await.expect("the connection lasts");
            bytes += message.payload().len() + message.topic().len();
        }
        assert_eq!(bytes, count * (payload + TOPIC.len()));
        subscription.leave();
    });
    cost.report(&format!("receive {qos:?}, {payload} B"), count);
    drop(client);
    server.join();
}

fn publish_one_by_one(payload: usize, count: usize) {
    with_sink(payload, count, &format!("publish AtMostOnce, {payload} B"), |client, message| {
        for _ in 0..count {
            while let Err(error) = client.try_publish(&message) {
                wait_for_room(&error);
            }
        }
    });
}

fn publish_many(payload: usize, count: usize) {
    with_sink(payload, count, &format!("publish AtMostOnce, 1000 at a time, {payload} B"), |client, message| {
        let mut left = count;
        while left > 0 {
            let (taken, _, stopped) = client.submit_many((0..left.min(1000)).map(|_| message), 0);
            left -= taken;
            if let Some(error) = stopped {
                wait_for_room(&error);
            }
        }
    });
}

fn with_sink(payload: usize, count: usize, name: &str, publish: impl FnOnce(&Client, Outgoing<'_>)) {
    let bytes = vec![b'x'; payload];
    let (url, server) = serve(move |mut peer| {
        peer.swallow(count * (payload + TOPIC.len() + 5 + usize::from(payload > 100)));
        peer
    });
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(ClientOptions::new(url))).expect("the server is there");
    let cost = Cost::begin();
    publish(&client, outgoing(&bytes, QoS::AtMostOnce));
    // The last byte is in the socket when the server has read it.
    server.join_with(|| cost.report(name, count));
    drop(client);
}

fn publish_acknowledged(payload: usize, count: usize) {
    let bytes = vec![b'x'; payload];
    let (url, server) = serve(move |mut peer| {
        peer.acknowledge(count);
        peer
    });
    let runtime = runtime();
    let sink = Arc::new(Sink::default());
    let options = ClientOptions { completions: Some(sink.clone()), ..ClientOptions::new(url) };
    let client = runtime.block_on(Client::connect(options)).expect("the server is there");
    let cost = Cost::begin();
    for number in 0..count {
        sink.wait_below(1000);
        *sink.open.lock().expect("no panic") += 1;
        client.submit(&outgoing(&bytes, QoS::AtLeastOnce), number as u64).expect("the window is large");
    }
    sink.wait_below(1);
    cost.report(&format!("publish AtLeastOnce, window of 1000, {payload} B"), count);
    drop(client);
    server.join();
}

fn outgoing(payload: &[u8], qos: QoS) -> Outgoing<'_> {
    const NONE: &Properties = &Properties::new();
    Outgoing { topic: TOPIC, payload: Payload::Borrowed(payload), qos, retain: false, properties: NONE }
}

fn wait_for_room(error: &Error) {
    assert!(matches!(error, Error::Request(RequestError::QueueFull { .. })), "{error}");
    thread::yield_now();
}

/// Counts what is open, and wakes who waits for fewer.
#[derive(Debug, Default)]
struct Sink {
    open: Mutex<usize>,
    changed: Condvar,
}

impl CompletionSink for Sink {
    fn complete(&self, batch: &mut Vec<Completion>) {
        *self.open.lock().expect("no panic") -= batch.len();
        batch.clear();
        self.changed.notify_all();
    }
}

impl Sink {
    fn wait_below(&self, bound: usize) {
        let open = self.open.lock().expect("no panic");
        drop(self.changed.wait_while(open, |open| *open >= bound).expect("no panic"));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// CPU time of all threads but the scripted server's.
struct Cost {
    cpu_ns: u64,
    began: Instant,
}

impl Cost {
    fn begin() -> Self {
        Self { cpu_ns: cpu_ns(), began: Instant::now() }
    }

    fn report(&self, name: &str, count: usize) {
        #[allow(clippy::cast_precision_loss)] // it is printed in whole nanoseconds
        let cpu = (cpu_ns() - self.cpu_ns) as f64 / count as f64;
        #[allow(clippy::cast_precision_loss)]
        let rate = count as f64 / self.began.elapsed().as_secs_f64() / 1000.0;
        println!("{name:<44} {cpu:>14.0} {rate:>14.0}");
    }
}

/// Nanoseconds all threads of this process have run, the scripted server's taken off. Linux only; elsewhere zero.
fn cpu_ns() -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let servers = SERVER_THREAD.load(Ordering::Relaxed);
    tasks
        .flatten()
        .filter(|task| task.file_name().to_string_lossy() != servers.to_string())
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Thread of the scripted server.
static SERVER_THREAD: AtomicU64 = AtomicU64::new(0);

struct Server(thread::JoinHandle<Peer>);

impl Server {
    fn join(self) {
        self.0.join().expect("the server does not panic");
    }

    /// Runs `before_close` when the server is done and before it closes.
    fn join_with(self, before_close: impl FnOnce()) {
        let peer = self.0.join().expect("the server does not panic");
        before_close();
        drop(peer);
    }
}

/// A server that accepts one client and then does `work`.
fn serve(work: impl FnOnce(Peer) -> Peer + Send + 'static) -> (ServerUrl, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("mqtt://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    let thread = thread::spawn(move || {
        let id = fs::read_link("/proc/thread-self").ok().and_then(|link| link.file_name()?.to_str()?.parse().ok());
        SERVER_THREAD.store(id.unwrap_or_default(), Ordering::Relaxed);
        let stream = listener.accept().expect("the client comes").0;
        let mut peer = Peer { stream, input: Vec::new() };
        peer.next_packet();
        let properties = Properties::new();
        peer.send(&Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties,
        })));
        work(peer)
    });
    (url, Server(thread))
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Peer {
    fn next_packet(&mut self) -> Packet {
        loop {
            if let Cut::Frame(frame, used) = cut(&self.input, u32::MAX).expect("well-formed") {
                let packet =
                    Packet::decode(frame, Version::V5, &Limits::default(), &Source::Scratch).expect("decodable");
                self.input.drain(..used);
                return packet;
            }
            assert!(self.fill() > 0, "the client is there");
        }
    }

    fn fill(&mut self) -> usize {
        let mut chunk = vec![0; 65_536];
        let count = self.stream.read(&mut chunk).unwrap_or(0);
        self.input.extend_from_slice(&chunk[..count]);
        count
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).expect("encodable");
        self.stream.write_all(&bytes).expect("the client reads");
    }

    fn await_subscribe(&mut self) {
        let Packet::Subscribe(subscribe) = self.next_packet() else { panic!("SUBSCRIBE comes first") };
        let reasons = vec![ReasonCode::GrantedQoS1];
        let properties = Properties::new();
        self.send(&Packet::SubAck(SubAck { packet_id: subscribe.packet_id, properties, reasons }));
    }

    /// Sends so many messages, within the client's receive maximum if they have to be acknowledged.
    fn flood(&mut self, qos: QoS, payload: usize, count: usize) {
        let mut block = Vec::new();
        let (mut id, mut open) = (0u16, 0);
        for _ in 0..count {
            let packet_id = (qos > QoS::AtMostOnce).then(|| {
                id = id % 60_000 + 1;
                PacketId::new(id).expect("above zero")
            });
            open += usize::from(packet_id.is_some());
            let message = Publish {
                dup: false,
                qos,
                retain: false,
                topic: TopicName::parse(Text::from_static(TOPIC), &Limits::default()).expect("a valid topic"),
                packet_id,
                properties: Properties::new(),
                payload: vec![b'x'; payload].into(),
            };
            message.encode(Version::V5, &mut block).expect("encodable");
            if block.len() >= BLOCK_BYTES || open >= 1000 {
                self.stream.write_all(&block).expect("the client reads");
                block.clear();
            }
            while open >= 1000 {
                assert!(self.fill() > 0, "the client acknowledges");
                open -= self.input.len() / PUBACK_BYTES;
                self.input.drain(..self.input.len() / PUBACK_BYTES * PUBACK_BYTES);
            }
        }
        self.stream.write_all(&block).expect("the client reads");
    }

    fn swallow(&mut self, bytes: usize) {
        let mut left = bytes;
        let mut chunk = vec![0; 1 << 20];
        while left > 0 {
            let count = self.stream.read(&mut chunk).expect("the client is there");
            assert!(count > 0, "{left} bytes are missing");
            left -= count;
        }
    }

    fn acknowledge(&mut self, count: usize) {
        let mut acks = Vec::new();
        let mut done = 0;
        while done < count {
            assert!(self.fill() > 0, "the client is there");
            let mut at = 0;
            while let Ok(Cut::Frame(frame, used)) = cut(&self.input[at..], u32::MAX) {
                let publish = PublishRef::decode(frame, Version::V5, &Limits::default()).expect("a PUBLISH");
                let ack = Ack::new(publish.packet_id.expect("QoS 1"), ReasonCode::Success);
                Packet::PubAck(ack).encode(Version::V5, &mut acks).expect("encodable");
                at += used;
                done += 1;
            }
            self.input.drain(..at);
            self.stream.write_all(&acks).expect("the client reads");
            acks.clear();
        }
    }
}

const TOPIC: &str = "bench/plant/line/7/temperature";
const BLOCK_BYTES: usize = 65_536;
const PUBACK_BYTES: usize = 4;
