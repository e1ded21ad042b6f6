//! The client against the broker of this crate: every transport, every version, every QoS, across sessions.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_support;

use std::{io, time::Duration};

use client_support::{filter, outgoing, subscribe_to};
use ferromq::{
    client::{
        Client, ClientEvent, ClientOptions, Connecting, Connector, DisconnectOptions, Error, MailboxOptions,
        PublishRequest, ServerUrl,
    },
    codec::{Limits, QoS, ReasonCode, Text, TopicName, Version, Will},
    net::listener::ListenerUrl,
    server::{Broker, BrokerBuilder, BrokerHandle},
};

fn broker(listeners: &[&str]) -> Broker {
    let urls = listeners.iter().map(|url| url.parse::<ListenerUrl>().unwrap());
    urls.fold(Broker::builder().shards(2), BrokerBuilder::listen).start().unwrap()
}

fn url(broker: &Broker, at: usize) -> ServerUrl {
    broker.listeners()[at].to_string().parse().unwrap()
}

fn options(url: ServerUrl, client_id: &'static str) -> ClientOptions {
    ClientOptions::new(url).client_id(Text::from_static(client_id))
}

/// Connects inside the process, as often as it is asked to.
#[derive(Debug)]
struct Memory(BrokerHandle);

impl Connector for Memory {
    fn name(&self, _: usize) -> String {
        "memory".to_owned()
    }

    fn connect(&self, _: usize) -> Connecting<'_> {
        let stream = self.0.connect_memory();
        Box::pin(async { Ok::<_, io::Error>(Box::new(stream?) as _) })
    }
}

#[tokio::test]
async fn every_transport_carries_every_qos_in_every_version() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", folder.path().join("s").display());
    let broker = broker(&["tcp://127.0.0.1:0", "ws://127.0.0.1:0/mqtt", &socket]);
    for at in 0..3 {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            let client = Client::connect(options(url(&broker, at), "c").version(version)).await.unwrap();
            round_trip(&client).await;
            client.disconnect(DisconnectOptions::default()).await.unwrap();
        }
    }
    let client = Client::start_with(options(url(&broker, 0), "m"), Memory(broker.handle())).unwrap();
    round_trip(&client).await;
}

async fn round_trip(client: &Client) {
    let mut subscription = client.subscribe(subscribe_to(&["t/#"]), MailboxOptions::default()).await.unwrap();
    let large = vec![b'x'; 200_000];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for payload in [&b""[..], b"small", &large] {
            client.publish(PublishRequest::new("t/1", payload.to_vec()).qos(qos)).await.unwrap();
            let message = subscription.recv().await.unwrap();
            assert_eq!((message.topic(), message.qos(), message.payload()), ("t/1", qos, payload));
        }
    }
}

#[tokio::test]
async fn many_messages_of_each_qos_arrive_in_order() {
    let broker = broker(&["tcp://127.0.0.1:0"]);
    let publisher = Client::connect(options(url(&broker, 0), "p")).await.unwrap();
    let subscriber = Client::connect(options(url(&broker, 0), "s")).await.unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut subscription = subscriber.subscribe(subscribe_to(&["n"]), MailboxOptions::default()).await.unwrap();
        let payloads: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
        let series = publisher.publish_many(payloads.iter().map(|text| outgoing("n", text.as_bytes(), qos)));
        let receiving = async {
            for expected in &payloads {
                assert_eq!(subscription.recv().await.unwrap().payload(), expected.as_bytes());
            }
        };
        assert_eq!(tokio::join!(series, receiving).0.unwrap(), 3000);
        subscription.unsubscribe().await.unwrap();
    }
}

