//! What is counted. Each case runs once to warm up, and once to be counted.

use std::{hint::black_box, num::NonZeroU16, time::Instant};

use bytes::Bytes;
use ferromq::{
    broker::ConnId,
    codec::{
        Connect, Cut, Frame, Limits, Packet, Properties, Property, Publish, PublishRef, QoS, Source, Subscribe,
        Subscription, SubscriptionOptions, Text, TopicFilter, TopicName, Version, frame,
    },
    router::{CacheLimits, FilterTrie, Interest, RetainedStore, RouteCache, ShardId, ShardSet, SharedStrategy},
    session::client::{ClientSession, Outgoing, Payload, SessionOptions},
};

use super::{
    callgrind_measured,
    world::{BATCH, Subscriber, World, batch},
};

/// Runs all cases; `report` is told the name of each and its allocations.
pub(crate) fn run(mut report: impl FnMut(&str, u64)) {
    let mut case = |name: &str, mut work: Box<dyn FnMut()>| {
        work();
        let allocations = callgrind_measured(&mut *work);
        report(name, allocations);
    };
    codec(&mut case);
    router(&mut case);
    delivery(&mut case);
    large(&mut case);
    gathering(&mut case);
    topics(&mut case);
    connections(&mut case);
    client(&mut case);
}

/// Names a case and runs it.
type Case<'a> = &'a mut dyn FnMut(&str, Box<dyn FnMut()>);

fn codec(case: Case<'_>) {
    let limits = Limits::default();
    for (name, version, packet) in packets() {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).expect("a valid packet");
        let bytes = Bytes::from(bytes);
        let (packet, encoded) = (packet.clone(), bytes.clone());
        case(
            &format!("codec: 1000 decode {name}"),
            Box::new(move || {
                for _ in 0..1000 {
                    let frame = frame_of(black_box(&encoded));
                    if frame.header >> 4 == 3 {
                        black_box(PublishRef::decode(frame, version, &limits).expect("valid"));
                    } else {
                        black_box(Packet::decode(frame, version, &limits, &Source::Shared(&encoded)).expect("valid"));
                    }
                }
            }),
        );
        let mut out = Vec::with_capacity(4096);
        case(
            &format!("codec: 1000 encode {name}"),
            Box::new(move || {
                for _ in 0..1000 {
                    out.clear();
                    black_box(&packet).encode(version, &mut out).expect("valid");
                }
            }),
        );
    }
}

