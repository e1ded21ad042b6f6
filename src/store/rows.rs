//! The rows of a store: their keys, and what their values look like. A change here that an older program could not read
//! raises the format's version.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{
    Contents, DeliveryContents, Handover, Id, Life, LogId, Message, MessageContents, Progress, Relay, SessionContents,
    SessionState, ShareMember, SubscriptionState, WillState, stage::Value,
};
use crate::{
    codec::{PacketId, QoS, RetainHandling, SubscriptionOptions, Text, Version},
    disk::{Encode, Fields, Key, put_bytes, put_text},
};

pub(super) fn life() -> Key {
    Key::from_slice(&[LIFE])
}

pub(super) fn count() -> Key {
    Key::from_slice(&[COUNT])
}

pub(super) fn message(id: Id) -> Key {
    key(MESSAGE, &[&id.as_u64().to_be_bytes()])
}

pub(super) fn session(client_id: &Text) -> Key {
    key(SESSION, &[client_id.as_bytes()])
}

pub(super) fn subscription(session: u64, filter: &Text) -> Key {
    key(SUBSCRIPTION, &[&session.to_be_bytes(), filter.as_bytes()])
}

pub(super) fn delivery(session: u64, id: Id) -> Key {
    key(DELIVERY, &[&session.to_be_bytes(), &id.as_u64().to_be_bytes()])
}

pub(super) fn progress(session: u64, id: Id) -> Key {
    key(PROGRESS, &[&session.to_be_bytes(), &id.as_u64().to_be_bytes()])
}

pub(super) fn received(session: u64, packet_id: PacketId) -> Key {
    key(RECEIVED, &[&session.to_be_bytes(), &packet_id.get().to_be_bytes()])
}

pub(super) fn relay(id: Id) -> Key {
    key(RELAY, &[&id.as_u64().to_be_bytes()])
}

pub(super) fn taken(log: LogId, of: LogId) -> Key {
    key(TAKEN, &[&[log.0, of.0]])
}

pub(super) fn retained(topic: &Text) -> Key {
    key(RETAINED, &[topic.as_bytes()])
}

/// What the keys of all rows within a session begin with.
pub(super) fn of_session(session: u64) -> impl Iterator<Item = Key> {
    [SUBSCRIPTION, DELIVERY, PROGRESS, RECEIVED].into_iter().map(move |kind| key(kind, &[&session.to_be_bytes()]))
}

fn key(kind: u8, parts: &[&[u8]]) -> Key {
    let mut key = Key::from_slice(&[kind]);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

impl Encode for Value {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Life(life) => {
                out.extend_from_slice(&life.seed.to_le_bytes());
                out.push(life.shards);
            }
            Self::Count(count) => out.extend_from_slice(&count.to_le_bytes()),
            Self::Message(message) => put_message(out, message),
            Self::Session { number, state } => {
                out.extend_from_slice(&number.to_le_bytes());
                out.push(state.version as u8);
                out.extend_from_slice(&state.expiry_interval.to_le_bytes());
                put_option(out, state.lost_at.as_ref(), |out, at| out.extend_from_slice(&at.to_le_bytes()));
                put_option(out, state.will.as_ref(), put_will);
            }
            Self::Subscription(SubscriptionState { options, id }) => {
                out.push(options.qos as u8);
                out.push(u8::from(options.no_local));
                out.push(u8::from(options.retain_as_published));
                out.push(options.retain_handling as u8);
                put_option(out, id.as_ref(), |out, id| out.extend_from_slice(&id.to_le_bytes()));
            }
            Self::Delivery { message, handover } => {
                out.extend_from_slice(&message.as_u64().to_le_bytes());
                out.push(handover.qos as u8);
                out.push(u8::from(handover.retain));
                out.extend_from_slice(&(handover.ids.len() as u32).to_le_bytes());
                handover.ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
                put_option(out, handover.share.as_ref(), |out, share| put_text(out, share));
            }
            Self::Progress(progress) => {
                let (kind, packet_id) = match progress {
                    Progress::Queued => (0, 0),
                    Progress::Sent(id) => (1, id.get()),
                    Progress::PubRec(id) => (2, id.get()),
                };
                out.push(kind);
                out.extend_from_slice(&u16::to_le_bytes(packet_id));
            }
            Self::Received => {}
            Self::Relay { message, to, member } => {
                out.extend_from_slice(&message.as_u64().to_le_bytes());
                out.push(*to);
                put_option(out, member.as_ref(), |out, member| {
                    put_text(out, &member.client_id);
                    put_text(out, &member.filter);
                });
            }
            Self::Taken(relay) => out.extend_from_slice(&relay.as_u64().to_le_bytes()),
        }
    }
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    put_text(out, &message.topic);
    put_bytes(out, &message.payload);
    put_bytes(out, &message.properties);
    out.push(message.qos as u8);
    out.push(u8::from(message.retain));
    put_option(out, message.expires_at.as_ref(), |out, at| out.extend_from_slice(&at.to_le_bytes()));
}

