//! What records do to the rows of a file. It means the same as [`Contents`], but remembers only what it needs to know
//! which rows there are: identifiers, not messages.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Contents, DeliveryContents, Handover, Id, Life, LogId, Message, Progress, Record, SessionContents, SessionState,
    ShareMember, SubscriptionState, rows,
};
use crate::{
    codec::{PacketId, Text},
    disk::{DiskError, File, Rows},
};

/// Which rows there are, and which changes the file lacks.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) rows: Rows<Value>,
    /// How many refer to a message.
    messages: HashMap<Id, u32, foldhash::fast::RandomState>,
    sessions: HashMap<Text, SessionRows, foldhash::fast::RandomState>,
    /// The message of each relay.
    relays: BTreeMap<Id, Id>,
    taken: BTreeMap<(LogId, LogId), Id>,
    next_session: u64,
    count_max: u64,
    /// The count that the file has.
    count_written: u64,
}

/// The rows of one session.
#[derive(Debug, Default)]
struct SessionRows {
    /// Part of their keys.
    number: u64,
    deliveries: HashMap<Id, DeliveryRows, foldhash::fast::RandomState>,
    received: HashSet<PacketId, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct DeliveryRows {
    message: Id,
    progress: Progress,
}

/// What stands in a row; encoded when it is written.
#[derive(Debug)]
pub(super) enum Value {
    Life(Life),
    Count(u64),
    Message(Message),
    Session { number: u64, state: SessionState },
    Subscription(SubscriptionState),
    Delivery { message: Id, handover: Handover },
    Progress(Progress),
    Received,
    Relay { message: Id, to: u8, member: Option<ShareMember> },
    Taken(Id),
}

impl Index {
    /// Takes in all of a file.
    pub(super) fn read(file: &File) -> Result<(Contents, Self), DiskError> {
        let mut reading = rows::Reading::default();
        file.read(|key, value| reading.row(key, value))?;
        let (mut contents, numbers) = reading.finish();
        let mut index = Self {
            rows: Rows::new(),
            messages: HashMap::default(),
            sessions: HashMap::default(),
            relays: contents.relays.iter().map(|(id, relay)| (*id, relay.message)).collect(),
            taken: contents.taken.clone(),
            next_session: numbers.values().max().map_or(1, |number| number + 1),
            count_max: contents.count_max,
            count_written: contents.count_max,
        };
        for (client_id, session) in &contents.sessions {
            let number = numbers.get(client_id).copied().unwrap_or_default();
            index.sessions.insert(client_id.clone(), SessionRows::of(number, session));
        }
        for (id, kept) in &contents.messages {
            if kept.references == 0 {
                index.rows.remove(rows::message(*id));
            } else {
                index.messages.insert(*id, u32::try_from(kept.references).unwrap_or(u32::MAX));
            }
        }
        contents.messages.retain(|_, kept| kept.references > 0);
        Ok((contents, index))
    }

    /// A batch is whole.
    pub(super) fn finish_batch(&mut self) {
        // Names that never reached the file may be given again.
        if self.count_max > self.count_written && !self.rows.is_empty() {
            self.count_written = self.count_max;
            self.rows.put(rows::count(), Value::Count(self.count_max));
        }
    }

    /// Takes one record of a log in.
    pub(super) fn apply(&mut self, log: LogId, record: Record) {
        match record {
            Record::Life(life) => self.begin_life(life),
            Record::Message { id, message } => {
                self.note(id);
                self.messages.insert(id, 0);
                self.rows.add(rows::message(id), Value::Message(message));
            }
            Record::Session { client_id, state } => self.put_session(client_id, state),
            Record::SessionRemoved { client_id } => self.remove_session(&client_id),
            Record::Relay { relay, message, to, member } => {
                self.note(relay);
                self.refer(message);
                self.relays.insert(relay, message);
                self.rows.add(rows::relay(relay), Value::Relay { message, to, member });
            }
            Record::Relayed { relay } => {
                if let Some(message) = self.relays.remove(&relay) {
                    self.rows.remove(rows::relay(relay));
                    self.unrefer(message);
                }
            }
            Record::Taken { relay } => {
                let last = self.taken.entry((log, relay.log())).or_insert(relay);
                *last = relay.max(*last);
                self.rows.put(rows::taken(log, relay.log()), Value::Taken(*last));
            }
            Record::Retained { message } => self.rows.put(rows::retained(&message.topic), Value::Message(message)),
            Record::RetainedRemoved { topic } => drop(self.rows.remove(rows::retained(&topic))),
            record => self.apply_to_session(record),
        }
    }