fn router(case: Case<'_>) {
    let topics: Vec<String> = (0..1000).map(|n| format!("site/{}/line/{}/device/{n}/state", n % 7, n % 31)).collect();
    let mut trie: FilterTrie<u32> = FilterTrie::new(1);
    for (n, topic) in (0..).zip(&topics) {
        trie.insert(topic, n);
        trie.insert(&topic.replace("/state", "/+"), n);
        trie.insert(&format!("site/{}/line/+/device/{n}/#", n % 7), n);
    }
    let names = topics.clone();
    case(
        "router: 1000 match among 3000 filters, three each",
        Box::new(move || {
            let mut found = 0;
            for topic in &names {
                trie.for_each_match(topic, |_| found += 1);
            }
            assert_eq!(found, 3000);
        }),
    );
    let (mut trie, names) = (FilterTrie::new(1), topics.clone());
    case(
        "router: 1000 insert and remove",
        Box::new(move || {
            for filter in &names {
                assert_eq!(trie.insert(filter, 0), None);
            }
            for filter in &names {
                assert_eq!(trie.remove(filter), Some(0));
            }
        }),
    );
    let interest = Interest::new(1, SharedStrategy::RoundRobin);
    let mut cache: RouteCache<ShardSet> = RouteCache::new(CacheLimits { entries_max: 1 << 12, bytes_max: 1 << 20 });
    for name in &topics {
        interest.add(name, ShardId(0));
    }
    for name in &topics {
        let stripes = interest.hasher().stripes(interest.hasher().topic(name));
        cache.insert(interest.hasher().topic(name), stripes, interest.generation(stripes), interest.targets(name), 0);
    }
    let names = topics.clone();
    case(
        "router: 1000 hash and cache hit",
        Box::new(move || {
            for name in &names {
                let topic = interest.hasher().topic(name);
                black_box(cache.get(topic, |stripes| interest.generation(stripes)).expect("cached"));
            }
        }),
    );
    let mut store = RetainedStore::new(1);
    for topic in &topics {
        assert!(store.insert(topic, 0u32).is_none());
    }
    case(
        "router: scan of 1000 retained",
        Box::new(move || {
            let (mut cursor, mut found) = (None, 0);
            loop {
                cursor = store.scan("site/#", cursor, 256, |_, _| found += 1);
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(found, 1000);
        }),
    );
}

fn delivery(case: Case<'_>) {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut world = World::new();
        let mut pairs: Vec<_> = (0..10)
            .map(|n| {
                let topic = format!("bench/pair/{n}");
                let publisher = world.client(&format!("p{n}"), None);
                (publisher, Subscriber::new(&mut world, &format!("s{n}"), &topic, qos), batch(&topic, 16, qos))
            })
            .collect();
        case(
            &format!("delivery: 320 to one each, 16 B, {qos:?}"),
            Box::new(move || {
                for (publisher, _, batch) in &pairs {
                    world.receive(*publisher, batch);
                }
                world.flush();
                for (publisher, subscriber, _) in &mut pairs {
                    subscriber.acknowledge(&mut world, BATCH);
                    world.release(*publisher, qos);
                }
                world.flush();
            }),
        );
    }
    for (payload, qos) in [(64, QoS::AtMostOnce), (64, QoS::AtLeastOnce), (4096, QoS::AtMostOnce)] {
        let mut world = World::new();
        let publisher = world.client("source", None);
        let mut subscribers: Vec<_> =
            (0..100).map(|n| Subscriber::new(&mut world, &format!("s{n}"), "bench/out", qos)).collect();
        let bytes = batch("bench/out", payload, qos);
        case(
            &format!("delivery: 32 to 100, {payload} B, {qos:?}"),
            Box::new(move || {
                world.receive(publisher, &bytes);
                world.flush();
                for subscriber in &mut subscribers {
                    subscriber.acknowledge(&mut world, BATCH);
                }
                world.flush();
            }),
        );
    }
}

/// What is too large for one read.
fn large(case: Case<'_>) {
    let mut world = World::new();
    let publisher = world.client("source", None);
    world.client("sink", Some(("bench/large", QoS::AtMostOnce)));
    let bytes = batch("bench/large", 64 << 10, QoS::AtMostOnce);
    case(
        "delivery: 32 to one, 64 KiB, AtMostOnce",
        Box::new(move || {
            world.read(publisher, &bytes);
            world.flush();
        }),
    );
}

/// Many publishers of whom one, or one of several, gets everything.
fn gathering(case: Case<'_>) {
    let one = |qos| (format!("delivery: 320 from ten to one, 16 B, {qos:?}"), "bench/in/+", 1, qos);
    let shared =
        |qos| (format!("delivery: 320 from ten to a group of ten, 16 B, {qos:?}"), "$share/g/bench/in/+", 10, qos);
    for (name, filter, takers, qos) in [one(QoS::AtMostOnce), one(QoS::AtLeastOnce), shared(QoS::AtLeastOnce)] {
        let mut world = World::new();
        let mut subscribers: Vec<_> =
            (0..takers).map(|n| Subscriber::new(&mut world, &format!("s{n}"), filter, qos)).collect();
        let publishers: Vec<_> =
            (0..10).map(|n| (world.client(&format!("p{n}"), None), batch(&format!("bench/in/{n}"), 16, qos))).collect();
        case(
            &name,
            Box::new(move || {
                for (publisher, batch) in &publishers {
                    world.receive(*publisher, batch);
                }
                world.flush();
                for subscriber in &mut subscribers {
                    subscriber.acknowledge(&mut world, 10 * BATCH / takers);
                }
                world.flush();
            }),
        );
    }
}