fn put_will(out: &mut Vec<u8>, will: &WillState) {
    put_message(out, &will.message);
    out.extend_from_slice(&will.delay.to_le_bytes());
    put_option(out, will.expiry.as_ref(), |out, expiry| out.extend_from_slice(&expiry.to_le_bytes()));
    put_option(out, will.username.as_ref(), |out, name| put_text(out, name));
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// Takes the rows of a file, in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Reading {
    contents: Contents,
    clients: HashMap<u64, Text>,
    numbers: BTreeMap<Text, u64>,
}

impl Reading {
    /// Takes one row, or says what is wrong.
    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let Some((kind, rest)) = key.split_first() else { return Err("a row without a key") };
        let mut value = Fields::new(value);
        let (read, what) = match *kind {
            LIFE => (self.life(&mut value), "the row of the last broker"),
            COUNT => (value.u64().map(|count| self.contents.count_max = count), "the row of the count"),
            MESSAGE => (self.message(rest, &mut value), "a message"),
            SESSION => (self.session(rest, &mut value), "a session"),
            SUBSCRIPTION => (self.subscription(rest, &mut value), "a subscription"),
            DELIVERY => (self.delivery(rest, &mut value), "a delivery"),
            PROGRESS => (self.progress(rest, &mut value), "the progress of a delivery"),
            RECEIVED => (self.received(rest), "a received identifier"),
            RELAY => (self.relay(rest, &mut value), "a relay"),
            TAKEN => (self.taken(rest, &mut value), "a relay that was taken"),
            RETAINED => (self.retained(&mut value), "a retained message"),
            _ => (None, "a row of a kind that is not known"),
        };
        read.and_then(|()| value.end()).ok_or(what)
    }

    /// All there is, and the numbers of the sessions.
    pub(super) fn finish(mut self) -> (Contents, BTreeMap<Text, u64>) {
        let of_sessions = self.contents.sessions.values().flat_map(|session| session.deliveries.values());
        let of_relays = self.contents.relays.values().map(|relay| relay.message);
        for id in of_sessions.map(|delivery| delivery.message).chain(of_relays) {
            if let Some(kept) = self.contents.messages.get_mut(&id) {
                kept.references += 1;
            }
        }
        (self.contents, self.numbers)
    }

    fn life(&mut self, value: &mut Fields) -> Option<()> {
        self.contents.life = Some(Life { seed: value.u64()?, shards: value.u8()? });
        Some(())
    }

    fn message(&mut self, key: &[u8], value: &mut Fields) -> Option<()> {
        let message = message_of(value)?;
        self.contents.messages.insert(id_of(key)?, MessageContents { message, references: 0 });
        Some(())
    }

    fn session(&mut self, key: &[u8], value: &mut Fields) -> Option<()> {
        let client_id = text_of(key)?;
        let number = value.u64()?;
        let state = SessionState {
            version: version_of(value.u8()?)?,
            expiry_interval: value.u32()?,
            lost_at: value.option(Fields::u64)?,
            will: value.option(will_of)?,
        };
        let session =
            SessionContents { state, subscriptions: BTreeMap::new(), deliveries: BTreeMap::new(), received: [].into() };
        self.contents.sessions.insert(client_id.clone(), session);
        self.numbers.insert(client_id.clone(), number);
        self.clients.insert(number, client_id);
        Some(())
    }

    fn subscription(&mut self, key: &[u8], value: &mut Fields) -> Option<()> {
        let options = SubscriptionOptions {
            qos: QoS::from_bits(value.u8()?)?,
            no_local: value.flag()?,
            retain_as_published: value.flag()?,
            retain_handling: handling_of(value.u8()?)?,
        };
        let subscription = SubscriptionState { options, id: value.option(Fields::u32)? };
        let (session, rest) = self.session_of(key)?;
        session.subscriptions.insert(text_of(rest)?, subscription);
        Some(())
    }

    fn delivery(&mut self, key: &[u8], value: &mut Fields) -> Option<()> {
        let message = Id::from_u64(value.u64()?)?;
        let (qos, retain) = (QoS::from_bits(value.u8()?)?, value.flag()?);
        let count = value.u32()?;
        let ids = (0..count).map(|_| value.u32()).collect::<Option<_>>()?;
        let handover = Handover { qos, retain, ids, share: value.option(Fields::text)? };
        let (session, rest) = self.session_of(key)?;
        session.deliveries.insert(id_of(rest)?, DeliveryContents { message, handover, progress: Progress::Queued });
        Some(())
    }

    fn progress(&mut self, key: &[u8], value: &mut Fields) -> Option<()> {
        let (kind, packet_id) = (value.u8()?, PacketId::new(value.u16()?)?);
        let (session, rest) = self.session_of(key)?;
        let delivery = session.deliveries.get_mut(&id_of(rest)?)?;
        delivery.progress = match kind {
            1 => Progress::Sent(packet_id),
            2 => Progress::PubRec(packet_id),
            _ => return None,
        };
        Some(())
    }

    fn received(&mut self, key: &[u8]) -> Option<()> {
        let (session, rest) = self.session_of(key)?;
        session.received.insert(PacketId::new(u16::from_be_bytes(rest.try_into().ok()?))?);
        Some(())
    }

    fn relay(&mut self, key: &[u8], value: &mut Fields) -> Option<()> {
        let (message, to) = (Id::from_u64(value.u64()?)?, value.u8()?);
        let member = value.option(|value| Some(ShareMember { client_id: value.text()?, filter: value.text()? }))?;
        self.contents.relays.insert(id_of(key)?, Relay { message, to, member });
        Some(())
    }

    fn taken(&mut self, key: &[u8], value: &mut Fields) -> Option<()> {
        let [log, of] = key.try_into().ok()?;
        self.contents.taken.insert((LogId(log), LogId(of)), Id::from_u64(value.u64()?)?);
        Some(())
    }

    fn retained(&mut self, value: &mut Fields) -> Option<()> {
        let message = message_of(value)?;
        self.contents.retained.insert(message.topic.clone(), message);
        Some(())
    }

    fn session_of<'a>(&mut self, key: &'a [u8]) -> Option<(&mut SessionContents, &'a [u8])> {
        let (number, rest) = key.split_first_chunk()?;
        let client_id = self.clients.get(&u64::from_be_bytes(*number))?;
        Some((self.contents.sessions.get_mut(client_id)?, rest))
    }
}

