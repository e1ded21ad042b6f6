//! A shard takes up the sessions that a store has kept for it: subscriptions, queue, messages in flight (to be sent
//! again with DUP), QoS 2 identifiers, will and expiry go on where they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{
    delivery::{Content, Delivery},
    durable::Durable,
    message::{Message, expiry},
    session::{Away, ClientSession, Will},
    shard::Shard,
    subscriptions::Subscribed,
};
use crate::{
    auth::ConnectInfo,
    codec::{Limits, PacketId, Text, TopicFilter},
    router::SessionKey,
    session::Session,
    store::{DeliveryContents, Id, Progress, SessionContents, SubscriptionState, WillState},
};

impl Shard {
    /// Takes this shard's share of what was loaded; at construction.
    pub(super) fn restore(&mut self, now: Instant) {
        let Some(durable) = self.shared.durable.clone() else { return };
        let share = durable.take_share(usize::from(self.id.0));
        for (client_id, contents) in share.sessions {
            self.restore_session(now, &durable, &share.messages, client_id, contents);
        }
    }

    fn restore_session(
        &mut self,
        now: Instant,
        durable: &Durable,
        messages: &BTreeMap<Id, Arc<Message>>,
        client_id: Text,
        contents: SessionContents,
    ) {
        let SessionContents { state, subscriptions, deliveries, received } = contents;
        let hash = self.shared.client_hash(&client_id);
        let mut session = ClientSession::new(&client_id, hash, state.version);
        // A connection that was there when the broker stopped is lost now.
        let lost_at = state.lost_at.map_or(now, |at| durable.instant(at));
        session.is_stored = true;
        session.expiry_interval = state.expiry_interval;
        let expires_at = (state.expiry_interval != u32::MAX).then(|| expiry(lost_at, state.expiry_interval));
        session.away = Some(Box::new(Away { lost_at, expires_at }));
        if let Some(will) = state.will {
            let info = info(&session, &will);
            session.will = Some(Box::new(restore_will(durable, will, lost_at, info)));
        }
        let key = self.add_session(session);
        for (filter, subscription) in subscriptions {
            self.restore_subscription(key, filter, subscription);
        }
        self.restore_messages(key, messages, deliveries, received);
        self.arm_session(key);
    }

    fn restore_subscription(&mut self, key: SessionKey, filter: Text, subscription: SubscriptionState) {
        let SubscriptionState { options, id } = subscription;
        let Ok(parsed) = TopicFilter::parse(filter.clone(), &Limits::default()) else {
            return tracing::warn!(%filter, "a stored subscription is no topic filter and was left out");
        };
        let member = self.join_or_add(key, &parsed, options, id);
        if let Some(member) = &member {
            member.set_online(false);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.subscriptions.insert(&filter, Subscribed { member }, &self.hash_state);
        }
    }

    fn restore_messages(
        &mut self,
        key: SessionKey,
        messages: &BTreeMap<Id, Arc<Message>>,
        deliveries: BTreeMap<Id, DeliveryContents>,
        received: BTreeSet<PacketId>,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (mut inflight, mut pending) = (Vec::new(), Vec::new());
        for (id, contents) in deliveries {
            let Some(message) = messages.get(&contents.message) else { continue };
            let handover = contents.handover;
            let subscribed = handover.share.and_then(|filter| session.subscriptions.get(&filter));
            let member = subscribed.and_then(|subscribed| subscribed.member.clone());
            if let Some(member) = &member {
                member.deliveries_started(1);
            }
            let delivery = Delivery {
                content: Content::Message(Arc::clone(message)),
                qos: handover.qos,
                retain: handover.retain,
                ids: (!handover.ids.is_empty()).then(|| Box::new(handover.ids.into_vec().into())),
                member,
                stored: Some(id),
            };
            match contents.progress {
                Progress::Queued => pending.push(delivery),
                Progress::Sent(packet_id) => inflight.push((packet_id, false, delivery)),
                Progress::PubRec(packet_id) => inflight.push((packet_id, true, delivery)),
            }
        }
        session.state = Session::restore(inflight, pending, received);
        self.queued_bytes += session.state.pending_bytes();
    }
}

fn info(session: &ClientSession, will: &WillState) -> ConnectInfo {
    ConnectInfo {
        client_id: session.client_text(),
        username: will.username.clone(),
        password: None,
        version: session.version,
        peer: "".into(),
        listener: "".into(),
    }
}

fn restore_will(durable: &Durable, will: WillState, lost_at: Instant, info: ConnectInfo) -> Will {
    let at = Some(expiry(lost_at, will.delay));
    let message = durable.message(will.message);
    Will { message, delay: will.delay, expiry: will.expiry, at, info: Some(Arc::new(info)) }
}
