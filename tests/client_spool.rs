//! A client's session whose process dies at any moment, with any number of its batches committed: what was committed
//! completes in the next process, QoS 2 once in both directions, in order. And step by step, what waits for which commit.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_support;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use client_support::{ack, connack, decode_all, id, outgoing, outline, publication};
use ferromq::{
    codec::{Packet, QoS, Text, Version},
    session::client::{Change, ClientSession, Event, Published, RequestError, SessionOptions, Spooled},
};

fn session(kept: Spooled, bytes_max: usize, now: Instant) -> ClientSession {
    let options = SessionOptions {
        client_id: Text::from_static("c"),
        clean_start: false,
        session_expiry: 3600,
        send_window: 4,
        ..SessionOptions::default()
    };
    ClientSession::new(options, None, now).with_journal(kept, bytes_max, now, Duration::from_secs(1_000_000))
}

/// A generator of its own: failures must be the same for ever.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// A server that forgets nothing and does as the specification says.
#[derive(Default)]
struct Server {
    knows_client: bool,
    is_connected: bool,
    got: Vec<String>,
    received: BTreeSet<u16>,
    sent: usize,
    unfinished: Vec<(u16, Packet, bool)>,
    outbox: VecDeque<Packet>,
}

impl Server {
    fn send(&mut self, qos: QoS) {
        let Some(packet_id) = (1..=3).find(|n| self.unfinished.iter().all(|(id, ..)| id != n)) else { return };
        self.sent += 1;
        let payload = format!("{qos:?} {:05}", self.sent);
        let packet = Packet::Publish(publication("down", payload.as_bytes(), qos, packet_id));
        self.unfinished.push((packet_id, packet.clone(), false));
        self.outbox.push_back(packet);
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Connect(connect) => {
                assert!(!connect.clean_start);
                self.outbox.push_back(connack(self.knows_client, []));
                (self.knows_client, self.is_connected) = (true, true);
                for (packet_id, packet, is_received) in &self.unfinished {
                    let mut packet = packet.clone();
                    if let Packet::Publish(publish) = &mut packet {
                        publish.dup = true;
                    }
                    self.outbox.push_back(if *is_received { Packet::PubRel(ack(*packet_id)) } else { packet });
                }
            }
            Packet::Publish(publish) => {
                let packet_id = publish.packet_id.unwrap().get();
                let is_new = publish.qos == QoS::AtLeastOnce || self.received.insert(packet_id);
                if is_new {
                    self.got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                }
                let is_once = publish.qos == QoS::ExactlyOnce;
                self.outbox.push_back(if is_once {
                    Packet::PubRec(ack(packet_id))
                } else {
                    Packet::PubAck(ack(packet_id))
                });
            }
            Packet::PubRel(released) => {
                self.received.remove(&released.packet_id.get());
                self.outbox.push_back(Packet::PubComp(ack(released.packet_id.get())));
            }
            Packet::PubRec(received) => {
                let number = received.packet_id.get();
                let known = self.unfinished.iter_mut().find(|(id, ..)| *id == number);
                known.unwrap_or_else(|| panic!("PUBREC for {number}, which is not under way")).2 = true;
                self.outbox.push_back(Packet::PubRel(ack(number)));
            }
            Packet::PubAck(done) | Packet::PubComp(done) => {
                self.unfinished.retain(|(id, ..)| *id != done.packet_id.get());
            }
            other => panic!("{other:?}"),
        }
    }
}

