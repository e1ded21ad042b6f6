//! Subscriptions of the client's task: mailboxes, their overflow policies, acknowledging, requests and responses.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_peer;
mod client_support;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use client_peer::{Peer, connected, options, wire, wire_of};
use client_support::{filter, outgoing, publication, subscribe_to};
use ferromq::{
    client::{
        AckPolicy, Client, ClientOptions, Error, MailboxOptions, Message, Overflow, PublishRequest, RequestError,
        Subscription,
    },
    codec::{
        ConnAck, Packet, Properties, Property, QoS, ReasonCode, RetainHandling, SubscriptionOptions, Text, Version,
    },
    session::client::SubscribeRequest,
};
use tokio::{io::DuplexStream, task::yield_now};

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;

fn mailbox(messages_max: usize, overflow: Overflow) -> MailboxOptions {
    MailboxOptions { messages_max, overflow, ..MailboxOptions::default() }
}

fn acking(ack: AckPolicy) -> MailboxOptions {
    MailboxOptions { ack, ..MailboxOptions::default() }
}

async fn subscribed(
    client: &Client,
    peer: &mut Peer<DuplexStream>,
    filters: &[&str],
    options: MailboxOptions,
) -> Subscription {
    let (subscription, _) = tokio::join!(client.subscribe(subscribe_to(filters), options), peer.grant());
    subscription.unwrap()
}

fn numbered(topic: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<Packet> {
    numbers.into_iter().map(|n| Packet::Publish(publication(topic, n.to_string().as_bytes(), Q0, 0))).collect()
}

fn number(message: &Message) -> usize {
    std::str::from_utf8(message.payload()).unwrap().parse().unwrap()
}

async fn take(subscription: &mut Subscription, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&subscription.recv().await.expect("a message must come")));
    }
    numbers
}

/// Waits until the client has taken so many messages in, whatever became of them.
async fn received(client: &Client, count: u64) {
    while client.stats().received < count {
        yield_now().await;
    }
    yield_now().await;
}

#[tokio::test(start_paused = true)]
async fn each_message_goes_to_every_subscription_that_matches() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut wide = subscribed(&client, &mut peer, &["a/#"], MailboxOptions::default()).await;
    let mut both = subscribed(&client, &mut peer, &["a/+", "b"], MailboxOptions::default()).await;
    let mut shared = subscribed(&client, &mut peer, &["$share/g/c"], MailboxOptions::default()).await;
    for (n, topic) in ["a/x", "a/x/y", "b", "c", "nobody"].iter().enumerate() {
        peer.send_all(numbered(topic, [n])).await;
    }
    assert_eq!(take(&mut wide, 2).await, [0, 1]);
    assert_eq!(take(&mut both, 2).await, [0, 2]);
    assert_eq!(take(&mut shared, 1).await, [3]);
    received(&client, 5).await;
    assert_eq!(client.stats().unmatched, 1);
}

