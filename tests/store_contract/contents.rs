//! The contract itself: tickets, and contents that are those of a plain model after any sequence of records.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferromq::{
    codec::{QoS, SubscriptionOptions, Text, Version},
    store::{Contents, Handover, Id, Life, LogId, Message, Progress, Record, SessionState, SubscriptionState, Ticket},
};

use crate::{
    engine::{Bench, ENGINES},
    rng::Rng,
    world::id as packet_id,
};

#[test]
fn tickets_grow_by_log_and_are_all_committed_in_the_end() {
    for engine in ENGINES {
        let bench = Bench::new(*engine);
        assert_eq!(bench.store.committed(LogId(3)), Ticket::default());
        let mut last = BTreeMap::new();
        for n in 0..100u8 {
            let log = if n % 3 == 0 { LogId::SHARED } else { LogId(n % 3) };
            let ticket = bench.commit(log, vec![Record::RetainedRemoved { topic: text("t", n.into()) }]);
            let before = last.insert(log, ticket).unwrap_or_default();
            assert!(ticket > before, "{}: {ticket:?} after {before:?}", engine.0);
        }
        for (log, ticket) in last {
            assert_eq!(bench.store.committed(log), ticket, "{}", engine.0);
        }
    }
}

#[test]
fn contents_are_those_of_a_model_whatever_is_recorded() {
    for engine in ENGINES {
        for seed in 0..60 {
            let mut bench = Bench::new(*engine);
            let mut writer = Writer::new(seed);
            for _ in 0..40 {
                let log = LogId(writer.rng.below(3) as u8);
                let batch = writer.batch(log);
                bench.commit(log, batch);
                if writer.rng.once_in(6) {
                    bench.reopen();
                    writer.check(&bench.store.load().unwrap(), &format!("{}, seed {seed}", engine.0));
                }
            }
            bench.reopen();
            writer.check(&bench.store.load().unwrap(), &format!("{}, seed {seed}", engine.0));
        }
    }
}

#[test]
fn records_about_what_is_gone_change_nothing() {
    for engine in ENGINES {
        let mut bench = Bench::new(*engine);
        let (client_id, delivery) = (Text::from_static("nobody"), Id::new(9, LogId(0)));
        let batch = vec![
            Record::Subscription {
                client_id: client_id.clone(),
                filter: Text::from_static("t"),
                subscription: subscription(1),
            },
            Record::Sent { client_id: client_id.clone(), delivery, packet_id: packet_id(1) },
            Record::PubRec { client_id: client_id.clone(), delivery },
            Record::Settled { client_id: client_id.clone(), delivery },
            Record::Received { client_id: client_id.clone(), packet_id: packet_id(1) },
            Record::Released { client_id: client_id.clone(), packet_id: packet_id(1) },
            Record::Relayed { relay: delivery },
            Record::SessionRemoved { client_id },
            Record::RetainedRemoved { topic: Text::from_static("t") },
        ];
        bench.commit(LogId(0), batch);
        bench.reopen();
        assert_eq!(bench.store.load().unwrap(), Contents::default(), "{}", engine.0);
    }
}

#[test]
fn a_new_life_drops_the_relays_of_the_last_and_what_only_they_hold() {
    for engine in ENGINES {
        let mut bench = Bench::new(*engine);
        let (message, relay) = (Id::new(1, LogId(0)), Id::new(2, LogId(0)));
        bench.commit(
            LogId(0),
            vec![
                Record::Message { id: message, message: payload(1) },
                Record::Relay { relay, message, to: 1, member: None },
            ],
        );
        bench.commit(LogId(1), vec![Record::Taken { relay }]);
        bench.reopen();
        let contents = bench.store.load().unwrap();
        assert_eq!((contents.relays.len(), contents.messages.len(), contents.count_max), (1, 1, 2), "{}", engine.0);
        assert_eq!(contents.taken.get(&(LogId(1), LogId(0))), Some(&relay), "{}", engine.0);
        let life = Life { seed: 4, shards: 2 };
        bench.commit(LogId::SHARED, vec![Record::Life(life)]);
        bench.reopen();
        let expected = Contents { life: Some(life), count_max: 2, ..Contents::default() };
        assert_eq!(bench.store.load().unwrap(), expected, "{}", engine.0);
    }
}