#[tokio::test]
async fn a_persistent_session_receives_what_was_published_while_it_was_away() {
    let broker = broker(&["tcp://127.0.0.1:0"]);
    let persistent = || {
        let mut options = options(url(&broker, 0), "s").persistent(3600);
        options.unmatched = Some(MailboxOptions::default());
        options
    };
    let away = Client::connect(persistent()).await.unwrap();
    let subscription = away.subscribe(subscribe_to(&["t"]), MailboxOptions::default()).await.unwrap();
    subscription.leave();
    away.disconnect(DisconnectOptions::default()).await.unwrap();
    let publisher = Client::connect(options(url(&broker, 0), "p")).await.unwrap();
    publisher.publish(PublishRequest::new("t", "kept").qos(QoS::AtLeastOnce)).await.unwrap();
    let back = Client::connect(persistent()).await.unwrap();
    let mut unmatched = back.take_unmatched().unwrap();
    assert_eq!(unmatched.recv().await.unwrap().payload(), b"kept");
    back.unsubscribe(vec![filter("t")]).await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_kicked_comes_back_and_resumes() {
    let broker = broker(&["tcp://127.0.0.1:0"]);
    let client = Client::connect(options(url(&broker, 0), "c").persistent(60)).await.unwrap();
    let mut subscription = client.subscribe(subscribe_to(&["t"]), MailboxOptions::default()).await.unwrap();
    let mut events = client.events();
    assert!(broker.handle().kick("c", ReasonCode::ServerBusy));
    let connected = loop {
        if let ClientEvent::Connected { connected, .. } = events.recv().await.unwrap() {
            break connected;
        }
    };
    assert!(connected.session_present);
    client.publish(PublishRequest::new("t", "x").qos(QoS::ExactlyOnce)).await.unwrap();
    assert_eq!(subscription.recv().await.unwrap().payload(), b"x");
}

#[tokio::test]
async fn a_takeover_ends_the_first_client_and_not_the_second() {
    let broker = broker(&["tcp://127.0.0.1:0"]);
    let first = Client::connect(options(url(&broker, 0), "same")).await.unwrap();
    let mut events = first.events();
    let second = Client::connect(options(url(&broker, 0), "same")).await.unwrap();
    match events.recv().await.unwrap() {
        ClientEvent::Disconnected { reason: Some(error), retry_in: None } => {
            assert_eq!(error.reason_code(), Some(ReasonCode::SessionTakenOver));
        }
        other => panic!("{other:?}"),
    }
    round_trip(&second).await;
}

#[tokio::test]
async fn the_will_of_a_client_that_says_so_is_published() {
    let broker = broker(&["tcp://127.0.0.1:0"]);
    let watcher = Client::connect(options(url(&broker, 0), "w")).await.unwrap();
    let mut wills = watcher.subscribe(subscribe_to(&["will"]), MailboxOptions::default()).await.unwrap();
    let will = Will {
        topic: TopicName::parse(Text::from_static("will"), &Limits::default()).unwrap(),
        payload: "gone".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: ferromq::codec::Properties::new(),
    };
    let client = Client::connect(options(url(&broker, 0), "c").will(will)).await.unwrap();
    let reason = ReasonCode::DisconnectWithWill;
    client.disconnect(DisconnectOptions { reason, ..DisconnectOptions::default() }).await.unwrap();
    assert_eq!(wills.recv().await.unwrap().payload(), b"gone");
}

#[tokio::test]
async fn requests_are_served() {
    let broker = broker(&["tcp://127.0.0.1:0"]);
    let server = Client::connect(options(url(&broker, 0), "server")).await.unwrap();
    let mut serving = server.serve(filter("double/+"), MailboxOptions::default()).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = serving.next().await {
            let answer = request.message.payload().repeat(2);
            request.respond(answer).await.unwrap();
        }
    });
    let client = Client::connect(options(url(&broker, 0), "asker")).await.unwrap();
    let ask = |payload: &'static str| client.request(PublishRequest::new("double/x", payload), Duration::from_secs(10));
    let (one, two) = tokio::join!(ask("a"), ask("b"));
    assert_eq!((one.unwrap().payload(), two.unwrap().payload()), (&b"aa"[..], &b"bb"[..]));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_in_the_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url: ServerUrl = format!("mqtt://localhost:{port}").parse().unwrap();
    let error = Client::connect(ClientOptions::new(url)).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.retryable());
    assert!(error.to_string().contains(&format!("mqtt://localhost:{port}")), "{error}");
}

#[tokio::test]
async fn an_http_server_without_websocket_is_told_apart() {
    let broker = broker(&["ws://127.0.0.1:0/mqtt"]);
    let wrong = url(&broker, 0).to_string().replace("/mqtt", "/other");
    let error = Client::connect(ClientOptions::parse(&wrong).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}
