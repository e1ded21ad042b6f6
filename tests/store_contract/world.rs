//! Shards over a store in virtual time. Envelopes, and what clients have received, wait until a test moves them, so that
//! it can crash the broker in between.

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;
use ferromq::{
    broker::{ConnId, Envelope, Hooks, Output, Peer, Settings, Shard, Shared, TransportEnd},
    codec::{
        Ack, Connect, Decoder, Limits, Packet, Properties, Property, Publish, QoS, ReasonCode, Subscribe, Subscription,
        SubscriptionOptions, Text, TopicFilter, TopicName, Version,
    },
    router::ShardId,
    store::Store,
};

/// A broker and the far ends of its connections.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) unix: Duration,
    pub(crate) shards: Vec<Shard>,
    pub(crate) envelopes: VecDeque<(usize, Vec<Envelope>)>,
    lines: Vec<Line>,
    life: u64,
}

struct Line {
    at: (usize, ConnId),
    version: Version,
    decoder: Decoder,
    received: VecDeque<Packet>,
    is_open: bool,
}

impl World {
    pub(crate) fn new(store: Arc<dyn Store>, shards: usize) -> Self {
        let mut world = Self {
            now: Instant::now(),
            unix: Duration::from_hours(500_000),
            shards: Vec::new(),
            envelopes: VecDeque::new(),
            lines: Vec::new(),
            life: 0,
        };
        world.start(store, shards);
        world
    }

    /// Drops the broker and everything on its way, and starts one over this store.
    pub(crate) fn start(&mut self, store: Arc<dyn Store>, shards: usize) {
        self.life += 1;
        self.envelopes.clear();
        self.lines.iter_mut().for_each(|line| line.is_open = false);
        let settings = Settings { sys_interval: None, ..Settings::default() };
        let hooks = Hooks { store: Some(store), ..Hooks::default() };
        // Every life has its own seed, as in production: clients are at home on other shards afterwards.
        let seed = 7 + self.life;
        let shared = Shared::with_store(settings, hooks, shards, seed, self.now, self.unix).unwrap();
        let make = |id: usize| Shard::new(ShardId(id as u8), Arc::clone(&shared), self.now, seed);
        self.shards = (0..shards).map(make).collect();
        self.settle();
    }

    /// Lets virtual time pass.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.unix += by;
        for shard in &mut self.shards {
            shard.handle_timeout(self.now);
        }
        self.settle();
    }

    /// Opens a connection and sends CONNECT for a session that lasts an hour.
    pub(crate) fn connect(&mut self, id: &str, change: impl FnOnce(&mut Connect)) -> usize {
        let mut connect = Connect {
            version: Version::V5,
            clean_start: false,
            bridge: false,
            keep_alive: 0,
            client_id: Text::try_from(id).unwrap(),
            will: None,
            username: None,
            password: None,
            properties: [Property::SessionExpiryInterval(3600)].into_iter().collect(),
        };
        change(&mut connect);
        let peer = Peer { address: "test".into(), listener: "test".into() };
        let shard = self.lines.len() % self.shards.len();
        let conn = self.shards[shard].open(self.now, peer);
        let (version, decoder) = (connect.version, Decoder::new());
        let line = Line { at: (shard, conn), version, decoder, received: VecDeque::new(), is_open: true };
        self.lines.push(line);
        let line = self.lines.len() - 1;
        self.send(line, &Packet::Connect(Box::new(connect)));
        line
    }

    pub(crate) fn send(&mut self, line: usize, packet: &Packet) {
        let Line { at: (shard, conn), version, is_open, .. } = self.lines[line];
        if !is_open {
            return;
        }
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        self.shards[shard].receive(self.now, conn, &bytes);
        self.settle();
    }

    pub(crate) fn publish(&mut self, line: usize, topic: &str, payload: &str, qos: QoS, packet_id: u16) {
        self.send(line, &publish(topic, payload, qos, packet_id));
    }

    pub(crate) fn subscribe(&mut self, line: usize, filter: &str, qos: QoS) {
        let filter = TopicFilter::parse(Text::try_from(filter).unwrap(), &Limits::default()).unwrap();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let subscriptions = vec![Subscription { filter, options }];
        let subscribe = Subscribe { packet_id: id(999), properties: Properties::new(), subscriptions };
        self.send(line, &Packet::Subscribe(subscribe));
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, line: usize) {
        let Line { at: (shard, conn), is_open, .. } = self.lines[line];
        if is_open {
            self.lines[line].is_open = false;
            self.shards[shard].closed(self.now, conn, TransportEnd::Error);
            self.settle();
        }
    }

    pub(crate) fn is_open(&self, line: usize) -> bool {
        self.lines[line].is_open
    }

    /// Lets one batch of envelopes arrive; whether there was one.
    pub(crate) fn carry(&mut self) -> bool {
        let Some((to, batch)) = self.envelopes.pop_front() else { return false };
        self.shards[to].handle_envelopes(self.now, batch);
        self.settle();
        true
    }

    /// Lets all envelopes arrive, and those that they cause.
    pub(crate) fn carry_all(&mut self) {
        while self.carry() {}
    }

    /// Tells the shards that something was committed.
    pub(crate) fn committed(&mut self) {
        for shard in &mut self.shards {
            shard.handle_committed(self.now);
        }
        self.settle();
    }

    /// The next packet that a client finds.
    pub(crate) fn next(&mut self, line: usize) -> Option<Packet> {
        self.lines[line].received.pop_front()
    }

    /// All packets that a client finds.
    pub(crate) fn take(&mut self, line: usize) -> Vec<Packet> {
        std::mem::take(&mut self.lines[line].received).into()
    }

    /// Which shard serves a connection.
    pub(crate) fn shard_of(&self, line: usize) -> usize {
        self.lines[line].at.0
    }

    fn settle(&mut self) {
        loop {
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
            }
            if quiet {
                return;
            }
        }
    }

    fn act(&mut self, at: usize, output: Output) {
        match output {
            Output::Envelopes { to, batch } => self.envelopes.push_back((usize::from(to.0), batch)),
            Output::Handoff { conn, to, handoff } => {
                let to = usize::from(to.0);
                let new = self.shards[to].handle_handoff(self.now, *handoff);
                if let Some(line) = self.line_at((at, conn)) {
                    line.at = (to, new);
                }
            }
            Output::Close { conn } => {
                self.flush(at, conn);
                if let Some(line) = self.line_at((at, conn)) {
                    line.is_open = false;
                }
                self.shards[at].closed(self.now, conn, TransportEnd::Closed);
            }
            // What a line is given is read at once.
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
        let Some(line) = self.line_at((at, conn)) else { return };
        line.decoder.feed(&bytes);
        while let Some(packet) = line.decoder.poll(line.version, &Limits::default()).unwrap() {
            line.received.push_back(packet);
        }
    }

    fn line_at(&mut self, at: (usize, ConnId)) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.is_open && line.at == at)
    }
}

pub(crate) fn id(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

pub(crate) fn publish(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::parse(Text::try_from(topic).unwrap(), &Limits::default()).unwrap(),
        packet_id: NonZeroU16::new(packet_id),
        properties: Properties::new(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    })
}

pub(crate) fn ack(packet_id: u16) -> Ack {
    Ack::new(id(packet_id), ReasonCode::Success)
}
