//! Runs: messages that come in one read go together, and nobody can tell but by the time it takes.

use super::*;

/// Subscribers of every kind, and what each has received when publishers' packets came in reads of `packets_per_read`.
/// Who has more to come answers what he has got only then.
fn received_by_all(packets_per_read: usize, settings: &Settings) -> Vec<Vec<(String, QoS, u16)>> {
    let settings = settings.clone();
    let mut world = World::new(2, settings);
    let mut subscribers = Vec::new();
    for (n, version) in [Version::V3_1_1, Version::V5].into_iter().cycle().take(12).enumerate() {
        let client = world.connect(&format!("s{n}"), version, |connect| match n / 2 {
            4 if version.is_v5() => connect.properties.push(Property::MaximumPacketSize(40)),
            3 | 4 => connect.clean_start = false,
            5 if version.is_v5() => connect.properties.push(Property::TopicAliasMaximum(5)),
            _ => {}
        });
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n / 2 % 3];
        world.subscribe(client, "a/+", qos);
        world.subscribe(client, if n % 3 == 0 { "a/b" } else { "other" }, QoS::AtLeastOnce);
        subscribers.push(client);
    }
    let shared = world.connect("shared", Version::V5, |_| {});
    world.subscribe(shared, "$share/g/a/c", QoS::AtLeastOnce);
    let own = world.connect("own", Version::V5, |_| {});
    world.subscribe(own, "a/b", QoS::AtLeastOnce);
    subscribers.extend([shared, own]);
    for client in &subscribers {
        world.take(*client);
    }
    for (publisher, version) in [(own, Version::V5), (world.connect("p", Version::V3_1_1, |_| {}), Version::V3_1_1)] {
        let mut packets: Vec<Vec<u8>> = Vec::new();
        for n in 0..90u16 {
            let topic = ["a/b", "a/b", "a/b", "a/b", "a/c"][usize::from(n / 9) % 5];
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(n / 7 % 3)];
            let payload = format!("{version:?} {n} ").repeat(if n % 30 == 29 { 300 } else { 1 });
            let id = if qos == QoS::AtMostOnce { 0 } else { n + 1 };
            let Packet::Publish(mut publish) = publish(topic, &payload, qos, id) else { unreachable!() };
            publish.retain = n % 25 == 24;
            let mut bytes = Vec::new();
            publish.encode(version, &mut bytes).unwrap();
            packets.push(bytes);
        }
        // The end of the publisher, with something that nobody may send behind what is gathered.
        packets.push(vec![0x00, 0]);
        for read in packets.chunks(packets_per_read) {
            let (at, conn) = world.clients[&publisher].at;
            world.shards[at].receive(world.now, conn, &read.concat());
            world.settle();
        }
    }
    let held = |world: &World| {
        let stats = world.shards.iter().map(Shard::stats);
        stats.fold((0, 0, 0), |(bytes, queued, dropped), stats| {
            (bytes + stats.bytes_held, queued + stats.messages_queued, dropped + stats.dropped_total())
        })
    };
    let waiting = held(&world);
    let mut received: Vec<_> = subscribers.iter().map(|client| take_and_answer(&mut world, *client)).collect();
    received.push(vec![(format!("{waiting:?}"), QoS::AtMostOnce, 0)]);
    received
}

/// What a client gets as long as it answers all of it.
fn take_and_answer(world: &mut World, client: usize) -> Vec<(String, QoS, u16)> {
    let mut received = Vec::new();
    loop {
        let mut answers = Vec::new();
        for packet in world.take(client) {
            let Packet::Publish(publish) = packet else { continue };
            let id = publish.packet_id.map_or(0, u16::from);
            let [high, low] = id.to_be_bytes();
            match publish.qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => answers.extend([0x40, 2, high, low]),
                QoS::ExactlyOnce => answers.extend([0x50, 2, high, low, 0x70, 2, high, low]),
            }
            received.push((String::from_utf8_lossy(&publish.payload).into_owned(), publish.qos, id));
        }
        if answers.is_empty() {
            return received;
        }
        read(world, client, &answers);
    }
}

/// Bytes that a client sends, in one read.
fn read(world: &mut World, client: usize, bytes: &[u8]) {
    let (at, conn) = world.clients[&client].at;
    world.shards[at].receive(world.now, conn, bytes);
    world.settle();
}

