//! The meaning of the records: what is there after them.
//!
//! Records that refer to what is gone are without effect. They occur: a session that has ended still settles its last
//! deliveries.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    LogId,
    record::{Handover, Id, Life, Message, Record, SessionState, ShareMember, SubscriptionState},
};
use crate::codec::{PacketId, Text};

/// Everything a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The last broker that wrote to it.
    pub life: Option<Life>,
    /// Messages that a delivery or relay refers to.
    pub messages: BTreeMap<Id, MessageContents>,
    /// Sessions by client identifier.
    pub sessions: BTreeMap<Text, SessionContents>,
    /// What a log still answers for to another shard.
    pub relays: BTreeMap<Id, Relay>,
    /// The last relay that a log (first) has taken over from another (second).
    pub taken: BTreeMap<(LogId, LogId), Id>,
    /// Retained messages by topic.
    pub retained: BTreeMap<Text, Message>,
    /// The greatest count of an [`Id`] that ever occurred: the next broker's begin above it.
    pub count_max: u64,
}

/// A message and how many refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageContents {
    /// The message.
    pub message: Message,
    /// Deliveries and relays.
    pub references: usize,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionContents {
    /// Its state.
    pub state: SessionState,
    /// Its subscriptions by filter.
    pub subscriptions: BTreeMap<Text, SubscriptionState>,
    /// What it is to have, in order.
    pub deliveries: BTreeMap<Id, DeliveryContents>,
    /// QoS 2 messages received from the client and not released.
    pub received: BTreeSet<PacketId>,
}

/// One message for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryContents {
    /// The message.
    pub message: Id,
    /// How it is delivered.
    pub handover: Handover,
    /// How far it has come.
    pub progress: Progress,
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Never sent.
    Queued,
    /// Sent under this identifier, perhaps.
    Sent(PacketId),
    /// PUBREC has come.
    PubRec(PacketId),
}

/// A message on its way to another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The message.
    pub message: Id,
    /// The shard.
    pub to: u8,
    /// The member of a shared subscription it is for.
    pub member: Option<ShareMember>,
}

impl Contents {
    /// Applies one record of a log. A batch must be applied whole.
    pub fn apply(&mut self, log: LogId, record: Record) {
        match record {
            Record::Life(life) => {
                self.life = Some(life);
                let relays = std::mem::take(&mut self.relays);
                for relay in relays.into_values() {
                    self.unrefer(relay.message);
                }
                self.taken.clear();
            }
            Record::Message { id, message } => {
                self.note(id);
                self.messages.insert(id, MessageContents { message, references: 0 });
            }
            Record::Session { client_id, state } => self.put_session(client_id, state),
            Record::SessionRemoved { client_id } => self.remove_session(&client_id),
            Record::Relay { relay, message, to, member } => {
                self.note(relay);
                self.refer(message);
                self.relays.insert(relay, Relay { message, to, member });
            }
            Record::Relayed { relay } => {
                if let Some(relay) = self.relays.remove(&relay) {
                    self.unrefer(relay.message);
                }
            }
            Record::Taken { relay } => {
                let last = self.taken.entry((log, relay.log())).or_insert(relay);
                *last = relay.max(*last);
            }
            Record::Retained { message } => {
                self.retained.insert(message.topic.clone(), message);
            }
            Record::RetainedRemoved { topic } => {
                self.retained.remove(&topic);
            }
            record => self.apply_to_session(record),
        }
    }

    /// Changes within one session.
    fn apply_to_session(&mut self, record: Record) {
        match record {
            Record::Subscription { client_id, filter, subscription } => {
                if let Some(session) = self.sessions.get_mut(&client_id) {
                    session.subscriptions.insert(filter, subscription);
                }
            }
            Record::SubscriptionRemoved { client_id, filter } => {
                if let Some(session) = self.sessions.get_mut(&client_id) {
                    session.subscriptions.remove(&filter);
                }
            }
            Record::Queued { client_id, delivery, message, handover } => {
                self.note(delivery);
                if let Some(session) = self.sessions.get_mut(&client_id) {
                    let contents = DeliveryContents { message, handover, progress: Progress::Queued };
                    session.deliveries.insert(delivery, contents);
                    self.refer(message);
                }
            }
            Record::Sent { client_id, delivery, packet_id } => {
                if let Some(delivery) = self.delivery(&client_id, delivery) {
                    delivery.progress = Progress::Sent(packet_id);
                }
            }
            Record::PubRec { client_id, delivery } => {
                if let Some(delivery) = self.delivery(&client_id, delivery)
                    && let Progress::Sent(packet_id) = delivery.progress
                {
                    delivery.progress = Progress::PubRec(packet_id);
                }
            }
            Record::Settled { client_id, delivery } => {
                let session = self.sessions.get_mut(&client_id);
                if let Some(delivery) = session.and_then(|session| session.deliveries.remove(&delivery)) {
                    self.unrefer(delivery.message);
                }
            }
            Record::Received { client_id, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client_id) {
                    session.received.insert(packet_id);
                }
            }
            Record::Released { client_id, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client_id) {
                    session.received.remove(&packet_id);
                }
            }
            _ => debug_assert!(false, "the caller has dealt with what concerns no session"),
        }
    }

    fn put_session(&mut self, client_id: Text, state: SessionState) {
        if let Some(session) = self.sessions.get_mut(&client_id) {
            session.state = state;
            return;
        }
        let session = SessionContents {
            state,
            subscriptions: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            received: BTreeSet::new(),
        };
        self.sessions.insert(client_id, session);
    }

    fn remove_session(&mut self, client_id: &Text) {
        let Some(session) = self.sessions.remove(client_id) else { return };
        for delivery in session.deliveries.into_values() {
            self.unrefer(delivery.message);
        }
    }

    fn delivery(&mut self, client_id: &Text, delivery: Id) -> Option<&mut DeliveryContents> {
        self.sessions.get_mut(client_id)?.deliveries.get_mut(&delivery)
    }

    fn note(&mut self, id: Id) {
        self.count_max = self.count_max.max(id.count());
    }

    fn refer(&mut self, message: Id) {
        if let Some(message) = self.messages.get_mut(&message) {
            message.references += 1;
        }
    }

    fn unrefer(&mut self, message: Id) {
        if let Some(contents) = self.messages.get_mut(&message) {
            contents.references = contents.references.saturating_sub(1);
            if contents.references == 0 {
                self.messages.remove(&message);
            }
        }
    }
}