struct World {
    rng: Rng,
    now: Instant,
    client: ClientSession,
    /// What is committed, and what is still to be.
    spooled: Spooled,
    waiting: VecDeque<(u64, Vec<Change>)>,
    server: Server,
    to_server: VecDeque<Packet>,
    is_online: bool,
    published: usize,
    /// Publications by the batch that accepted them, and all whose batch was committed.
    accepting: Vec<(u64, String)>,
    accepted: BTreeSet<String>,
    /// QoS 2 messages by the batch that says so, as long as it is not committed.
    handing_out: Vec<(u64, String)>,
    handed_out: Vec<String>,
    /// What the process died over: the next one may get it again.
    forgotten: BTreeMap<String, usize>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            rng: Rng(seed),
            now,
            client: session(Spooled::default(), usize::MAX, now),
            spooled: Spooled::default(),
            waiting: VecDeque::new(),
            server: Server::default(),
            to_server: VecDeque::new(),
            is_online: false,
            published: 0,
            accepting: Vec::new(),
            accepted: BTreeSet::new(),
            handing_out: Vec::new(),
            handed_out: Vec::new(),
            forgotten: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=3 => self.publish(),
            4 | 5 if self.server.is_connected => {
                let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][self.rng.below(2)];
                self.server.send(qos);
            }
            6..=9 => drop(self.commit()),
            10..=12 => self.write(),
            13..=15 => drop(self.arrive()),
            16 | 17 => drop(self.read()),
            18 if self.is_online => self.cut(),
            18 => self.connect(),
            _ if self.rng.below(4) == 0 => self.crash(),
            _ => {}
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][self.rng.below(2)];
        let payload = format!("{qos:?} {:05}", self.published);
        let published = self.client.publish(self.now, &outgoing("up", payload.as_bytes(), qos), 1);
        assert_eq!(published, Ok(Published::Accepted));
        let batch = self.submit().expect("it was recorded");
        self.accepting.push((batch, payload));
    }

    fn submit(&mut self) -> Option<u64> {
        let (batch, changes) = self.client.take_changes()?;
        self.waiting.push_back((batch, changes));
        Some(batch)
    }

    fn commit(&mut self) -> bool {
        let Some((batch, changes)) = self.waiting.pop_front() else { return false };
        for change in changes {
            self.spooled.apply(change);
        }
        self.client.committed(batch);
        let done = self.accepting.extract_if(.., |(of, _)| *of <= batch);
        self.accepted.extend(done.map(|(_, payload)| payload));
        self.handing_out.retain(|(of, _)| *of > batch);
        true
    }

    fn write(&mut self) {
        let mut bytes = Vec::new();
        self.client.take_output(self.now, &mut bytes);
        self.submit();
        self.to_server.extend(decode_all(&bytes, Version::V5));
    }

    /// One packet arrives at the server.
    fn arrive(&mut self) -> bool {
        let Some(packet) = self.to_server.pop_front() else { return false };
        self.server.handle(packet);
        true
    }

    /// One packet arrives at the client.
    fn read(&mut self) -> bool {
        let Some(packet) = self.server.outbox.pop_front() else { return false };
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        self.client.handle_bytes(self.now, &Bytes::from(bytes));
        let mut once = Vec::new();
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Message(message) => {
                    let payload = String::from_utf8(message.payload().to_vec()).unwrap();
                    self.handed_out.push(payload.clone());
                    if message.qos() == QoS::ExactlyOnce {
                        once.push(payload);
                    }
                }
                Event::Closed(reason) => panic!("{reason}"),
                Event::Published(_, result) => drop(result.unwrap()),
                _ => {}
            }
        }
        let batch = self.submit();
        self.handing_out.extend(once.into_iter().map(|payload| (batch.unwrap(), payload)));
        true
    }

    fn connect(&mut self) {
        self.client.connect(self.now).unwrap();
        self.is_online = true;
        self.write();
    }

    /// Some of what is on the way arrives, the rest is lost.
    fn cut(&mut self) {
        while self.rng.below(3) > 0 && self.arrive() {}
        self.to_server.clear();
        self.server.outbox.clear();
        self.server.is_connected = false;
        self.client.connection_lost();
        self.is_online = false;
    }

    /// The process is gone, and what was not committed with it.
    fn crash(&mut self) {
        if self.is_online {
            self.cut();
        }
        self.waiting.clear();
        self.accepting.clear();
        for (_, payload) in self.handing_out.drain(..) {
            *self.forgotten.entry(payload).or_default() += 1;
        }
        self.client = session(self.spooled.clone(), usize::MAX, self.now);
        assert_eq!(self.client.spooled(), self.spooled.messages.len());
    }

    fn finish(&mut self) {
        if !self.is_online {
            self.connect();
        }
        loop {
            self.write();
            let moved = self.commit() | self.arrive() | self.read();
            if !moved && !self.client.has_output() {
                return;
            }
        }
    }

    fn check(&self, context: &str) {
        for payload in &self.accepted {
            assert!(self.server.got.contains(payload), "{context}: {payload} was accepted and never arrived");
        }
        let repeated = |of: &[String], payload: &String| of.iter().filter(|other| *other == payload).count() - 1;
        for payload in self.server.got.iter().filter(|payload| payload.starts_with("Exactly")) {
            assert_eq!(repeated(&self.server.got, payload), 0, "{context}: {payload} arrived twice");
        }
        for qos in ["AtLeast", "Exactly"] {
            let mut first = Vec::new();
            for payload in self.server.got.iter().filter(|payload| payload.starts_with(qos)) {
                if !first.contains(payload) {
                    first.push(payload.clone());
                }
            }
            assert!(first.is_sorted(), "{context}: out of order {first:?}");
        }
        let down: BTreeSet<_> = self.handed_out.iter().map(|payload| &payload[payload.len() - 5..]).collect();
        assert_eq!(down.len(), self.server.sent, "{context}: not all was handed out");
        for payload in self.handed_out.iter().filter(|payload| payload.starts_with("Exactly")) {
            let allowed = self.forgotten.get(payload).copied().unwrap_or_default();
            assert!(repeated(&self.handed_out, payload) <= allowed, "{context}: {payload} was handed out twice");
        }
        assert_eq!(self.spooled, Spooled::default(), "{context}: left over");
    }
}

#[test]
fn what_was_committed_completes_whatever_crashes() {
    let (mut crashes, mut again) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.finish();
        world.check(&format!("seed {seed}"));
        crashes += usize::from(!world.forgotten.is_empty());
        again += world.server.got.len() - world.server.got.iter().collect::<BTreeSet<_>>().len();
    }
    // That the interesting things did happen.
    assert!(crashes > 20 && again > 20, "{crashes} {again}");
}

