//! The shard by itself: bytes in, bytes out, several shards side by side, in virtual time.

mod runs;

use std::{collections::HashMap, num::NonZeroU16, sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;

use super::*;
use crate::{
    codec::{
        Ack, Connect, Decoder, Limits, Packet, PacketType, Properties, Property, Publish, QoS, ReasonCode, Subscribe,
        Subscription, SubscriptionOptions, Text, TopicFilter, TopicName, Version, Will,
    },
    router::ShardId,
};

/// Shards that pass each other envelopes and connections, and the clients' ends of the connections.
struct World {
    now: Instant,
    shards: Vec<Shard>,
    clients: HashMap<usize, Client>,
    next: usize,
}

struct Client {
    at: (usize, ConnId),
    version: Version,
    decoder: Decoder,
    received: Vec<Packet>,
    is_closed: bool,
}

impl World {
    fn new(shards: usize, settings: Settings) -> Self {
        let now = Instant::now();
        let shared = Shared::new(settings, Hooks::default(), shards, 7, now);
        let shards = (0..shards).map(|id| Shard::new(ShardId(id as u8), Arc::clone(&shared), now, 7)).collect();
        Self { now, shards, clients: HashMap::new(), next: 0 }
    }

    fn open(&mut self, version: Version) -> usize {
        let peer = Peer { address: "test".into(), listener: "test".into() };
        let shard = self.next % self.shards.len();
        let conn = self.shards[shard].open(self.now, peer);
        let client = self.next;
        self.next += 1;
        let decoder = Decoder::new();
        self.clients
            .insert(client, Client { at: (shard, conn), version, decoder, received: Vec::new(), is_closed: false });
        client
    }

    fn connect(&mut self, id: &str, version: Version, change: impl FnOnce(&mut Connect)) -> usize {
        let client = self.open(version);
        let mut connect = Connect {
            version,
            clean_start: true,
            bridge: false,
            keep_alive: 0,
            client_id: Text::try_from(id).unwrap(),
            will: None,
            username: None,
            password: None,
            properties: Properties::new(),
        };
        change(&mut connect);
        self.send(client, &Packet::Connect(Box::new(connect)));
        client
    }

    fn send(&mut self, client: usize, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(self.clients[&client].version, &mut bytes).unwrap();
        let (shard, conn) = self.clients[&client].at;
        self.shards[shard].receive(self.now, conn, &bytes);
        self.settle();
    }

    fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) {
        let filter = TopicFilter::parse(Text::try_from(filter).unwrap(), &Limits::default()).unwrap();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let subscriptions = vec![Subscription { filter, options }];
        let packet_id = NonZeroU16::new(1).unwrap();
        self.send(client, &Packet::Subscribe(Subscribe { packet_id, properties: Properties::new(), subscriptions }));
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        for shard in &mut self.shards {
            shard.handle_timeout(self.now);
        }
        self.settle();
    }

    /// Lets time pass from deadline to deadline.
    fn live(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.shards.iter().filter_map(Shard::poll_timeout).min().filter(|due| *due <= end) {
            self.advance(due.saturating_duration_since(self.now));
        }
        self.advance(end - self.now);
    }

    fn drop_connection(&mut self, client: usize) {
        let (shard, conn) = self.clients[&client].at;
        self.shards[shard].closed(self.now, conn, TransportEnd::Closed);
        self.settle();
    }

    fn take(&mut self, client: usize) -> Vec<Packet> {
        std::mem::take(&mut self.clients.get_mut(&client).unwrap().received)
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let mut quiet = true;
            for at in 0..self.shards.len() {
                while let Some(output) = self.shards[at].poll_output() {
                    quiet = false;
                    self.act(at, output);
                }
                while let Some(conn) = self.shards[at].next_dirty() {
                    quiet = false;
                    self.flush(at, conn);
                }
                if self.shards[at].poll_timeout_of_clients().is_some_and(|due| due <= self.now) {
                    quiet = false;
                    self.shards[at].handle_timeout(self.now);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    fn act(&mut self, at: usize, output: Output) {
        match output {
            Output::Envelopes { to, batch } => self.shards[usize::from(to.0)].handle_envelopes(self.now, batch),
            Output::Handoff { conn, to, handoff } => {
                let to = usize::from(to.0);
                let new = self.shards[to].handle_handoff(self.now, *handoff);
                let client = self.clients.values_mut().find(|client| client.at == (at, conn)).unwrap();
                client.at = (to, new);
            }
            Output::Close { conn } => {
                self.flush(at, conn);
                if let Some(client) = self.clients.values_mut().find(|client| client.at == (at, conn)) {
                    client.is_closed = true;
                }
                self.shards[at].closed(self.now, conn, TransportEnd::Closed);
            }
            Output::HearOut { conn, ticket } => self.shards[at].handle_heard_out(self.now, conn, ticket),
            Output::Authenticate { .. } | Output::Authorize { .. } | Output::Resume { .. } => {}
        }
    }

    fn flush(&mut self, at: usize, conn: ConnId) {
        let Some(outbox) = self.shards[at].outbox(conn) else { return };
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = outbox.io_slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        outbox.advance(bytes.len());
        self.shards[at].flushed(self.now, conn, bytes.len());
        let Some(client) = self.clients.values_mut().find(|client| client.at == (at, conn)) else { return };
        client.decoder.feed(&bytes);
        while let Some(packet) = client.decoder.poll(client.version, &Limits::default()).unwrap() {
            client.received.push(packet);
        }
    }
}

fn publish(topic: &str, payload: &str, qos: QoS, id: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::parse(Text::try_from(topic).unwrap(), &Limits::default()).unwrap(),
        packet_id: NonZeroU16::new(id),
        properties: Properties::new(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    })
}

fn publishes(packets: &[Packet]) -> Vec<(String, QoS, bool)> {
    let of = |packet: &Packet| match packet {
        Packet::Publish(p) => Some((String::from_utf8_lossy(&p.payload).into_owned(), p.qos, p.dup)),
        _ => None,
    };
    packets.iter().filter_map(of).collect()
}

#[test]
fn messages_of_every_quality_arrive_on_one_and_on_three_shards() {
    for shards in [1, 3] {
        for version in [Version::V3_1_1, Version::V5] {
            let mut world = World::new(shards, Settings::default());
            let alice = world.connect("alice", version, |_| {});
            let bob = world.connect("bob", version, |_| {});
            world.subscribe(bob, "a/+", QoS::ExactlyOnce);
            world.take(bob);
            world.send(alice, &publish("a/b", "zero", QoS::AtMostOnce, 0));
            world.send(alice, &publish("a/b", "one", QoS::AtLeastOnce, 1));
            world.send(alice, &publish("a/b", "two", QoS::ExactlyOnce, 2));
            let got = publishes(&world.take(bob));
            let expected = [("zero", QoS::AtMostOnce), ("one", QoS::AtLeastOnce), ("two", QoS::ExactlyOnce)];
            let expected: Vec<_> = expected.into_iter().map(|(text, qos)| (text.to_owned(), qos, false)).collect();
            assert_eq!(got, expected, "{shards} shards, {version:?}");
            let acks: Vec<_> = world.take(alice).iter().map(Packet::packet_type).collect();
            assert_eq!(acks, [PacketType::ConnAck, PacketType::PubAck, PacketType::PubRec]);
        }
    }
}

#[test]
fn payloads_arrive_whole_whether_they_are_copied_or_shared() {
    // Who can name topics by aliases gets packets of his own.
    let kinds = [(Version::V3_1_1, 0), (Version::V5, 0), (Version::V5, 5)];
    for shards in [1, 2] {
        for publisher in [Version::V3_1_1, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                for only in kinds {
                    payloads_arrive_whole(shards, publisher, qos, &[only]);
                }
                payloads_arrive_whole(shards, publisher, qos, &kinds);
            }
        }
    }
}

/// Payloads about as long as those from which on they are shared; each subscriber has a version and a topic alias maximum.
fn payloads_arrive_whole(shards: usize, publisher: Version, qos: QoS, subscribers: &[(Version, u16)]) {
    let mut world = World::new(shards, Settings::default());
    let connected = subscribers.iter().enumerate().map(|(n, (version, aliases))| {
        let client = world.connect(&format!("s{n}"), *version, |connect| {
            if *aliases > 0 {
                connect.properties.push(Property::TopicAliasMaximum(*aliases));
            }
        });
        world.subscribe(client, "a/b", QoS::AtLeastOnce);
        client
    });
    let connected: Vec<_> = connected.collect();
    let from = world.connect("publisher", publisher, |_| {});
    let limits = [frames::SHARE_ABOVE_BYTES, frames::SHARE_WITH_ONE_ABOVE_BYTES];
    let sizes = limits.map(|limit| [limit - 1, limit, limit + 1]);
    let digits: String = ('0'..='9').cycle().take(sizes[1][2]).collect();
    for (id, bytes) in (1..).zip(sizes.as_flattened()) {
        world.send(from, &publish("a/b", &digits[..*bytes], qos, if qos == QoS::AtMostOnce { 0 } else { id }));
        for (client, kind) in connected.iter().zip(subscribers) {
            let got = publishes(&world.take(*client));
            let is_whole = matches!(&got[..], [(payload, ..)] if *payload == digits[..*bytes]);
            assert!(is_whole, "{bytes} bytes to {kind:?} from {publisher:?} at {qos:?} with {shards} shards");
        }
    }
}

#[test]
fn a_session_is_resumed_with_what_was_not_acknowledged_and_what_came_meanwhile() {
    let mut world = World::new(2, Settings::default());
    let keep = |connect: &mut Connect| connect.clean_start = false;
    let bob = world.connect("bob", Version::V3_1_1, keep);
    world.subscribe(bob, "t", QoS::AtLeastOnce);
    let alice = world.connect("alice", Version::V3_1_1, |_| {});
    world.send(alice, &publish("t", "unacknowledged", QoS::AtLeastOnce, 1));
    world.drop_connection(bob);
    world.send(alice, &publish("t", "while away", QoS::AtLeastOnce, 2));
    let bob = world.connect("bob", Version::V3_1_1, keep);
    let packets = world.take(bob);
    assert!(matches!(&packets[0], Packet::ConnAck(connack) if connack.session_present));
    let expected = [("unacknowledged", true), ("while away", false)];
    let expected: Vec<_> = expected.into_iter().map(|(text, dup)| (text.to_owned(), QoS::AtLeastOnce, dup)).collect();
    assert_eq!(publishes(&packets), expected);
}

#[test]
fn a_takeover_tells_the_old_connection_and_publishes_its_will() {
    let mut world = World::new(2, Settings::default());
    let watcher = world.connect("watcher", Version::V5, |_| {});
    world.subscribe(watcher, "will", QoS::AtMostOnce);
    let first = world.connect("same", Version::V5, |connect| {
        connect.will = Some(Will {
            topic: TopicName::parse(Text::from_static("will"), &Limits::default()).unwrap(),
            payload: Bytes::from_static(b"gone"),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::new(),
        });
    });
    world.connect("same", Version::V5, |_| {});
    let last = world.take(first).pop();
    assert!(matches!(last, Some(Packet::Disconnect(d)) if d.reason == ReasonCode::SessionTakenOver));
    assert!(world.clients[&first].is_closed);
    assert_eq!(publishes(&world.take(watcher)).len(), 1);
}

#[test]
fn retained_messages_reach_new_subscribers_and_sessions_expire() {
    let mut world = World::new(3, Settings::default());
    let alice = world.connect("alice", Version::V5, |connect| {
        connect.properties.push(Property::SessionExpiryInterval(60));
    });
    let Packet::Publish(mut retained) = publish("plant/1", "on", QoS::AtLeastOnce, 5) else { unreachable!() };
    retained.retain = true;
    world.send(alice, &Packet::Publish(retained));
    let bob = world.connect("bob", Version::V5, |_| {});
    world.subscribe(bob, "plant/#", QoS::AtLeastOnce);
    let packets = world.take(bob);
    assert!(matches!(packets.last(), Some(Packet::Publish(p)) if p.retain && p.qos == QoS::AtLeastOnce));
    world.send(bob, &Packet::PubAck(Ack::new(NonZeroU16::new(1).unwrap(), ReasonCode::Success)));
    world.drop_connection(alice);
    let sessions = |world: &World| world.shards.iter().map(|shard| shard.clients().len()).sum::<usize>();
    assert_eq!(sessions(&world), 2);
    world.advance(Duration::from_secs(61));
    assert_eq!(sessions(&world), 1);
    assert!(world.shards.iter().all(Shard::is_settled));
}

#[test]
fn routes_are_bounded_by_memory_and_gone_when_a_broker_is_at_rest() {
    let mut settings = Settings::default();
    settings.slow_consumer.memory_watermark_bytes = 16 << 20;
    settings.sys_interval = None;
    let mut world = World::new(2, settings);
    let alice = world.connect("alice", Version::V5, |_| {});
    let publish = |world: &mut World, topic: &str| world.send(alice, &publish(topic, "x", QoS::AtMostOnce, 0));
    let routes = |world: &World| world.shards.iter().map(|shard| shard.cache.len()).sum::<usize>();
    (0..20_000).for_each(|n| publish(&mut world, &format!("plant/{n}")));
    let bytes = world.shards.iter().map(|shard| shard.cache.bytes()).max();
    assert!(bytes.is_some_and(|bytes| (900 << 10..=1 << 20).contains(&bytes)), "{bytes:?}");
    assert!(routes(&world) > 4000);
    for _ in 0..12 {
        // In turns, since the topic before is not looked up.
        for topic in ["a", "b"] {
            publish(&mut world, topic);
        }
        world.live(Duration::from_secs(10));
    }
    assert_eq!(routes(&world), 2, "what is in use stays");
    world.live(Duration::from_mins(2));
    assert_eq!(routes(&world), 0);
}

/// A client's bytes as a shell may bring them: each piece where it is to go, and what is left of it to `receive`.
fn bring(world: &mut World, client: usize, bytes: &[u8], piece_bytes: usize) {
    let (at, conn) = world.clients[&client].at;
    for piece in bytes.chunks(piece_bytes) {
        let mut read = 0;
        if let Some(room) = world.shards[at].room(conn) {
            read = room.len().min(piece.len());
            room[..read].copy_from_slice(&piece[..read]);
            world.shards[at].fill(world.now, conn, read);
        }
        world.shards[at].receive(world.now, conn, &piece[read..]);
        world.settle();
    }
}

#[test]
fn large_packets_arrive_in_pieces_of_any_size_between_small_ones() {
    let mut world = World::new(1, Settings::default());
    let [alice, bob] = ["alice", "bob"].map(|id| world.connect(id, Version::V3_1_1, |_| {}));
    world.subscribe(bob, "#", QoS::AtMostOnce);
    world.take(bob);
    let sizes = [3, 70_000, 16 << 10, 5, 0, 300_000, 65_536, 65_536, 1];
    let letters = |n: usize, size: usize| char::from(b'a' + n as u8).to_string().repeat(size);
    let mut bytes = Vec::new();
    for (n, size) in sizes.into_iter().enumerate() {
        publish("t", &letters(n, size), QoS::AtMostOnce, 0).encode(Version::V3_1_1, &mut bytes).unwrap();
    }
    for piece_bytes in [1000, 4096, 65_536, 65_540, 1 << 20] {
        bring(&mut world, alice, &bytes, piece_bytes);
        let payloads: Vec<_> = publishes(&world.take(bob)).into_iter().map(|(payload, ..)| payload).collect();
        let expected: Vec<_> = sizes.into_iter().enumerate().map(|(n, size)| letters(n, size)).collect();
        assert!(payloads == expected, "pieces of {piece_bytes}");
        assert_eq!(world.shards[0].wire.partial_bytes(), 0);
    }
}

#[test]
fn a_large_payload_stays_where_it_was_read_to_until_it_is_sent() {
    let mut world = World::new(1, Settings::default());
    let [alice, bob] = ["alice", "bob"].map(|id| world.connect(id, Version::V3_1_1, |_| {}));
    world.subscribe(bob, "#", QoS::AtMostOnce);
    let mut bytes = Vec::new();
    publish("t", &"x".repeat(65_536), QoS::AtMostOnce, 0).encode(Version::V3_1_1, &mut bytes).unwrap();
    let ((at, from), (_, to)) = (world.clients[&alice].at, world.clients[&bob].at);
    let shard = &mut world.shards[at];
    shard.receive(world.now, from, &bytes[..4096]);
    let room = shard.room(from).unwrap();
    assert_eq!(room.len(), bytes.len() - 4096);
    let place = room.as_ptr_range();
    room.copy_from_slice(&bytes[4096..]);
    shard.fill(world.now, from, bytes.len() - 4096);
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let count = shard.outbox(to).unwrap().io_slices(&mut slices);
    assert_eq!(slices[..count].iter().map(|slice| slice.len()).collect::<Vec<_>>(), [7, 65_536]);
    assert!(place.contains(&std::ptr::from_ref(slices[1].last().unwrap())));
}

#[test]
fn room_is_made_as_bytes_come_and_counted() {
    let mut world = World::new(1, Settings::default());
    let alice = world.connect("alice", Version::V3_1_1, |_| {});
    let (at, conn) = world.clients[&alice].at;
    let shard = &mut world.shards[at];
    assert!(shard.room(conn).is_none());
    // 100 MiB are announced, and two bytes of them come.
    shard.receive(world.now, conn, &[0x30, 0x80, 0x80, 0x80, 0x32, 0, 1]);
    let mut received = 7;
    for _ in 0..8 {
        let room = shard.room(conn).map_or(0, |room| room.len());
        assert!((1..=received.max(64 << 10)).contains(&room), "{room} after {received}");
        assert!((received + room..=2 * (received + room)).contains(&shard.wire.partial_bytes()));
        shard.fill(world.now, conn, room);
        received += room;
    }
    assert!(received > 8 << 20);
    world.drop_connection(alice);
    assert_eq!(world.shards[at].wire.partial_bytes(), 0);
}

#[test]
fn a_route_for_what_came_from_elsewhere_is_not_the_route_of_what_is_published_here() {
    let mut world = World::new(3, Settings::default());
    let clients: Vec<usize> = (0..12).map(|n| world.connect(&format!("c{n}"), Version::V5, |_| {})).collect();
    for client in &clients {
        world.subscribe(*client, "plant/+", QoS::AtMostOnce);
    }
    assert!(world.shards.iter().all(|shard| !shard.clients().is_empty()));
    for client in &clients {
        world.take(*client);
    }
    // The first publisher leaves its topic's route on all shards; the others publish on each of them.
    for (n, publisher) in clients.iter().enumerate() {
        world.send(*publisher, &publish("plant/1", &n.to_string(), QoS::AtMostOnce, 0));
        for client in &clients {
            assert_eq!(publishes(&world.take(*client)), [(n.to_string(), QoS::AtMostOnce, false)]);
        }
    }
}

/// How many filters all shards have.
fn filters(world: &World) -> usize {
    world.shards.iter().map(|shard| shard.subscriptions.len()).sum()
}

fn subscribe_to(filters: std::ops::Range<usize>) -> Packet {
    let options = SubscriptionOptions::default();
    let subscription = |n| Subscription { filter: TopicFilter::new(&format!("plant/{n}")).unwrap(), options };
    let subscriptions = filters.map(subscription).collect();
    Packet::Subscribe(Subscribe { packet_id: NonZeroU16::MIN, properties: Properties::new(), subscriptions })
}

#[test]
fn a_storm_of_subscriptions_leaves_every_turn_something_for_others() {
    let mut world = World::new(1, Settings::default());
    let clients: Vec<usize> = (0..10).map(|n| world.connect(&format!("c{n}"), Version::V5, |_| {})).collect();
    let listener = world.connect("listener", Version::V5, |_| {});
    world.subscribe(listener, "#", QoS::AtMostOnce);
    // Each sends one packet with many filters and many with one; then something that must not overtake them.
    for (n, client) in clients.iter().enumerate() {
        let mut bytes = Vec::new();
        subscribe_to(n * 1000..n * 1000 + 500).encode(Version::V5, &mut bytes).unwrap();
        (500..1000).for_each(|i| subscribe_to(n * 1000 + i..n * 1000 + i + 1).encode(Version::V5, &mut bytes).unwrap());
        publish("after", "", QoS::AtMostOnce, 0).encode(Version::V5, &mut bytes).unwrap();
        let (at, conn) = world.clients[client].at;
        world.shards[at].receive(world.now, conn, &bytes);
    }
    let mut turns = 0;
    while world.shards[0].poll_timeout_of_clients().is_some_and(|due| due <= world.now) {
        let before = filters(&world);
        world.shards[0].handle_timeout(world.now);
        assert!(filters(&world) - before <= 128, "one turn made {} subscriptions", filters(&world) - before);
        assert!(!world.shards[0].is_settled() || filters(&world) == 10_001);
        turns += 1;
    }
    assert!((75..=80).contains(&turns), "{turns} turns");
    assert_eq!(filters(&world), 10_001);
    world.settle();
    assert_eq!(publishes(&world.take(listener)).len(), 10);
    for client in &clients {
        let packets = world.take(*client);
        let reasons = |packet: &Packet| if let Packet::SubAck(ack) = packet { ack.reasons.len() } else { 0 };
        assert_eq!(packets.iter().map(reasons).sum::<usize>(), 1000);
        assert_eq!(packets.iter().filter(|packet| reasons(packet) > 0).count(), 501);
    }
    // Who has all of them at once goes at once, and what was his by and by.
    for client in &clients {
        let (at, conn) = world.clients[client].at;
        world.shards[at].closed(world.now, conn, TransportEnd::Closed);
    }
    assert!(filters(&world) >= 10_001 - 128 && !world.shards[0].is_settled());
    world.settle();
    assert_eq!((filters(&world), world.shards[0].clients().len()), (1, 1));
    assert_eq!(world.shards[0].shared.filters(), 1);
}

#[test]
fn who_goes_while_his_subscriptions_wait_for_a_turn_leaves_nothing() {
    let mut world = World::new(1, Settings::default());
    let alice = world.connect("alice", Version::V5, |_| {});
    let (at, conn) = world.clients[&alice].at;
    let mut bytes = Vec::new();
    subscribe_to(0..1000).encode(Version::V5, &mut bytes).unwrap();
    let shard = &mut world.shards[at];
    shard.receive(world.now, conn, &bytes);
    assert_eq!(shard.subscriptions.len(), 128);
    shard.closed(world.now, conn, TransportEnd::Closed);
    world.settle();
    assert_eq!((filters(&world), world.shards[0].is_settled()), (0, true));
}