/// Topics of which each matches one of very many filters, exact ones and wildcards in turn.
fn topics(case: Case<'_>) {
    let (mut world, publisher, topics) = many_topics();
    let mut new = topics.chunks(1000).map(packets_to).collect::<Vec<_>>().into_iter();
    case(
        "delivery: 1000 topics of 20,000, each for the first time",
        Box::new(move || {
            for batch in new.next().expect("there are more than two thousand") {
                world.receive(publisher, &batch);
            }
            world.flush();
        }),
    );
    let (mut world, publisher, topics) = many_topics();
    let again = packets_to(&topics[..1000]);
    case(
        "delivery: 1000 topics of 20,000, once more",
        Box::new(move || {
            for batch in &again {
                world.receive(publisher, batch);
            }
            world.flush();
        }),
    );
}

/// A publisher, and ten subscribers with two thousand filters each.
fn many_topics() -> (World, ConnId, Vec<String>) {
    let mut world = World::new();
    let subscribers: Vec<_> = (0..10).map(|n| world.client(&format!("s{n}"), None)).collect();
    let topics: Vec<String> = (0..20_000).map(|n| format!("bench/site{}/dev{n}/temp", n / 100)).collect();
    for (n, topic) in topics.iter().enumerate() {
        let filter = match n % 5 {
            0 => topic.clone(),
            1 => topic.replace("/temp", "/+"),
            2 => topic.replace("/temp", "/#"),
            3 => format!("bench/+/dev{n}/temp"),
            _ => format!("bench/+/dev{n}/#"),
        };
        let options = SubscriptionOptions::default();
        let subscriptions = vec![Subscription { filter: TopicFilter::new(&filter).expect("valid"), options }];
        let (packet_id, properties) = (NonZeroU16::MIN, Properties::new());
        world.send(subscribers[n % 10], &Packet::Subscribe(Subscribe { packet_id, properties, subscriptions }));
        world.flush();
    }
    let publisher = world.client("source", None);
    (world, publisher, topics)
}

/// One publication to each topic, as reads bring them.
fn packets_to(topics: &[String]) -> Vec<Vec<u8>> {
    let publish = |topic: &String, bytes: &mut Vec<u8>| {
        let topic = TopicName::new(topic).expect("valid");
        Packet::Publish(publication(topic, QoS::AtMostOnce, 16)).encode(Version::V3_1_1, bytes).expect("valid");
    };
    let batches = topics.chunks(BATCH);
    batches
        .map(|some| {
            some.iter().fold(Vec::new(), |mut bytes, topic| {
                publish(topic, &mut bytes);
                bytes
            })
        })
        .collect()
}

fn connections(case: Case<'_>) {
    let mut world = World::new();
    case(
        "connections: 100 connect, subscribe, end",
        Box::new(move || {
            let ends = (0..100).map(|n| {
                let filter = format!("devices/{n:06}/commands");
                world.client(&format!("device-{n:06}"), Some((&filter, QoS::AtMostOnce)))
            });
            let conns: Vec<_> = ends.collect();
            for conn in conns {
                world.receive(conn, &[0xE0, 0]);
                world.shard.closed(world.now, conn, ferromq::broker::TransportEnd::Closed);
            }
            world.flush();
        }),
    );
    let mut world = World::new();
    let conn = world.client("pings", None);
    case(
        "connections: 1000 PINGREQ",
        Box::new(move || {
            for _ in 0..1000 {
                world.receive(conn, &[0xC0, 0]);
            }
            world.flush();
        }),
    );
    let mut world = World::new();
    let publisher = world.client("source", None);
    for n in 0..1000 {
        let topic = TopicName::new(&format!("devices/{n}/state")).expect("valid");
        let mut publish = publication(topic, QoS::AtMostOnce, 64);
        publish.retain = true;
        world.send(publisher, &Packet::Publish(publish));
    }
    let conn = world.client("sink", None);
    case(
        "connections: 1000 retained to one",
        Box::new(move || {
            let options = SubscriptionOptions::default();
            let subscriptions = vec![Subscription { filter: TopicFilter::new("devices/#").expect("valid"), options }];
            let (packet_id, properties) = (NonZeroU16::MIN, Properties::new());
            world.send(conn, &Packet::Subscribe(Subscribe { packet_id, properties, subscriptions }));
            world.flush();
        }),
    );
}

