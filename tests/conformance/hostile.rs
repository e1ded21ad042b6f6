//! Peers that are hostile by what they do rather than by one packet: floods, trickles, half-open connections. The
//! broker stays bounded, and a client beside them never notices.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ferromq::{
    broker::{Hooks, Output, Peer as Address, Shard, Shared},
    codec::{Packet, ReasonCode, Version},
    router::ShardId,
};

use crate::{
    harness::{Bench, Peer, on_all, on_all_versions, on_all_with, quiet},
    wire::{self, Connect, Publish, Subscribe, Will, Wire, p32, packet, pubrel},
};

fn healthy(bench: &Bench, version: Version) -> Peer {
    let peer = bench.client(version, "healthy");
    peer.subscribe("healthy", 1);
    peer
}

#[track_caller]
fn expect_undisturbed(healthy: &Peer) {
    healthy.publish("healthy", "x", 1);
    assert_eq!(healthy.payloads(), ["x"]);
    healthy.expect_healthy();
}

#[test]
fn a_flood_of_silent_connections_is_gone_after_the_connect_timeout() {
    on_all_versions(|bench, version| {
        let healthy = healthy(bench, version);
        let flood: Vec<Peer> = (0..500).map(|_| bench.connect_raw(version)).collect();
        expect_undisturbed(&healthy);
        bench.advance(Duration::from_secs(11));
        flood.iter().for_each(Peer::expect_closed);
        expect_undisturbed(&healthy);
        assert_eq!(bench.open_connections(), 1);
    });
}

/// A CONNECT that announces the greatest length there is must not make a stranger's bytes pile up.
#[test]
fn a_stranger_cannot_make_the_broker_hold_megabytes() {
    on_all_versions(|bench, version| {
        let healthy = healthy(bench, version);
        let stranger = bench.connect_raw(version);
        stranger.send(vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
        for _ in 0..64 {
            stranger.send(vec![0; 64 << 10]);
        }
        assert!(stranger.is_closed(), "four megabytes without a CONNECT are enough");
        expect_undisturbed(&healthy);
    });
}

/// Table 3-1 names the code; before MQTT 5 there is none. The first bytes must have come to tell the two apart.
#[test]
fn a_connect_that_is_too_large_is_told_so_in_its_version() {
    on_all(|bench| {
        for (version, level, name) in
            [(Version::V5, 5, "MQTT"), (Version::V3_1_1, 4, "MQTT"), (Version::V3_1, 3, "MQIsdp")]
        {
            let mut start = vec![0x10, 0x80, 0x89, 0x7A];
            start.extend(wire::string(name));
            start.push(level);
            for cut in 4..start.len() {
                let peer = bench.connect_raw(version);
                peer.send(start[..cut].to_vec());
                assert!(!peer.is_closed(), "{version:?}: {cut} bytes do not tell the version");
                peer.send(start[cut..].to_vec());
                if version.is_v5() {
                    assert_eq!(peer.expect_connack().reason, ReasonCode::PacketTooLarge);
                }
                peer.expect_closed();
            }
        }
    });
}

/// Whoever takes no answers gets to ask nothing more, and what it sent meanwhile keeps it alive.
#[test]
fn a_peer_that_reads_nothing_is_not_read_either() {
    let mut settings = quiet();
    settings.slow_consumer.outbox_soft_bytes = 10_000;
    let mut now = Instant::now();
    let mut shard = Shard::new(ShardId(0), Shared::new(settings, Hooks::default(), 1, 1, now), now, 1);
    let address = Address { address: "peer".into(), listener: Arc::from("test") };
    let conn = shard.open(now, address);
    shard.receive(now, conn, &Connect::new("greedy").keep_alive(10).wire(Version::V5));
    let flood: Vec<u8> = (1..=1000u16).flat_map(|id| pubrel(id).wire(Version::V5)).collect();
    let mut asked = 0;
    while shard.wants_read(conn) {
        shard.receive(now, conn, &flood);
        asked += 1;
        assert!(asked < 100, "the outbox has no bound");
    }
    let held = shard.outbox(conn).expect("it is connected").len();
    assert!((20_000..40_000).contains(&held), "{held}");
    for _ in 0..4 {
        now += Duration::from_secs(7);
        shard.flushed(now, conn, 1);
        shard.handle_timeout(now);
        assert!(shard.outbox(conn).is_some_and(|outbox| outbox.len() == held), "it was not told to go");
    }
    shard.outbox(conn).expect("it is connected").advance(held - 10_000);
    shard.flushed(now, conn, held - 10_000);
    let resumed = std::iter::from_fn(|| shard.poll_output())
        .any(|output| matches!(output, Output::Resume { conns } if conns == [conn]));
    assert!(resumed && shard.wants_read(conn));
}

/// Packets that never become complete are memory as well.
#[test]
fn incomplete_packets_share_a_bound() {
    on_all_with(
        |settings| settings.slow_consumer.memory_watermark_bytes = 4 << 20,
        |bench| {
            for (version, told) in [(Version::V5, true), (Version::V3_1_1, false)] {
                let healthy = healthy(bench, version);
                let hoarders: Vec<Peer> = (0..12).map(|n| bench.client(version, &format!("hoarder-{n}"))).collect();
                for hoarder in &hoarders {
                    hoarder.send(vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't', 0]);
                    for _ in 0..8 {
                        if !hoarder.is_closed() {
                            hoarder.send(vec![b'x'; 200_000]);
                        }
                    }
                }
                let ended: Vec<&Peer> = hoarders.iter().filter(|hoarder| hoarder.is_closed()).collect();
                assert!(!ended.is_empty(), "12 hoarders hold 19 MB");
                for hoarder in ended.into_iter().filter(|_| told) {
                    hoarder.expect_disconnect(ReasonCode::QuotaExceeded);
                }
                expect_undisturbed(&healthy);
                hoarders.iter().for_each(Peer::hang_up);
            }
        },
    );
}

