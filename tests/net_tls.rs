//! TLS: the broker's shards and the client against one another, and against what is no TLS.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use client_support::{outgoing, subscribe_to};
use ferromq::{
    broker::EndReason,
    client::{
        Client, ClientEvent, ClientOptions, ClientTls, DisconnectOptions, Error, MailboxOptions, Outgoing,
        PublishRequest, ServerUrl,
    },
    clock::Clock,
    codec::{PacketType, QoS, Version},
    faults::{Action, Direction, Faults, Proxy, Select},
    net::{
        listener::{BindError, ListenerConfig, ListenerTls, ListenerUrl, Pem},
        tls::{SelfSigned, TlsError},
    },
    server::{Broker, StartError},
};

/// A broker with TLS, and what its clients have to know.
struct World {
    broker: Broker,
    certificate: SelfSigned,
}

impl World {
    fn new(urls: &[&str]) -> Self {
        Self::with(urls, None, None)
    }

    fn with(urls: &[&str], client_ca: Option<&SelfSigned>, faults: Option<&Faults>) -> Self {
        let certificate = SelfSigned::new(["localhost", "127.0.0.1"]).unwrap();
        let client_ca = client_ca.map(|ca| Pem::from(ca.certificate()));
        let mut builder = Broker::builder().shards(2);
        for url in urls {
            let url: ListenerUrl = url.parse().unwrap();
            let tls = ListenerTls { client_ca: client_ca.clone(), ..certificate.to_listener() };
            let tls = url.is_tls().then_some(tls);
            builder = builder.listen(ListenerConfig { tls, ..url.into() });
        }
        if let Some(faults) = faults {
            builder = builder.faults(faults);
        }
        Self { broker: builder.start().unwrap(), certificate }
    }

    fn url(&self, at: usize) -> ServerUrl {
        self.broker.listeners()[at].to_string().parse().unwrap()
    }

    fn port(&self) -> u16 {
        self.broker.listeners()[0].port().unwrap()
    }

    fn tls(&self) -> ClientTls {
        ClientTls { ca: Some(self.certificate.certificate().into()), ..ClientTls::default() }
    }

    fn options(&self, at: usize) -> ClientOptions {
        ClientOptions { tls: self.tls(), reconnect: None, ..ClientOptions::new(self.url(at)) }
    }

    /// Until so many connections have ended for a reason.
    fn wait_ended(&self, reason: EndReason, count: u64) {
        for _ in 0..WAITS_MAX {
            if self.broker.handle().stats().ended(reason) >= count {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{} connections have ended as {reason:?}", self.broker.handle().stats().ended(reason));
    }
}

async fn refused(options: ClientOptions) -> String {
    match Client::connect(options).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it should not connect"),
    }
}

#[tokio::test]
async fn mqtt_and_websocket_go_over_tls_in_every_version_and_size() {
    let world = World::new(&["tls://127.0.0.1:0", "wss://127.0.0.1:0/mqtt"]);
    let large = vec![b'x'; 700_000];
    for at in 0..2 {
        for version in [Version::V3_1_1, Version::V5] {
            let client = Client::connect(world.options(at).version(version)).await.unwrap();
            let mut subscription = client.subscribe(subscribe_to(&["t"]), MailboxOptions::default()).await.unwrap();
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                for payload in [&b""[..], b"small", &large] {
                    client.publish(PublishRequest::new("t", payload.to_vec()).qos(qos)).await.unwrap();
                    assert_eq!(subscription.recv().await.unwrap().payload(), payload);
                }
            }
            client.disconnect(DisconnectOptions::default()).await.unwrap();
        }
    }
}

/// More than buffers on both ways hold, so both sides write while the other does.
#[tokio::test]
async fn both_directions_are_full_at_once() {
    let world = World::new(&["tls://127.0.0.1:0"]);
    let client = Client::connect(world.options(0)).await.unwrap();
    let mut subscription = client.subscribe(subscribe_to(&["n"]), MailboxOptions::default()).await.unwrap();
    let payload = vec![b'.'; 10_000];
    let publishing = client.publish_many((0..2000).map(|_| outgoing_of(&payload)));
    let receiving = async {
        for _ in 0..2000 {
            assert_eq!(subscription.recv().await.unwrap().payload(), payload);
        }
    };
    assert_eq!(tokio::join!(publishing, receiving).0.unwrap(), 2000);
}

fn outgoing_of(payload: &[u8]) -> Outgoing<'_> {
    outgoing("n", payload, QoS::AtLeastOnce)
}

