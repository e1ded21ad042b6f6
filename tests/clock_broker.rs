//! A broker and clients of its process whose time is advanced: hours pass, and what would happen in them does, in order.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_support;
mod net_support;

use std::{io, time::Duration};

use client_support::filter;
use ferromq::{
    client::{
        Client, ClientEvent, ClientOptions, Connecting, ConnectionState, Connector, DisconnectOptions, MailboxOptions,
        PublishRequest, Reconnect, ServerUrl, SubscribeRequest, Subscription,
    },
    clock::Clock,
    codec::{
        Connect, Packet, Properties, Property, QoS, ReasonCode, SubscriptionOptions, Text, TopicName, Version, Will,
    },
    net::listener::ListenerUrl,
    server::{Broker, BrokerHandle},
};

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

    fn has_sockets(&self) -> bool {
        false
    }
}

fn broker(shards: usize) -> Broker {
    Broker::builder()
        .shards(shards)
        .clock(Clock::adjustable())
        .listen("tcp://127.0.0.1:0".parse::<ListenerUrl>().unwrap())
        .start()
        .unwrap()
}

fn options(broker: &Broker, client_id: &'static str) -> ClientOptions {
    let clock = broker.handle().clock().clone();
    ClientOptions { clock, ..ClientOptions::default() }.client_id(Text::from_static(client_id))
}

async fn connect(broker: &Broker, options: ClientOptions) -> Client {
    let client = Client::start_with(options, Memory(broker.handle())).unwrap();
    client.ready().await.unwrap();
    client
}

async fn subscribe(client: &Client, to: &str) -> Subscription {
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    client.subscribe(SubscribeRequest::new(filter(to), options), MailboxOptions::default()).await.unwrap()
}

/// A client that is not of this process, as far as the clock knows: it says CONNECT, and then nothing.
fn foreign(url: &ListenerUrl) -> net_support::Client {
    let mut client = net_support::Client::open(url);
    client.send(&Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: true,
        bridge: false,
        keep_alive: 60,
        client_id: Text::from_static("foreign"),
        will: None,
        username: None,
        password: None,
        properties: Properties::new(),
    })));
    assert!(matches!(client.recv(), Packet::ConnAck(_)));
    client
}

fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