/// Writes random records that make sense, and keeps what should be there in the plainest way.
struct Writer {
    rng: Rng,
    counts: BTreeMap<u8, u64>,
    sessions: BTreeMap<usize, Session>,
    retained: BTreeMap<Text, usize>,
    relays: BTreeMap<Id, (u8, usize)>,
}

#[derive(Default)]
struct Session {
    interval: u32,
    subscriptions: BTreeMap<Text, u32>,
    deliveries: Vec<(Id, usize, Progress)>,
    received: BTreeSet<u16>,
}

impl Writer {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            counts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            retained: BTreeMap::new(),
            relays: BTreeMap::new(),
        }
    }

    fn next_id(&mut self, log: LogId) -> Id {
        // Growing over all logs, so that deliveries of a session that changes its log stay in order.
        let count = self.counts.values().max().copied().unwrap_or_default() + 1;
        self.counts.insert(log.0, count);
        Id::new(count, log)
    }

    fn batch(&mut self, log: LogId) -> Vec<Record> {
        let mut batch = Vec::new();
        for _ in 0..=self.rng.below(5) {
            match self.rng.below(12) {
                0 | 1 => self.put_session(&mut batch),
                2 => self.remove_session(&mut batch),
                3 => self.subscribe(&mut batch),
                4..=6 => self.fan_out(log, &mut batch),
                7 | 8 => self.progress(&mut batch),
                9 => self.receive(&mut batch),
                10 => self.retain(&mut batch),
                _ => self.relay(log, &mut batch),
            }
        }
        if batch.is_empty() {
            self.retain(&mut batch);
        }
        batch
    }

    fn put_session(&mut self, batch: &mut Vec<Record>) {
        let (name, interval) = (self.rng.below(6), self.rng.below(1000) as u32 + 1);
        self.sessions.entry(name).or_default().interval = interval;
        batch.push(Record::Session { client_id: client(name), state: state(interval) });
    }

    fn remove_session(&mut self, batch: &mut Vec<Record>) {
        let name = self.rng.below(6);
        self.sessions.remove(&name);
        batch.push(Record::SessionRemoved { client_id: client(name) });
    }

    fn subscribe(&mut self, batch: &mut Vec<Record>) {
        let (name, filter, id) = (self.rng.below(6), text("f", self.rng.below(3)), self.rng.below(9) as u32 + 1);
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let client_id = client(name);
        if self.rng.once_in(3) {
            session.subscriptions.remove(&filter);
            batch.push(Record::SubscriptionRemoved { client_id, filter });
        } else {
            session.subscriptions.insert(filter.clone(), id);
            batch.push(Record::Subscription { client_id, filter, subscription: subscription(id) });
        }
    }

    /// One message for some sessions.
    fn fan_out(&mut self, log: LogId, batch: &mut Vec<Record>) {
        let names: Vec<_> = self.sessions.keys().copied().filter(|name| name % 2 == self.sessions.len() % 2).collect();
        if names.is_empty() {
            return;
        }
        let (message, number) = (self.next_id(log), self.rng.below(1_000_000));
        batch.push(Record::Message { id: message, message: payload(number) });
        for name in names {
            let delivery = self.next_id(log);
            let session = self.sessions.get_mut(&name).expect("it was just there");
            session.deliveries.push((delivery, number, Progress::Queued));
            let handover = Handover { qos: QoS::ExactlyOnce, retain: false, ids: [number as u32].into(), share: None };
            batch.push(Record::Queued { client_id: client(name), delivery, message, handover });
        }
    }

    fn progress(&mut self, batch: &mut Vec<Record>) {
        let (name, at) = (self.rng.below(6), self.rng.below(4));
        let number = self.rng.below(60_000) as u16 + 1;
        let is_over = self.rng.once_in(3);
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let Some((delivery, _, progress)) = session.deliveries.get_mut(at) else { return };
        let (client_id, delivery) = (client(name), *delivery);
        match *progress {
            _ if is_over => {
                session.deliveries.remove(at);
                batch.push(Record::Settled { client_id, delivery });
            }
            Progress::Queued => {
                *progress = Progress::Sent(packet_id(number));
                batch.push(Record::Sent { client_id, delivery, packet_id: packet_id(number) });
            }
            Progress::Sent(id) | Progress::PubRec(id) => {
                *progress = Progress::PubRec(id);
                batch.push(Record::PubRec { client_id, delivery });
            }
        }
    }

    fn receive(&mut self, batch: &mut Vec<Record>) {
        let (name, number) = (self.rng.below(6), self.rng.below(4) as u16 + 1);
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let (client_id, packet_id) = (client(name), packet_id(number));
        if session.received.insert(number) {
            batch.push(Record::Received { client_id, packet_id });
        } else {
            session.received.remove(&number);
            batch.push(Record::Released { client_id, packet_id });
        }
    }

    fn retain(&mut self, batch: &mut Vec<Record>) {
        let number = self.rng.below(5);
        let message = payload(number);
        if self.rng.once_in(3) {
            self.retained.remove(&message.topic);
            batch.push(Record::RetainedRemoved { topic: message.topic });
        } else {
            self.retained.insert(message.topic.clone(), number);
            batch.push(Record::Retained { message });
        }
    }

    fn relay(&mut self, log: LogId, batch: &mut Vec<Record>) {
        if self.rng.once_in(2)
            && let Some((relay, _)) = self.relays.pop_first()
        {
            return batch.push(Record::Relayed { relay });
        }
        let (message, number, to) = (self.next_id(log), self.rng.below(1_000_000), self.rng.below(3) as u8);
        let relay = self.next_id(log);
        self.relays.insert(relay, (to, number));
        batch.push(Record::Message { id: message, message: payload(number) });
        batch.push(Record::Relay { relay, message, to, member: None });
    }

    fn check(&self, contents: &Contents, context: &str) {
        let names: Vec<_> = contents.sessions.keys().cloned().collect();
        assert_eq!(names, self.sessions.keys().map(|name| client(*name)).collect::<Vec<_>>(), "{context}");
        let number = |message: &Id| contents.messages[message].message.clone();
        let mut used = 0;
        for (name, session) in &self.sessions {
            let stored = &contents.sessions[&client(*name)];
            assert_eq!(stored.state, state(session.interval), "{context}");
            let subscriptions: BTreeMap<_, _> =
                stored.subscriptions.iter().map(|(filter, by)| (filter.clone(), by.id.unwrap_or(0))).collect();
            assert_eq!(subscriptions, session.subscriptions, "{context}");
            let deliveries: Vec<_> =
                stored.deliveries.iter().map(|(id, by)| (*id, number(&by.message), by.progress)).collect();
            let expected: Vec<_> = session.deliveries.iter().map(|(id, n, by)| (*id, payload(*n), *by)).collect();
            assert_eq!(deliveries, expected, "{context}");
            used += deliveries.len();
            let received: BTreeSet<_> = stored.received.iter().map(|id| id.get()).collect();
            assert_eq!(received, session.received, "{context}");
        }
        let retained: BTreeMap<_, _> = self.retained.iter().map(|(topic, n)| (topic.clone(), payload(*n))).collect();
        assert_eq!(contents.retained, retained, "{context}");
        let relays: Vec<_> = contents.relays.iter().map(|(id, by)| (*id, by.to, number(&by.message))).collect();
        let expected: Vec<_> = self.relays.iter().map(|(id, (to, n))| (*id, *to, payload(*n))).collect();
        assert_eq!(relays, expected, "{context}");
        let references: usize = contents.messages.values().map(|kept| kept.references).sum();
        assert_eq!(references, used + relays.len(), "{context}");
        assert!(contents.messages.values().all(|kept| kept.references > 0), "{context}: messages nobody needs");
    }
}

fn client(name: usize) -> Text {
    text("client", name)
}

fn text(prefix: &str, number: usize) -> Text {
    Text::try_from(format!("{prefix}-{number}").as_str()).unwrap()
}

fn payload(number: usize) -> Message {
    Message {
        topic: text("topic", number),
        payload: Bytes::from(number.to_string()),
        properties: Bytes::from_static(&[1, 1]),
        qos: QoS::AtLeastOnce,
        retain: number.is_multiple_of(2),
        expires_at: number.is_multiple_of(3).then_some(number as u64),
    }
}

fn state(interval: u32) -> SessionState {
    SessionState { version: Version::V5, expiry_interval: interval, lost_at: Some(interval.into()), will: None }
}

fn subscription(id: u32) -> SubscriptionState {
    SubscriptionState { options: SubscriptionOptions::default(), id: Some(id) }
}
