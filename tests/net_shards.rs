//! Several shards are one broker: connections reach their home, messages stay in order, sessions are taken over.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

mod net_support;

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use ferromq::{
    auth::{Access, Authorizer, ConnectInfo, Permit},
    broker::{DropReason, Hooks, Message, Stats},
    codec::{Ack, Packet, QoS, ReasonCode, TopicName},
    net::{
        Lodging,
        listener::{ListenerConfig, ListenerUrl},
    },
    server::Broker,
};
use net_support::{Client, Options, broker, eventually, url};

/// Each shard on its thread from the start.
const APART: Lodging = Lodging { light: 0, tried: 0, lodger_window: Duration::MAX, ..TO_AND_FRO };

/// Shards change threads as often as they can.
const TO_AND_FRO: Lodging = Lodging {
    saturated: 0,
    light: u32::MAX,
    tried: u32::MAX,
    enough: 950,
    host_window: Duration::from_micros(500),
    lodger_window: Duration::from_micros(500),
    pause_min: Duration::ZERO,
    pause_max: Duration::ZERO,
};

/// Shards are given back as often as they can, and nothing that is done then is ever enough.
const RECALLED: Lodging = Lodging { light: 1, enough: u32::MAX, ..TO_AND_FRO };

#[test]
fn a_session_is_taken_over_whatever_shard_the_new_connection_reaches() {
    let together = Lodging::default();
    for (shards, lodging) in [(1, together), (2, together), (2, APART), (4, TO_AND_FRO), (4, RECALLED)] {
        let (broker, url) = broker(|builder| builder.shards(shards).lodging(lodging));
        let options = Options { clean_start: false, session_expiry: 60, ..Options::default() };
        let mut current = Client::connect_with(&url, "wanderer", &options);
        current.subscribe("t", QoS::AtLeastOnce);
        // Enough connections that every shard has accepted one of them.
        for round in 0..16 {
            let (mut next, connack) = Client::try_connect(&url, "wanderer", &options);
            assert!(connack.session_present, "{shards} shards, round {round}");
            let packets = current.recv_end();
            assert!(
                matches!(&packets[..], [Packet::Disconnect(last)] if last.reason == ReasonCode::SessionTakenOver),
                "{packets:?}"
            );
            let sent = next.publish_packet("t", round.to_string(), QoS::AtLeastOnce);
            next.send(&sent);
            let publish = loop {
                match next.recv() {
                    Packet::Publish(publish) => break publish,
                    Packet::PubAck(_) => {}
                    other => panic!("unexpected {other:?}"),
                }
            };
            assert_eq!(publish.payload, round.to_string());
            next.send(&Packet::PubAck(Ack::new(publish.packet_id.unwrap(), ReasonCode::Success)));
            next.ping_through();
            current = next;
        }
        assert_eq!(broker.handle().stats().clients_connected, 1);
    }
}

#[test]
fn what_is_sent_behind_connect_survives_the_move_to_the_home_shard() {
    for config in [None, Some(false)] {
        let listener = ListenerConfig { reuse_port: config, ..ListenerConfig::new(url("tcp://127.0.0.1:0")) };
        let broker = Broker::builder().shards(4).listen(listener).start().unwrap();
        let url = &broker.listeners()[0];
        for n in 0..32 {
            let id = format!("early-{n}");
            let mut client = Client::open(url);
            let mut bytes = connect_bytes(&id);
            client.version = ferromq::codec::Version::V3_1_1;
            // More than one read's worth, so that some of it is still in the kernel when the connection moves.
            for k in 0..2000_usize {
                let packet = client.publish_packet(&format!("early/{n}"), vec![(k % 256) as u8; 64], QoS::AtLeastOnce);
                packet.encode(client.version, &mut bytes).unwrap();
            }
            client.stream.write_all(&bytes).unwrap();
            assert!(matches!(client.recv(), Packet::ConnAck(_)));
            for _ in 0..2000 {
                assert!(matches!(client.recv(), Packet::PubAck(_)));
            }
        }
    }
}

fn connect_bytes(id: &str) -> Vec<u8> {
    let mut bytes = vec![0x10, (12 + id.len()) as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id.len() as u8];
    bytes.extend(id.as_bytes());
    bytes
}