fn will(topic: &str, delay_seconds: u32) -> Will {
    let mut properties = Properties::new();
    properties.push(Property::WillDelayInterval(delay_seconds));
    let topic = TopicName::new(topic).unwrap();
    Will { topic, payload: "gone".into(), qos: QoS::AtLeastOnce, retain: false, properties }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_process_stay_connected_for_eight_hours_and_foreign_ones_do_not() {
    let broker = broker(2);
    let clock = broker.handle().clock().clone();
    let in_memory = connect(&broker, options(&broker, "memory").keep_alive(60)).await;
    let url: ServerUrl = broker.listeners()[0].to_string().parse().unwrap();
    let mut over_tcp = options(&broker, "tcp").keep_alive(60);
    over_tcp.servers = vec![url];
    let over_tcp = Client::connect(over_tcp).await.unwrap();
    let mut foreign = foreign(&broker.listeners()[0]);
    let before = (clock.now(), in_memory.stats().bytes_out, over_tcp.stats().bytes_out);
    clock.advance_async(hours(8)).await;
    assert!(clock.now() - before.0 >= hours(8));
    for (client, bytes_before) in [(&in_memory, before.1), (&over_tcp, before.2)] {
        assert_eq!(client.state(), ConnectionState::Connected, "{}", client.client_id().as_str());
        assert_eq!(client.stats().connections, 1, "{} was never away", client.client_id().as_str());
        let pings = (client.stats().bytes_out - bytes_before) / 2;
        assert!((240..=960).contains(&pings), "{pings} pings of {} in 8 h", client.client_id().as_str());
    }
    let end = foreign.recv_end();
    assert!(matches!(&end[..], [Packet::Disconnect(last)] if last.reason == ReasonCode::KeepAliveTimeout), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_delayed_and_comes_before_the_session_expires() {
    let broker = broker(2);
    let clock = broker.handle().clock().clone();
    let watcher = connect(&broker, options(&broker, "watcher")).await;
    let mut seen = subscribe(&watcher, "state/#").await;
    for (id, delay, expiry) in [("late", 120, 7200), ("early", 60, 7200), ("expires", 7200, 90)] {
        let client =
            connect(&broker, options(&broker, id).will(will(&format!("state/{id}"), delay)).persistent(expiry)).await;
        let keep = DisconnectOptions { reason: ReasonCode::DisconnectWithWill, ..DisconnectOptions::default() };
        client.disconnect(keep).await.unwrap();
    }
    broker.handle().settled().await;
    assert_eq!(broker.handle().clients().len(), 4);
    clock.advance_async(Duration::from_secs(50)).await;
    assert!(seen.try_recv().is_none(), "no will before its time");
    clock.advance_async(hours(1)).await;
    let mut topics = Vec::new();
    while let Some(message) = seen.try_recv() {
        topics.push(message.topic().to_owned());
    }
    // A session that ends takes its will along, delayed or not.
    assert_eq!(topics, ["state/early", "state/expires", "state/late"]);
    assert_eq!(broker.handle().clients().len(), 3, "one session has expired");
    clock.advance_async(hours(2)).await;
    assert_eq!(broker.handle().clients().len(), 1, "all have");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_expire_in_queues_and_among_retained_ones() {
    let broker = broker(1);
    let clock = broker.handle().clock().clone();
    let away = connect(&broker, options(&broker, "away").persistent(86_400)).await;
    subscribe(&away, "job/#").await.leave();
    away.disconnect(DisconnectOptions::default()).await.unwrap();
    let sender = connect(&broker, options(&broker, "sender")).await;
    for (topic, seconds) in [("job/short", 60), ("job/long", 20_000)] {
        let mut request = PublishRequest::new(topic, "1").qos(QoS::AtLeastOnce).retain();
        request.properties.push(Property::MessageExpiryInterval(seconds));
        sender.publish(request).await.unwrap();
    }
    assert_eq!(broker.handle().retained("job/#", 9).len(), 2);
    clock.advance_async(hours(1)).await;
    assert_eq!(broker.handle().retained("job/#", 9).len(), 1);
    let back = connect(&broker, options(&broker, "away").persistent(86_400)).await;
    let mut jobs = subscribe(&back, "job/#").await;
    let first = jobs.recv().await.unwrap();
    assert_eq!(first.topic(), "job/long");
    let left = first.properties().message_expiry_interval().unwrap();
    assert!((16_000..=16_400).contains(&left), "{left} s of 20000 are left after an hour");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_off_runs_and_a_client_is_back_after_its_wait() {
    let broker = broker(1);
    let clock = broker.handle().clock().clone();
    let wait = Duration::from_secs(1000);
    let reconnect = Reconnect { min: wait, max: wait, seed: Some(3), ..Reconnect::default() };
    let client = connect(&broker, options(&broker, "c").reconnect(Some(reconnect))).await;
    let mut events = client.events();
    assert!(broker.handle().kick_async("c", ReasonCode::AdministrativeAction).await);
    let retry_in = loop {
        if let Some(ClientEvent::Disconnected { retry_in, .. }) = events.recv().await {
            break retry_in.unwrap();
        }
    };
    assert!(retry_in > Duration::from_secs(10), "the seed gives a long wait, not {retry_in:?}");
    clock.advance_async(retry_in / 2).await;
    assert_eq!(client.state(), ConnectionState::Reconnecting);
    clock.advance_async(retry_in).await;
    assert_eq!((client.state(), client.stats().connections), (ConnectionState::Connected, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_run_into_their_time_out() {
    let broker = broker(1);
    let clock = broker.handle().clock().clone();
    let client = connect(&broker, options(&broker, "c")).await;
    let asking = client.clone();
    let answer = tokio::spawn(async move {
        asking.request(PublishRequest::new("nobody/listens", "?"), Duration::from_mins(10)).await
    });
    // SUBSCRIBE for the responses and the request itself.
    while client.stats().published == 0 {
        broker.handle().settled().await;
        tokio::task::yield_now().await;
    }
    clock.advance_async(Duration::from_secs(500)).await;
    assert!(!answer.is_finished());
    clock.advance_async(Duration::from_secs(200)).await;
    assert!(matches!(answer.await.unwrap(), Err(ferromq::client::Error::Timeout { .. })));
}

#[test]
fn the_clock_of_a_system_does_not_move() {
    let broker = Broker::builder().start().unwrap();
    let clock = broker.handle().clock().clone();
    assert!(!clock.is_adjustable());
    clock.advance(hours(8));
    assert_eq!(clock.offset(), Duration::ZERO);
}