#[tokio::test(start_paused = true)]
async fn messages_that_match_nothing_go_where_the_options_say() {
    let (wire, mut listener) = wire();
    let options = ClientOptions { unmatched: Some(MailboxOptions::default()), ..options() };
    let (client, mut peer) = connected(wire, &mut listener, options).await;
    let mut unmatched = client.take_unmatched().unwrap();
    assert!(client.take_unmatched().is_none());
    let mut matched = subscribed(&client, &mut peer, &["a"], MailboxOptions::default()).await;
    peer.send_all(numbered("old/session", [1])).await;
    peer.send_all(numbered("a", [2])).await;
    assert_eq!(take(&mut unmatched, 1).await, [1]);
    assert_eq!(take(&mut matched, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_blocking_mailbox_stops_the_socket_and_loses_nothing() {
    let (wire, mut listener) = wire_of(2048);
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut subscription = subscribed(&client, &mut peer, &["#"], mailbox(10, Overflow::Block)).await;
    let sending = tokio::spawn(async move {
        for n in 0..5000 {
            peer.send_all(numbered("some/topic", [n])).await;
        }
        peer
    });
    while subscription.pending() < 10 {
        yield_now().await;
    }
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(!sending.is_finished(), "the server must be held back");
    assert_eq!(subscription.pending(), 10);
    assert!(client.stats().received < 1000, "what is read is bounded");
    assert_eq!(take(&mut subscription, 5000).await, (0..5000).collect::<Vec<_>>());
    assert_eq!(subscription.dropped(), 0);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn full_mailboxes_follow_their_policy() {
    for (overflow, kept, dropped) in [
        (Overflow::DropOldest, vec![6, 7, 8, 9], 6),
        (Overflow::DropNew, vec![0, 1, 2, 3], 6),
        (Overflow::LatestPerTopic, vec![8, 9], 8),
    ] {
        let (wire, mut listener) = wire();
        let (client, mut peer) = connected(wire, &mut listener, options()).await;
        let mut subscription = subscribed(&client, &mut peer, &["#"], mailbox(4, overflow)).await;
        for n in 0..10 {
            let topic = if n % 2 == 0 { "even" } else { "odd" };
            peer.send_all(numbered(topic, [n])).await;
        }
        received(&client, 10).await;
        assert_eq!((subscription.pending(), subscription.dropped()), (kept.len(), dropped), "{overflow:?}");
        assert_eq!(take(&mut subscription, kept.len()).await, kept, "{overflow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_latest_of_each_topic_are_bounded_too_and_keep_their_place() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut subscription = subscribed(&client, &mut peer, &["#"], mailbox(2, Overflow::LatestPerTopic)).await;
    for (topic, n) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)] {
        peer.send_all(numbered(topic, [n])).await;
    }
    received(&client, 5).await;
    assert_eq!(take(&mut subscription, 2).await, [5, 4]);
    peer.send_all(numbered("a", [6, 7])).await;
    received(&client, 7).await;
    assert_eq!(take(&mut subscription, 1).await, [7]);
}

#[tokio::test(start_paused = true)]
async fn the_error_policy_ends_the_subscription_after_what_it_has() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut subscription = subscribed(&client, &mut peer, &["#"], mailbox(2, Overflow::Error)).await;
    peer.send_all(numbered("a", 0..5)).await;
    received(&client, 5).await;
    assert_eq!(take(&mut subscription, 2).await, [0, 1]);
    assert!(subscription.recv().await.is_none());
    assert!(matches!(subscription.failure(), Some(Error::Overflow { messages: 2 })));
    assert_eq!(subscription.dropped(), 3);
}

#[tokio::test(start_paused = true)]
async fn bytes_bound_a_mailbox_as_well_and_one_large_message_still_fits() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let options = MailboxOptions { bytes_max: 1000, overflow: Overflow::DropNew, ..MailboxOptions::default() };
    let mut subscription = subscribed(&client, &mut peer, &["#"], options).await;
    peer.send(Packet::Publish(publication("a", &[0; 5000], Q0, 0))).await;
    peer.send(Packet::Publish(publication("a", b"x", Q0, 0))).await;
    received(&client, 2).await;
    assert_eq!((subscription.pending(), subscription.dropped()), (1, 1));
    assert!(subscription.pending_bytes() > 5000);
    assert_eq!(subscription.recv().await.unwrap().payload().len(), 5000);
    assert_eq!(subscription.pending_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn large_messages_come_through_a_narrow_wire() {
    let (wire, mut listener) = wire_of(1000);
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut subscription = subscribed(&client, &mut peer, &["#"], MailboxOptions::default()).await;
    let payload: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let packet = Packet::Publish(publication("a", &payload, Q1, 1));
    let (message, ()) = tokio::join!(subscription.recv(), async {
        peer.send(packet).await;
        assert!(matches!(peer.expect().await, Packet::PubAck(_)));
    });
    assert_eq!(message.unwrap().payload(), payload);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn messages_are_acknowledged_by_the_subscriptions_policy() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut auto = subscribed(&client, &mut peer, &["auto"], acking(AckPolicy::Auto)).await;
    let mut processed = subscribed(&client, &mut peer, &["processed"], acking(AckPolicy::Processed)).await;
    let mut manual = subscribed(&client, &mut peer, &["manual"], acking(AckPolicy::Manual)).await;
    let acked = |packet: Packet| match packet {
        Packet::PubAck(ack) => (ack.packet_id.get(), ack.reason),
        other => panic!("{other:?}"),
    };
    peer.send(Packet::Publish(publication("auto", b"1", Q1, 1))).await;
    assert_eq!(acked(peer.expect().await), (1, ReasonCode::Success));
    assert_eq!(take(&mut auto, 1).await, [1]);

    peer.send(Packet::Publish(publication("processed", b"2", Q1, 2))).await;
    assert_eq!(take(&mut processed, 1).await, [2]);
    // Asking for the next one acknowledges, even if the question is taken back.
    assert!(tokio::time::timeout(Duration::from_secs(1), processed.recv()).await.is_err());
    assert_eq!(acked(peer.expect().await), (2, ReasonCode::Success));

    peer.send(Packet::Publish(publication("manual", b"3", Q1, 3))).await;
    peer.send(Packet::Publish(publication("manual", b"4", Q1, 4))).await;
    let (third, fourth) = (manual.recv().await.unwrap(), manual.recv().await.unwrap());
    manual.acknowledge(&fourth, ReasonCode::QuotaExceeded);
    manual.acknowledge(&third, ReasonCode::Success);
    assert_eq!(acked(peer.expect().await), (3, ReasonCode::Success));
    assert_eq!(acked(peer.expect().await), (4, ReasonCode::QuotaExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_message_of_two_careful_consumers_is_acknowledged_by_the_second() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut one = subscribed(&client, &mut peer, &["a"], acking(AckPolicy::Manual)).await;
    let mut two = subscribed(&client, &mut peer, &["+"], acking(AckPolicy::Manual)).await;
    peer.send(Packet::Publish(publication("a", b"1", Q1, 1))).await;
    let (first, second) = (one.recv().await.unwrap(), two.recv().await.unwrap());
    one.acknowledge(&first, ReasonCode::Success);
    client.publish(PublishRequest::new("mark", "")).await.unwrap();
    assert!(matches!(peer.expect().await, Packet::Publish(_)), "no PUBACK before the mark");
    two.acknowledge(&second, ReasonCode::Success);
    assert!(matches!(peer.expect().await, Packet::PubAck(_)));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_message_does_not_narrow_the_window() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let options = MailboxOptions {
        messages_max: 1,
        overflow: Overflow::DropOldest,
        ack: AckPolicy::Manual,
        ..MailboxOptions::default()
    };
    let subscription = subscribed(&client, &mut peer, &["a"], options).await;
    for n in 1..=2 {
        peer.send(Packet::Publish(publication("a", b"1", Q1, n))).await;
    }
    assert!(matches!(peer.expect().await, Packet::PubAck(ack) if ack.packet_id.get() == 1));
    drop(subscription);
    assert!(matches!(peer.expect().await, Packet::PubAck(ack) if ack.packet_id.get() == 2));
}

#[tokio::test(start_paused = true)]
async fn subscriptions_end_with_unsubscribe_unless_another_has_the_filter() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let first = subscribed(&client, &mut peer, &["a", "b"], MailboxOptions::default()).await;
    let second = subscribed(&client, &mut peer, &["b", "c"], MailboxOptions::default()).await;
    drop(first);
    assert_eq!(peer.answer_unsubscribe().await, ["a"]);
    let (ended, filters) = tokio::join!(second.unsubscribe(), peer.answer_unsubscribe());
    ended.unwrap();
    assert_eq!(filters, ["b", "c"]);
    let (ended, filters) = tokio::join!(client.unsubscribe(vec![filter("old")]), peer.answer_unsubscribe());
    ended.unwrap();
    assert_eq!(filters, ["old"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_is_cancelled_is_undone() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let subscribing = client.subscribe(subscribe_to(&["a"]), MailboxOptions::default());
    assert!(tokio::time::timeout(Duration::from_secs(1), subscribing).await.is_err());
    peer.grant().await;
    assert_eq!(peer.answer_unsubscribe().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_is_an_error_with_its_reason() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let (refused, _) = tokio::join!(
        client.subscribe(subscribe_to(&["secret/#"]), MailboxOptions::default()),
        peer.answer_subscribe(ReasonCode::NotAuthorized)
    );
    let error = refused.unwrap_err();
    assert_eq!(error.reason_code(), Some(ReasonCode::NotAuthorized));
    assert!(error.to_string().contains("secret/#"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_made_again_and_one_that_fails_then_says_so() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut subscription = subscribed(&client, &mut peer, &["a"], MailboxOptions::default()).await;
    drop(peer);
    let mut peer = listener.accept().await;
    peer.accept(false, []).await;
    assert_eq!(peer.grant().await.subscriptions.len(), 1);
    peer.send_all(numbered("a", [1])).await;
    assert_eq!(take(&mut subscription, 1).await, [1]);
    drop(peer);
    let mut peer = listener.accept().await;
    peer.accept(false, []).await;
    peer.answer_subscribe(ReasonCode::NotAuthorized).await;
    assert!(subscription.recv().await.is_none());
    assert_eq!(subscription.failure().unwrap().reason_code(), Some(ReasonCode::NotAuthorized));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_recv_loses_nothing() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut subscription = subscribed(&client, &mut peer, &["a"], MailboxOptions::default()).await;
    {
        let mut asking = pin!(subscription.recv());
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(asking.as_mut().poll(&mut context), Poll::Pending));
        peer.send_all(numbered("a", 0..3)).await;
        received(&client, 3).await;
    }
    assert_eq!(take(&mut subscription, 1).await, [0]);
    let mut batch = Vec::new();
    assert_eq!(subscription.recv_many(&mut batch, 10).await, 2);
    assert_eq!(batch.iter().map(number).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_hook_is_called_once_on_the_edge_from_empty() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let subscription = subscribed(&client, &mut peer, &["a"], MailboxOptions::default()).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    subscription.set_hook(Some(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    })));
    peer.send_all(numbered("a", 0..100)).await;
    received(&client, 100).await;
    peer.send_all(numbered("a", 0..100)).await;
    received(&client, 200).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1, "it is not empty: the consumer knows");
    let mut all = std::collections::VecDeque::new();
    subscription.swap(&mut all);
    assert_eq!((all.len(), subscription.pending()), (200, 0));
    peer.send_all(numbered("a", 0..1)).await;
    received(&client, 201).await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn ending_the_client_ends_its_subscriptions_after_what_they_have() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut subscription = subscribed(&client, &mut peer, &["a"], MailboxOptions::default()).await;
    peer.send_all(numbered("a", [1])).await;
    received(&client, 1).await;
    client.disconnect(ferromq::client::DisconnectOptions::default()).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, [1]);
    assert!(subscription.recv().await.is_none() && subscription.failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn requests_share_one_response_subscription_and_find_their_answers() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let server = async {
        let subscribe = peer.grant().await;
        assert_eq!(subscribe.subscriptions[0].filter.as_str(), "response/c/responses");
        let mut asked = Vec::new();
        for _ in 0..2 {
            asked.push(peer.expect_publish().await);
        }
        for request in asked.iter().rev() {
            let properties = &request.properties;
            let mut answer = publication(properties.response_topic().unwrap(), &request.payload, Q0, 0);
            answer.properties.push(Property::CorrelationData(properties.correlation_data().unwrap().clone()));
            peer.send(Packet::Publish(answer)).await;
        }
    };
    let ask = |payload: &'static str| client.request(PublishRequest::new("rpc", payload), Duration::from_secs(5));
    let (one, two, ()) = tokio::join!(ask("1"), ask("2"), server);
    assert_eq!((number(&one.unwrap()), number(&two.unwrap())), (1, 2));
    let late = ask("3").await.unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }) && late.retryable(), "{late}");
}

#[tokio::test(start_paused = true)]
async fn the_servers_response_information_names_the_response_topic() {
    let (wire, mut listener) = wire();
    let client = Client::start_with(options(), wire).unwrap();
    let mut peer = listener.accept().await;
    peer.accept(false, [Property::ResponseInformation(Text::from_static("own/prefix/"))]).await;
    let asking = client.request(PublishRequest::new("rpc", ""), Duration::from_secs(1));
    let (_, subscribe) = tokio::join!(asking, peer.grant());
    assert_eq!(subscribe.subscriptions[0].filter.as_str(), "own/prefix/responses");
}

#[tokio::test(start_paused = true)]
async fn before_mqtt5_there_are_no_requests() {
    let (wire, mut listener) = wire();
    let client = Client::start_with(options().version(Version::V3_1_1), wire).unwrap();
    let mut peer = listener.accept().await;
    peer.accept(false, []).await;
    let asked = client.request(PublishRequest::new("rpc", ""), Duration::from_secs(1)).await;
    assert!(matches!(asked, Err(Error::Request(RequestError::NeedsVersion5(_)))));
}

#[tokio::test(start_paused = true)]
async fn served_requests_are_answered_with_their_correlation_data() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let (server, _) = tokio::join!(client.serve(filter("rpc/+"), MailboxOptions::default()), peer.grant());
    let mut server = server.unwrap();
    let mut request = publication("rpc/add", b"2,3", Q0, 0);
    let correlation = Property::CorrelationData(bytes::Bytes::from_static(b"id"));
    request.properties =
        [Property::ResponseTopic(Text::from_static("answers")), correlation.clone()].into_iter().collect();
    peer.send(Packet::Publish(request)).await;
    let incoming = server.next().await.unwrap();
    assert_eq!((incoming.message.topic(), incoming.response_topic()), ("rpc/add", Some("answers")));
    incoming.respond("5").await.unwrap();
    let answer = peer.expect_publish().await;
    assert_eq!((answer.topic.as_str(), &*answer.payload), ("answers", &b"5"[..]));
    assert_eq!(answer.properties, [correlation].into_iter().collect::<Properties>());
    peer.send_all(numbered("rpc/add", [1])).await;
    let nameless = server.next().await.unwrap();
    assert!(matches!(nameless.respond("5").await, Err(Error::Request(RequestError::NotAllowed(_)))));
}

/// A client whose server resumes a session, and sends messages in the same segment as CONNACK.
async fn resumed(messages: Vec<Packet>) -> (Client, Peer<DuplexStream>, client_peer::Listener) {
    let (wire, mut listener) = wire();
    let mut options = options();
    options.session.clean_start = false;
    options.session.session_expiry = 60;
    let client = Client::start_with(options, wire).unwrap();
    let mut peer = listener.accept().await;
    let Packet::Connect(_) = peer.expect().await else { panic!("CONNECT comes first") };
    let connack = ConnAck { session_present: true, reason: ReasonCode::Success, properties: Properties::new() };
    let count = messages.len() as u64;
    peer.send_all(std::iter::once(Packet::ConnAck(Box::new(connack))).chain(messages)).await;
    client.ready().await.unwrap();
    received(&client, count).await;
    (client, peer, listener)
}

fn acked(packet: &Packet) -> u16 {
    match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) => ack.packet_id.get(),
        other => panic!("an acknowledgement must come, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_resumed_session_sends_first_waits_for_its_subscription_in_order() {
    let early = ["a", "b", "a", "c"]
        .iter()
        .zip(1..)
        .map(|(topic, n)| Packet::Publish(publication(topic, n.to_string().as_bytes(), Q1, n)));
    let (client, mut peer, _listener) = resumed(early.collect()).await;
    let (a, _) = tokio::join!(client.subscribe(subscribe_to(&["a"]), acking(AckPolicy::Manual)), async {
        // What comes while SUBSCRIBE is under way follows what was there before.
        peer.send_all([Packet::Publish(publication("a", b"5", Q1, 5))]).await;
        peer.grant().await
    });
    let (mut a, mut b) = (a.unwrap(), subscribed(&client, &mut peer, &["b"], MailboxOptions::default()).await);
    let mut messages = Vec::new();
    assert_eq!(a.recv_many(&mut messages, 10).await, 3);
    assert_eq!(messages.iter().map(number).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(take(&mut b, 1).await, [2]);
    // The consumer's acknowledgements still count, and those behind wait for them.
    for message in &messages {
        a.acknowledge(message, ReasonCode::Success);
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(acked(&peer.expect().await));
    }
    assert_eq!(ids, [1, 2, 3]);
    // Nobody asks for 4 in time: its acknowledgement no longer keeps 5 back, and it is still there.
    assert_eq!([acked(&peer.expect().await), acked(&peer.expect().await)], [4, 5]);
    let mut c = subscribed(&client, &mut peer, &["c"], MailboxOptions::default()).await;
    assert_eq!(take(&mut c, 1).await, [4]);
    assert_eq!(client.stats().unmatched, 0);
}

#[tokio::test(start_paused = true)]
async fn early_messages_that_the_server_sends_again_come_once() {
    let early = [(Q1, 1), (QoS::ExactlyOnce, 2)]
        .map(|(qos, n)| Packet::Publish(publication("a", n.to_string().as_bytes(), qos, n)));
    let (client, peer, mut listener) = resumed(early.clone().to_vec()).await;
    drop(peer);
    let mut peer = listener.accept().await;
    peer.accept(true, []).await;
    let again = early.into_iter().map(|packet| match packet {
        Packet::Publish(publish) => Packet::Publish(ferromq::codec::Publish { dup: true, ..publish }),
        other => other,
    });
    peer.send_all(again).await;
    received(&client, 3).await;
    let mut a = subscribed(&client, &mut peer, &["a"], MailboxOptions::default()).await;
    let mut got = take(&mut a, 2).await;
    got.sort_unstable();
    assert_eq!(got, [1, 2]);
    yield_now().await;
    assert_eq!(a.pending(), 0);
    assert_eq!([acked(&peer.expect().await), acked(&peer.expect().await)], [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_new_session_has_nothing_to_wait_for() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    peer.send(Packet::Publish(publication("a", b"1", Q1, 1))).await;
    assert_eq!(acked(&peer.expect().await), 1);
    assert_eq!(client.stats().unmatched, 1);
    let mut a = subscribed(&client, &mut peer, &["a"], MailboxOptions::default()).await;
    assert!(a.try_recv().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_connection_in_a_full_mailbox() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut a = subscribed(&client, &mut peer, &["a"], mailbox(2, Overflow::Block)).await;
    let burst = (1..=9).map(|n: u16| Packet::Publish(publication("a", n.to_string().as_bytes(), Q1, n)));
    peer.send_all(burst).await;
    for n in 1..=9 {
        assert_eq!(acked(&peer.expect().await), n);
    }
    drop(peer);
    // While it does not read, only a write tells the client that the connection is gone.
    client.try_publish(&outgoing("b", b"", Q0)).unwrap();
    let mut peer = listener.accept().await;
    let taken = take(&mut a, 4).await;
    peer.accept(true, []).await;
    peer.send_all([Packet::Publish(publication("a", b"10", Q1, 1))]).await;
    assert_eq!([taken, take(&mut a, 6).await].concat(), (1..=10).collect::<Vec<_>>());
    // The end of the client is no reason to lose any either.
    let burst = (11..=19).map(|n: u16| Packet::Publish(publication("a", n.to_string().as_bytes(), Q1, n)));
    peer.send_all(burst).await;
    for n in [1].into_iter().chain(11..=19) {
        assert_eq!(acked(&peer.expect().await), n);
    }
    client.disconnect(ferromq::client::DisconnectOptions::default()).await.unwrap();
    assert_eq!(take(&mut a, 9).await, (11..=19).collect::<Vec<_>>());
    assert!(a.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_awaits_an_acknowledgement_does_not_wait_for_itself() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut a = subscribed(&client, &mut peer, &["a"], mailbox(2, Overflow::Block)).await;
    peer.send_all(numbered("a", 0..300)).await;
    let server = async {
        for n in 0..300 {
            // The answer stands behind still more messages.
            let publish = peer.expect_publish().await;
            peer.send_all(numbered("a", [300 + n])).await;
            peer.puback(publish.packet_id, ReasonCode::Success).await;
        }
    };
    let consumer = async {
        for n in 0..300 {
            assert_eq!(take(&mut a, 1).await, [n]);
            client.publish(PublishRequest::new("out", "x").qos(Q1)).await.unwrap();
        }
        assert_eq!(take(&mut a, 300).await, (300..600).collect::<Vec<_>>());
    };
    tokio::join!(server, consumer);
}

/// The server knows one subscription to a filter: it has to serve both.
#[tokio::test(start_paused = true)]
async fn a_second_subscription_to_a_filter_takes_nothing_from_the_first() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let asking = |qos, retain_handling| {
        let options = SubscriptionOptions { retain_handling, ..SubscriptionOptions::new(qos) };
        SubscribeRequest::new(filter("a"), options)
    };
    let first = asking(QoS::ExactlyOnce, RetainHandling::Send);
    let second = asking(Q0, RetainHandling::DoNotSend);
    let (first, _) = tokio::join!(client.subscribe(first, MailboxOptions::default()), peer.grant());
    let (second, asked) = tokio::join!(client.subscribe(second, MailboxOptions::default()), peer.grant());
    let asked = asked.subscriptions[0].options;
    assert_eq!((asked.qos, asked.retain_handling), (QoS::ExactlyOnce, RetainHandling::DoNotSend));
    drop(peer);
    let mut peer = listener.accept().await;
    peer.accept(false, []).await;
    let restored = peer.grant().await.subscriptions[0].options;
    assert_eq!((restored.qos, restored.retain_handling), (QoS::ExactlyOnce, RetainHandling::Send));
    drop((first, second));
}
