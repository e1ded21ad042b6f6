//! A shard and its clients without sockets: what benches of the sans-IO broker stand on.

use std::{io::IoSlice, num::NonZeroU16, sync::Arc, time::Instant};

use bytes::Bytes;
use ferromq::{
    broker::{ConnId, Hooks, Peer, Settings, Shard, Shared},
    codec::{
        Connect, Packet, Properties, Publish, QoS, Subscribe, Subscription, SubscriptionOptions, Text, TopicFilter,
        TopicName, Version,
    },
    router::ShardId,
};

/// A batch of publications as one read brings them.
pub(crate) fn batch(topic: &str, payload: usize, qos: QoS) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 1..=BATCH as u16 {
        let packet_id = if qos == QoS::AtMostOnce { None } else { NonZeroU16::new(n) };
        let topic = TopicName::new(topic).expect("a valid topic");
        let payload = Bytes::from(vec![b'x'; payload]);
        let properties = Properties::new();
        let publish = Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload };
        publish.encode(Version::V3_1_1, &mut bytes).expect("encodes");
    }
    bytes
}

/// A subscriber that knows which packet identifiers come next.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) conn: ConnId,
    qos: QoS,
    next_id: u32,
}

impl Subscriber {
    pub(crate) fn new(world: &mut World, id: &str, filter: &str, qos: QoS) -> Self {
        Self { conn: world.client(id, Some((filter, qos))), qos, next_id: 0 }
    }

    /// Answers the next `count` deliveries, all in one read.
    pub(crate) fn acknowledge(&mut self, world: &mut World, count: usize) {
        let answers: &[u8] = match self.qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => &[0x40],
            QoS::ExactlyOnce => &[0x50, 0x70],
        };
        let mut bytes = std::mem::take(&mut world.bytes);
        bytes.clear();
        for _ in 0..count {
            let [high, low] = (self.next_id as u16 + 1).to_be_bytes();
            self.next_id = (self.next_id + 1) % 65_535;
            for answer in answers {
                bytes.extend([*answer, 2, high, low]);
            }
        }
        world.receive(self.conn, &bytes);
        world.bytes = bytes;
    }
}

/// One shard and its clients.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) shard: Shard,
    bytes: Vec<u8>,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let shared = Shared::new(Settings::default(), Hooks::default(), 1, 1, now);
        Self { now, shard: Shard::new(ShardId(0), Arc::clone(&shared), now, 1), bytes: Vec::new() }
    }

    pub(crate) fn client(&mut self, id: &str, subscription: Option<(&str, QoS)>) -> ConnId {
        let peer = Peer { address: "bench".into(), listener: "bench".into() };
        let conn = self.shard.open(self.now, peer);
        let connect = Connect {
            version: Version::V3_1_1,
            clean_start: true,
            bridge: false,
            keep_alive: 60,
            client_id: Text::try_from(id).expect("short"),
            will: None,
            username: None,
            password: None,
            properties: Properties::new(),
        };
        self.send(conn, &Packet::Connect(Box::new(connect)));
        if let Some((filter, qos)) = subscription {
            let filter = TopicFilter::new(filter).expect("a valid filter");
            let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
            let subscriptions = vec![Subscription { filter, options }];
            let packet_id = NonZeroU16::MIN;
            let subscribe = Subscribe { packet_id, properties: Properties::new(), subscriptions };
            self.send(conn, &Packet::Subscribe(subscribe));
        }
        self.flush();
        conn
    }

    pub(crate) fn send(&mut self, conn: ConnId, packet: &Packet) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        packet.encode(Version::V3_1_1, &mut bytes).expect("encodes");
        self.shard.receive(self.now, conn, &bytes);
        self.bytes = bytes;
    }

    pub(crate) fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.shard.receive(self.now, conn, bytes);
    }

    /// Bytes as a shell reads them that has 4 KiB for what comes behind a large packet.
    pub(crate) fn read(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(room) = self.shard.room(conn) {
                let (these, others) = rest.split_at(room.len().min(rest.len()));
                room[..these.len()].copy_from_slice(these);
                self.shard.fill(self.now, conn, these.len());
                rest = others;
            }
            let (these, others) = rest.split_at(rest.len().min(4 << 10));
            self.shard.receive(self.now, conn, these);
            rest = others;
        }
    }

    /// The publisher's PUBRELs for a batch of QoS 2.
    pub(crate) fn release(&mut self, publisher: ConnId, qos: QoS) {
        if qos != QoS::ExactlyOnce {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        for n in 1..=BATCH as u16 {
            let [high, low] = n.to_be_bytes();
            bytes.extend([0x62, 2, high, low]);
        }
        self.receive(publisher, &bytes);
        self.bytes = bytes;
    }

    pub(crate) fn flush(&mut self) {
        while let Some(conn) = self.shard.next_dirty() {
            while let Some(outbox) = self.shard.outbox(conn).filter(|outbox| !outbox.is_empty()) {
                let mut slices = [IoSlice::new(&[]); 64];
                let filled = outbox.io_slices(&mut slices);
                let written: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
                outbox.advance(written);
                self.shard.flushed(self.now, conn, written);
            }
        }
        while self.shard.poll_output().is_some() {}
        // Who waits for a turn has it.
        while self.shard.poll_timeout_of_clients().is_some_and(|due| due <= self.now) {
            self.shard.handle_timeout(self.now);
        }
    }
}

/// Publications a read brings.
pub(crate) const BATCH: usize = 32;