fn message_of(value: &mut Fields) -> Option<Message> {
    Some(Message {
        topic: value.text()?,
        payload: value.bytes()?,
        properties: value.bytes()?,
        qos: QoS::from_bits(value.u8()?)?,
        retain: value.flag()?,
        expires_at: value.option(Fields::u64)?,
    })
}

fn will_of(value: &mut Fields) -> Option<WillState> {
    Some(WillState {
        message: message_of(value)?,
        delay: value.u32()?,
        expiry: value.option(Fields::u32)?,
        username: value.option(Fields::text)?,
    })
}

fn version_of(level: u8) -> Option<Version> {
    Version::ALL.into_iter().find(|version| *version as u8 == level)
}

fn handling_of(bits: u8) -> Option<RetainHandling> {
    [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend].into_iter().find(|h| *h as u8 == bits)
}

fn id_of(key: &[u8]) -> Option<Id> {
    Id::from_u64(u64::from_be_bytes(key.try_into().ok()?))
}

fn text_of(key: &[u8]) -> Option<Text> {
    Text::from_utf8(Bytes::copy_from_slice(key))
}

// Sessions come before what is within them.
const LIFE: u8 = 1;
const COUNT: u8 = 2;
const MESSAGE: u8 = 3;
const SESSION: u8 = 4;
const SUBSCRIPTION: u8 = 5;
const DELIVERY: u8 = 6;
const PROGRESS: u8 = 7;
const RECEIVED: u8 = 8;
const RELAY: u8 = 9;
const TAKEN: u8 = 10;
const RETAINED: u8 = 11;