#[test]
fn ten_thousand_messages_of_each_qos_arrive_in_order_across_shards() {
    const MESSAGES: usize = 10_000;
    let together = Lodging::default();
    let apart = [(2, APART), (4, APART)];
    let moved = [(2, TO_AND_FRO), (4, TO_AND_FRO), (2, RECALLED), (4, RECALLED)];
    for (shards, lodging) in [(1, together), (2, together)].into_iter().chain(apart).chain(moved) {
        // With this seed the clients are at home on all shards.
        let (broker, url) = broker(|builder| builder.shards(shards).lodging(lodging).seed(1));
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let publishers = 4;
            let subscribers: Vec<_> = (0..4)
                .map(|n| {
                    let mut client = Client::connect(&url, &format!("subscriber-{n}"));
                    client.subscribe("order/#", qos);
                    thread::spawn(move || expect_in_order(&mut client, publishers, MESSAGES / publishers))
                })
                .collect();
            let senders: Vec<_> = (0..publishers)
                .map(|n| {
                    let mut client = Client::connect(&url, &format!("publisher-{n}"));
                    thread::spawn(move || send_in_windows(&mut client, n, MESSAGES / publishers, qos))
                })
                .collect();
            for sender in senders {
                sender.join().unwrap();
            }
            for subscriber in subscribers {
                subscriber.join().unwrap();
            }
        }
        // Subscribers leave without waiting for the end of their last exchanges.
        let stats = broker.handle().stats();
        let unfinished = stats.dropped(DropReason::SessionEnded);
        assert_eq!(stats.dropped_total() - unfinished, 0, "{:?}", stats.dropped);
        #[cfg(target_os = "linux")]
        if moved.contains(&(shards, lodging)) {
            let moves = broker.handle().net_stats();
            assert!(moves.shards_given_back > 10, "{moves:?}");
            assert!(lodging != RECALLED || moves.shards_recalled > 0, "{moves:?}");
        }
    }
}