struct Steps {
    client: ClientSession,
    now: Instant,
}

impl Steps {
    fn online() -> Self {
        let now = Instant::now();
        let mut steps = Self { client: session(Spooled::default(), usize::MAX, now), now };
        steps.client.connect(now).unwrap();
        steps.give(&connack(false, []));
        assert_eq!(steps.sent(), ["connect"]);
        steps
    }

    fn give(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        self.client.handle_bytes(self.now, &Bytes::from(bytes));
    }

    fn sent(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        self.client.take_output(self.now, &mut bytes);
        outline(&decode_all(&bytes, Version::V5))
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    }

    /// Commits all there is.
    fn commit(&mut self) -> Vec<Change> {
        let (batch, changes) = self.client.take_changes().unwrap();
        self.client.committed(batch);
        changes
    }

    fn publish(&mut self, qos: QoS) {
        self.client.publish(self.now, &outgoing("t", b"x", qos), 1).unwrap();
    }
}

#[test]
fn what_the_server_relies_on_waits_for_its_commit_and_qos1_does_not() {
    let mut steps = Steps::online();
    steps.publish(QoS::AtLeastOnce);
    assert_eq!(steps.sent(), ["publish"]);
    steps.publish(QoS::ExactlyOnce);
    // Behind it in line.
    steps.publish(QoS::AtLeastOnce);
    assert!(steps.sent().is_empty() && steps.client.output_bytes() > 0 && !steps.client.has_output());
    assert_eq!(steps.commit().len(), 6);
    assert_eq!(steps.sent(), ["publish", "publish"]);
    steps.give(&Packet::PubRec(ack(2)));
    assert!(steps.sent().is_empty());
    assert_eq!(steps.commit(), [Change::PubRec { id: 2 }]);
    assert_eq!(steps.sent(), ["pubrel"]);
    steps.give(&Packet::PubComp(ack(2)));
    assert_eq!(steps.commit(), [Change::Settled { id: 2 }]);
    steps.give(&Packet::Publish(publication("t", b"x", QoS::ExactlyOnce, 9)));
    assert!(steps.sent().is_empty());
    assert_eq!(steps.commit(), [Change::Received { packet_id: id(9) }]);
    assert_eq!(steps.sent(), ["pubrec"]);
    steps.give(&Packet::PubRel(ack(9)));
    assert!(steps.sent().is_empty());
    assert_eq!(steps.commit(), [Change::Released { packet_id: id(9) }]);
    assert_eq!(steps.sent(), ["pubcomp"]);
}

#[test]
fn a_full_spool_refuses_and_has_room_again_when_something_is_done() {
    let now = Instant::now();
    let one = outgoing("t", b"x", QoS::AtLeastOnce).queue_bytes();
    let mut client = session(Spooled::default(), 2 * one, now);
    for _ in 0..2 {
        assert_eq!(client.publish(now, &outgoing("t", b"x", QoS::AtLeastOnce), 1), Ok(Published::Accepted));
    }
    let refused = client.publish(now, &outgoing("t", b"x", QoS::ExactlyOnce), 1);
    assert_eq!(refused, Err(RequestError::QueueFull { messages: 2, bytes: 2 * one }));
    // QoS 0 is not kept.
    assert_eq!(client.publish(now, &outgoing("t", b"x", QoS::AtMostOnce), 1), Ok(Published::Accepted));
    let mut steps = Steps { client, now };
    steps.client.connect(now).unwrap();
    steps.give(&connack(false, []));
    steps.sent();
    assert!(!steps.client.has_queue_room(one));
    steps.give(&Packet::PubAck(ack(1)));
    assert!(steps.client.has_queue_room(one));
    steps.publish(QoS::ExactlyOnce);
    assert_eq!(steps.client.spooled(), 2);
}

#[test]
fn a_server_that_has_lost_the_session_gets_qos1_anew_and_is_not_trusted_with_qos2() {
    let mut steps = Steps::online();
    steps.publish(QoS::AtLeastOnce);
    steps.publish(QoS::ExactlyOnce);
    let mut kept = Spooled::default();
    steps.commit().into_iter().for_each(|change| kept.apply(change));
    steps.give(&Packet::Publish(publication("t", b"x", QoS::ExactlyOnce, 9)));
    steps.commit().into_iter().for_each(|change| kept.apply(change));
    let mut steps = Steps { client: session(kept.clone(), usize::MAX, steps.now), now: steps.now };
    steps.client.connect(steps.now).unwrap();
    steps.give(&connack(false, []));
    // Nothing before it is known that the old session's identifiers are free.
    assert_eq!(steps.sent(), ["connect"]);
    steps.commit().into_iter().for_each(|change| kept.apply(change));
    assert_eq!((kept.messages.len(), kept.received.len()), (1, 0));
    assert_eq!(steps.sent(), ["publish"]);
    let lost = std::iter::from_fn(|| steps.client.poll_event())
        .filter(|event| matches!(event, Event::Published(0, Err(RequestError::SessionLost))));
    assert_eq!(lost.count(), 1);
}

const SEEDS: u64 = 400;