#[tokio::test]
async fn a_shutdown_reaches_clients_before_the_end() {
    let world = World::new(&["tls://127.0.0.1:0"]);
    let client = Client::connect(world.options(0)).await.unwrap();
    let mut events = client.events();
    tokio::task::spawn_blocking(move || world.broker.shutdown()).await.unwrap();
    let reason = loop {
        if let Some(ClientEvent::Disconnected { reason, .. }) = events.recv().await {
            break reason.unwrap().to_string();
        }
    };
    assert!(reason.contains("shutting down"), "{reason}");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_refused_with_advice() {
    let world = World::new(&["tls://127.0.0.1:0"]);
    let stranger = SelfSigned::new(["localhost"]).unwrap();
    let believing = |ca: &str| ClientTls { ca: Some(ca.into()), ..ClientTls::default() };
    let unknown = ClientOptions { tls: believing(stranger.certificate()), ..world.options(0) };
    let error = refused(unknown).await;
    assert!(error.contains("name the CA's certificate with ca"), "{error}");
    let other_name = ClientTls { server_name: Some("broker.example".into()), ..world.tls() };
    let error = refused(ClientOptions { tls: other_name, ..world.options(0) }).await;
    assert!(error.contains("another name"), "{error}");
    world.wait_ended(EndReason::TlsError, 2);
    let blind = ClientTls { verify: false, ..ClientTls::default() };
    Client::connect(ClientOptions { tls: blind, ..world.options(0) }).await.unwrap();
    let named = ClientTls { server_name: Some("localhost".into()), ..world.tls() };
    Client::connect(ClientOptions { tls: named, ..world.options(0) }).await.unwrap();
}

#[tokio::test]
async fn clients_are_asked_for_their_certificates() {
    let own = SelfSigned::new(["device 7"]).unwrap();
    let world = World::with(&["tls://127.0.0.1:0"], Some(&own), None);
    let error = refused(world.options(0)).await;
    assert!(error.contains("wants a certificate of the client"), "{error}");
    let shows =
        |it: &SelfSigned| ClientTls { identity: Some((it.certificate().into(), it.key().into())), ..world.tls() };
    Client::connect(ClientOptions { tls: shows(&own), ..world.options(0) }).await.unwrap();
    let stranger = SelfSigned::new(["device 8"]).unwrap();
    refused(ClientOptions { tls: shows(&stranger), ..world.options(0) }).await;
    world.wait_ended(EndReason::TlsError, 2);
}

#[tokio::test]
async fn what_is_no_tls_is_told_apart() {
    let world = World::new(&["tls://127.0.0.1:0", "tcp://127.0.0.1:0"]);
    let mut plain = TcpStream::connect(("127.0.0.1", world.port())).unwrap();
    plain.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    // An alert, and the end; what is left unread here may make it a reset.
    let _ = plain.read_to_end(&mut Vec::new());
    world.wait_ended(EndReason::TlsError, 1);
    let plain_port = world.broker.listeners()[1].port().unwrap();
    let url = ServerUrl::Tcp { host: "127.0.0.1".into(), port: plain_port, tls: true };
    let error = Client::connect(ClientOptions { servers: vec![url], ..world.options(0) }).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // Nobody was harmed.
    Client::connect(world.options(0)).await.unwrap();
}

/// The handshake comes in single bytes, and ends in the middle.
#[test]
fn a_handshake_may_come_in_pieces_or_not_at_all() {
    let world = World::new(&["tls://127.0.0.1:0"]);
    let mut slow = TcpStream::connect(("127.0.0.1", world.port())).unwrap();
    slow.set_nodelay(true).unwrap();
    for byte in [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00] {
        slow.write_all(&[byte]).unwrap();
    }
    drop(slow);
    world.wait_ended(EndReason::ClientClosed, 1);
    assert!(world.broker.handle().clients().is_empty());
}

#[test]
fn faults_see_packets_and_not_records() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let faults = Faults::new(&Clock::adjustable(), runtime.handle().clone(), 1, 8);
    let world = World::with(&["tls://127.0.0.1:0"], None, Some(&faults));
    let drop_first = Select { packets: vec![PacketType::Publish], nth: Some(1), ..Select::default() };
    let rule = faults.add(Select { direction: Some(Direction::ToBroker), ..drop_first }, Action::Drop).unwrap();
    runtime.block_on(async {
        let client = Client::connect(world.options(0)).await.unwrap();
        let mut subscription = client.subscribe(subscribe_to(&["t"]), MailboxOptions::default()).await.unwrap();
        for payload in ["lost", "kept"] {
            client.publish(PublishRequest::new("t", payload)).await.unwrap();
        }
        assert_eq!(subscription.recv().await.unwrap().payload(), b"kept");
        assert_eq!(rule.hits(), 1);
        assert!(faults.trace(None).iter().any(|trace| trace.to_string().contains("CONNECT")));
        // A plain client of a proxy whose broker speaks TLS.
        let passing = Faults::new(&Clock::system(), runtime.handle().clone(), 1, 8);
        let proxy = Proxy::start(passing, "127.0.0.1", 0, world.url(0), &world.tls()).await.unwrap();
        let url = format!("mqtt://{}", proxy.address()).parse().unwrap();
        Client::connect(ClientOptions { servers: vec![url], ..world.options(0) }).await.unwrap();
        proxy.stop().await;
    });
}

#[test]
fn certificates_that_are_of_no_use_are_named_before_anything_listens() {
    let (one, other) = (SelfSigned::new(["a"]).unwrap(), SelfSigned::new(["b"]).unwrap());
    let start = |url: &str, tls: Option<ListenerTls>| {
        let listener = ListenerConfig { tls, ..url.parse::<ListenerUrl>().unwrap().into() };
        match Broker::builder().listen(listener).start() {
            Err(StartError::Bind(BindError::Tls { fault, .. })) => fault,
            other => panic!("{other:?}"),
        }
    };
    let good = one.to_listener();
    let at = "tls://127.0.0.1:0";
    assert!(matches!(start(at, None), TlsError::NoCertificate));
    assert!(matches!(start("tcp://127.0.0.1:0", Some(good.clone())), TlsError::NotTls));
    let mixed = ListenerTls { key: other.key().into(), ..good.clone() };
    let fault = start(at, Some(mixed)).to_string();
    assert!(fault.contains("does not belong to the certificate"), "{fault}");
    let nowhere = ListenerTls { cert: "/nowhere/cert.pem".into(), ..good.clone() };
    let fault = start(at, Some(nowhere)).to_string();
    assert!(fault.contains("/nowhere/cert.pem"), "{fault}");
    let swapped = ListenerTls { cert: one.key().into(), ..good };
    assert!(matches!(start(at, Some(swapped)), TlsError::Empty { what: "certificate", .. }));
}

/// Turns of a thread that waits for a broker: seconds, if each is a microsecond.
const WAITS_MAX: u32 = 50_000_000;

const PATIENCE: Duration = Duration::from_secs(20);