/// Publishes `0..count` on a topic of its own, with as many unacknowledged as is usual.
fn send_in_windows(client: &mut Client, publisher: usize, count: usize, qos: QoS) {
    let topic = format!("order/{publisher}");
    for window in (0..count).collect::<Vec<_>>().chunks(100) {
        let packets: Vec<_> = window.iter().map(|n| client.publish_packet(&topic, n.to_string(), qos)).collect();
        client.send_all(&packets);
        let mut open = if qos == QoS::AtMostOnce { 0 } else { packets.len() };
        while open > 0 {
            match client.recv() {
                Packet::PubAck(_) | Packet::PubComp(_) => open -= 1,
                Packet::PubRec(ack) => client.send(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success))),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

fn expect_in_order(client: &mut Client, publishers: usize, count: usize) {
    let mut next = vec![0; publishers];
    while next.iter().any(|next| *next < count) {
        match client.recv() {
            Packet::Publish(publish) => {
                let publisher: usize = publish.topic.as_str().strip_prefix("order/").unwrap().parse().unwrap();
                let n: usize = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                assert_eq!(n, next[publisher], "publisher {publisher}");
                next[publisher] += 1;
                let ack = publish.packet_id.map(|id| Ack::new(id, ReasonCode::Success));
                match (publish.qos, ack) {
                    (QoS::AtLeastOnce, Some(ack)) => client.send(&Packet::PubAck(ack)),
                    (QoS::ExactlyOnce, Some(ack)) => client.send(&Packet::PubRec(ack)),
                    _ => {}
                }
            }
            Packet::PubRel(ack) => client.send(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success))),
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[test]
fn a_lone_message_for_a_parked_shard_is_delivered_without_waking_it() {
    // With this seed the clients are at home on both shards.
    let (broker, url) = broker(|builder| builder.shards(2).lodging(APART).seed(1));
    let handle = broker.handle();
    let before = handle.net_stats().shards_entered;
    lone_messages(&url, || handle.wait_settled());
    assert!(handle.net_stats().shards_entered > before, "some of fifty found the other shard parked");
}

#[test]
#[cfg(target_os = "linux")] // elsewhere each shard has its thread from the start
fn lone_messages_wake_no_other_thread() {
    // However busy it is.
    let together = Lodging { saturated: u32::MAX, ..Lodging::default() };
    let (broker, url) = broker(|builder| builder.shards(2).lodging(together).seed(1));
    let handle = broker.handle();
    eventually("the first thread runs both shards", || handle.net_stats().shards_taken_in == 1);
    let before = handle.net_stats();
    lone_messages(&url, || ());
    assert_eq!(handle.net_stats(), before, "nobody was woken, nothing was entered");
}

/// Fifty messages to eight clients, one at a time.
fn lone_messages(url: &ListenerUrl, after_each: impl Fn()) {
    let mut clients: Vec<_> = (0..8).map(|n| Client::connect(url, &format!("client-{n}"))).collect();
    for client in &mut clients {
        client.subscribe("lone", QoS::AtMostOnce);
    }
    for round in 0..50 {
        let publisher = round % clients.len();
        let packet = clients[publisher].publish_packet("lone", round.to_string(), QoS::AtMostOnce);
        clients[publisher].send(&packet);
        for client in &mut clients {
            assert_eq!(client.recv_publish().payload, round.to_string());
        }
        after_each();
    }
}

#[test]
fn a_full_inbox_holds_back_the_publisher_and_loses_nothing() {
    const MESSAGES: usize = 5_000;
    // An inbox of eight envelopes is always full, and among sixteen subscribers some are at home on each shard.
    let (broker, url) = broker(|builder| {
        let mut settings = ferromq::broker::Settings::default();
        settings.slow_consumer.staged_envelopes_max = 8;
        builder.shards(2).lodging(APART).settings(settings)
    });
    let subscribers: Vec<_> = (0..16)
        .map(|n| {
            let mut client = Client::connect(&url, &format!("subscriber-{n}"));
            client.subscribe("order/#", QoS::AtLeastOnce);
            thread::spawn(move || expect_in_order(&mut client, 2, MESSAGES))
        })
        .collect();
    let publishers: Vec<_> = (0..2)
        .map(|n| {
            let mut client = Client::connect(&url, &format!("publisher-{n}"));
            thread::spawn(move || send_in_windows(&mut client, n, MESSAGES, QoS::AtLeastOnce))
        })
        .collect();
    for thread in publishers {
        thread.join().unwrap();
    }
    for thread in subscribers {
        thread.join().unwrap();
    }
    let handle = broker.handle();
    assert!(handle.net_stats().inboxes_full > 0);
    let stats = handle.stats();
    assert_eq!(stats.dropped_total(), stats.dropped(DropReason::SessionEnded));
}

#[test]
fn a_handle_sees_all_shards_and_publishes_in_order() {
    for shards in [1, 3] {
        let (broker, url) = broker(|builder| builder.shards(shards));
        let handle = broker.handle();
        let mut clients: Vec<_> = (0..6).map(|n| Client::connect(&url, &format!("client-{n}"))).collect();
        for client in &mut clients {
            client.subscribe("from/process", QoS::AtLeastOnce);
        }
        assert_eq!(handle.clients().len(), 6);
        let topic = TopicName::new("from/process").unwrap();
        for n in 0..1000 {
            let message = Message::new(topic.clone(), Bytes::from(n.to_string())).qos(QoS::AtLeastOnce);
            handle.publish(message.retain(n == 999)).unwrap();
        }
        for client in &mut clients {
            for n in 0..1000 {
                assert_eq!(client.recv_publish().payload, n.to_string());
            }
            client.ping_through();
        }
        handle.wait_settled();
        assert!(handle.is_settled());
        let retained: Vec<Arc<Message>> = handle.retained("from/#", 10);
        assert_eq!(retained.iter().map(|message| message.payload()).collect::<Vec<_>>(), [b"999"]);
        assert!(handle.kick("client-3", ReasonCode::AdministrativeAction));
        assert!(!handle.kick("nobody", ReasonCode::AdministrativeAction));
        let packets = clients[3].recv_end();
        assert!(matches!(&packets[..], [Packet::Disconnect(last)] if last.reason == ReasonCode::AdministrativeAction));
        eventually("the kicked client is counted out", || handle.stats().clients_connected == 5);
        broker.shutdown();
        let Stats { connections_opened, .. } = handle.stats();
        assert_eq!(connections_opened, 6, "the counters outlive the broker");
        assert!(handle.publish(Message::new(topic, Bytes::new())).is_err());
    }
}

#[test]
fn settled_waits_for_what_was_sent_before() {
    for shards in [1, 2] {
        let (broker, url) = broker(|builder| builder.shards(shards));
        let handle = broker.handle();
        let mut publisher = Client::connect(&url, "publisher");
        let mut subscriber = Client::connect(&url, "subscriber");
        subscriber.subscribe("t", QoS::AtLeastOnce);
        let packet = publisher.publish_packet("t", "x", QoS::AtMostOnce);
        for round in 1..=200 {
            publisher.send(&packet);
            handle.wait_settled();
            assert_eq!(handle.stats().publish_received, round, "what had reached the broker was read");
            assert_eq!(handle.stats().publish_sent, round);
        }
        let unacknowledged = publisher.publish_packet("t", "x", QoS::AtLeastOnce);
        publisher.send(&unacknowledged);
        for _ in 0..200 {
            subscriber.recv_publish_unacknowledged();
        }
        let last = subscriber.recv_publish_unacknowledged();
        assert!(!handle.is_settled(), "a message is in flight");
        let waiting = thread::spawn({
            let handle = handle.clone();
            move || handle.wait_settled()
        });
        subscriber.send(&Packet::PubAck(Ack::new(last.packet_id.unwrap(), ReasonCode::Success)));
        waiting.join().unwrap();
    }
}

#[test]
fn waiting_to_settle_ends_with_the_broker() {
    let (broker, url) = broker(|builder| builder);
    let handle = broker.handle();
    let mut client = Client::connect(&url, "never-acknowledges");
    client.subscribe("t", QoS::AtLeastOnce);
    let packet = client.publish_packet("t", "x", QoS::AtLeastOnce);
    client.send(&packet);
    client.recv();
    client.recv();
    let waiting = thread::spawn(move || handle.wait_settled());
    broker.shutdown();
    waiting.join().unwrap();
}

#[test]
fn several_brokers_live_in_one_process() {
    let brokers: Vec<(Broker, ListenerUrl)> = (0..3).map(|_| broker(|builder| builder.shards(2))).collect();
    let mut clients: Vec<_> = brokers.iter().map(|(_, url)| Client::connect(url, "same")).collect();
    for client in &mut clients {
        client.subscribe("t", QoS::AtMostOnce);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let packet = client.publish_packet("t", index.to_string(), QoS::AtMostOnce);
        client.send(&packet);
        assert_eq!(client.recv_publish().payload, index.to_string());
    }
    for (broker, _) in &brokers {
        assert_eq!(broker.handle().stats().publish_sent, 1);
    }
}

/// Holds its shard up at a publication to `gate`: says that it does, and waits for leave to go on.
#[derive(Debug)]
struct Gate {
    reached: mpsc::SyncSender<()>,
    leave: Mutex<mpsc::Receiver<()>>,
}

impl Authorizer for Gate {
    fn authorize(&self, _: &ConnectInfo, access: Access<'_>) -> Permit {
        if matches!(access, Access::Publish { topic: "gate", .. }) {
            self.reached.send(()).unwrap();
            self.leave.lock().unwrap().recv().unwrap();
        }
        Permit::Allow
    }
}

#[test]
fn who_publishes_and_connects_anew_is_heard_before_he_is_taken_over() {
    let ((reached, is_reached), (leave, may_leave)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
    let gate = Gate { reached, leave: Mutex::new(may_leave) };
    let hooks = Hooks { authorizer: Some(Arc::new(gate)), ..Hooks::default() };
    let (_broker, url) = broker(|builder| builder.hooks(hooks).shards(1));
    let mut watcher = Client::connect(&url, "watcher");
    watcher.subscribe("seen", QoS::AtMostOnce);
    let [mut holder, mut first] = ["holder", "wanderer"].map(|id| Client::connect(&url, id));
    let packet = holder.publish_packet("gate", Vec::new(), QoS::AtMostOnce);
    holder.send(&packet);
    is_reached.recv().unwrap();
    // All this is there when the shard looks again.
    let packet = first.publish_packet("seen", "before it left", QoS::AtMostOnce);
    first.send(&packet);
    drop(first);
    let mut second = Client::open(&url);
    second.version = ferromq::codec::Version::V3_1_1;
    second.stream.write_all(&connect_bytes("wanderer")).unwrap();
    leave.send(()).unwrap();
    assert!(matches!(second.recv(), Packet::ConnAck(_)));
    assert_eq!(watcher.recv_publish().payload, "before it left");
}

#[test]
fn of_a_crowd_each_is_answered_before_the_others_are_read() {
    const CROWD: usize = 300;
    let ((reached, is_reached), (leave, may_leave)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
    let gate = Gate { reached, leave: Mutex::new(may_leave) };
    let hooks = Hooks { authorizer: Some(Arc::new(gate)), ..Hooks::default() };
    let (_broker, url) = broker(|builder| builder.hooks(hooks).shards(1));
    // Gone before the broker if this fails: that would wait for its shard, and the shard at the gate.
    let leave = leave;
    let mut crowd: Vec<_> = (0..CROWD).map(|n| Client::connect(&url, &format!("one-{n}"))).collect();
    let [mut holder, mut last] = ["holder", "last"].map(|id| Client::connect(&url, id));
    let gate = holder.publish_packet("gate", Vec::new(), QoS::AtMostOnce);
    holder.send(&gate);
    is_reached.recv().unwrap();
    // All this is there when the shard looks again, and then the last holds it up.
    for client in &mut crowd {
        let packet = client.publish_packet("t", Vec::new(), QoS::AtLeastOnce);
        client.send(&packet);
    }
    last.send(&gate);
    leave.send(()).unwrap();
    is_reached.recv().unwrap();
    for client in &mut crowd {
        assert!(matches!(client.recv(), Packet::PubAck(_)));
    }
    leave.send(()).unwrap();
}
