//! Peers that are slow, silent, too many or still being judged: those beside them do not notice.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

mod net_support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use ferromq::{
    auth::{Authenticator, ConnectInfo, Verdict},
    broker::{DropReason, EndReason, Hooks, Settings},
    codec::{Packet, QoS, ReasonCode, Version},
    net::listener::{ListenerConfig, ListenerUrl},
    server::Broker,
};
use net_support::{Client, Options, PATIENCE, address, broker, eventually, tcp, url};

#[test]
fn a_peer_without_a_complete_connect_is_dropped_in_time() {
    let settings = Settings { connect_timeout: Duration::from_millis(100), ..Settings::default() };
    let broker = Broker::builder()
        .settings(settings)
        .shards(2)
        .listen(url("tcp://127.0.0.1:0"))
        .listen(url("ws://127.0.0.1:0/mqtt"))
        .start()
        .unwrap();
    let [plain, ws] = broker.listeners() else { panic!("two listeners") };
    let mut healthy = Client::connect(plain, "healthy");
    let starts: [(&ListenerUrl, &[u8]); 5] = [
        (plain, b""),
        (plain, b"\x10"),
        (plain, b"\x10\x0D\x00\x04MQT"),
        (ws, b""),
        (ws, b"GET /mqtt HTTP/1.1\r\nHost: "),
    ];
    let mut silent: Vec<TcpStream> = Vec::new();
    for (listener, start) in starts {
        let mut stream = tcp(address(listener));
        stream.write_all(start).unwrap();
        silent.push(stream);
    }
    for stream in &mut silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }
    healthy.ping();
    eventually("the ends are counted", || broker.handle().stats().ended(EndReason::ConnectTimeout) == 5);
}

#[test]
fn a_reader_that_does_not_read_is_bounded_and_disturbs_nobody() {
    const PAYLOAD_BYTES: usize = 4096;
    for shards in [1, 2] {
        let mut settings = Settings::default();
        settings.slow_consumer.outbox_soft_bytes = 256 << 10;
        settings.slow_consumer.stall_timeout = Duration::from_millis(500);
        let (broker, url) = broker(|builder| builder.settings(settings).shards(shards));
        let handle = broker.handle();
        let mut slow: Vec<_> = (0..4).map(|n| Client::connect(&url, &format!("slow-{n}"))).collect();
        for client in &mut slow {
            client.subscribe("flood", QoS::AtMostOnce);
        }
        let mut healthy = Client::connect(&url, "healthy");
        healthy.subscribe("flood", QoS::AtMostOnce);
        let mut publisher = Client::connect(&url, "publisher");
        let packets = vec![publisher.publish_packet("flood", vec![7; PAYLOAD_BYTES], QoS::AtMostOnce); 16];
        for _ in 0..500 {
            publisher.send_all(&packets);
            for _ in 0..packets.len() {
                assert_eq!(healthy.recv_publish().payload.len(), PAYLOAD_BYTES);
            }
            let held = handle.stats().bytes_held as usize;
            assert!(held < 8 * (256 << 10), "{held} bytes held for four slow readers");
        }
        let stats = handle.stats();
        assert!(stats.dropped(DropReason::SlowConsumer) > 0);
        eventually("those who stall are disconnected", || handle.stats().ended(EndReason::Stalled) == 4);
        healthy.ping();
    }
}

#[test]
fn a_slow_reader_loses_nothing_of_a_higher_qos() {
    const MESSAGES: usize = 4000;
    let mut settings = Settings::default();
    settings.slow_consumer.outbox_soft_bytes = 64 << 10;
    let (broker, url) = broker(|builder| builder.settings(settings).shards(2));
    let mut slow = Client::connect(&url, "slow");
    slow.subscribe("all", QoS::AtLeastOnce);
    let mut publisher = Client::connect(&url, "publisher");
    for _ in 0..MESSAGES / 100 {
        let packets: Vec<_> =
            (0..100).map(|_| publisher.publish_packet("all", vec![1; 4096], QoS::AtLeastOnce)).collect();
        publisher.send_all(&packets);
        for _ in 0..100 {
            assert!(matches!(publisher.recv(), Packet::PubAck(_)));
        }
    }
    for _ in 0..MESSAGES {
        assert_eq!(slow.recv_publish().payload.len(), 4096);
    }
    slow.ping_through();
    broker.handle().wait_settled();
    assert_eq!(broker.handle().stats().dropped_total(), 0);
}

#[test]
fn a_listener_at_its_limit_closes_one_more_at_once() {
    for reuse_port in [Some(true), Some(false)] {
        let listener =
            ListenerConfig { max_connections: 2, reuse_port, ..ListenerConfig::new(url("tcp://127.0.0.1:0")) };
        let broker = Broker::builder().shards(2).listen(listener).start().unwrap();
        let url = broker.listeners()[0].clone();
        let first = Client::connect(&url, "first");
        let mut second = Client::connect(&url, "second");
        let mut third = tcp(address(&url));
        assert!(matches!(third.read(&mut [0]), Ok(0)));
        second.ping();
        first.disconnect();
        eventually("the place is free", || try_connect(&url, "third"));
        assert!(broker.handle().net_stats().connections_refused > 0);
    }
}

fn try_connect(url: &ListenerUrl, id: &str) -> bool {
    let mut client = Client::open(url);
    let mut bytes = vec![0x10, (12 + id.len()) as u8, 0, 4];
    bytes.extend(b"MQTT");
    bytes.extend([4, 2, 0, 0, 0, id.len() as u8]);
    bytes.extend(id.as_bytes());
    client.version = Version::V3_1_1;
    client.stream.write_all(&bytes).is_ok() && matches!(client.try_recv(), Ok(Some(Packet::ConnAck(_))))
}

