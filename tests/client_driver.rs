//! The client's task against a scripted server over in-memory connections, with the clock stopped: connecting,
//! reconnecting, publishing, and ending.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_peer;
mod client_support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use client_peer::{Peer, connected, options, wire, wire_of};
use client_support::{outgoing, subscribe_to};
use ferromq::{
    client::{
        Client, ClientEvent, ClientOptions, Completion, CompletionSink, ConnectionState, DisconnectOptions, Error,
        MailboxOptions, PublishRequest, Published, Reconnect, RequestError, ServerUrl,
    },
    codec::{Ack, Disconnect, Packet, Properties, Property, QoS, ReasonCode, Version},
};
use tokio::{net::TcpListener, task::yield_now};

fn request(topic: &str, payload: &'static str, qos: QoS) -> PublishRequest {
    PublishRequest::new(topic, payload).qos(qos)
}

#[tokio::test(start_paused = true)]
async fn publications_complete_with_the_servers_acknowledgement() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    assert_eq!(client.state(), ConnectionState::Connected);
    client.publish(request("a", "zero", QoS::AtMostOnce)).await.unwrap();
    assert_eq!(&*peer.expect_publish().await.payload, b"zero");

    let server = async {
        let publish = peer.expect_publish().await;
        peer.puback(publish.packet_id, ReasonCode::NoMatchingSubscribers).await;
        let publish = peer.expect_publish().await;
        let id = publish.packet_id.unwrap();
        peer.send(Packet::PubRec(Ack::new(id, ReasonCode::Success))).await;
        assert!(matches!(peer.expect().await, Packet::PubRel(ack) if ack.packet_id == id));
        peer.send(Packet::PubComp(Ack::new(id, ReasonCode::Success))).await;
        let publish = peer.expect_publish().await;
        peer.puback(publish.packet_id, ReasonCode::NotAuthorized).await;
    };
    let user = async {
        let ack = client.publish(request("a", "one", QoS::AtLeastOnce)).await.unwrap();
        assert_eq!(ack.reason, ReasonCode::NoMatchingSubscribers);
        let ack = client.publish(request("a", "two", QoS::ExactlyOnce)).await.unwrap();
        assert_eq!(ack.reason, ReasonCode::Success);
        let refused = client.publish(request("secret", "three", QoS::AtLeastOnce)).await.unwrap_err();
        assert_eq!(refused.reason_code(), Some(ReasonCode::NotAuthorized));
        assert!(!refused.retryable() && refused.to_string().contains("secret"), "{refused}");
    };
    tokio::join!(server, user);
    assert_eq!(client.stats().published, 4);
}

#[tokio::test(start_paused = true)]
async fn a_publication_survives_the_loss_of_the_connection() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut events = client.events();
    let ticket = client.try_publish(&outgoing("a", b"x", QoS::AtLeastOnce)).unwrap().unwrap();
    assert_eq!(&*peer.expect_publish().await.payload, b"x");
    drop(peer);
    match events.recv().await.unwrap() {
        ClientEvent::Disconnected { reason: Some(Error::ConnectionLost { .. }), retry_in: Some(wait) } => {
            assert!(wait <= Duration::from_millis(100));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.state(), ConnectionState::Reconnecting);
    let mut peer = listener.accept().await;
    peer.accept(true, []).await;
    let again = peer.expect_publish().await;
    assert!(again.dup);
    peer.puback(again.packet_id, ReasonCode::Success).await;
    assert_eq!(ticket.await.unwrap().reason, ReasonCode::Success);
    assert!(matches!(events.recv().await, Some(ClientEvent::Connecting { .. })));
    assert!(matches!(events.recv().await, Some(ClientEvent::Connected { connected, .. }) if connected.session_present));
}