/// A subscription that is made over and over begins its retained messages anew instead of adding to them.
#[test]
fn subscribing_again_and_again_piles_nothing_up() {
    on_all_with(
        |settings| settings.slow_consumer.outbox_soft_bytes = 500,
        |bench| {
            let publisher = bench.client(Version::V5, "publisher");
            publisher.send(Publish::new("r/1", "x".repeat(1000)).retain());
            let subscriber = bench.client(Version::V5, "subscriber");
            subscriber.stall(true);
            for n in 1..=200 {
                subscriber.send(Subscribe::new(n).filter("r/+", 0));
            }
            subscriber.stall(false);
            let received = subscriber.received();
            let retained = received.iter().filter(|packet| matches!(packet, Packet::Publish(_))).count();
            assert!((1..=3).contains(&retained), "{retained} of {}", received.len());
        },
    );
}

/// [MQTT-3.1.2-24] [MQTT-3.2.0-1]
#[test]
fn a_client_without_room_for_connack_gets_nothing_else_either() {
    on_all(|bench| {
        for (max, is_told) in [(1, false), (4, false), (5, true), (10, true)] {
            let peer = bench.connect(Version::V5, &Connect::new("tiny").with(p32(wire::MAXIMUM_PACKET_SIZE, max)));
            if is_told {
                assert_eq!(peer.expect_connack().reason, ReasonCode::PacketTooLarge);
            }
            peer.expect_closed();
            assert_eq!(bench.sessions(), 0);
        }
    });
}

/// The greatest CONNECT that makes sense is taken: every field at its limit.
#[test]
fn a_connect_with_every_field_at_its_limit_is_taken() {
    on_all_versions(|bench, version| {
        let most = "x".repeat(usize::from(u16::MAX));
        let connect = Connect::new(&most).will(Will::new(&most, &most)).username(&most).password(most.as_bytes());
        bench.accepted(version, &connect).0.expect_healthy();
    });
}

/// Bytes that come one at a time are a packet all the same, and a packet that never ends is not activity: the
/// keep-alive runs on.
#[test]
fn a_packet_that_trickles_does_not_keep_a_connection_alive() {
    on_all_versions(|bench, version| {
        let (peer, _) = bench.accepted(version, &Connect::new("slow").keep_alive(10));
        let bytes = Publish::new("t", "x".repeat(100)).wire(version);
        for byte in bytes.iter().take(14) {
            peer.send(vec![*byte]);
            bench.advance(Duration::from_secs(1));
        }
        assert!(!peer.is_closed());
        bench.advance(Duration::from_secs(3));
        peer.expect_fault(ReasonCode::KeepAliveTimeout);
    });
}