#[test]
fn a_flood_of_connections_does_not_reach_the_clients_beside_it() {
    const THREADS: usize = 4;
    const CONNECTIONS: usize = 500;
    for shards in [1, 2] {
        let (broker, url) = broker(|builder| builder.shards(shards));
        let mut healthy = Client::connect(&url, "healthy");
        healthy.subscribe("t", QoS::AtLeastOnce);
        let floods: Vec<_> = (0..THREADS)
            .map(|kind| {
                let address = address(&url);
                thread::spawn(move || {
                    for _ in 0..CONNECTIONS {
                        let mut stream = tcp((address.0.as_str(), address.1));
                        let bytes: &[u8] =
                            if kind % 2 == 0 { b"" } else { b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01" };
                        stream.write_all(bytes).unwrap();
                    }
                })
            })
            .collect();
        for n in 0..200 {
            let packet = healthy.publish_packet("t", n.to_string(), QoS::AtMostOnce);
            healthy.send(&packet);
            assert_eq!(healthy.recv_publish().payload, n.to_string());
        }
        for flood in floods {
            flood.join().unwrap();
        }
        let handle = broker.handle();
        let flooded = (THREADS * CONNECTIONS) as u64;
        eventually("all of them have come", || handle.stats().connections_opened > flooded);
        eventually("all of them are gone", || handle.stats().ended.iter().sum::<u64>() >= flooded);
        healthy.ping();
    }
}

/// Defers everybody; "slow" waits until the test lets it go, "broken" panics, "wrong" is refused.
#[derive(Debug)]
struct Waiting(Mutex<Receiver<()>>);

impl Authenticator for Waiting {
    fn authenticate(&self, _: &ConnectInfo) -> Verdict {
        Verdict::Defer
    }

    fn authenticate_blocking(&self, info: &ConnectInfo) -> Verdict {
        match info.username.as_deref() {
            Some("slow") => {
                self.0.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                Verdict::Accept
            }
            Some("broken") => panic!("a faulty back end"),
            Some("wrong") => Verdict::Refuse { reason: ReasonCode::BadUserNameOrPassword, message: None },
            _ => Verdict::Accept,
        }
    }
}

#[test]
fn an_authenticator_that_waits_holds_up_nobody_else() {
    for shards in [1, 2] {
        let (release, released): (SyncSender<()>, _) = sync_channel(1);
        let hooks = Hooks { authenticator: Some(Arc::new(Waiting(Mutex::new(released)))), ..Hooks::default() };
        let (_broker, url) = broker(|builder| builder.hooks(hooks).shards(shards));
        let slow = thread::spawn({
            let url = url.clone();
            move || {
                let mut client = Client::open(&url);
                // What is sent behind CONNECT waits with it.
                let options = Options { username: Some("slow"), ..Options::default() };
                client.handshake("slow", &options).reason
            }
        });
        let as_user = |name| Options { username: Some(name), ..Options::default() };
        let mut quick = Client::connect_with(&url, "quick", &as_user("quick"));
        quick.ping();
        assert_eq!(Client::try_connect(&url, "wrong", &as_user("wrong")).1.reason, ReasonCode::BadUserNameOrPassword);
        let (mut broken, connack) = Client::try_connect(&url, "broken", &as_user("broken"));
        assert_eq!(connack.reason, ReasonCode::UnspecifiedError);
        broken.recv_end();
        quick.ping();
        release.send(()).unwrap();
        assert_eq!(slow.join().unwrap(), ReasonCode::Success);
    }
}

/// A broker in a process of its own, with few descriptors.
struct SmallBroker {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl SmallBroker {
    fn start() -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n 48 && exec \"$0\" --exact small_broker --ignored --nocapture"])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the small broker lives");
            // The test harness may have begun the line.
            if let Some((_, answer)) = line.split_once("answer ") {
                return answer.trim().to_owned();
            }
        }
    }
}

impl Drop for SmallBroker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn running_out_of_descriptors_postpones_connections_and_keeps_those_there_are() {
    let mut small = SmallBroker::start();
    let url: ListenerUrl = small.ask("url").parse().unwrap();
    let mut healthy = Client::connect(&url, "healthy");
    healthy.subscribe("t", QoS::AtMostOnce);
    let mut waiting: Vec<_> = (0..64).map(|_| tcp(address(&url))).collect();
    eventually("descriptors have run out", || small.ask("postponed") != "0");
    let packet = healthy.publish_packet("t", "still here", QoS::AtMostOnce);
    healthy.send(&packet);
    assert_eq!(healthy.recv_publish().payload, "still here");
    // The last in the queue comes in when the first ones leave.
    let last = waiting.pop().unwrap();
    drop(waiting);
    let mut late = Client::raw(last);
    assert_eq!(late.handshake("late", &Options::default()).reason, ReasonCode::Success);
    healthy.ping();
}

#[test]
#[ignore = "the other process of the test above"]
fn small_broker() {
    let (broker, url) = broker(|builder| builder);
    for question in std::io::stdin().lines() {
        match question.unwrap().as_str() {
            "url" => println!("answer {url}"),
            "postponed" => println!("answer {}", broker.handle().net_stats().accepts_postponed),
            other => panic!("unknown question {other}"),
        }
    }
}