#[tokio::test(start_paused = true)]
async fn attempts_back_off_with_jitter_up_to_the_bound_and_go_on() {
    let (wire, mut listener) = wire();
    let (client, peer) = connected(wire, &mut listener, options()).await;
    let mut events = client.events();
    listener.refuse(12);
    drop(peer);
    let mut waits = Vec::new();
    while waits.len() < 13 {
        if let Some(ClientEvent::Disconnected { retry_in, .. }) = events.recv().await {
            waits.push(retry_in.expect("a lost connection is sought again"));
        }
    }
    for (n, wait) in waits.iter().enumerate() {
        let bound = Duration::from_millis(100 << n).min(Duration::from_secs(30));
        assert!(*wait <= bound, "wait {n} is {wait:?}");
    }
    let mut peer = listener.accept().await;
    peer.accept(false, []).await;
    assert!(matches!(events.recv().await, Some(ClientEvent::Connecting { .. })));
    assert!(matches!(events.recv().await, Some(ClientEvent::Connected { .. })));
    assert_eq!(listener.attempts(), 14);
}

#[tokio::test(start_paused = true)]
async fn attempts_run_out_if_they_are_bounded() {
    let (wire, mut listener) = wire();
    let reconnect = Some(Reconnect { attempts_max: Some(3), ..Reconnect::default() });
    let (client, peer) = connected(wire, &mut listener, ClientOptions { reconnect, ..options() }).await;
    listener.refuse(usize::MAX);
    let ticket = client.try_publish(&outgoing("a", b"x", QoS::AtLeastOnce)).unwrap().unwrap();
    drop(peer);
    assert!(matches!(ticket.await, Err(Error::Io { .. })), "it failed for the reason the client did");
    assert!(matches!(client.failure(), Some(Error::Io { .. })));
    assert_eq!(listener.attempts(), 4);
    let refused = client.publish(request("a", "y", QoS::AtLeastOnce)).await.unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn bad_credentials_are_not_tried_again() {
    let (wire, mut listener) = wire();
    let options =
        ClientOptions { reconnect: Some(Reconnect { retry_first: true, ..Reconnect::default() }), ..options() };
    let client = Client::start_with(options, wire).unwrap();
    listener.accept().await.refuse(ReasonCode::BadUserNameOrPassword).await;
    let error = client.ready().await.unwrap_err();
    assert_eq!(error.reason_code(), Some(ReasonCode::BadUserNameOrPassword));
    assert_eq!(error.reason_string(), Some("because"));
    assert_eq!(listener.attempts(), 1);
    assert_eq!(client.state(), ConnectionState::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_is_tried_again_only_if_asked() {
    let (wire, listener) = wire();
    listener.refuse(1);
    let client = Client::start_with(options(), wire.clone()).unwrap();
    assert!(matches!(client.ready().await, Err(Error::Io { .. })));

    listener.refuse(1);
    let mut listener = listener;
    let options =
        ClientOptions { reconnect: Some(Reconnect { retry_first: true, ..Reconnect::default() }), ..options() };
    let client = Client::start_with(options, wire).unwrap();
    listener.accept().await.accept(false, []).await;
    client.ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_taken_over_is_left_to_the_other_client() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let mut events = client.events();
    let disconnect = Disconnect { reason: ReasonCode::SessionTakenOver, properties: Properties::new() };
    peer.send(Packet::Disconnect(disconnect)).await;
    match events.recv().await.unwrap() {
        ClientEvent::Disconnected { reason: Some(error), retry_in: None } => {
            assert_eq!(error.reason_code(), Some(ReasonCode::SessionTakenOver));
        }
        other => panic!("{other:?}"),
    }
    assert!(peer.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_when_the_client_ends_fails_for_the_same_reason() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let (mut subscription, _) = tokio::join!(
        async { client.subscribe(subscribe_to(&["a"]), MailboxOptions::default()).await.unwrap() },
        peer.grant()
    );
    let server = async {
        for _ in 0..3 {
            peer.expect().await;
        }
        let disconnect = Disconnect { reason: ReasonCode::SessionTakenOver, properties: Properties::new() };
        peer.send(Packet::Disconnect(disconnect)).await;
    };
    let series = [outgoing("b", b"1", QoS::AtLeastOnce)];
    let ((), one, many, subscribed, next) = tokio::join!(
        server,
        client.publish(request("b", "1", QoS::AtLeastOnce)),
        client.publish_many(series),
        client.subscribe(subscribe_to(&["c"]), MailboxOptions::default()),
        subscription.recv(),
    );
    assert!(next.is_none());
    let errors = [one.unwrap_err(), many.unwrap_err(), subscribed.unwrap_err(), subscription.failure().unwrap()];
    for error in errors {
        assert_eq!(error.reason_code(), Some(ReasonCode::SessionTakenOver), "{error}");
    }
}

/// More than the queue holds: it goes on as the server acknowledges, and leaves the thread to others meanwhile.
#[tokio::test(start_paused = true)]
async fn a_series_may_be_larger_than_the_queue() {
    let (wire, mut listener) = wire();
    let mut options = options();
    options.session.queue.bytes_max = 4_000;
    let (client, mut peer) = connected(wire, &mut listener, options).await;
    let topics: Vec<String> = (0..500).map(|n| format!("series/with/a/long/topic/{n}")).collect();
    let server = async {
        for _ in 0..topics.len() {
            let publish = peer.expect_publish().await;
            peer.puback(publish.packet_id, ReasonCode::Success).await;
        }
    };
    let series = topics.iter().map(|topic| outgoing(topic, b"x", QoS::AtLeastOnce));
    let (count, ()) = tokio::join!(client.publish_many(series), server);
    assert_eq!(count.unwrap(), topics.len());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let (wire, mut listener) = wire();
    let client = Client::start_with(options(), wire).unwrap();
    let _silent = listener.accept().await;
    let error = client.ready().await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("did not answer CONNECT"), "{error}");
}

#[tokio::test]
async fn servers_are_tried_in_turn() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url =
        |listener: &TcpListener| format!("mqtt://{}", listener.local_addr().unwrap()).parse::<ServerUrl>().unwrap();
    let servers = vec![url(&dead), url(&alive)];
    drop(dead);
    let server = async {
        let mut peer = Peer::new(alive.accept().await.unwrap().0, Version::V5);
        peer.accept(false, []).await;
        peer
    };
    let (client, mut peer) = tokio::join!(Client::connect(ClientOptions { servers, ..options() }), server);
    let client = client.unwrap();
    client.publish(request("a", "x", QoS::AtMostOnce)).await.unwrap();
    assert_eq!(&*peer.expect_publish().await.payload, b"x");
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_a_server_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = async {
        let mut peer = Peer::new(listener.accept().await.unwrap().0, Version::V5);
        peer.accept(false, []).await;
        peer
    };
    let options = ClientOptions { servers: vec![ServerUrl::Unix { path: path.clone() }], ..options() };
    let (client, _peer) = tokio::join!(Client::connect(options), server);
    client.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_without_reconnect_ends_with_its_stream() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let mut peer = Peer::new(theirs, Version::V5);
    let (client, ()) = tokio::join!(Client::connect_stream(options(), ours), peer.accept(false, []));
    let client = client.unwrap();
    drop(peer);
    let mut events = client.events();
    while let Some(event) = events.recv().await {
        if matches!(event, ClientEvent::Disconnected { retry_in: None, .. }) {
            break;
        }
    }
    let error = client.publish(request("a", "x", QoS::AtMostOnce)).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. } | Error::ConnectionLost { .. } | Error::Closed), "{error}");
}