/// A peer that vanished without a word is given up after one and a half keep-alives, and its will is published.
#[test]
fn half_open_peers_are_given_up() {
    on_all_versions(|bench, version| {
        let watcher = bench.client(version, "watcher");
        watcher.subscribe("will/#", 0);
        for n in 0..20 {
            let will = Will::new(&format!("will/{n}"), "gone");
            bench.accepted(version, &Connect::new(&format!("client{n}")).keep_alive(5).will(will));
        }
        bench.advance(Duration::from_secs(10));
        assert_eq!(watcher.payloads().len(), 20);
        assert_eq!(bench.open_connections(), 1);
    });
}

#[test]
fn mass_subscriptions_stop_at_the_limits() {
    on_all_with(
        |settings| settings.limits.filters_max = 100,
        |bench| {
            let healthy = healthy(bench, Version::V5);
            let many = |count: usize| {
                (0..count).fold(Subscribe::new(1), |subscribe, n| subscribe.filter(&format!("t/{n}"), 0))
            };
            let peer = bench.client(Version::V5, "fine");
            peer.send(many(100));
            assert_eq!(peer.expect_suback(1).reasons.len(), 100);
            let peer = bench.client(Version::V5, "greedy");
            peer.send(many(101));
            peer.expect_disconnect(ReasonCode::QuotaExceeded);
            expect_undisturbed(&healthy);
        },
    );
}

#[test]
fn user_properties_without_end_are_refused() {
    on_all_with(
        |settings| settings.limits.user_properties_max = 10,
        |bench| {
            let healthy = healthy(bench, Version::V5);
            let many = |count| (0..count).fold(Publish::new("t", ""), |publish, _| publish.with(wire::user("k", "v")));
            let peer = bench.client(Version::V5, "chatty");
            peer.send(many(10));
            peer.expect_healthy();
            peer.send(many(11));
            peer.expect_disconnect(ReasonCode::QuotaExceeded);
            expect_undisturbed(&healthy);
        },
    );
}

#[test]
fn retained_messages_stop_at_their_limit() {
    on_all_with(
        |settings| settings.retained_messages_max = 3,
        |bench| {
            let peer = bench.client(Version::V5, "publisher");
            for n in 0..5 {
                peer.send(Publish::new(&format!("t/{n}"), "x").retain().qos1(1));
                let Some(Packet::PubAck(ack)) = peer.next() else { panic!("PUBACK is due") };
                assert_eq!(ack.reason == ReasonCode::QuotaExceeded, n >= 3, "message {n}: {ack:?}");
            }
            peer.send(Publish::new("t/0", "replaced").retain().qos1(1));
            peer.next();
            let late = bench.client(Version::V5, "late");
            late.subscribe("t/#", 0);
            let mut kept = late.payloads();
            kept.sort();
            assert_eq!(kept, ["replaced", "x", "x"]);
        },
    );
}

/// A client that connects again and again under one name takes over from itself and leaves nothing behind.
#[test]
fn a_storm_of_takeovers_leaves_one_session() {
    on_all_versions(|bench, version| {
        let healthy = healthy(bench, version);
        let storm: Vec<Peer> = (0..100).map(|_| bench.accepted(version, &Connect::persistent("same")).0).collect();
        for peer in &storm[..99] {
            peer.expect_fault(ReasonCode::SessionTakenOver);
        }
        storm[99].expect_healthy();
        assert_eq!(bench.open_connections(), 2);
        assert_eq!(bench.sessions(), 2);
        expect_undisturbed(&healthy);
    });
}

/// The same client identifier from many connections whose CONNECT comes byte by byte, in turn.
#[test]
fn interleaved_connects_of_one_client_end_with_one_connection() {
    on_all_versions(|bench, version| {
        let bytes = Connect::new("same").wire(version);
        let peers: Vec<Peer> = (0..10).map(|_| bench.connect_raw(version)).collect();
        for byte in bytes {
            for peer in &peers {
                peer.send(vec![byte]);
            }
        }
        let open = peers.iter().filter(|peer| !peer.is_closed()).count();
        assert_eq!(open, 1);
        assert_eq!(bench.sessions(), 1);
    });
}

/// Nothing that a peer sends after it was refused is looked at.
#[test]
fn bytes_after_a_fault_are_ignored() {
    on_all(|bench| {
        let watcher = bench.client(Version::V5, "watcher");
        watcher.subscribe("#", 0);
        let peer = bench.client(Version::V5, "offender");
        peer.send([packet(0xC0, &[1]), Publish::new("t", "smuggled").wire(Version::V5)].concat());
        peer.expect_disconnect(ReasonCode::MalformedPacket);
        peer.send(Publish::new("t", "late"));
        watcher.expect_nothing();
    });
}