fn client(case: Case<'_>) {
    let now = Instant::now();
    let (mut session, mut out, mut next) = (online(now), Vec::new(), 0u32);
    let no_properties = Properties::new();
    case(
        "client: 1000 publish, QoS 1, acknowledged",
        Box::new(move || {
            let mut acks = Vec::new();
            for _ in 0..1000 {
                let payload = Payload::Borrowed(b"21.5 degrees C..");
                let (topic, properties) = ("plant/7/temp", &no_properties);
                let message = Outgoing { topic, payload, qos: QoS::AtLeastOnce, retain: false, properties };
                session.publish(now, &message, 0).expect("there is room");
                let [high, low] = (next as u16 + 1).to_be_bytes();
                next = (next + 1) % 65_535;
                acks.extend([0x40, 2, high, low]);
                if acks.len() == 4 * BATCH {
                    out.clear();
                    session.take_output(now, &mut out);
                    session.handle_bytes(now, &Bytes::from(std::mem::take(&mut acks)));
                    while session.poll_event().is_some() {}
                }
            }
            session.take_output(now, &mut out);
            session.handle_bytes(now, &Bytes::from(acks));
            while session.poll_event().is_some() {}
        }),
    );
    let mut session = online(now);
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        let publish = publication(TopicName::new("plant/7/temp").expect("valid"), QoS::AtMostOnce, 16);
        Packet::Publish(publish).encode(Version::V5, &mut bytes).expect("valid");
    }
    let bytes = Bytes::from(bytes);
    case(
        "client: 1000 received, QoS 0",
        Box::new(move || {
            let mut count = 0;
            session.handle_bytes_to(now, &bytes, |message| {
                count += 1;
                black_box(message);
                None
            });
            assert_eq!(count, 1000);
        }),
    );
}

/// A client that a server has accepted.
fn online(now: Instant) -> ClientSession {
    let options = SessionOptions { client_id: Text::from_static("c"), ..SessionOptions::default() };
    let mut session = ClientSession::new(options, None, now);
    session.connect(now).expect("the options are valid");
    session.take_output(now, &mut Vec::new());
    session.handle_bytes(now, &Bytes::from_static(&[0x20, 3, 0, 0, 0]));
    while session.poll_event().is_some() {}
    assert!(session.is_online());
    session
}

fn publication(topic: TopicName, qos: QoS, payload: usize) -> Publish {
    let packet_id = (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN);
    let payload = Bytes::from(vec![b'x'; payload]);
    Publish { dup: false, qos, retain: false, topic, packet_id, properties: Properties::new(), payload }
}

fn packets() -> Vec<(&'static str, Version, Packet)> {
    let topic = || TopicName::new("plant/7/line/3/temp").expect("valid");
    let plain = publication(topic(), QoS::AtLeastOnce, 64);
    let mut rich = plain.clone();
    rich.properties.push(Property::ContentType(Text::from_static("application/json")));
    rich.properties.push(Property::UserProperty((Text::from_static("unit"), Text::from_static("K"))));
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        bridge: false,
        keep_alive: 60,
        client_id: Text::from_static("device-000001"),
        will: None,
        username: Some(Text::from_static("user")),
        password: Some(Bytes::from_static(b"secret")),
        properties: [Property::SessionExpiryInterval(60)].into_iter().collect(),
    };
    let filter = TopicFilter::new("plant/+/line/#").expect("valid");
    let subscriptions = vec![Subscription { filter, options: SubscriptionOptions::default() }];
    let subscribe = Subscribe { packet_id: NonZeroU16::MIN, properties: Properties::new(), subscriptions };
    vec![
        ("PUBLISH, 3.1.1", Version::V3_1_1, Packet::Publish(plain)),
        ("PUBLISH with properties, 5.0", Version::V5, Packet::Publish(rich)),
        ("CONNECT, 5.0", Version::V5, Packet::Connect(Box::new(connect))),
        ("SUBSCRIBE, 5.0", Version::V5, Packet::Subscribe(subscribe)),
    ]
}

fn frame_of(bytes: &[u8]) -> Frame<'_> {
    match frame::cut(bytes, u32::MAX) {
        Ok(Cut::Frame(frame, _)) => frame,
        other => panic!("no whole packet: {other:?}"),
    }
}