#[tokio::test(start_paused = true)]
async fn publishers_wait_while_the_output_is_full_and_go_on_when_the_server_reads() {
    let (wire, mut listener) = wire_of(1024);
    let options = ClientOptions { output_bytes_max: 4096, ..options() };
    let (client, mut peer) = connected(wire, &mut listener, options).await;
    let payload = [7; 1000];
    let mut taken = 0;
    // The task takes some into its own buffer, then the output fills up.
    while client.try_publish(&outgoing("a", &payload, QoS::AtMostOnce)).is_ok() {
        taken += 1;
        assert!(taken < 100, "the output must be bounded");
        yield_now().await;
    }
    let full = client.try_publish(&outgoing("a", &payload, QoS::AtMostOnce)).unwrap_err();
    assert!(matches!(full, Error::Request(RequestError::QueueFull { .. })) && full.retryable(), "{full}");
    let waiting = client.publish(PublishRequest::new("a", payload.to_vec()));
    let reading = async {
        for _ in 0..taken {
            assert_eq!(peer.expect_publish().await.payload.len(), 1000);
        }
    };
    let (published, ()) = tokio::join!(waiting, reading);
    published.unwrap();
    assert_eq!(peer.expect_publish().await.payload.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_series_completes_with_its_last_acknowledgement() {
    let (wire, mut listener) = wire();
    let mut options = options();
    options.session.queue.messages_max = 5;
    options.session.send_window = 2;
    let (client, mut peer) = connected(wire, &mut listener, options).await;
    let payloads: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let server = async {
        for expected in &payloads {
            let publish = peer.expect_publish().await;
            assert_eq!(&*publish.payload, expected.as_bytes());
            peer.puback(publish.packet_id, ReasonCode::Success).await;
        }
    };
    let series = client.publish_many(payloads.iter().map(|text| outgoing("a", text.as_bytes(), QoS::AtLeastOnce)));
    let (count, ()) = tokio::join!(series, server);
    assert_eq!(count.unwrap(), 40);
    assert_eq!(client.stats().unfinished, 0);
    let zero = client.publish_many((0..3).map(|_| outgoing("a", b"", QoS::AtMostOnce))).await;
    assert_eq!(zero.unwrap(), 3);
}

#[derive(Debug, Default)]
struct Sink(Mutex<Vec<(u64, bool)>>, Mutex<usize>);

impl CompletionSink for Sink {
    fn complete(&self, batch: &mut Vec<Completion>) {
        *self.1.lock().unwrap() += 1;
        self.0.lock().unwrap().extend(batch.drain(..).map(|done| (done.number, done.result.is_ok())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_takes_the_outcomes_of_one_read_at_once() {
    let (wire, mut listener) = wire();
    let sink = Arc::new(Sink::default());
    let options = ClientOptions { completions: Some(sink.clone()), ..options() };
    let (client, mut peer) = connected(wire, &mut listener, options).await;
    assert_eq!(client.submit(&outgoing("a", b"", QoS::AtMostOnce), 9).unwrap(), Published::Written);
    for number in [u64::from(u32::MAX) + 1, 2, 3] {
        let published = client.submit(&outgoing("a", b"", QoS::AtLeastOnce), number).unwrap();
        assert_eq!(published, Published::Accepted);
    }
    let many = (0..2).map(|_| outgoing("a", b"", QoS::AtLeastOnce));
    let (taken, open, stopped) = client.submit_many(many, 4);
    assert_eq!((taken, open, stopped.is_none()), (2, 2, true));
    let mut acks = Vec::new();
    peer.expect_publish().await;
    for _ in 0..5 {
        let id = peer.expect_publish().await.packet_id.unwrap();
        let reason = if id.get() == 2 { ReasonCode::QuotaExceeded } else { ReasonCode::Success };
        acks.push(Packet::PubAck(Ack::new(id, reason)));
    }
    peer.send_all(acks).await;
    while sink.0.lock().unwrap().len() < 5 {
        yield_now().await;
    }
    let seen = sink.0.lock().unwrap().clone();
    assert_eq!(seen, [(u64::from(u32::MAX) + 1, true), (2, false), (3, true), (4, true), (4, true)]);
    assert_eq!(*sink.1.lock().unwrap(), 1, "one call for one read");
}

#[tokio::test(start_paused = true)]
async fn disconnecting_waits_for_what_is_unfinished_and_says_goodbye() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let ticket = client.try_publish(&outgoing("a", b"x", QoS::AtLeastOnce)).unwrap().unwrap();
    let server = async {
        let publish = peer.expect_publish().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        peer.puback(publish.packet_id, ReasonCode::Success).await;
        assert!(matches!(peer.expect().await, Packet::Disconnect(packet) if packet.reason == ReasonCode::Success));
        assert!(peer.next().await.is_none());
    };
    let (ended, ()) = tokio::join!(client.disconnect(DisconnectOptions::default()), server);
    ended.unwrap();
    assert!(ticket.await.is_ok());
    let late = client.publish(request("a", "y", QoS::AtMostOnce)).await.unwrap_err();
    assert!(matches!(late, Error::Closed));
}

#[tokio::test(start_paused = true)]
async fn disconnecting_does_not_wait_longer_than_it_may() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let ticket = client.try_publish(&outgoing("a", b"x", QoS::AtLeastOnce)).unwrap().unwrap();
    let timeout = Duration::from_secs(3);
    let reason = ReasonCode::DisconnectWithWill;
    client.disconnect(DisconnectOptions { reason, timeout, ..DisconnectOptions::default() }).await.unwrap();
    assert!(matches!(ticket.await, Err(Error::Closed)));
    peer.expect_publish().await;
    assert!(matches!(peer.expect().await, Packet::Disconnect(packet) if packet.reason == reason));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_disconnects() {
    let (wire, mut listener) = wire();
    let (client, mut peer) = connected(wire, &mut listener, options()).await;
    let other = client.clone();
    other.publish(request("a", "x", QoS::AtMostOnce)).await.unwrap();
    drop(client);
    assert_eq!(&*peer.expect_publish().await.payload, b"x");
    other.publish(request("a", "y", QoS::AtMostOnce)).await.unwrap();
    drop(other);
    assert_eq!(&*peer.expect_publish().await.payload, b"y");
    assert!(matches!(peer.expect().await, Packet::Disconnect(_)));
    assert!(peer.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_dropped_while_it_connects_goes_away() {
    let (wire, mut listener) = wire();
    let client = Client::start_with(options(), wire).unwrap();
    let mut peer = listener.accept().await;
    drop(client);
    assert!(matches!(peer.expect().await, Packet::Connect(_)));
    assert!(peer.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn pings_keep_a_silent_connection_and_a_dead_one_is_replaced() {
    let (wire, mut listener) = wire();
    let mut options = options();
    options.session.keep_alive = 10;
    let (client, mut peer) = connected(wire, &mut listener, options).await;
    let began = tokio::time::Instant::now();
    assert_eq!(peer.expect().await, Packet::PingReq);
    assert_eq!(began.elapsed().as_secs(), 10);
    peer.send(Packet::PingResp).await;
    assert_eq!(peer.expect().await, Packet::PingReq);
    // No answer: the client says why, closes, and connects anew.
    loop {
        match peer.expect().await {
            Packet::PingReq => {}
            Packet::Disconnect(packet) => break assert_eq!(packet.reason, ReasonCode::KeepAliveTimeout),
            other => panic!("{other:?}"),
        }
    }
    let mut peer = listener.accept().await;
    peer.accept(false, []).await;
    client.publish(request("a", "x", QoS::AtMostOnce)).await.unwrap();
    assert_eq!(&*peer.expect_publish().await.payload, b"x");
}

#[tokio::test(start_paused = true)]
async fn what_is_published_offline_is_sent_with_the_connection() {
    let (wire, mut listener) = wire();
    let client = Client::start_with(options(), wire).unwrap();
    client.publish(request("a", "early", QoS::AtMostOnce)).await.unwrap();
    let ticket = client.try_publish(&outgoing("a", b"acked", QoS::AtLeastOnce)).unwrap().unwrap();
    let mut peer = listener.accept().await;
    peer.accept(false, [Property::ReceiveMaximum(1)]).await;
    assert_eq!(&*peer.expect_publish().await.payload, b"early");
    let publish = peer.expect_publish().await;
    peer.puback(publish.packet_id, ReasonCode::Success).await;
    ticket.await.unwrap();
}