/// Publishes messages of QoS 1 with these numbers in one read.
fn burst(world: &mut World, client: usize, topic: &str, numbers: std::ops::Range<u16>) {
    let mut bytes = Vec::new();
    for n in numbers {
        publish(topic, &n.to_string(), QoS::AtLeastOnce, n + 1).encode(Version::V3_1_1, &mut bytes).unwrap();
    }
    read(world, client, &bytes);
}

fn numbers(received: &[(String, QoS, u16)]) -> Vec<u16> {
    received.iter().map(|(payload, ..)| payload.parse().unwrap()).collect()
}

#[test]
fn messages_that_come_in_one_read_arrive_as_if_each_had_come_by_itself() {
    let mut wide = Settings::default();
    wide.session.inflight_max = 40;
    let mut narrow = wide.clone();
    narrow.session.inflight_max = 3;
    let (mut few, mut small) = (narrow.clone(), narrow.clone());
    (few.session.queued_messages_max, few.session.drop_policy) = (12, DropPolicy::New);
    (small.session.queued_bytes_max, small.session.drop_policy) = (3_000, DropPolicy::Oldest);
    for settings in [wide, narrow, few, small] {
        let one_by_one = received_by_all(1, &settings);
        assert!(one_by_one[..14].iter().all(|messages| messages.len() >= 9));
        for packets_per_read in [2, 7, 33, 1000] {
            let together = received_by_all(packets_per_read, &settings);
            for (n, (together, apart)) in together.iter().zip(&one_by_one).enumerate() {
                let differ = together.iter().zip(apart).position(|(together, apart)| together != apart);
                let lens = (together.len(), apart.len());
                assert!(together == apart, "subscriber {n}, {packets_per_read} a read: {lens:?}, from {differ:?}");
            }
        }
    }
}

#[test]
fn what_waits_of_a_run_is_one_piece_that_leaves_as_the_window_opens() {
    let mut settings = Settings::default();
    settings.session.inflight_max = 8;
    let mut world = World::new(1, settings);
    let [alice, bob, carol] = ["alice", "bob", "carol"]
        .map(|id| world.connect(id, Version::V3_1_1, |connect| connect.clean_start = id != "carol"));
    world.subscribe(bob, "t", QoS::AtLeastOnce);
    world.subscribe(carol, "t", QoS::AtLeastOnce);
    drop((world.take(bob), world.take(carol)));
    burst(&mut world, alice, "t", 0..30);
    let waiting = |world: &World| {
        let sessions = world.shards[0].sessions.iter();
        let waiting = sessions.map(|(_, session)| (session.state.pending(), session.state.pending_messages().count()));
        waiting.filter(|(messages, _)| *messages > 0).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&world), [(22, 1), (22, 1)], "one piece for each who is to have it");
    // What was sent goes again to one whose session has outlived its connection, and then what was not.
    world.drop_connection(carol);
    let carol = world.connect("carol", Version::V3_1_1, |connect| connect.clean_start = false);
    for client in [bob, carol] {
        let received = take_and_answer(&mut world, client);
        assert_eq!(numbers(&received), (0..30).collect::<Vec<_>>());
    }
    assert_eq!((waiting(&world), world.shards[0].queued_bytes), (vec![], 0));
    assert!(world.shards[0].is_settled());
}

/// A publisher and members of a shared group.
fn group(shards: usize, members: usize, settings: Settings) -> (World, usize, Vec<usize>) {
    let mut world = World::new(shards, settings);
    let publisher = world.connect("publisher", Version::V3_1_1, |_| {});
    let members: Vec<usize> = (0..members)
        .map(|n| world.connect(&format!("m{n}"), Version::V3_1_1, |connect| connect.clean_start = n % 3 != 1))
        .collect();
    for member in &members {
        world.subscribe(*member, "$share/g/jobs", QoS::AtLeastOnce);
        world.take(*member);
    }
    world.take(publisher);
    (world, publisher, members)
}