    /// Changes within one session.
    fn apply_to_session(&mut self, record: Record) {
        match record {
            Record::Subscription { client_id, filter, subscription } => {
                if let Some(session) = self.sessions.get(&client_id) {
                    self.rows.put(rows::subscription(session.number, &filter), Value::Subscription(subscription));
                }
            }
            Record::SubscriptionRemoved { client_id, filter } => {
                if let Some(session) = self.sessions.get(&client_id) {
                    self.rows.remove(rows::subscription(session.number, &filter));
                }
            }
            Record::Queued { client_id, delivery, message, handover } => {
                self.note(delivery);
                if let Some(session) = self.sessions.get_mut(&client_id) {
                    session.deliveries.insert(delivery, DeliveryRows { message, progress: Progress::Queued });
                    self.rows.add(rows::delivery(session.number, delivery), Value::Delivery { message, handover });
                    self.refer(message);
                }
            }
            Record::Sent { client_id, delivery, packet_id } => {
                self.advance(&client_id, delivery, |_| Some(Progress::Sent(packet_id)));
            }
            Record::PubRec { client_id, delivery } => self.advance(&client_id, delivery, |progress| match progress {
                Progress::Sent(packet_id) => Some(Progress::PubRec(packet_id)),
                _ => None,
            }),
            Record::Settled { client_id, delivery } => self.settle(&client_id, delivery),
            Record::Received { client_id, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client_id)
                    && session.received.insert(packet_id)
                {
                    self.rows.add(rows::received(session.number, packet_id), Value::Received);
                }
            }
            Record::Released { client_id, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client_id)
                    && session.received.remove(&packet_id)
                {
                    self.rows.remove(rows::received(session.number, packet_id));
                }
            }
            _ => debug_assert!(false, "the caller has dealt with what concerns no session"),
        }
    }

    fn begin_life(&mut self, life: Life) {
        self.rows.put(rows::life(), Value::Life(life));
        for (relay, message) in std::mem::take(&mut self.relays) {
            self.rows.remove(rows::relay(relay));
            self.unrefer(message);
        }
        for (log, of) in std::mem::take(&mut self.taken).into_keys() {
            self.rows.remove(rows::taken(log, of));
        }
    }

    fn put_session(&mut self, client_id: Text, state: SessionState) {
        let key = rows::session(&client_id);
        if let Some(session) = self.sessions.get(&client_id) {
            return self.rows.put(key, Value::Session { number: session.number, state });
        }
        let number = self.next_session;
        self.next_session += 1;
        self.sessions.insert(client_id, SessionRows { number, ..SessionRows::default() });
        self.rows.add(key, Value::Session { number, state });
    }

    fn remove_session(&mut self, client_id: &Text) {
        let Some(session) = self.sessions.remove(client_id) else { return };
        let in_file = self.rows.remove(rows::session(client_id));
        for prefix in rows::of_session(session.number) {
            self.rows.remove_all(prefix, in_file);
        }
        for delivery in session.deliveries.into_values() {
            self.unrefer(delivery.message);
        }
    }

    fn advance(&mut self, client_id: &Text, delivery: Id, next: impl FnOnce(Progress) -> Option<Progress>) {
        let Some(session) = self.sessions.get_mut(client_id) else { return };
        let Some(known) = session.deliveries.get_mut(&delivery) else { return };
        let Some(next) = next(known.progress) else { return };
        let key = rows::progress(session.number, delivery);
        match std::mem::replace(&mut known.progress, next) {
            Progress::Queued => self.rows.add(key, Value::Progress(next)),
            _ => self.rows.put(key, Value::Progress(next)),
        }
    }

    fn settle(&mut self, client_id: &Text, delivery: Id) {
        let Some(session) = self.sessions.get_mut(client_id) else { return };
        let Some(known) = session.deliveries.remove(&delivery) else { return };
        self.rows.remove(rows::delivery(session.number, delivery));
        if known.progress != Progress::Queued {
            self.rows.remove(rows::progress(session.number, delivery));
        }
        self.unrefer(known.message);
    }

    fn note(&mut self, id: Id) {
        self.count_max = self.count_max.max(id.count());
    }

    fn refer(&mut self, message: Id) {
        if let Some(references) = self.messages.get_mut(&message) {
            *references += 1;
        }
    }

    fn unrefer(&mut self, message: Id) {
        if let Some(references) = self.messages.get_mut(&message) {
            *references = references.saturating_sub(1);
            if *references == 0 {
                self.messages.remove(&message);
                self.rows.remove(rows::message(message));
            }
        }
    }
}

impl SessionRows {
    fn of(number: u64, session: &SessionContents) -> Self {
        let rows =
            |delivery: &DeliveryContents| DeliveryRows { message: delivery.message, progress: delivery.progress };
        Self {
            number,
            deliveries: session.deliveries.iter().map(|(id, delivery)| (*id, rows(delivery))).collect(),
            received: session.received.iter().copied().collect(),
        }
    }
}