#[test]
fn a_burst_is_spread_evenly_over_a_group_at_rest() {
    for shards in [1, 3] {
        let (mut world, publisher, members) = group(shards, 7, Settings::default());
        // Busy before, with as many for all: then at rest again, so nothing of that is left.
        burst(&mut world, publisher, "jobs", 0..700);
        for member in &members {
            take_and_answer(&mut world, *member);
        }
        world.advance(Duration::from_millis(20));
        for count in [1, 3, 7, 20, 50] {
            burst(&mut world, publisher, "jobs", 0..count);
            let received: Vec<_> = members.iter().map(|member| take_and_answer(&mut world, *member)).collect();
            let (least, most) = (received.iter().map(Vec::len).min(), received.iter().map(Vec::len).max());
            assert!(most <= least.map(|least| least + 1), "{count} over {shards} shards: {received:?}");
            let mut all: Vec<_> = received.iter().flat_map(|received| numbers(received)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}

#[test]
fn busy_members_get_pieces_of_a_run_in_the_order_of_the_publisher() {
    for (shards, inflight_max) in [(1, 1000), (3, 1000), (1, 10), (3, 10)] {
        let mut settings = Settings::default();
        settings.session.inflight_max = inflight_max;
        let (mut world, publisher, members) = group(shards, 4, settings);
        burst(&mut world, publisher, "jobs", 0..600);
        let received: Vec<_> = members.iter().map(|member| take_and_answer(&mut world, *member)).collect();
        let received: Vec<_> = received.iter().map(|received| numbers(received)).collect();
        for numbers in &received {
            assert!(numbers.is_sorted(), "{numbers:?}");
            assert!((150 - 16..=150 + 16).contains(&numbers.len()), "{}", numbers.len());
            let pieces = numbers.chunk_by(|n, next| n + 1 == *next).map(<[u16]>::len);
            assert!(pieces.clone().max().is_some_and(|most| (5..=16).contains(&most)), "{numbers:?}");
        }
        let mut all = received.concat();
        all.sort_unstable();
        assert_eq!(all, (0..600).collect::<Vec<_>>());
    }
}

#[test]
fn of_a_piece_that_a_member_cannot_finish_nothing_is_lost() {
    for (shards, inflight_max, stays) in [(1, 10, false), (3, 10, false), (1, 1000, true), (3, 10, true)] {
        let mut settings = Settings::default();
        settings.session.inflight_max = inflight_max;
        let (mut world, publisher, members) = group(shards, 4, settings);
        burst(&mut world, publisher, "jobs", 0..600);
        // The session of one member outlives its connection, that of the other does not.
        let (leaving, others) = if stays { (1, [0, 2, 3]) } else { (0, [1, 2, 3]) };
        world.drop_connection(members[leaving]);
        let received = others.map(|member| take_and_answer(&mut world, members[member]));
        let mut all: Vec<_> = received.iter().flat_map(|received| numbers(received)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..600).collect::<Vec<_>>(), "{shards} shards, {inflight_max} in flight, {stays}");
        assert!(world.shards.iter().all(|shard| shard.queued_bytes == 0 && shard.is_settled()));
    }
}

#[test]
fn what_a_client_publishes_to_itself_comes_before_its_acknowledgement() {
    let mut world = World::new(1, Settings::default());
    let [alice, bob] = ["alice", "bob"].map(|id| world.connect(id, Version::V3_1_1, |_| {}));
    world.subscribe(bob, "t", QoS::AtLeastOnce);
    for is_own in [false, true] {
        if is_own {
            world.subscribe(alice, "t", QoS::AtLeastOnce);
        }
        drop((world.take(alice), world.take(bob)));
        let mut bytes = Vec::new();
        for id in 1..=3 {
            publish("t", "x", QoS::AtLeastOnce, id).encode(Version::V3_1_1, &mut bytes).unwrap();
        }
        let (at, conn) = world.clients[&alice].at;
        world.shards[at].receive(world.now, conn, &bytes);
        world.settle();
        let kinds: String = world
            .take(alice)
            .iter()
            .map(|packet| match packet {
                Packet::Publish(_) => 'm',
                Packet::PubAck(_) => 'a',
                _ => '?',
            })
            .collect();
        assert_eq!(kinds, if is_own { "mamama" } else { "aaa" });
        assert_eq!(publishes(&world.take(bob)).len(), 3);
    }
}
